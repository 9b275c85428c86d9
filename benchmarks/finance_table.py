"""The section of docs/finance.md: what examples/finance.py measured."""

from __future__ import annotations

from typing import Any

from scipy.special import stdtrit

from quickstudy.learners import LEARNERS

TITLES = {
    "alpaca": "ALPaCA", "cnp": "CNP", "anp": "ANP", "r2d2": "R2-D2", "protonet": "ProtoNet",
    "matching": "Matching Networks", "anil": "ANIL", "tabular": "Tabular, as it is shipped",
}  # fmt: skip
VOLATILITY = (
    "The error of tomorrow's volatility (mean squared error of the logarithm of Parkinson's range) of every stock, on "
    "each day of 2017 and 2018 after the first 20 of a quarter. Learners adapt to those 20 days of the stock."
)
DIRECTION = (
    "Whether tomorrow's close is above today's, on the same days. Net: the mean return of a year of holding every "
    "stock up or down as answered, after 0.05 % of all that is bought or sold; over holding: that less what holding "
    "all of them brings. The members are those of 2018, which flatters every way of holding them."
)
CREDIT = {
    "stream": "The last quarter of 30,000 customers in the order of their numbers, 64 after 64; what is learnt from "
    "are those just before them. The table bears no date: whatever drifts along the order is not known.",
    "groups": "Customers of groups (a sex, an education, ten years of age) that no one was trained on.",
}


def score(found: dict[str, float] | None, digits: int, sign: bool = False) -> str:
    """A mean and its interval; "" for none."""
    if not found:
        return ""
    return f"{found['mean']:{'+' if sign else ''}.{digits}f} ± {found['interval']:.{digits}f}"


def scaled(found: dict[str, float] | None, by: float) -> dict[str, float] | None:
    return found and {name: by * value for name, value in found.items()}


def name_of(key: str, row: dict[str, Any]) -> str:
    return f"**{TITLES.get(key, key)}**" if row["learner"] else key


def verdict(rows: dict[str, Any], best: str, gap: Any, higher: bool, units: int) -> str:
    """Which learners are better than the best plain method, by intervals that leave 0 out, widened for several looks.

    The intervals are 95 % ones of t with units - 1 degrees; those of L learners together are at 1 - 0.05 / L each.
    """
    sign = 1 if higher else -1
    names = [key for key, row in rows.items() if row["learner"]]
    wider = stdtrit(units - 1, 1 - 0.025 / len(names)) / stdtrit(units - 1, 0.975)
    better = [n for n in names if sign * gap(rows[n])["mean"] > wider * gap(rows[n])["interval"]]
    worse = [n for n in names if sign * gap(rows[n])["mean"] < -wider * gap(rows[n])["interval"]]
    level = [n for n in names if n not in better and n not in worse]
    parts = [f"Best plain method by what came before the test: {best}. Learners are judged together (Bonferroni)."]
    if not better:
        parts.append("No learner is shown to be better: meta-learning is not shown to pay here.")
    for said, those in (("Better than it", better), ("Cannot be told from it", level), ("Worse", worse)):
        if those:
            parts.append(f"{said}: {', '.join(TITLES[n] for n in those)}.")
    return " ".join(parts)


def stocks(found: dict[str, Any]) -> list[str]:
    from tables import table

    volatility, direction = found["volatility"], found["direction"]
    gap = lambda row: row["difference"]  # noqa: E731
    rows = sorted(volatility["rows"].items(), key=lambda item: item[1]["score"]["mean"])
    parts = [
        "## Stocks: volatility of the next day", "", VOLATILITY, "",
        table(
            ["method", "error", f"against {volatility['plain']}"],
            [[name_of(k, r), score(r["score"], 4), score(r["difference"], 4, True)] for k, r in rows],
        ),
        "", verdict(volatility["rows"], volatility["plain"], gap, False, volatility["months"]), "",
        f"{found['tasks']['test']:,} tasks of the test (a stock in a quarter), {found['asked']:,} days asked about; "
        f"{found['tasks']['train']:,} of 2013-2015 to learn from, {found['tasks']['valid']:,} of 2016 to choose by. "
        f"± is the 95 % interval over {volatility['months']} months: stocks of one day move together and are no units.",
        "",
    ]  # fmt: skip
    rows = sorted(direction["rows"].items(), key=lambda item: -item[1]["score"]["mean"])
    cells = [
        [name_of(k, r), score(scaled(r["score"], 100), 1), score(scaled(r["gross"], 100), 1),
         score(scaled(r["net"], 100), 1), score(scaled(r["net_over_holding"], 100), 1, True)]
        for k, r in rows
    ]  # fmt: skip
    over = {k: r["net_over_holding"] for k, r in rows if r["learner"]}
    profit = [TITLES[k] for k, gain in over.items() if gain["mean"] > gain["interval"]]
    claim = (
        f"After costs more than holding, with an interval that leaves 0 out: {', '.join(profit)}." if profit
        else "After costs no learner is shown to bring more than holding everything does."
    )  # fmt: skip
    head = ["method", "right %", "gross % a year", "net % a year", "net over holding"]
    return [
        *parts, "## Stocks: direction of the next day", "", DIRECTION, "", table(head, cells), "",
        f'{verdict(direction["rows"], direction["plain"], gap, True, direction["months"])} {claim}', "",
    ]  # fmt: skip


def credit(found: dict[str, Any]) -> list[str]:
    from tables import table

    parts: list[str] = []
    for question, about in CREDIT.items():
        one = found[question]
        shots = list(next(iter(one["rows"].values()))["auc"])
        rows = sorted(one["rows"].items(), key=lambda item: -item[1]["auc"][shots[-1]]["mean"])
        cells = [
            [name_of(k, r), *(score(scaled(r["auc"][s], 100), 1) for s in shots),
             score(scaled(r["difference"] and r["difference"][shots[-1]], 100), 1, True)]
            for k, r in rows
        ]  # fmt: skip
        title = {"stream": "Credit: customers in their order", "groups": "Credit: unseen groups"}[question]
        unit = {"stream": "blocks of 64 customers", "groups": "groups"}[question]
        head = ["method", *(f"AUC % from {s}" for s in shots), f"from {shots[-1]}, against {one['plain']}"]
        parts += [
            f"## {title}", "", about, "", table(head, cells), "",
            verdict(one["rows"], one["plain"], lambda r, s=shots[-1]: r["difference"][s], True, one["units"]), "",
            f"{one['tasks']:,} tasks of the test; ± is the 95 % interval over {one['units']} {unit}.", "",
        ]  # fmt: skip
    return parts


SEEN = (
    "How the intervals weigh days and months, the allowance for several comparisons, and the network for all stocks "
    "were settled after\ntest figures had been seen: with days weighed alike the CNP looked better on volatility, with "
    "months weighed alike it could not\nbe told. No setting of a learner was.\n"
)


def section() -> str:
    """The figures as Markdown; "" if there are none."""
    from tables import read

    found = read("finance")
    if not found:
        return ""
    assert all(name in LEARNERS for name in TITLES)
    parts = stocks(found["stocks"]) if "stocks" in found else []
    parts += credit(found["credit"]) if "credit" in found else []
    parts += [SEEN, f"{found['hardware']}. `python examples/finance.py --data DATA`. No advice to invest or to lend."]
    return "\n".join(parts)
