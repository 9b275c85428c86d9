"""How far a run is: kept in last.safetensors, so that it can go on to the very same weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, optim

from quickstudy import checkpoint
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner

LAST, BEST = "last.safetensors", "best.safetensors"


@dataclass
class Place:
    """What is needed beside weights and optimiser to go on exactly.

    stopped: "" while it runs, else "finished", "early", "halted" or "interrupted".
    """

    step: int = 0
    best_step: int = 0
    best_score: float | None = None
    since_best: int = 0
    seconds: float = 0.0
    stopped: str = ""
    best: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Saved:
    """last.safetensors as it was read."""

    path: Path
    tensors: dict[str, Tensor]
    card: dict[str, Any]

    @classmethod
    def read(cls, folder: Path | None) -> Saved:
        """Raises UserError where there is no run, or its file is damaged."""
        if folder is None or not (folder / LAST).exists():
            raise UserError(f"nothing to resume in {folder}: there is no {LAST}; start without resume.")
        tensors, card, _ = checkpoint.read(folder / LAST, "training")
        return cls(folder / LAST, tensors, card)

    def check(self, facts: Mapping[str, Any]) -> None:
        """Raise UserError naming the first option that differs from what the run had.

        A run at a constant rate may be given more steps. Data may have moved: a path may differ.
        """
        old = dict(flat({k: self.card[k] for k in facts if k in self.card}))
        if facts["options"]["schedule"] == "constant":
            old.pop("steps", None)
        for name, new in flat(json.loads(json.dumps(facts))):
            if name not in old or old[name] == new:
                continue
            if isinstance(new, str) and isinstance(old[name], str) and Path(new).exists():
                continue
            raise UserError(
                f"the run in {self.path.parent} had {name} {old[name]} and is now given {new}: resume with "
                "what it had, or add overwrite (in place of resume) to start again."
            )

    def load(self, learner: MetaLearner, optimizer: optim.Optimizer) -> Place:
        """Put the weights and the optimiser's state back.

        Raises UserError if they do not fit.
        """
        parts: dict[str, dict[str, Tensor]] = {"learner": {}, "best": {}, "optimizer": {}}
        for name, tensor in self.tensors.items():
            part, rest = name.split("/", 1)
            parts[part][rest] = tensor
        try:
            learner.load_state_dict(parts["learner"])
        except RuntimeError:
            raise UserError(f"{self.path} is of another learner: resume with the options it had.") from None
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            i, key = name.split("/")
            state.setdefault(int(i), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        return Place(**self.card["progress"], best=parts["best"])


def save_last(
    folder: Path, learner: MetaLearner, optimizer: optim.Optimizer, place: Place, facts: Mapping[str, Any]
) -> None:
    """Write last.safetensors, whole or not at all."""
    tensors = {f"learner/{k}": v for k, v in learner.state_dict().items()}
    tensors |= {f"best/{k}": v for k, v in place.best.items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{k}": v for k, v in state.items()}
    progress = {k: v for k, v in asdict(place).items() if k != "best"}
    checkpoint.write(folder / LAST, "training", tensors, {**facts, "progress": progress})


def refuse_to_overwrite(folder: Path) -> None:
    """Raise UserError if a folder holds a run."""
    if any((folder / name).exists() for name in (LAST, BEST)):
        raise UserError(
            f"{folder} holds a run already: add resume to go on with it or overwrite to start again (they are "
            "options), or choose another folder."
        )


def clear(folder: Path) -> None:
    """Make the folder, and take an earlier run out of it.

    Raises UserError where that may not be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (LAST, BEST, "log.jsonl", *(p.name for p in folder.glob("events.out.tfevents.*"))):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot use the folder {folder}: {error.strerror or error}; choose another one.") from None


def flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested facts as pairs of a dotted name and a value; the options of training go without a prefix.

    >>> list(flat({"options": {"lr": 0.1}, "learner": {"net": {"width": 40}}}))
    [('lr', 0.1), ('learner.net.width', 40)]
    """
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from flat(value, "" if not prefix and name == "options" else f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
