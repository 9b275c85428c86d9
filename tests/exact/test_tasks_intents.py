"""Intents: the published splits, and descriptions that are encoded as sentences are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from quickstudy.core.errors import UserError
from quickstudy.core.source import SPLITS
from quickstudy.tasks import Intents
from quickstudy.tasks.intents import in_words, published_split, read_table
from quickstudy.tasks.text import Hashed

LABELS = ("card_declined", "play_music", "weather", "alarm_set", "translate", "order_pizza")
THIRDS = {"fold": 0, "valid_fraction": 1 / 3, "test_fraction": 1 / 3}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten sentences for each of six intents, and some out of scope; a cache of its own."""
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    lines = [f"{in_words(label)} please, {'now ' * i}said {i}\t{label}\ttrain" for label in LABELS for i in range(10)]
    path = tmp_path / "intents.tsv"
    path.write_text("\n".join(["text\tlabel\tsplit", "what is love\toos\ttrain", *lines]) + "\n", "utf-8")
    return path


def encode(texts: list[str], known: list[str], size: int) -> torch.Tensor:
    return Hashed.fit(known, size).encode(texts)


def test_vectors_have_one_length_and_near_texts_are_near(table: Path) -> None:
    texts, labels = read_table(str(table))
    x = encode(texts, texts, size=16)
    assert x.shape == (60, 16) and x.dtype == torch.float32 and labels[0] == "card_declined"
    torch.testing.assert_close(x.norm(dim=1), torch.full((60,), 4.0))
    alike, other = x[0] @ x[1], x[0] @ x[11]
    assert alike > 12 > 8 > other  # of at most 16: two of card_declined, one of play_music


def test_what_test_intents_say_decides_nothing_of_how_texts_are_encoded(table: Path) -> None:
    source = Intents(str(table), way=2, query=2, size=8, **THIRDS)
    names = source.names("test")
    before = source.sample("train", 4, source.rng(0))
    lines = table.read_text("utf-8").splitlines()
    sung = [line.replace("said", "sung") if line.split("\t")[1] in names else line for line in lines]
    table.write_text("\n".join(sung))
    again = Intents(str(table), way=2, query=2, size=8, **THIRDS)
    after = again.sample("train", 4, again.rng(0))
    assert torch.equal(before.query.x, after.query.x)  # type: ignore[arg-type]
    before, after = (made.sample("test", 4, made.rng(0)) for made in (source, again))
    assert not torch.equal(before.query.x, after.query.x)  # type: ignore[arg-type]


def test_an_intent_is_described_by_its_name_or_by_a_sentence(table: Path) -> None:
    options = {"way": 2, "query": 2, "size": 8, "zero_shot": True, **THIRDS}
    source = Intents(str(table), **options)
    texts, labels = read_table(str(table))
    known = [text for text, label in zip(texts, labels, strict=True) if label in source.names("train")]
    for split in SPLITS:
        wanted = encode([*texts, *map(in_words, sorted(LABELS))], known, size=8)
        rows = [sorted(map(str, LABELS)).index(name) for name in source.names(split)]
        assert torch.equal(source.descriptions(split), wanted[len(texts) :][rows])
    assert source.spec.kind == "zero-shot" and source.spec.description_shape == (8,)
    said = table.parent / "said.tsv"
    said.write_text("label\ttext\n" + "\n".join(f"{name}\tsomeone wants {name}" for name in LABELS))
    told = Intents(str(table), sentences=str(said), **options)
    assert not torch.equal(told.descriptions("test"), source.descriptions("test"))
    plain = Intents(str(table), way=2, query=2, size=8, **THIRDS)
    assert plain.spec.kind == "classification" and torch.equal(plain.prepare().x, told.prepare().x)  # type: ignore


def test_published_splits_match_by_letters(table: Path) -> None:
    parts = {"train": ["Card/Declined", "play music"], "valid": ["weather"], "test": ["alarm-set", "translate"]}
    (table.parent / "class_splits.json").write_text(json.dumps({"other": {"01": {s: ["x"] for s in SPLITS}},
                                                                "ours": {"01": parts}}))  # fmt: skip
    source = Intents(str(table), way=2, query=2, size=8)
    assert source.names("train") == ["card_declined", "play_music"]
    assert source.names("test") == ["alarm_set", "translate"]  # order_pizza is in none
    with pytest.raises(UserError, match="has no fold 2 of these 6 intents"):
        _ = Intents(str(table), fold=2).spec


def test_the_tables_of_the_literature(test_data: Path) -> None:
    folder = test_data / "intents"
    for name, count, sizes in (("clinc150", 150, (50, 50, 50)), ("hwu64", 64, (16, 23, 25))):
        labels = sorted(set(read_table(str(folder / f"{name}.tsv"))[1]))
        assert len(labels) == count
        splits = published_split(folder / "class_splits.json", 1, labels)
        assert tuple(len(splits[s]) for s in SPLITS) == sizes
        assert len(torch.cat([splits[s] for s in SPLITS]).unique()) == count


def test_what_does_not_fit_is_said_in_a_sentence(table: Path) -> None:
    def refused(wanted: str, path: str | None = None, **options) -> None:
        with pytest.raises(UserError, match=wanted) as told:
            _ = Intents(str(table) if path is None else path, **{**THIRDS, **options}).spec
        assert "\n" not in str(told.value) and str(told.value).endswith((".", "?"))

    refused("^intents needs a path", "")
    refused("cannot read .*: No such file", str(table.parent / "none.tsv"))
    refused("is a folder: give one of intents.tsv in it", str(table.parent))
    refused("there is no .*class_splits.json: give --tasks.fold 0", fold=1)
    refused("encoder is '.*': give hashed, or the folder", encoder=str(table.parent))
    said = str(_write(table, "label\ttext\nx\ty\n"))
    refused("says nothing of the intent 'alarm_set'", zero_shot=True, sentences=said)
    refused("line 3, has 1 columns and the first line names 2", str(_write(table, "text\tlabel\na\tb\nc\n")))
    refused("no column 'label'", str(_write(table, "words\tkind\na\tb\n")))
    refused("holds no rows", str(_write(table, "text\tlabel\n")))
    (table.parent / "class_splits.json").write_text("[1]")
    refused("holds no class splits", fold=1)


def _write(table: Path, text: str) -> Path:
    path = table.with_name("other.tsv")
    path.write_text(text)
    return path
