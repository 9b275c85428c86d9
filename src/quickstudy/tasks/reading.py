"""Readers of one new task's files: all of them on this screen."""

from __future__ import annotations

from quickstudy.core.catalogue import Catalogue
from quickstudy.core.reader import Reader
from quickstudy.tasks.files import Files

READERS: Catalogue[Reader] = Catalogue(
    "reader",
    {
        "files": Files,
    },
)
