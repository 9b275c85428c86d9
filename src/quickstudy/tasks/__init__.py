"""Where tasks come from: one file a source, all of them on this screen."""

from quickstudy.core.catalogue import Catalogue
from quickstudy.core.source import Source
from quickstudy.tasks.arrays import Arrays
from quickstudy.tasks.completion import Completion
from quickstudy.tasks.described import Described
from quickstudy.tasks.folder import Folder
from quickstudy.tasks.functions import Harmonics, Mixture, Sinusoid
from quickstudy.tasks.gaussian_process import GaussianProcess
from quickstudy.tasks.glyph_attributes import GlyphAttributes
from quickstudy.tasks.glyphs import Glyphs
from quickstudy.tasks.intents import Intents
from quickstudy.tasks.omniglot import Omniglot
from quickstudy.tasks.pictures import Pictures
from quickstudy.tasks.prior import Prior
from quickstudy.tasks.reading import READERS
from quickstudy.tasks.series import Series
from quickstudy.tasks.series_classes import SeriesClasses
from quickstudy.tasks.table import Table
from quickstudy.tasks.table_prior import TablePrior
from quickstudy.tasks.tables import Tables
from quickstudy.tasks.texts import Texts

__all__ = ["READERS", "TASKS"]

TASKS: Catalogue[Source] = Catalogue(
    "tasks",
    {
        "glyphs": Glyphs,
        "omniglot": Omniglot,
        "folder": Folder,
        "pictures": Pictures,
        "arrays": Arrays,
        "text": Texts,
        "intents": Intents,
        "table": Table,
        "tables": Tables,
        "series": Series,
        "series_classes": SeriesClasses,
        "described": Described,
        "glyph_attributes": GlyphAttributes,
        "sinusoid": Sinusoid,
        "harmonics": Harmonics,
        "mixture": Mixture,
        "gaussian_process": GaussianProcess,
        "prior": Prior,
        "table_prior": TablePrior,
        "completion": Completion,
    },
)
