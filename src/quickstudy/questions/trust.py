"""Whether a prediction can be trusted: probabilities made honest, and sets that hold the truth as often as they say.

Both are learnt on held-out tasks, of which a new task is taken to be one more; see conformal.py for what is promised.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from quickstudy.adaptation import AdaptedTask
from quickstudy.core.errors import UserError
from quickstudy.core.files import write_whole
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source, Split
from quickstudy.questions.answers import answers
from quickstudy.questions.setting import Setting, learnt

FORMAT = 1
UNKNOWN = "?"
"""What stands in place of a label where there is no telling."""


@dataclass(frozen=True)
class Trust:
    """What `calibrate` learnt of a learner, in one setting or several.

    digest: of the learner's checkpoint, "" for one in memory. sure: the share of tasks that the thresholds by task
    promise their level for. split, seed: the tasks it was learnt from.
    """

    kind: str
    digest: str
    split: str
    seed: int
    sure: float
    settings: list[Setting]

    def setting(self, way: int, shot: float) -> Setting:
        """What was learnt from the tasks most like one of `way` classes and `shot` rows a class."""
        return min(self.settings, key=lambda one: one.away(way, shot))

    def write(self, path: str | Path) -> None:
        """Write it as JSON; an infinite threshold becomes null."""
        card = {"format": FORMAT, **asdict(self)}
        for one in card["settings"]:
            for name in ("rows", "by_task"):
                one[name] = [round(v, 9) if math.isfinite(v) else None for v in one[name]]
        write_whole(path, (json.dumps(card) + "\n").encode())

    @staticmethod
    def read(path: str | Path) -> Trust:
        """What `write` wrote.

        Raises UserError if the file is missing, damaged or of a newer version.
        """
        try:
            card = json.loads(Path(path).read_text("utf-8"))
            if int(card.pop("format")) > FORMAT:
                raise UserError(f"{path} was written by a newer quickstudy: upgrade with `pip install -U quickstudy`.")
            settings = [Setting.of_card(**one) for one in card.pop("settings")]
            found = Trust(**card, settings=settings)
            if not settings or found.kind not in ("classification", "regression"):
                raise ValueError("no settings")
            return found
        except OSError as error:
            raise UserError(
                f"cannot read {path} ({error.strerror}): check the path, or make it with `quickstudy calibrate`."
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path} is not what `quickstudy calibrate` writes: make it again.") from None


def settings_of(source: Source, shots: Sequence[int], ways: Sequence[int]) -> Iterator[Source]:
    """The source with each way and each shot; as it is where none are given."""
    for way in ways or [None]:
        for shot in shots or [None]:
            given = {"way": way, "shot": shot}
            yield source.reshaped(**{name: value for name, value in given.items() if value is not None})


def calibrate(
    learner: MetaLearner,
    source: Source,
    split: Split = "valid",
    tasks: int = 900,
    seed: int = 0,
    shots: Sequence[int] = (),
    ways: Sequence[int] = (),
    sure: float = 0.9,
    digest: str = "",
    watch: Callable[[int], object] | None = None,
) -> Trust:
    """Learn a temperature and thresholds for sets from held-out tasks, for each way and shot given.

    A third of the tasks is for the temperature and the others for the thresholds: so these are exact for a new task
    exchangeable with those of the split. Where the split has few classes its tasks share them, and the exactness is
    that of a smaller number of tasks; and a learner whose best weights were chosen on this split is a little better
    here than elsewhere. Look at the coverage on the test split.

    sure: what share of tasks the thresholds by task are to hold for. `watch` is called with the number of tasks done.
    Raises UserError if there are too few tasks, or as `evaluate` does.
    """
    if tasks < 30 or not 0.5 <= sure < 1:
        raise UserError(f"{tasks} tasks to calibrate on, sure for {sure}: give at least 30 tasks, and 0.5 to 0.99.")
    made: list[Setting] = []
    for number, one in enumerate(settings_of(source, shots, ways)):
        done = (lambda n, k=number * tasks: watch(k + n)) if watch is not None else None
        found = answers(learner, one, split, tasks, seed, done)
        made.append(learnt(found, sure))
    return Trust(learner.objective.kind, digest, split, seed, sure, made)


def place_for(checkpoint: str | Path) -> Path:
    """Where the trust of a checkpoint lies unless it is said: beside it."""
    return Path(f"{checkpoint}.trust.json")


def setting_for(task: AdaptedTask, trust: Trust) -> Setting:
    """What was learnt from the tasks most like this one.

    Raises UserError if it was learnt of another learner.
    """
    own = (task.card.get("checkpoint") or {}).get("digest") or ""
    if trust.digest and own and trust.digest != own:
        raise UserError("the calibration is of another learner: make one of this learner with `quickstudy calibrate`.")
    if trust.kind != task.learner.objective.kind:
        raise UserError(f"the calibration is of {trust.kind} and the task of {task.learner.objective.kind}.")
    return trust.setting(*shape(task))


def shape(task: AdaptedTask) -> tuple[int, float]:
    """How many classes a task has (0 for regression), and how many support rows each, on average."""
    counts = list(task.card.get("counts", {}).values()) or [task.card.get("rows", 1)]
    return len(task.classes), sum(counts) / len(counts)


def unlike(task: AdaptedTask, trust: Trust) -> str:
    """A sentence on how this task differs from all that were calibrated on in way or shot; "" if it does not."""
    one = setting_for(task, trust)
    if one.away(*shape(task)) == (0, 0):
        return ""
    ways, shots = ("-".join(map(str, sorted(set(ends)))) for ends in (one.way, one.shot))
    seen = f"{ways} classes and {shots} rows of each" if task.classes else f"{shots} rows"
    return f"calibrated on tasks of {seen}, which this one is not: sets may hold the truth less often than they say"


def probabilities(task: AdaptedTask, x: Tensor, trust: Trust) -> Tensor:
    """The calibrated probability of every class, (n, class), float64.

    Raises UserError for a regression task or a calibration of another learner.
    """
    if not task.classes:
        raise UserError("a regression task has no classes: ask for `intervals`.")
    logits = task.predict(x)[:, : len(task.classes)].double()
    return (logits / setting_for(task, trust).temperature).softmax(-1)


def sets(task: AdaptedTask, x: Tensor, trust: Trust, level: float = 0.9, by_task: bool = False) -> list[list[str]]:
    """The classes that may be the true one of every row, the most probable first; never none.

    Over rows of new tasks, the true class is in the set with probability of at least `level`; `by_task`: of the rows
    of a task at least `level`, for the share `trust.sure` of tasks.
    Raises UserError as `probabilities` does, or for a level out of range.
    """
    odds = probabilities(task, x, trust)
    inside = 1 - odds <= setting_for(task, trust).threshold(level, by_task)
    order = odds.sort(dim=-1, descending=True, stable=True).indices
    best = torch.arange(odds.shape[-1], device=odds.device) == 0
    kept = inside.gather(-1, order) | best
    rows = zip(order.tolist(), kept.tolist(), strict=True)
    return [[task.classes[c] for c, fits in zip(classes, row, strict=True) if fits] for classes, row in rows]


def abstain(task: AdaptedTask, x: Tensor, trust: Trust, level: float = 0.9, by_task: bool = False) -> list[str]:
    """The label of every row whose set holds one class, "?" of every other.

    At most 1 - `level` of all rows get a wrong label: a wrong label alone in its set is a set without the truth.
    """
    return [one[0] if len(one) == 1 else UNKNOWN for one in sets(task, x, trust, level, by_task)]


def intervals(
    task: AdaptedTask, x: Tensor, trust: Trust, level: float = 0.9, by_task: bool = False
) -> tuple[Tensor, Tensor]:
    """The lower and the upper end, both (n, y_size), between which all targets of a row lie, as `sets` says.

    Raises UserError for a classification task, a calibration of another learner, or a level out of range.
    """
    one = setting_for(task, trust)
    mean, deviation = task.values(x)
    if deviation is None:
        own = task.card.get("spread")
        deviation = torch.full_like(mean, math.nan if own is None else float(own))
    wide = one.threshold(level, by_task) * torch.from_numpy(one.deviation(deviation.double().numpy()))
    return mean - wide, mean + wide
