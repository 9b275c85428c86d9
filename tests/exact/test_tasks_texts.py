"""Texts as tasks: encoders, splits by class and by domain, and a reader that encodes as training did, to the bit."""

from __future__ import annotations

import itertools
import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from quickstudy import checkpoint
from quickstudy.core.errors import UserError
from quickstudy.core.source import SPLITS
from quickstudy.learners import make
from quickstudy.tasks import Texts
from quickstudy.tasks.download import cache_folder
from quickstudy.tasks.text import BUCKETS, Hashed
from quickstudy.tasks.text_reader import TextReader

VERBS = ("open", "close", "paint", "lift", "wash", "sell")
SMALL = {"way": 2, "query": 3, "size": 8, "valid_fraction": 1 / 3, "test_fraction": 1 / 3}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))


def rows(domains: tuple[str, ...] = ("",)) -> list[dict[str, Any]]:
    """Nine texts for each of six verbs (in each domain)."""
    things = [f"{a} {b}" for a in ("red", "old", "big") for b in ("lamp", "door", "oven")]
    return [
        {"text": f"{verb} the {thing} {domain}".strip(), "label": verb, "domain": domain, "id": i}
        for domain in domains
        for i, (verb, thing) in enumerate(itertools.product(VERBS, things))
    ]


def test_vectors_are_those_of_tf_idf_and_svd() -> None:
    texts = [row["text"] for row in rows()]
    options: dict[str, Any] = {"ngram_range": (2, 4), "alternate_sign": False, "norm": None}
    letters = HashingVectorizer(analyzer="char_wb", n_features=BUCKETS, **options)
    counted = TfidfTransformer(sublinear_tf=True).fit_transform(letters.transform(texts))
    wanted = TruncatedSVD(5, n_iter=3, random_state=0).fit_transform(counted)
    wanted *= 5**0.5 / np.linalg.norm(wanted, axis=1, keepdims=True)
    found = Hashed.fit(texts, 5).encode(texts).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=4e-3)  # the directions are kept in half precision


def test_a_text_has_one_vector_whatever_comes_with_it() -> None:
    texts = [row["text"] for row in rows()] + ["!", "ωμέγα"]
    encoder = Hashed.fit(texts[:40], 16)
    together = encoder.encode(texts)
    assert torch.equal(together, torch.cat([encoder.encode([text]) for text in texts]))
    assert torch.equal(together.flip(0), encoder.encode(texts[::-1])) and bool(torch.isfinite(together).all())


def test_what_is_fitted_to_is_the_training_classes_alone() -> None:
    source = Texts.of(rows(), **SMALL)
    held = {split: source.names(split) for split in SPLITS}
    table = rows()
    for row in table:
        if row["label"] in held["test"]:
            row["text"] = row["text"].replace("the", "that")
    again = Texts.of(table, **SMALL)
    a, b = (one.sample("train", 4, one.rng(0)).query.x for one in (source, again))
    assert torch.equal(a, b)  # type: ignore[arg-type]
    a, b = (one.sample("test", 4, one.rng(0)).query.x for one in (source, again))
    assert not torch.equal(a, b)  # type: ignore[arg-type]


def test_vectors_and_encoders_are_kept_and_damaged_ones_are_made_again() -> None:
    first = Texts.of(rows(), **SMALL).prepare().x
    files = sorted((cache_folder() / "text").glob("*.npz"))
    stamps = [file.stat().st_mtime_ns for file in files]
    assert len(files) == 2 and torch.equal(Texts.of(rows(), **SMALL).prepare().x, first)  # type: ignore[arg-type]
    assert [file.stat().st_mtime_ns for file in files] == stamps
    for file in files:
        with np.load(file) as data:
            held = dict(data)
        changed = {name: array + 1 if name != "checksum" else array for name, array in held.items()}
        np.savez(file, **changed)
    assert torch.equal(Texts.of(rows(), **SMALL).prepare().x, first)  # type: ignore[arg-type]
    for file in files:
        file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(Texts.of(rows(), **SMALL).prepare().x, first)  # type: ignore[arg-type]


def test_an_encoder_of_another_size_is_not_taken_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [row["text"] for row in rows()]
    assert [Hashed.fit_kept(texts, size).directions.shape[1] for size in (5, 7, 5)] == [5, 7, 5]
    assert len(list((cache_folder() / "text").glob("*.npz"))) == 2
    monkeypatch.setattr("quickstudy.tasks.text.BUCKETS", 2**14)
    Hashed.fit_kept(texts, 5)
    assert len(list((cache_folder() / "text").glob("*.npz"))) == 3


def test_a_column_says_the_splits() -> None:
    names = dict(zip(VERBS, ("train", "train", "Validation", "dev", "test", "TEST"), strict=True))
    source = Texts.of([{**row, "part": names[row["label"]]} for row in rows()], split_column="part", **SMALL)
    assert {split: source.names(split) for split in SPLITS} == {
        "train": ["close", "open"], "valid": ["lift", "paint"], "test": ["sell", "wash"],
    }  # fmt: skip


def test_tasks_lie_within_a_domain_and_whole_domains_may_be_held_out() -> None:
    table = rows(("at home", "at work", "at sea"))
    source = Texts.of(table, domain_column="domain", **SMALL)
    for split in SPLITS:
        assert len(source.names(split)) == 6  # two of each domain's six
        drawn = source.draw(split, 30, source.rng(0)).classes
        for task in drawn.tolist():
            assert len({source.names(split)[c].split("/")[0] for c in task}) == 1
    whole = Texts.of(table, domain_column="domain", hold_out="domains", **SMALL)
    domains = {split: {name.split("/")[0] for name in whole.names(split)} for split in SPLITS}
    assert [len(held) for held in domains.values()] == [1, 1, 1] and len(set.union(*domains.values())) == 3
    with pytest.raises(UserError, match="no domain of the test split has the 3 classes"):
        source.reshaped(way=3).sample("test", 1, source.rng(0))


