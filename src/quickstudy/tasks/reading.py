"""Readers of one new task's files: all of them on this screen."""

from __future__ import annotations

from quickstudy.core.catalogue import Catalogue
from quickstudy.core.reader import Reader
from quickstudy.tasks.files import Files
from quickstudy.tasks.picture_reader import PictureReader
from quickstudy.tasks.series import SeriesReader
from quickstudy.tasks.series_classes import SeriesClassesReader
from quickstudy.tasks.table import TableReader
from quickstudy.tasks.tables import TablesReader
from quickstudy.tasks.text_reader import TextReader

READERS: Catalogue[Reader] = Catalogue(
    "reader",
    {
        "files": Files,
        "pictures": PictureReader,
        "text": TextReader,
        "table": TableReader,
        "tables": TablesReader,
        "series": SeriesReader,
        "series_classes": SeriesClassesReader,
    },
)
