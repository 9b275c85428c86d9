"""A source whose tasks are parts of one table: of a file, or of a frame in memory."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any, Self

from quickstudy.tasks.grouped import GroupedSource
from quickstudy.tasks.sheet import Sheet, read_sheet, sheet_of


class OneTable(GroupedSource):
    """What sources of one table share: where its cells are."""

    delimiter: str
    _given: Sheet | None = None

    def on(self, frame: Any) -> Self:
        """The same tasks from a table in memory in place of `path`: a pandas or polars frame, an Arrow table, a Hugging
        Face dataset, a dict of columns, or a list of dicts.

        Its `path` is "memory:" and a fingerprint: the description of such a source can be saved, not rebuilt.
        Raises UserError for anything else, or a table without rows.

        >>> from quickstudy.tasks import Table
        >>> readings = {"who": [n // 8 for n in range(80)], "dose": list(range(80)), "y": [n / 2 for n in range(80)]}
        >>> Table(task_column="who", target="y", shot=3, query=2).on(readings).spec.kind
        'regression'
        """
        sheet = sheet_of(frame)
        digest = hashlib.sha256(json.dumps(sheet.columns).encode()).hexdigest()
        other = copy.copy(self)
        other.path, other._held = f"memory:{digest[:16]}", None
        other._given = Sheet(other.path, sheet.columns, sheet.lines)
        return other

    def cells(self) -> Sheet:
        """The cells of the table, as text.

        Raises UserError if it cannot be read.
        """
        return self._given or read_sheet(self.path, self.delimiter)
