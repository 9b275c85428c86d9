"""The figures of examples/healthcare.py as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tables import number, percent, read, table

Score = dict[str, float]
META = {
    "patients": ("dkt", "anp", "alpaca", "r2d2"),
    "hospitals": ("tabular_alone", "tabular_others", "protonet", "anil"),
    "xrays": ("protonet_omniglot", "protonet_cifar", "simple_shot_cifar"),
    "ecg": ("protonet_mlp", "protonet_conv", "simple_shot_conv"),
}
"""What learnt to learn; everything else is a plain method, or a reference."""


def mark(difference: Score, sign: int = 1) -> str:
    """+ where the difference is for the better and its interval leaves 0 out, - for the worse, else =."""
    if not abs(difference["mean"]) > difference["interval"]:
        return "="
    return "+" if sign * difference["mean"] > 0 else "-"


def verdicts(rows: dict[str, Any], titles: dict[str, str], keys: Sequence[str], unit: str, sign: int = 1) -> str:
    """For each learner where it pays, where it is worse, and where that cannot be told; then for all of them."""
    show = (lambda score: signed(score, 1)) if sign < 0 else (lambda score: signed(score, 1, 100))
    lines, paid = [], False
    for key in (key for key in keys if key in rows):
        places: dict[str, list[str]] = {"+": [], "-": [], "=": []}
        for shot, one in ((shot, one) for shot, one in rows[key].items() if shot.isdigit()):
            places[mark(one["difference"], sign)].append(f"{shot} {unit} ({show(one['difference'])})")
        words = {"+": "pays from", "-": "is worse from", "=": "cannot be told apart from"}
        said = "; ".join(f"{words[m]} {', '.join(at)}" for m, at in places.items() if at)
        lines.append(f"- {titles[key]}: {said}.")
        paid = paid or bool(places["+"])
    if not paid:
        lines.append("- **Meta-learning does not pay here**: no learner is ahead of the best plain method by more than "
                     "chance.")  # fmt: skip
    return "\n".join(lines)


def signed(score: Score, digits: int, times: float = 1.0) -> str:
    return f"{times * score['mean']:+.{digits}f} ± {times * score['interval']:.{digits}f}"


def cells(row: dict[str, Any], shots: Sequence[str], measure: str, best: dict[str, str], key: str) -> list[str]:
    """A score at each number of examples, with how it compares to the best plain method there."""
    found = []
    for shot in shots:
        if shot not in row:
            found.append("")
        elif best[shot] == key:
            found.append(f"{percent(row[shot][measure])} (best plain)")
        else:
            found.append(f"{percent(row[shot][measure])} ({mark(row[shot]['difference'])})")
    return found


def grid(found: dict[str, Any], shots: Sequence[str], measure: str, header: Sequence[str]) -> str:
    """The methods by their score at the middle number of examples."""
    order = sorted(found["rows"].items(), key=lambda item: -item[1][shots[-2]][measure]["mean"])
    return table(list(header), [[found["titles"][key], *cells(row, shots, measure, found["best"], key)]
                                for key, row in order])  # fmt: skip


def patients(found: dict[str, Any]) -> str:
    parts = ["## A new patient", ""]
    shots = ("5", "10", "20")
    for data, one in found["data"].items():
        lines = []
        for key, row in sorted(one["rows"].items(), key=lambda item: item[1]["10"]["mse"]["mean"]):
            said = {shot: "best plain" if key == one["plain"] else mark(row[shot]["difference"], -1) for shot in shots}
            scores = [f"{number(row[shot]['mse'], 1)} ({said[shot]})" for shot in shots]
            lines.append([found["titles"][key], *scores, percent(row["10"].get("coverage_90"))])
        header = ["mean squared error from", *(f"{s} readings" for s in shots), "90 % interval covers, %, from 10"]
        mixed = one["rows"].get("mixed", {}).get("tried", {})
        form = f" Form of the mixed-effects regression: {min(mixed, key=lambda f: mixed[f])}." if mixed else ""
        gone = ", ".join(found["titles"][name] for name in one["diverged"])
        parts += [
            f"**{found['about'][data]}.** {one['test_patients']} unseen patients, {one['train_patients']} to train on."
            f"{form}" + (f" Without finite predictions: {gone}." if gone else ""),
            "", table(header, lines), "", verdicts(one["rows"], found["titles"], META["patients"], "readings", -1), "",
        ]  # fmt: skip
    parts.append(
        f"± is the 95 % interval over the unseen patients, the tasks of a patient ({found['tasks']} in all at each "
        "number) averaged. (+), (-): better or worse than the best plain method, paired by patient; (=) the interval "
        "does not tell. That method, the form of the mixed-effects regression (groups: whole patients or windows of "
        "readings; with or without the columns beside time; a random intercept, or with a random slope in time) and "
        "the scale of every learner were chosen on the valid patients. The motor scores were interpolated between "
        "visits by those who published them, which favours the last reading. Readings of glucose follow each other "
        f"by five minutes. {found['seconds']:g} seconds of processor time a training."
    )
    return "\n".join(parts)


def hospitals(found: dict[str, Any]) -> str:
    shots = ("0", "8", "16", "32")
    names = list(found["patients"])
    grids = grid(found, shots, "auc", ["AUC in %, mean of four hospitals", *(f"{s} labelled" for s in shots)])
    lines = []
    for key, row in sorted(found["rows"].items(), key=lambda item: -item[1]["16"]["auc"]["mean"]):
        at = row["16"]
        scores = [f"{percent(at['hospitals'][name])} ({mark(at['ahead'][name])})" for name in names]
        lines.append([found["titles"][key], *scores])
    sizes = ", ".join(f"{name} {count}" for name, count in found["patients"].items())
    total = found["draws"] * 3 * len(names)
    return "\n".join([
        "## Heart disease at a new hospital", "", grids, "",
        verdicts(found["rows"], found["titles"], META["hospitals"], "labelled"), "",
        table(["AUC in %, 16 labelled", *names], lines), "",
        f"Each hospital is new in turn ({sizes} patients); the three others train. {found['draws']} draws of the "
        f"labelled patients at each hospital and number, {total} tasks in all, one patient of either class at least; "
        "asked are all others. ± is the 95 % interval over patients (DeLong), the four hospitals taken as they are: "
        "it says nothing of a fifth, for which there are four independent cases and no more; which patients were "
        "labelled is averaged over. Three hospitals are three tasks to learn from, very few. (+), (-): better or "
        "worse than the plain method that is best at that number, on the same draws and patients; that method is "
        "chosen by these very scores, which favours it. In Switzerland 8 patients are healthy. Missing cells: the "
        "mean and an indicator of the training hospitals; `tabular` reads them as missing. Meta-learners: "
        f"{found['steps']:,} steps, fixed beforehand, nothing tuned.",
    ])  # fmt: skip


def xrays(found: dict[str, Any]) -> str:
    shots = ("1", "5", "10")
    normal, ill = found["images"]
    return "\n".join([
        "## Pneumonia on chest X-rays", "",
        grid(found, shots, "accuracy", ["accuracy in %", *(f"{s} of each class" for s in shots)]), "",
        verdicts(found["rows"], found["titles"], META["xrays"], "of each class"), "",
        f"{found['tasks']} tasks at each number, ten questions a class, from the official test part ({normal} normal, "
        f"{ill} pneumonia). There are two classes alone, so no learner could be trained on X-rays and tested on other "
        "classes of them: training was on other images, and what carries over is general. Rows that name all "
        "labelled X-rays were trained on 4,708 of them: where such data are at hand, use them, and no few-shot "
        "learner. ± is the 95 % interval with tasks and images both drawn at random; the files do not say which "
        "images are of one patient, so it is too narrow where some are. (+), (-): better or worse than the best "
        f"plain method of the few cases, on the same tasks, chosen by these very scores. {found['steps']:,} steps, "
        "weights the best on valid classes of the training images.",
    ])  # fmt: skip


def ecg(found: dict[str, Any]) -> str:
    shots = ("1", "5", "10")
    sets = list(next(iter(found["rows"].values()))["5"]["sets"])
    lines = []
    for key, row in sorted(found["rows"].items(), key=lambda item: -item[1]["5"]["accuracy"]["mean"]):
        at = row["5"]
        lines.append([found["titles"][key], *(f"{percent(at['sets'][s])} ({mark(at['ahead'][s])})" for s in sets)])
    return "\n".join([
        "## Heartbeats", "",
        grid(found, shots, "accuracy", ["accuracy in %, two kinds", *(f"{s} of each kind" for s in shots)]), "",
        verdicts(found["rows"], found["titles"], META["ecg"], "of each kind"), "",
        table(["accuracy in %, 5 of each kind", *sets], lines), "",
        f"{found['tasks']} tasks at each number, two kinds of beat of one set, ten questions a kind; every set is "
        f"equally likely. Learners were trained on {found['train_classes']} classes of {found['train_sets']} other "
        "sets of the UCR archive, none of them a heart's; their weights are the best on four more. ± is the 95 % "
        "interval with tasks and series both drawn at random. The independent units are the four sets: the beats of "
        "a set are of few people, which the files do not name, so nothing here is about another person. (+), (-): "
        "better or worse than the best plain method, on the same tasks, chosen by these very scores. Not comparable "
        "with the archive's own rows: training and test parts are joined, and a part of the rows is missing.",
    ])  # fmt: skip


PARTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "patients": patients, "hospitals": hospitals, "xrays": xrays, "ecg": ecg,
}  # fmt: skip


def section() -> str:
    """All parts that were measured; "" if none was."""
    found = read("healthcare")
    if not found or not found["parts"]:
        return ""
    said = [make(found["parts"][part]) for part, make in PARTS.items() if part in found["parts"]]
    seconds = sum(part["processor_seconds"] for part in found["parts"].values())
    said.append(
        "Every (+) and (-) is one comparison at 95 %: of twenty between equals, one would be there by chance. "
        "None of this is a medical device, and no figure says that a method is fit for patients. "
        f"{seconds / 60:.0f} minutes of processor time on {found['hardware']}, {found['threads']} thread. "
        "`python examples/healthcare.py --data DATA`"
    )
    return "\n\n".join(said)
