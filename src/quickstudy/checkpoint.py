"""One file for what was learnt: tensors, with a JSON card in the header. Loading never runs code.

The file is safetensors. Its metadata holds the card (format, version, learner and its arguments,
source and its spec, seed, log summary, scores) and a digest of card and tensors, so that a damaged
or edited file is refused. The digest finds accidents and careless edits; it is no signature.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from quickstudy.core.catalogue import build, describe
from quickstudy.core.errors import UserError
from quickstudy.core.files import write_whole
from quickstudy.core.learner import MetaLearner
from quickstudy.core.reader import Reader
from quickstudy.core.source import Source
from quickstudy.core.task import State
from quickstudy.shipped import located
from quickstudy.version import VERSION

FORMAT = 1
"""Raised when a file written now could not be read by the code of before."""


READER = "/reader/"
"""Begins the names of a reader's tensors, as no parameter's name can."""


@dataclass(frozen=True)
class Checkpoint:
    """A learner as it was saved, with its card (and in it the digest and the path of the file).

    reader: reads the files of a new task, where the source of the training tasks had one of its own.
    """

    learner: MetaLearner
    card: dict[str, Any]
    reader: Reader | None = None


@dataclass(frozen=True)
class Adapted:
    """A state as it was saved: one task, with the names of its classes and its checkpoint's digest."""

    state: State
    card: dict[str, Any]


