"""Texts as vectors: by their letters, or by a sentence encoder on the disk. What was encoded is kept."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.preprocessing import normalize
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.tasks.download import cache_folder
from quickstudy.tasks.npz import read_npz, write_npz

HASHED = "hashed"
VERSION = 2
BUCKETS = 2**12
"""More buckets tell intents apart no better (benchmarks/text.py), and make a checkpoint larger."""
BATCH = 8
"""Texts that a sentence encoder is given at once."""


class Encoder(ABC):
    """Makes a vector of a text. The same text always gives the same vector, whichever texts come with it."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """What tells this encoder from another."""

    @abstractmethod
    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """A vector for each text, (text, size), float32, of length sqrt(size): entries of about 1."""

    def encode(self, texts: Sequence[str], keep: bool = False) -> Tensor:
        """What `vectors` gives, as a tensor.

        keep: put it into the cache, or find it there undamaged.
        """
        if not keep:
            return torch.from_numpy(self.vectors(texts))
        found = kept(_key(VERSION, self.digest, *texts), ("vectors",), lambda: {"vectors": self.vectors(texts)})
        return torch.from_numpy(found["vectors"])


class Hashed(Encoder):
    """Counts runs of 2 to 4 letters in hashed buckets, weighs them by TF-IDF, and keeps a few directions.

    v(text) = sum_b (1 + log n_b) w_b d_b over the buckets b that the text's runs fall into, n_b times each;
    w_b = 1 + log((1 + texts) / (1 + texts with b)) and the directions d_b (rows of the truncated SVD) come from the
    texts it was fitted to alone. weights: (bucket,) float32; directions: (bucket, size), float16, which halves what
    a checkpoint takes.
    """

    def __init__(self, weights: Tensor, directions: Tensor):
        self.weights = weights
        self.directions = directions

    @classmethod
    def fit(
        cls, texts: Sequence[str], size: int, buckets: int = BUCKETS, dtype: torch.dtype = torch.float16
    ) -> Hashed:
        """An encoder with the `size` directions that say most about these texts (fewer if there are fewer texts).

        Raises UserError for fewer than two different texts.
        """
        most = min(size, len(set(texts)) - 1)
        if most < 1:
            raise UserError("the training classes hold fewer than two different texts: give more of them.")
        counts = _counts(texts, buckets)
        held = np.bincount(counts.indices, minlength=buckets)
        weights = (np.log((1 + len(texts)) / (1 + held)) + 1).astype(np.float32)
        svd = TruncatedSVD(most, n_iter=3, random_state=0)
        svd.fit(normalize(_weighed(counts, weights)))
        directions = np.asarray(svd.components_, dtype=np.float32).T
        return cls(torch.from_numpy(weights), torch.from_numpy(directions).to(dtype).contiguous())

    @classmethod
    def fit_kept(cls, texts: Sequence[str], size: int) -> Hashed:
        """What `fit` gives, put into the cache or found there."""
        key = _key(HASHED, VERSION, BUCKETS, size, *texts)

        def fit() -> dict[str, np.ndarray]:
            made = cls.fit(texts, size)
            return {"weights": made.weights.numpy(), "directions": made.directions.numpy()}

        found = kept(key, ("weights", "directions"), fit)
        return cls(torch.from_numpy(found["weights"]), torch.from_numpy(found["directions"]))

    @property
    def digest(self) -> str:
        return _checksum(self.weights.numpy(), self.directions.numpy())

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        # a sparse product goes row by row: a text's vector does not depend on those beside it, to the last bit
        weighed = _weighed(_counts(texts, len(self.weights)), self.weights.numpy())
        return _lengthened(weighed @ self.directions.float().numpy())


class Sentences(Encoder):
    """A sentence-transformers model in a folder. Nothing is fetched, and nothing that could run code is read.

    folder: with its modules.json and its weights as safetensors. wanted: the digest it must have; any if not given.
    Texts of equal length are encoded in batches of one size, filled up if need be: the rounding of a text's vector then
    does not depend on the others. Only the vectors are used: the weights are not trained any further.

    Raises UserError if the folder holds no such model, or another one than is wanted.
    """

    def __init__(self, folder: str, wanted: str = ""):
        self.folder = folder
        self._digest = folder_digest(folder)
        if wanted and wanted != self._digest:
            raise UserError(
                f"the sentence encoder in {folder} is not the one that the learner was trained with: put that back."
            )

    @property
    def digest(self) -> str:
        return self._digest

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        model = sentence_model(self.folder, self._digest)
        found: list[Any] = [None] * len(texts)
        for part, full in alike(model, texts):
            made = model.encode(full, batch_size=BATCH, show_progress_bar=False)
            for i, vector in zip(part, made, strict=False):
                found[i] = vector
        return _lengthened(np.asarray(found, dtype=np.float32))


def kept(
    key: str, names: tuple[str, ...], make: Callable[[], dict[str, np.ndarray]], folder: str = "text"
) -> dict[str, np.ndarray]:
    """Arrays by name, from that folder of the cache if they are there undamaged, else made and put there."""
    path = cache_folder() / folder / f"{key[:24]}.npz"
    try:
        found = read_npz(path, (*names, "checksum"))
        if _checksum(*(found[name] for name in names)) == str(found["checksum"]):
            return {name: found[name] for name in names}
    except (UserError, KeyError):  # not made yet, or damaged
        pass
    made = make()
    write_npz(path, **made, checksum=np.array(_checksum(*(made[name] for name in names))))
    return made


def _key(*words: str | int) -> str:
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


def _lengthened(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(length, 1e-12) * vectors.shape[1] ** 0.5).astype(np.float32)


def _checksum(*arrays: np.ndarray) -> str:
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def _counts(texts: Sequence[str], buckets: int) -> csr_matrix:
    options: dict[str, Any] = {"ngram_range": (2, 4), "alternate_sign": False, "norm": None, "dtype": np.float32}
    return csr_matrix(HashingVectorizer(analyzer="char_wb", n_features=buckets, **options).transform(texts))


def _weighed(counts: csr_matrix, weights: np.ndarray) -> csr_matrix:
    """The counts n_b of each text as (1 + log n_b) w_b."""
    data = (np.log(counts.data) + 1) * weights[counts.indices]
    return csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)


def folder_digest(folder: str) -> str:
    """What tells this folder of a sentence encoder from another. Raises UserError if there is none in it."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    names = [path.name for path in files]
    if not Path(folder).exists():
        raise UserError(f"there is no sentence encoder at {folder}: put its folder there, or give encoder hashed.")
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


