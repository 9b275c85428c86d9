"""How much is taken from whoever asks."""

from __future__ import annotations

from dataclasses import dataclass, fields

from quickstudy.core.errors import UserError


@dataclass(frozen=True)
class Limits:
    """The most that one request, one client and all of them may ask for.

    body: bytes of a request; rows: of one request, and of one task; classes: of one task; letters: of one text; pixels:
    of all images of one request, before they are made smaller; tasks: kept at once; seconds: for a request to arrive,
    and again for it to be worked out; rate: requests a second of one client, on average, to each process (0 for no
    limit); connections: open at once, to each process.
    """

    body: int = 16 * 2**20
    rows: int = 5000
    classes: int = 200
    letters: int = 10_000
    pixels: int = 50_000_000
    tasks: int = 10_000
    seconds: float = 30.0
    rate: float = 0.0
    connections: int = 200

    def __post_init__(self) -> None:
        for one in fields(self):
            least = 0 if one.name == "rate" else 2 if one.name == "classes" else 0.1 if one.name == "seconds" else 1
            value = getattr(self, one.name)
            if not least <= value < float("inf"):
                raise UserError(f"the limit {one.name} is {value}: give {least} or more.")


class Refused(Exception):
    """What is asked for is not given: an HTTP status, and one sentence that says why."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