def _digest(tensors: Mapping[str, Tensor], card: str) -> str:
    sha = hashlib.sha256(card.encode())
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name}{t.dtype}{tuple(t.shape)}".encode())
        sha.update(t.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def write(path: str | Path, kind: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write tensors with a card of this kind ("learner", "adapted" or "training"); return the card."""
    card, content = packed(kind, tensors, facts)
    write_whole(path, content)
    return card


def packed(kind: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The card that `write` returns, and the bytes that it writes."""
    card = {"format": FORMAT, "kind": kind, "quickstudy": VERSION, **facts}
    text = json.dumps(card, sort_keys=True)
    ready = {k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()}
    metadata = {"quickstudy": text, "digest": _digest(ready, text)}
    return card, safetensors.torch.save(ready, metadata=metadata)


def read(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """The tensors, the card and the digest of a file of this kind.

    Raises UserError for a file that is missing, truncated, foreign, newer, tampered with, or of
    another kind.
    """
    return _opened(path, kind, *_read(Path(path)))


def unpacked(content: bytes, kind: str, where: str) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """What `read` gives, from the bytes that `packed` made; `where` is what to call them.

    Raises UserError as `read` does.
    """
    try:
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
        tensors = safetensors.torch.load(content)
    except (SafetensorError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{where} is damaged ({error}): make it again.") from None
    return _opened(where, kind, metadata, tensors)


def _opened(
    path: str | Path, kind: str, metadata: dict[str, str], tensors: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    card = _card(path, metadata)
    if _digest(tensors, metadata["quickstudy"]) != metadata["digest"]:
        raise UserError(f"{path} was changed after it was written (its digest differs): use the original file.")
    if card["kind"] != kind:
        made = {"adapted": "adapt", "learner": "train"}.get(kind, "train")
        file = {"learner": "the best.safetensors", "training": "the last.safetensors"}.get(kind, "a file")
        raise UserError(
            f"{path} holds {card['kind']!r} and {kind!r} is needed here: give {file} that `quickstudy {made}` wrote."
        )
    # in memory of their own: where a tensor lies in a file, products may round otherwise
    return {name: t.clone() for name, t in tensors.items()}, card, metadata["digest"]


def glance(path: str | Path) -> dict[str, Any]:
    """The card of a file, from its header alone: whether it was changed is only seen when the file is read.

    Raises UserError for a file that is missing, truncated, foreign or newer.
    """
    return _card(path, _read(Path(path), header=True)[0])


def _read(path: Path, header: bool = False) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What the header of a safetensors file says, and its tensors unless the header is enough."""
    if path.is_dir():
        inside = next((n for n in ("best.safetensors", "last.safetensors") if (path / n).is_file()), "")
        hint = f"give {path / inside}" if inside else "give a file that quickstudy wrote"
        raise UserError(f"{path} is a folder and no checkpoint: {hint}.")
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}: check the path, or make one with `quickstudy train`.")
    try:
        with safe_open(path, "pt") as f:  # type: ignore[no-untyped-call]
            metadata = f.metadata() or {}
            return metadata, {} if header else {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is no readable checkpoint ({error}): it is cut short or of another format; "
            "copy it again or train a new one."
        ) from None


def _card(path: str | Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        card = json.loads(metadata["quickstudy"])
        version, card["kind"], _ = int(card["format"]), str(card["kind"]), metadata["digest"]
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError):
        raise UserError(
            f"{path} is a safetensors file, but not one of quickstudy's: give a file that `quickstudy` wrote."
        ) from None
    if version > FORMAT:
        raise UserError(
            f"{path} was written by a newer quickstudy ({card.get('quickstudy')}, format {version}): "
            "upgrade with `pip install -U quickstudy`."
        )
    return card


def learner_facts(learner: MetaLearner, source: Source | None = None) -> dict[str, Any]:
    """What the card says of a learner and the source it was trained on."""
    facts: dict[str, Any] = {"learner": describe(learner, "learner")}
    if source is not None:
        spec = source.spec
        facts["tasks"] = describe(source, "tasks")
        shapes = {"x_shape": list(spec.x_shape), "description_shape": list(spec.description_shape)}
        facts["spec"] = {**spec.__dict__, **shapes}
        reader = source.reader()
        if reader is not None:
            facts["reader"] = describe(reader, "reader")
    return facts


def save(
    learner: MetaLearner, path: str | Path, source: Source | None = None, **facts: Any
) -> dict[str, Any]:
    """Save a learner with its card; further facts (seed, log, scores) must be JSON. Returns the card.

    Raises UserError if the file cannot be written; one that was there is then untouched.
    """
    reader = source.reader() if source is not None else None
    fitted = (reader.fitted or {}) if reader is not None else {}
    tensors = {**learner.state_dict(), **{f"{READER}{name}": t for name, t in fitted.items()}}
    return write(path, "learner", tensors, {**learner_facts(learner, source), **facts})


def restore(card: Mapping[str, Any], tensors: dict[str, Tensor], where: object) -> MetaLearner:
    """The learner that a card describes, holding these tensors.

    Built without memory first, so that a card cannot ask for more than the file holds.
    """
    try:
        with torch.device("meta"):
            learner = build(card["learner"], "learner")
        learner.load_state_dict(tensors, strict=True, assign=True)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise UserError(
            f"{where}: the card and the weights do not fit each other ({first}): use the original file."
        ) from None
    for parameter in learner.parameters():
        parameter.requires_grad_(True)
    return learner.eval()


def load(path: str | Path) -> Checkpoint:
    """A learner from its file, or by the name of weights that are shipped ("tabular"), in eval mode on the CPU.

    See `read` for what is refused.
    """
    path = located(path)
    tensors, card, digest = read(path, "learner")
    fitted = {name.removeprefix(READER): tensors.pop(name) for name in list(tensors) if name.startswith(READER)}
    learner = restore(card, tensors, path)
    return Checkpoint(learner, {**card, "digest": digest, "path": str(path)}, _reader(card, fitted, path))


def _reader(card: Mapping[str, Any], fitted: dict[str, Tensor], where: object) -> Reader | None:
    if "reader" not in card:
        return None
    try:
        reader = build(card["reader"], "reader")
        reader.load_fitted(fitted)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return reader


def save_adapted(path: str | Path, state: State, **facts: Any) -> dict[str, Any]:
    """Save one task's state: small, since the learner itself stays in its own file."""
    return write(path, "adapted", state, facts)


def load_adapted(path: str | Path) -> Adapted:
    """One task's state from its file; see `read` for what is refused."""
    state, card, _ = read(path, "adapted")
    return Adapted(state, card)
