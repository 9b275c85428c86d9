"""How a figure becomes bytes: no pyplot, no global state, colours that read on light and on dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#808489"
"""Text and axes: a grey that reads on white and on black; in a page it becomes the colour of the text."""
COLOURS = ("#2f86d6", "#d9822b", "#2e9e6b", "#c2508c", "#8a6fd1", "#a08a2e")
RIGHT, WRONG = "#2e9e6b", "#d6455d"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "quickstudy",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures; a figure is made and rendered inside it."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # A class name may be written in a script that no installed font has.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


def figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty, transparent figure, sizes in inches."""
    made = Figure(figsize=(width, height), layout=layout)
    made.patch.set_alpha(0)
    return made


def axes(parent: Figure, x: str, y: str, *place: int) -> Axes:
    """One plot with named axes and a faint grid."""
    made = parent.add_subplot(*place)
    made.set(xlabel=x, ylabel=y)
    made.patch.set_alpha(0)
    made.grid(color=INK, alpha=0.2, linewidth=0.6)
    return made


def png(drawn: Figure, dpi: int = 160) -> bytes:
    """The figure as a PNG with a transparent background."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def svg(drawn: Figure) -> Markup:
    """The figure as an SVG element to stand inside a page: as wide as there is room, text as text."""
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    widest = f"max-width:{drawn.get_figwidth() * 72:.0f}pt"
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 style="{widest}">', text, count=1)
    # several figures stand in one page: only names that something refers to are kept, and these say what they name
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: found.group() if found.group(1) in used else "", text)
    for colour, variable in ((INK, "currentColor"), (RIGHT, "var(--good)"), (WRONG, "var(--bad)")):
        text = text.replace(colour, variable)
    return Markup(text)
