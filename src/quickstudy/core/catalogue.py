"""Name <-> class, and object <-> JSON.

A constructor only stores what it is given, so an object's arguments can be read back from it:
`describe` writes them down, `build` makes the object again. No code is ever loaded by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from quickstudy.core.errors import UserError, nearest

T = TypeVar("T")
_EVERY: dict[str, Catalogue[Any]] = {}


class Catalogue(Mapping[str, type[T]], Generic[T]):
    """A table of classes by short name. `slot` is the argument name under which one nests in another.

    wrappers: classes that go around another one of the catalogue. They are found by name, in a checkpoint say, and
    are not among those to choose from.
    """

    def __init__(self, slot: str, classes: dict[str, type[T]], wrappers: dict[str, type[T]] | None = None):
        self.slot = slot
        self.classes = classes
        self.wrappers = wrappers or {}
        _EVERY[slot] = self

    def __getitem__(self, key: str) -> type[T]:
        known = {**self.wrappers, **self.classes}
        if key not in known:
            raise UserError(f"unknown {self.slot} {key!r}: {nearest(key, self.classes)}")
        return known[key]

    def __contains__(self, key: object) -> bool:
        return key in self.classes

    def __iter__(self) -> Iterator[str]:
        return iter(self.classes)

    def __len__(self) -> int:
        return len(self.classes)

    def add(self, key: str, cls: type[T]) -> None:
        """Make a class of your own known by name, so that it can be saved and loaded."""
        self.classes[key] = cls

    def key(self, cls: type) -> str:
        """The short name of a class.

        Raises UserError if it is not in the catalogue.
        """
        for key, known in {**self.wrappers, **self.classes}.items():
            if known is cls:
                return key
        raise UserError(
            f"{cls.__name__} is not in the {self.slot} catalogue: add it with "
            f"`quickstudy.catalogue({self.slot!r}).add('name', {cls.__name__})` before saving or loading."
        )


def catalogue(slot: str) -> Catalogue[Any]:
    """The catalogue of a slot: 'learner', 'net', 'objective' or 'tasks'."""
    return _EVERY[slot]


def arguments(cls: type) -> dict[str, inspect.Parameter]:
    """The constructor's arguments by name."""
    parameters = inspect.signature(cls).parameters.values()
    return {p.name: p for p in parameters}


def describe(thing: object, slot: str) -> dict[str, Any]:
    """The card of an object: its short name and its arguments, as JSON holds them."""
    card: dict[str, Any] = {"name": _EVERY[slot].key(type(thing))}
    for name in arguments(type(thing)):
        value = getattr(thing, name)
        if name in _EVERY and value is not None:
            value = describe(value, name)
        card[name] = list(value) if isinstance(value, tuple) else value
    return card


def build(card: Mapping[str, Any], slot: str) -> Any:
    """The object that a card describes, freshly initialised.

    Raises UserError for a name or an argument that is not known.
    """
    if not isinstance(card, Mapping) or not isinstance(card.get("name"), str):
        raise UserError(f"the description of the {slot} has no name.")
    cls = _EVERY[slot][card["name"]]
    known = arguments(cls)
    given: dict[str, Any] = {}
    for name, value in card.items():
        if name == "name":
            continue
        if name not in known:
            raise UserError(f"{slot} {card['name']!r} has no option {name!r}: {nearest(name, known)}")
        if name in _EVERY and isinstance(value, Mapping):
            value = build(value, name)
        given[name] = tuple(value) if isinstance(value, list) else value
    missing = [n for n, p in known.items() if p.default is p.empty and n not in given]
    if missing:
        raise UserError(f"{slot} {card['name']!r} needs {', '.join(missing)}.")
    return cls(**given)


