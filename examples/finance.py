"""Two questions of finance, each on real data, beside what one would do without meta-learning.

    python examples/finance.py --data DATA                   # both, about 15 minutes of one processor
    python examples/finance.py stocks --data DATA --short    # one part, in seconds, to see that it runs

stocks: volatility and direction of the next day for members of the S&P 500, a stock in a quarter being a task; learnt
on 2013-2015, chosen on 2016, tested on 2017 and 2018. credit: who will not pay the next bill, in the order of the
customers and for groups that were not seen. DATA holds the public data sets by folder (stocks_sp500, credit_default).
What is done is kept in runs/finance, and a run that was broken off goes on. The figures come out in
benchmarks/results/finance.json, part by part, and docs/finance.md shows them. None of this is advice to invest or lend.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from finance_credit import credit
from finance_stocks import (
    DIRECTION,
    SUPPORT,
    VOLATILITY,
    Answers,
    Setting,
    by_month,
    learned,
    loss,
    months_of,
    over_months,
    plain_direction,
    plain_volatility,
    setting,
    traded,
)

from quickstudy.core.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
YEAR = 252


def kept(folder: Path, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` gives; done once and kept in the folder."""
    path = folder / f"{name.replace(' ', '_').replace(',', '')}.json"
    if not path.exists():
        begun = time.process_time()
        found = work()
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({**found, "seconds": round(time.process_time() - begun, 1)}).encode())
        print(f"{folder.name}: {name} after {time.process_time() - begun:.0f} seconds", flush=True)
    return json.loads(path.read_text())


def stocks(data: Path, out: Path, short: bool, seed: int = 0) -> dict[str, Any]:
    """Both questions about stocks: monthly figures of each method, and the best plain one as the valid year has it."""
    given = setting(data, 10 if short else 600, 15 if short else None, seed)
    found: dict[str, Any] = {
        "tasks": {split: len(rows.x) for split, rows in given.rows.items()},
        "asked": int(given.rows["test"].known[:, SUPPORT:].sum()),
    }
    for question, plain, names in (
        ("volatility", plain_volatility(given), VOLATILITY),
        ("direction", plain_direction(given), DIRECTION),
    ):
        judge = volatility_figures if question == "volatility" else direction_figures
        works: dict[str, Callable[[], Answers]] = dict(plain)
        for name in names:
            works[name] = lambda name=name, way=question == "direction": learned(name, given, way)
        rows = {
            name: kept(out / f"stocks-{question}", name, lambda work=work, judge=judge: judge(given, work()))
            for name, work in works.items()
        }
        best = min(plain, key=lambda name: rows[name]["valid"])
        count = np.array([month.sum() for month in months_of(given, "test")], dtype=float)
        months = {name: np.array(row["months"]) for name, row in rows.items()}
        found[question] = {
            "plain": best,
            "rows": {
                name: {
                    "learner": name in names, "valid": row["valid"], "seconds": row["seconds"],
                    "score": over_months(months[name], count),
                    "difference": None if name == best else over_months(months[name] - months[best], count),
                    **yearly(row, rows.get("always up", {}), count),
                }
                for name, row in rows.items()
            },
            "months": len(months[best]),
        }  # fmt: skip
    return found


def yearly(row: dict[str, Any], holding: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """The return of a year before and after costs, and what is left of it beyond holding all stocks."""
    if "net" not in row:
        return {}
    gross, net, held = (YEAR * np.array(values) for values in (row["gross"], row["net"], holding["net"]))
    found = {"gross": gross, "net": net, "net_over_holding": net - held}
    return {name: over_months(values, rows) for name, values in found.items()}


def volatility_figures(given: Setting, said: Answers) -> dict[str, Any]:
    """Squared errors by month of the test, and their mean over the valid year."""
    errors = np.square(said["test"] - given.rows["test"].y[:, SUPPORT:])
    return {"valid": loss(given, "valid", said["valid"]), "months": by_month(given, "test", errors).tolist()}


def direction_figures(given: Setting, said: Answers) -> dict[str, Any]:
    """Wrong answers by month, and the daily return of trading by them before and after costs; `valid` is wrong ones."""
    wrong = {split: ((said[split] > 0) != (given.rows[split].move[:, SUPPORT:] > 0)) for split in said}
    side = np.where(said["test"] > 0, 1.0, -1.0)
    gross = side * np.expm1(given.rows["test"].move[:, SUPPORT:])
    return {
        "valid": float(by_month(given, "valid", wrong["valid"].astype(float)).mean()),
        "months": by_month(given, "test", 1.0 - wrong["test"]).tolist(),
        "net": by_month(given, "test", traded(given, "test", side)).tolist(),
        "gross": by_month(given, "test", gross).tolist(),
    }


PARTS: dict[str, Callable[..., dict[str, Any]]] = {"stocks": stocks, "credit": lambda *rest: credit(kept, *rest)}


def run(parts: list[str], data: Path, out: Path, short: bool = False, write: bool = True) -> dict[str, Any]:
    """The figures of the parts; those of the others stay as they are in the file of results."""
    sys.path.append(str(ROOT / "benchmarks"))
    results = importlib.import_module("results")
    place = results.FOLDER / "finance.json"
    figures = json.loads(place.read_text()) if write and place.exists() else {}
    for part in parts:
        figures[part] = PARTS[part](data, out / ("short" if short else "whole"), short)
        if write:
            results.write("finance", {**figures, **results.machine()})
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="both if none is named")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/finance"))
    parser.add_argument("--short", action="store_true", help="few stocks, steps and rows; writes no results")
    args = parser.parse_args()
    figures = run(args.parts or list(PARTS), args.data, args.out, args.short, not args.short)
    if args.short:
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
