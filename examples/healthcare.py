"""Four questions of healthcare, each on real data, beside what one would do without meta-learning.

    python examples/healthcare.py --data DATA                     # all parts, about 25 minutes of one processor
    python examples/healthcare.py hospitals --data DATA --short   # one part, in seconds, to see that it runs

patients: a new patient from 5, 10 and 20 readings (Parkinson's disease; glucose). hospitals: heart disease at a new
hospital. xrays: pneumonia on chest X-rays from 1, 5 and 10 cases. ecg: heartbeats of a kind that was never seen.

DATA holds the public data sets by folder (parkinsons_telemonitoring, cgm, heart_disease_4sites, pneumoniamnist,
omniglot, cifar_fs, ucr_small). What is done is kept in runs/healthcare, and a run that was broken off goes on. The
figures come out in benchmarks/results/healthcare.json, part by part, and docs/healthcare.md shows them. None of this
is a medical device, and no figure says that a method is fit for patients.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from healthcare_ecg import ecg
from healthcare_hospitals import hospitals
from healthcare_patients import patients
from healthcare_rows import benchmark, spent
from healthcare_xrays import xrays

from quickstudy.core.errors import UserError, nearest

PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "patients": patients,
    "hospitals": hospitals,
    "xrays": xrays,
    "ecg": ecg,
}
NEEDS = {
    "patients": ("parkinsons_telemonitoring", "cgm"),
    "hospitals": ("heart_disease_4sites",),
    "xrays": ("pneumoniamnist", "omniglot", "cifar_fs"),
    "ecg": ("ucr_small",),
}
"""The folders of data that each part reads."""


def run(parts: list[str], data: Path, out: Path, short: bool = False, write: bool = True) -> dict[str, Any]:
    """The figures of the parts; those of the others stay as they are in the file of results."""
    results = benchmark("results")
    path = results.FOLDER / "healthcare.json"
    figures: dict[str, Any] = json.loads(path.read_text()) if write and path.exists() else {"parts": {}}
    figures |= results.machine()
    for part in parts:
        folder = out / ("short" if short else "long") / part
        figures["parts"][part] = {**PARTS[part](data, folder, short), "processor_seconds": round(spent(folder))}
        if write:
            results.write("healthcare", figures)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all, if none is named")
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("runs/healthcare"), help="keeps what is done")
    parser.add_argument("--short", action="store_true", help="few tasks and steps; no figures are written")
    given = parser.parse_args()
    chosen = given.parts or list(PARTS)
    for name in chosen:
        if name not in PARTS:
            parser.error(f"there is no part {name!r}: {nearest(name, PARTS)}")
        for folder in NEEDS[name]:
            if not (given.data / folder).is_dir():
                parser.error(f"{name} needs the folder {given.data / folder}, which is not there: see --data.")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)
    try:
        done = run(chosen, given.data, given.out, given.short, not given.short)
    except UserError as error:
        parser.error(str(error))
    print(f"done: {', '.join(done['parts'])}")
