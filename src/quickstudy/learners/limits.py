"""What no method can take, whatever it is: told before one is built, with the name of the option."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from quickstudy.core.catalogue import arguments
from quickstudy.core.errors import UserError, nearest

LARGEST = 1e12
"""What a real number may be at most: beyond, products overflow in float32."""
MOST: dict[str, float] = {
    **dict.fromkeys(("inner_lr", "finetune_lr", "rate"), 1000),
    **dict.fromkeys(("depth", "attention", "embed_depth"), 1000),
    **dict.fromkeys(("width", "hidden", "latents", "channels", "units", "slots"), 10**6),
}
"""What some options may be at most: rates beyond it overflow at once, and larger networks no machine holds."""
LEAST: dict[str, float] = {
    **dict.fromkeys(("width", "hidden", "latents", "channels"), 1),
    "others": -LARGEST,
}
"""What some options are at least; the rest are at least 0."""


def check_options(name: str, cls: type, options: Mapping[str, Any], decided: tuple[str, ...] = ()) -> None:
    """Raise UserError for an option that the class has not, and for a number that no method could mean: one that is
    not finite, negative, or beyond all measure. What a method alone cannot take, its constructor refuses.

    decided: the arguments that the tasks fill in, which a hint leaves out.
    """
    known = arguments(cls)
    for option, value in options.items():
        if option not in known:
            own = [k for k in known if k not in decided]
            hint = nearest(option, own) if own else "it has none that could be given."
            raise UserError(f"{name} has no option {option!r}: {hint}")
        for number in value if isinstance(value, tuple | list) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            least = LEAST.get(option, 0)
            most = MOST.get(option, LARGEST if isinstance(number, float) else math.inf)
            if not least <= number <= most:
                limits = f"of at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
                raise UserError(f"{name}: {option} is {value}: give a number {limits}.")


@contextmanager
def within_memory(name: str) -> Iterator[None]:
    """Raise UserError where what is built inside does not fit into memory, or has no size at all."""
    try:
        yield
    except (MemoryError, OverflowError, RuntimeError) as error:
        words = ("memory", "overflow", "too large", "Invalid size")
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in words):
            raise
        raise UserError(f"{name} of this size does not fit into memory: give smaller numbers of units.") from None