def test_equal_texts_and_rare_classes() -> None:
    table = [*rows(), rows()[0], {"text": rows()[0]["text"], "label": "sell"}, {"text": "once", "label": "rare"}]
    with pytest.raises(UserError, match="'open the red lamp' stands in row 0 and row 54, as 'open': leave one out"):
        Texts.of(table, duplicates="refuse", **SMALL).prepare()
    with pytest.raises(UserError, match="row 0 and row 54, as 'open' and as 'sell'"):
        Texts.of([*rows(), table[-2]], duplicates="refuse", **SMALL).prepare()
    with pytest.warns(UserWarning, match="of their class, left out: 1; texts under more than one label, kept: 1"):
        Texts.of(table, **SMALL).prepare()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        sizes = {(duplicates, fewest): len(Texts.of(table, duplicates=duplicates, fewest=fewest, **SMALL).prepare().x)
                 for duplicates in ("drop", "keep") for fewest in (1, 2)}  # fmt: skip
    assert sizes == {("drop", 1): 56, ("drop", 2): 55, ("keep", 1): 57, ("keep", 2): 56}


def table_of(path: Path, texts: list[str], labels: list[str] | None = None) -> str:
    lines = texts if labels is None else [f"{a}\t{b}" for a, b in zip(texts, labels, strict=True)]
    path.write_text("\n".join(["text" if labels is None else "text\tlabel", *lines]) + "\n")
    return str(path)


def test_the_reader_encodes_as_training_did_to_the_bit_and_travels(tmp_path: Path) -> None:
    source = Texts.of(rows(), **SMALL)
    checkpoint.save(make("protonet", source.spec), tmp_path / "a.safetensors", source)
    reader = checkpoint.load(tmp_path / "a.safetensors").reader
    assert isinstance(reader, TextReader)
    texts, labels = [row["text"] for row in rows()], [row["label"] for row in rows()]
    found = reader.read(table_of(tmp_path / "a.tsv", texts, labels))
    assert torch.equal(found.x, source.prepare().x) and found.labels == labels  # type: ignore[arg-type]
    assert found.names[1] == "line 3, open the red door"
    bare = reader.read(table_of(tmp_path / "b.tsv", texts))
    (tmp_path / "c.txt").write_text("\n\n".join(texts))
    plain = reader.read(str(tmp_path / "c.txt"))
    assert bare.labels is None and plain.labels is None and plain.names[1] == "line 3, open the red door"
    assert torch.equal(bare.x, found.x) and torch.equal(plain.x, found.x)
    assert reader.read(table_of(tmp_path / "d.tsv", texts, [""] * len(texts))).labels is None


def test_another_table_is_read_as_the_learner_reads() -> None:
    source = Texts.of(rows(), **SMALL)
    other = Texts.of([{**row, "text": f"please {row['text']}"} for row in rows()], **SMALL)
    wanted = source.reader().made().encode([f"please {row['text']}" for row in rows()])  # type: ignore[attr-defined]
    assert not torch.equal(other.prepare().x, wanted)  # type: ignore[arg-type]
    assert torch.equal(other.read_by(source.reader()).prepare().x, wanted)  # type: ignore[arg-type]
    assert other.read_by(None) is other


class Letters:
    """Stands for a sentence encoder: how often each of four letters comes."""

    def __init__(self, folder: str, **options: Any):
        assert options["local_files_only"] and options["model_kwargs"] == {"use_safetensors": True}

    def tokenizer(self, texts: list[str]) -> dict[str, list[str]]:
        return {"input_ids": texts}

    def encode(self, texts: list[str], **_: Any) -> np.ndarray:
        assert len(texts) == 8 and len({len(text) for text in texts}) == 1
        return np.array([[1 + text.count(letter) for letter in "aeio"] for text in texts], np.float32)


def test_a_sentence_encoder_must_stay_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=Letters))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "modules.json").write_text("[]")
    (folder / "model.safetensors").write_bytes(b"weights")
    source = Texts.of(rows(), encoder=str(folder), **SMALL)
    checkpoint.save(make("protonet", source.spec), tmp_path / "a.safetensors", source)
    assert source.spec.x_shape == (4,)
    saved = checkpoint.load(tmp_path / "a.safetensors")
    reader = saved.reader
    assert reader is not None and not reader.fitted and len(saved.card["reader"]["digest"]) == 64
    path = table_of(tmp_path / "a.tsv", [row["text"] for row in rows()])
    assert torch.equal(reader.read(path).x, source.prepare().x)  # type: ignore[arg-type]
    (folder / "model.safetensors").write_bytes(b"others")
    with pytest.raises(UserError, match="is not the one that the learner was trained with"):
        reader.read(path)
    folder.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"there is no sentence encoder at .*model: put"):
        reader.read(path)


def test_a_checkpoint_stays_small(tmp_path: Path) -> None:
    texts = [f"{a} {b} {c}" for a in "abcdefg" for b in "hijklmno" for c in "pqrstu"]
    source = Texts.of({"text": texts, "label": [text[0] for text in texts]}, way=2)
    checkpoint.save(make("protonet", source.spec), tmp_path / "a.safetensors", source)
    assert (tmp_path / "a.safetensors").stat().st_size < 3e6
    assert json.loads(json.dumps(checkpoint.load(tmp_path / "a.safetensors").card))["reader"]["name"] == "text"