def alike(model: Any, texts: Sequence[str]) -> Iterator[tuple[list[int], list[str]]]:
    """Batches of texts of equal length in tokens: the numbers of some, and `BATCH` texts, filled up with these."""
    lengths: dict[int, list[int]] = {}
    for i, tokens in enumerate(model.tokenizer(list(texts))["input_ids"]):
        lengths.setdefault(len(tokens), []).append(i)
    parts = [rows[start : start + BATCH] for rows in lengths.values() for start in range(0, len(rows), BATCH)]
    for number, part in enumerate(parts):
        yield part, [texts[i] for i in (part * BATCH)[:BATCH]]
        if sys.stderr.isatty() and number % 50 == 49:
            end = "\n" if number + 50 >= len(parts) else "\r"
            print(f"encoding texts: {100 * (number + 1) // len(parts)} %", end=end, file=sys.stderr, flush=True)


@lru_cache(maxsize=1)
def sentence_model(folder: str, digest: str) -> Any:
    """The model in a folder of this digest. Raises UserError if it cannot be read, or the package is not installed."""
    try:
        package: Any = importlib.import_module("sentence_transformers")
    except ImportError:
        raise UserError(
            "a sentence encoder needs the package sentence-transformers: pip install sentence-transformers, or leave "
            "encoder at hashed."
        ) from None
    try:
        return package.SentenceTransformer(
            folder, device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
        )
    except Exception as error:  # the package raises nearly anything on a folder it cannot read
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"cannot read the sentence encoder in {folder} ({first}): copy it again.") from None
