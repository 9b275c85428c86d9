"""The runs that are reported: what lies in a run's folder, and what is kept there of what was measured."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy import checkpoint
from quickstudy.checkpoint import Checkpoint
from quickstudy.core.errors import UserError
from quickstudy.core.files import write_whole
from quickstudy.evaluate import name_of
from quickstudy.record import read_log
from quickstudy.resume import BEST, LAST
from quickstudy.scores import Evaluation
from quickstudy.shipped import FOLDER, located
from quickstudy.tasks.download import cache_folder
from quickstudy.version import VERSION

CONFIG, LOG, KEPT = "config.yaml", "log.jsonl", "evaluations"
LARGEST = 100_000_000
"""Bytes of a JSON file beside a run that is still looked into."""


@dataclass(frozen=True)
class RunFiles:
    """A run as it lies on the disk: its learner, and where its folder is known, its config and its log.

    name: what the reader calls it; "" for a learner whose file lies anywhere.
    """

    file: Path
    trained: Checkpoint
    name: str
    config: str
    log: list[dict[str, Any]]

    @property
    def digest(self) -> str:
        return str(self.trained.card["digest"])

    @property
    def learner(self) -> str:
        return name_of(self.trained.learner, "learner")


def find_run(path: str | Path) -> RunFiles:
    """The run of a folder that `quickstudy train` wrote, or of a checkpoint.

    Raises UserError where there is none, or none yet.
    """
    given = Path(path)
    if given.is_dir():
        if not (given / BEST).is_file():
            if any((given / name).exists() for name in (CONFIG, LOG, LAST)):
                raise UserError(
                    f"the run in {given} has no {BEST} yet: it is still training, or ended before its first "
                    "validation; wait for that, or go on with `quickstudy train --resume`."
                )
            raise UserError(f"there is no run in {given}: give a folder that `quickstudy train` wrote.")
        file = given / BEST
    elif given.is_file() or located(path).is_file():
        file = located(path)
    else:
        raise UserError(f"there is no run at {path}: give a folder that `quickstudy train` wrote, or a checkpoint.")
    trained = checkpoint.load(file)
    if not given.is_dir() and file.name != BEST:
        return RunFiles(file, trained, "", "", [])
    config, log = file.parent / CONFIG, file.parent / LOG
    said = config.read_text("utf-8", errors="replace") if config.is_file() else ""
    name = file.resolve().parent.name
    return RunFiles(file, trained, name, said, read_log(log) if log.is_file() else [])


def labels(runs: Sequence[RunFiles]) -> list[str]:
    """What to call each run: its learner, with the name of its folder where two have the same one."""
    learners = [run.learner for run in runs]
    found = [
        name if learners.count(name) == 1 else f"{name} ({run.name or run.file.stem})"
        for name, run in zip(learners, runs, strict=True)
    ]
    return [
        name if found.count(name) == 1 else f"{run.learner} ({run.file})" for name, run in zip(found, runs, strict=True)
    ]


class Kept:
    """What was measured, in the folder `evaluations` beside a run, and found again by what it was measured on.

    again: measure everything anew. For shipped weights it is the cache; a folder that cannot be written keeps nothing.
    """

    def __init__(self, run: RunFiles, again: bool = False):
        self.folder = (cache_folder() if run.file.parent == FOLDER else run.file.parent) / KEPT
        self.again = again
        self.digest = run.digest
        self.found: list[str] | None = None

    def result(self, facts: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """What `make` gives, which JSON holds, unless it was kept with the same facts; `what` is one of them."""
        whole = {"quickstudy": VERSION, **facts}
        key = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
        place = self.folder / f"{facts['what']}-{key[:16]}.json"
        if not self.again:
            try:
                card = json.loads(place.read_text("utf-8"))
                if card["facts"] == json.loads(json.dumps(whole)):
                    return card["result"]
            except (OSError, ValueError, KeyError, TypeError):
                pass  # not measured yet, or damaged
        made = make()
        if os.access(self.folder.parent, os.W_OK) or not self.folder.parent.exists():
            content = json.dumps({"facts": whole, "result": made}, ensure_ascii=False)
            write_whole(place, (content + "\n").encode())
        return made

    def evaluation(self, name: str, facts: Mapping[str, Any], make: Callable[[], Evaluation]) -> Evaluation:
        """An evaluation; also one that `quickstudy evaluate --json` left beside the run counts.

        facts: "learner" (the digest of a checkpoint, or the card of a baseline), "tasks" (the digest of the tasks).
        """
        if not self.again:
            for one in self._left():
                same = facts["learner"] == (self.digest if one["own"] else {"baseline": one["learner"]})
                if same and one["fingerprint"] == facts["tasks"] and one["seed"] == facts["seed"]:
                    return Evaluation.from_json(json.dumps({**one, "learner": name}))
        found = self.result(facts, lambda: json.loads(make().to_json()))
        return Evaluation.from_json(json.dumps({**found, "learner": name}))

    def _left(self) -> list[dict[str, Any]]:
        """The evaluations in JSON files beside the run that are of its learner, and of what stood beside it."""
        if self.found is None:
            self.found = []
            for file in sorted(self.folder.parent.glob("*.json")):
                try:
                    if file.stat().st_size > LARGEST:
                        continue
                    card = json.loads(file.read_text("utf-8"))
                    if card["checkpoint"]["digest"] != self.digest:
                        continue
                    for number, one in enumerate(card["evaluations"]):
                        Evaluation.from_json(json.dumps(one))
                        self.found.append(json.dumps({**one, "own": number == 0}))
                except (OSError, ValueError, KeyError, TypeError, UserError):
                    continue  # another file of the user's
        return [json.loads(one) for one in self.found]
