"""Sentences as vectors: by their letters, or by a sentence encoder on the disk. What was encoded is kept."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.pipeline import make_pipeline

from quickstudy.core.errors import UserError
from quickstudy.tasks.download import cache_folder
from quickstudy.tasks.npz import read_npz, write_npz

HASHED = "hashed"
VERSION = 1
BUCKETS = 2**14


def encode(texts: Sequence[str], fitted_on: Sequence[str], encoder: str = HASHED, size: int = 256) -> np.ndarray:
    """A vector for each text, (text, size or fewer), float32, of length sqrt(size): entries of about 1.

    encoder: "hashed", which counts runs of 2 to 4 letters (in 16,384 buckets), weighs them by TF-IDF and keeps the
    `size` directions that say most, weights and directions from `fitted_on` alone; or the folder of a
    sentence-transformers model, of which `fitted_on` and `size` decide nothing.
    Vectors are kept in the cache, and found there if texts and encoder are the same and they are undamaged.

    Raises UserError if the model cannot be read or the package is not installed.
    """
    by = [HASHED, str(size), str(VERSION), *fitted_on] if encoder == HASHED else [_model(encoder)]
    key = hashlib.sha256("\n".join([*by, "", *texts]).encode()).hexdigest()[:24]
    path = cache_folder() / "text" / f"{key}.npz"
    try:
        kept = read_npz(path, ("vectors", "checksum"))
        if _checksum(kept["vectors"]) == str(kept["checksum"]):
            return kept["vectors"]
    except (UserError, KeyError):  # not made yet, or damaged
        pass
    vectors = _hashed(texts, fitted_on, size) if encoder == HASHED else _sentences(texts, encoder)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = (vectors / np.maximum(length, 1e-12) * vectors.shape[1] ** 0.5).astype(np.float32)
    write_npz(path, vectors=vectors, checksum=np.array(_checksum(vectors)))
    return vectors


def in_words(label: str) -> str:
    """The name of a class as a text.

    >>> in_words("card_declined"), in_words("PlayMusic"), in_words("alarm/query")
    ('card declined', 'play music', 'alarm query')
    """
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", label)
    return " ".join(re.split(r"[\W_]+", parts)).strip().lower() or label


def _checksum(vectors: np.ndarray) -> str:
    return hashlib.sha256(str(vectors.shape).encode() + np.ascontiguousarray(vectors).tobytes()).hexdigest()


def _hashed(texts: Sequence[str], fitted_on: Sequence[str], size: int) -> np.ndarray:
    options: dict[str, Any] = {"ngram_range": (2, 4), "n_features": BUCKETS, "alternate_sign": False, "norm": None}
    letters = HashingVectorizer(analyzer="char_wb", **options)
    counted = make_pipeline(letters, TfidfTransformer(sublinear_tf=True))
    most = min(size, len(set(fitted_on)) - 1)
    if most < 1:
        raise UserError("the training classes hold fewer than two texts: give more of them.")
    directions = TruncatedSVD(most, n_iter=3, random_state=0)
    directions.fit(counted.fit_transform(fitted_on))
    return directions.transform(counted.transform(texts))


def _model(folder: str) -> str:
    """What tells one model from another: the digests of its files.

    Raises UserError for a folder that holds none, or one that could run code when read.
    """
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    names = [path.name for path in files]
    if "modules.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise UserError(
            f"encoder is {folder!r}: give hashed, or the folder of a sentence-transformers model with its modules.json "
            "and its weights as safetensors."
        )
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            digest.update(f"{path.relative_to(folder)}{hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
    return digest.hexdigest()


def _sentences(texts: Sequence[str], folder: str) -> np.ndarray:
    try:
        package: Any = importlib.import_module("sentence_transformers")
    except ImportError:
        raise UserError(
            "a sentence encoder needs the package sentence-transformers: pip install sentence-transformers, or leave "
            "encoder at hashed."
        ) from None
    try:
        # nothing is fetched and nothing is unpickled
        model = package.SentenceTransformer(
            folder, device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
        )
    except Exception as error:  # the package raises nearly anything on a folder it cannot read
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"cannot read the sentence encoder in {folder} ({first}): copy it again.") from None
    return np.asarray(model.encode(list(texts), batch_size=64, show_progress_bar=False), dtype=np.float32)
