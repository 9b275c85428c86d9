"""The whole way by command line, on data of each kind: check, train, verdict, shots, audit, calibrate, adapt, predict.

    python examples/whole_way.py text --data DATA --out runs/way --seconds 20

Kinds: images, text, table, series. DATA holds the public data sets by folder, as
omniglot/images_background_small1.zip, intents/hwu64.tsv, parkinsons_telemonitoring/parkinsons_updrs.csv.gz and
cgm/hall2018.csv.gz. Python only prepares the files of one new task, which no other command sees; every `$ quickstudy`
line that is printed can be typed.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path


def images(data: Path, out: Path) -> tuple[list[str], Path, Path]:
    """Characters as a folder of class folders; five that are kept back are the new task, one drawing each to learn."""
    with zipfile.ZipFile(data / "omniglot" / "images_background_small1.zip") as archive:
        archive.extractall(out / "raw")
    classes = sorted(folder for folder in (out / "raw").rglob("character*") if folder.is_dir())
    support, query = out / "support", out / "query"
    for number, folder in enumerate(classes):
        name = f"{folder.parent.name}-{folder.name}"
        files = sorted(folder.glob("*.png"))
        for i, file in enumerate(files):
            new = support if i == 0 else query
            place = (new if number < 5 else out / "photos") / name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place / file.name)
    return ["--tasks", str(out / "photos"), "--tasks.invert", "true", "--tasks.query", "5"], support, query


def text(data: Path, out: Path) -> tuple[list[str], Path, Path]:
    """Sentences and what they ask for; five intents are kept back."""
    with open(data / "intents" / "hwu64.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    rows = list({(row["text"], row["label"]): row for row in rows}.values())
    new = sorted({row["label"] for row in rows})[::13][:5]
    shown: dict[str, int] = {}
    parts: dict[str, list[dict[str, str]]] = {"sentences": [], "support": [], "query": []}
    for row in rows:
        if row["label"] not in new:
            parts["sentences"].append(row)
            continue
        shown[row["label"]] = shown.get(row["label"], 0) + 1
        parts["support" if shown[row["label"]] <= 3 else "query"].append(row)
    for name, part in parts.items():
        write(out / f"{name}.csv", ["text", "label"], [[row["text"], row["label"]] for row in part])
    return ["--tasks", str(out / "sentences.csv")], out / "support.csv", out / "query.csv"


def table(data: Path, out: Path) -> tuple[list[str], Path, Path]:
    """Recordings of patients with Parkinson's disease; the last patient is new, and known from ten recordings."""
    with gzip.open(data / "parkinsons_telemonitoring" / "parkinsons_updrs.csv.gz", "rt", newline="") as file:
        header, *rows = csv.reader(file)
    task = header.index("subject#")
    last = rows[-1][task]
    mine = [row for row in rows if row[task] == last]
    write(out / "patients.csv", header, [row for row in rows if row[task] != last])
    write(out / "support.csv", header, mine[:10])
    write(out / "query.csv", header, mine[10:])
    words = ["--tasks", "table", "--tasks.path", str(out / "patients.csv"), "--tasks.task_column", "subject#"]
    words += ["--tasks.target", "motor_UPDRS", "--tasks.ignore", "total_UPDRS"]
    return words, out / "support.csv", out / "query.csv"


def series(data: Path, out: Path) -> tuple[list[str], Path, Path]:
    """Glucose of people, every five minutes; the last one is new, and two hours of them are known."""
    with gzip.open(data / "cgm" / "hall2018.csv.gz", "rt", newline="") as file:
        header, *rows = csv.reader(file)
    rows = [row for row in rows if row[2]]
    last = rows[-1][0]
    mine = [row for row in rows if row[0] == last]
    write(out / "readings.csv", header, [row for row in rows if row[0] != last])
    write(out / "support.csv", header, mine[:24])
    write(out / "query.csv", header, mine[24:34])
    words = ["--tasks", "series", "--tasks.path", str(out / "readings.csv"), "--tasks.task_column", "id"]
    return [*words, "--tasks.value_column", "gl", "--tasks.shot", "24"], out / "support.csv", out / "query.csv"


KINDS = {"images": images, "text": text, "table": table, "series": series}
LEARNER = {"images": "protonet", "text": "protonet", "table": "anp", "series": "anp"}
TARGET = {"images": "0.9", "text": "0.8", "table": "2", "series": "100"}


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def way(kind: str, data: Path, out: Path, seconds: float, tasks: int) -> None:
    """All commands one after the other; the first that fails ends it."""
    out.mkdir(parents=True, exist_ok=True)
    words, support, query = KINDS[kind](data, out)
    run, few = out / "run", ["--test_tasks", str(tasks)]
    best = str(run / "best.safetensors")
    say("data", "check", *words)
    say("recommend", *words)
    steps = ["--train.steps", str(max(int(40 * seconds), 20)), "--train.valid_every", str(max(int(10 * seconds), 10))]
    say("train", "--learner", LEARNER[kind], *words, *steps, "--out", str(run), "--overwrite", "--quiet")
    say("evaluate", best, *few)
    say("verdict", *words, "--seconds", str(seconds), *few, "--out", str(out / "verdict"))
    shots = ["--shots", "1,2,3,5" if kind in ("images", "text") else "5,10,20"]
    say("shots", best, "--target", TARGET[kind], *shots, *few)
    say("audit", best, "--audit_tasks", str(tasks))
    say("audit", best, "--support", str(support), "--audit_tasks", str(tasks), *invert(kind))
    say("calibrate", best, "--fit_tasks", str(3 * tasks), *few)
    task = str(out / "task.safetensors")
    say("adapt", best, str(support), "--out", task, *invert(kind))
    say("predict", task, str(query), "--out", str(out / "answers.csv"), "--coverage", "0.9", *invert(kind))
    say("label-next", task, str(query), "--count", "3", *invert(kind))


def invert(kind: str) -> list[str]:
    return ["--invert"] if kind == "images" else []


def say(*words: str) -> None:
    print(f"\n$ {shlex.join(['quickstudy', *words])}", flush=True)
    done = subprocess.run([sys.executable, "-m", "quickstudy", *words])
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("runs/way"))
    parser.add_argument("--seconds", type=float, default=20.0, help="of training, and of the verdict")
    parser.add_argument("--tasks", type=int, default=300, help="test tasks")
    args = parser.parse_args()
    way(args.kind, args.data, args.out / args.kind, args.seconds, args.tasks)
