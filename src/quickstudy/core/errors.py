"""The one exception that a user can cause: a sentence that says what, where and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MANY = 20
"""Names that a hint lists at most."""


class UserError(Exception):
    """Something the user can put right. Its message is one sentence, shown without a traceback."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the most similar known word, or all of them if none is near.

    >>> nearest("protnet", ["protonet", "maml"])
    "did you mean 'protonet'?"
    >>> nearest("zzz", ["protonet", "maml"])
    'choose one of: maml, protonet.'
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    return f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(names[:MANY])}{more}."
