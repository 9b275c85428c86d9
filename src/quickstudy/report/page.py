"""The page: one HTML file that needs nothing else and runs no script, readable on a phone and in the dark."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from quickstudy.core.files import write_whole
from quickstudy.version import VERSION


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading.

    body: HTML in which every text was escaped. words: what it says; notes: what could not be had, and why.
    """

    title: str
    body: Markup
    words: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Chapter:
    """What is said of one set of tasks.

    answer: the first sentence ("lead", "score") and what it is to be held against ("others").
    """

    answer: Mapping[str, Any]
    sections: Sequence[Section]
    title: str = ""


@cache
def _templates() -> Environment:
    loader = PackageLoader("quickstudy.report", ".")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def _part(name: str, *given: Any) -> Markup:
    macro = getattr(_templates().get_template("parts.html.jinja").module, name)
    return Markup(str(macro(*given)).strip())


def figure(svg: Markup, label: str, css: str = "") -> Markup:
    """A drawing; label: what it shows, for those who do not see it. css: "task" for one too wide for a phone."""
    return _part("figure", svg, label, css)


def table(header: Sequence[object], rows: Sequence[Sequence[object]], label: str, css: str = "") -> Markup:
    """A table whose first column names its rows; cells that are no Markup are escaped."""
    return _part("table", header, rows, label, css)


def folded(summary: str, body: Markup) -> Markup:
    """What is only shown when asked for."""
    return _part("folded", summary, body)


def gallery(items: Sequence[Mapping[str, Any]]) -> Markup:
    """A list of {words, rows: [(name, [Markup, ...]), ...]}: a sentence and rows of examples."""
    return _part("gallery", items)


def coloured(word: str) -> Markup:
    """A verdict in its colour."""
    return Markup('<span class="{}">{}</span>').format(word.replace(" ", "-"), word) if word else Markup("")


def write_page(
    path: str | Path,
    title: str,
    chapters: Sequence[Chapter],
    command: str,
    made: Sequence[tuple[str, str]],
    details: Sequence[tuple[str, str]] = (),
    notice: str = "",
) -> Path:
    """Write the page of some chapters.

    command: what a reader types to get the same. made: facts by name. details: longer texts by name, folded away.
    notice: what must be known before anything else. Raises UserError where it cannot be written (an old one survives).
    """
    here = _templates()
    assert here.loader is not None
    css = Markup(here.loader.get_source(here, "page.css")[0])
    given = dict(title=title, css=css, chapters=chapters, command=command, made=made, details=details, notice=notice)
    write_whole(path, here.get_template("page.html.jinja").render(given).strip().encode())
    return Path(path)


def circumstances() -> list[tuple[str, str]]:
    """Versions, machine and day of writing."""
    graphics = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return [
        ("versions", f"quickstudy {VERSION}, torch {torch.__version__}, Python {platform.python_version()}"),
        ("machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} processor cores{graphics}"),
        ("written", datetime.now(UTC).strftime("%Y-%m-%d")),
    ]
