"""What a user can get wrong with pictures, each with one sentence: in training, and for the reader of a new task."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from quickstudy.core.errors import UserError
from quickstudy.tasks import image_encoder
from quickstudy.tasks.image_encoder import ImageEncoder
from quickstudy.tasks.picture_reader import PictureReader
from quickstudy.tasks.pictures import Pictures

HEADER = "path,label"
THIRDS = {"valid_fraction": 1 / 3, "test_fraction": 1 / 3}
READER = PictureReader((3, 8, 8))


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    said = str(caught.value)
    assert "\n" not in said and said.endswith((".", "?")), said
    return said


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six classes of four images, and no table."""
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    for c in range(6):
        (tmp_path / "album" / f"c{c}").mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (9, 7), (40 * c, 10 * i, 0)).save(tmp_path / "album" / f"c{c}" / f"{i}.png")
    return tmp_path / "album"


def lines(header: str = HEADER, more: tuple[str, ...] = ()) -> list[str]:
    return [header, *(f"c{c}/{i}.png,class {c}" for c in range(6) for i in range(4)), *more]


def table(folder: Path, rows: list[str], name: str = "album.csv") -> str:
    (folder / name).write_text("\n".join(rows) + "\n")
    return str(folder / name)


def source(path: str, **options) -> Pictures:
    return Pictures(path, **{"way": 2, "shot": 1, "query": 2, "size": 8, **THIRDS, **options})


def both(path: str) -> str:
    """The sentence that the source and the reader both say."""
    said = refused(lambda: source(path).spec)
    assert refused(lambda: READER.read(path)) == said
    return said


def test_an_image_that_is_a_text(folder: Path) -> None:
    (folder / "c2" / "1.png").write_text("no image at all")
    said = both(table(folder, lines()))
    assert "c2/1.png" in said and "damaged or no image" in said
    assert "c2/1.png" in both(str(folder))


def test_a_missing_column(folder: Path) -> None:
    said = both(table(folder, lines("file,label")))
    assert "no column 'path' (path_column)" in said and "file" in said
    path = table(folder, lines("path,kind"))
    assert "no labels in a column 'label'" in refused(lambda: source(path).spec)
    rows = READER.read(path)
    assert rows.labels is None and "label" in READER.unlabelled(path)
    said = refused(lambda: source(table(folder, lines()), domain_column="place").spec)
    assert "no column 'place' (domain_column)" in said
    assert "no column 'domain'" in refused(lambda: source(table(folder, lines()), hold_out="domains").spec)


def test_a_class_with_one_example(folder: Path) -> None:
    Image.new("RGB", (9, 7)).save(folder / "alone.png")
    path = table(folder, lines(more=("alone.png,lonely",)))
    options = {"valid_fraction": 0.0, "test_fraction": 0.0}
    made = source(path, **options)
    said = refused(lambda: made.sample("train", 1, made.rng(0)))
    assert "class 'lonely'" in said and "1 row" in said and "shot + query is 3" in said
    made = source(path, **options, fewest=2)
    assert "lonely" not in made.names("train") and made.sample("train", 1, made.rng(0))
    assert "lower fewest" in refused(lambda: source(path, fewest=99).spec)
    assert READER.read(path).labels[-1] == "lonely"  # to adapt to, one is enough


def test_a_path_that_stands_there_twice_or_leads_nowhere(folder: Path) -> None:
    said = both(table(folder, lines(more=("c0/../c1/0.png,class 0",))))
    assert "line 6" in said and "line 26" in said and "leave one out" in said
    said = both(table(folder, lines(more=("c9/0.png,class 0",))))
    assert "line 26" in said and "'c9/0.png'" in said


def test_a_table_that_is_no_text_or_holds_nothing(folder: Path) -> None:
    (folder / "latin.csv").write_bytes("path,label\nc0/0.png,caf\xe9\n".encode("latin-1"))
    assert "not UTF-8 (line 2)" in both(str(folder / "latin.csv"))
    (folder / "empty.csv").write_text("")
    assert "is empty" in both(str(folder / "empty.csv"))
    assert "no rows" in both(table(folder, [HEADER]))
    said = both(table(folder, lines(more=(",class 0",))))
    assert "line 26" in said and "no text in the column 'path'" in said
    Image.new("RGB", (9, 7)).save(folder / "alone.png")
    assert "line 26" in both(table(folder, lines(more=("alone.png,",))))
    assert "no file or folder" in refused(lambda: READER.read(str(folder / "none")))
    assert "none" in refused(lambda: source(str(folder / "none")).spec)
    (folder / "hollow").mkdir()
    assert "empty" in both(str(folder / "hollow"))


def test_options_that_make_no_sense(folder: Path) -> None:
    path = table(folder, lines())
    assert "unknown hold_out 'domain'" in refused(lambda: source(path, hold_out="domain").spec)
    assert "size is 0" in refused(lambda: source(path, size=0).spec)
    assert "needs a path" in refused(lambda: source("").spec)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) * self.weight


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("timm")
    wants = {"input_size": (3, 4, 4), "mean": (0.0,) * 3, "std": (1.0,) * 3}
    package.list_models = lambda: ["two", "three"]  # type: ignore[attr-defined]
    package.create_model = lambda name, pretrained, num_classes: Two()  # type: ignore[attr-defined]
    package.data = types.SimpleNamespace(resolve_data_config=lambda config, model: wants)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", package)
    image_encoder._seer.cache_clear()


def encoded(path: Path, architecture: str, files: list[Path]) -> str:
    return refused(lambda: ImageEncoder(str(path), architecture).encode(files))


def test_an_encoder_that_is_none(folder: Path, timm: None) -> None:
    files, good = [folder / "c0" / "0.png"], folder / "two.safetensors"
    safetensors.torch.save_file({"weight": torch.ones(3), "head.bias": torch.ones(2)}, good)
    assert ImageEncoder(str(good), "timm:two").encode(files).shape == (1, 3)
    assert "no encoder at" in encoded(folder / "none.safetensors", "timm:two", files)
    assert "architecture does not say" in encoded(good, "", files)
    assert "architecture does not say" in encoded(good, "timm:", files)
    assert "did you mean 'two'?" in encoded(good, "timm:twoo", files)
    safetensors.torch.save_file({"weight": torch.ones(4)}, folder / "wide.safetensors")
    assert "no weights of two" in encoded(folder / "wide.safetensors", "timm:two", files)
    safetensors.torch.save_file({"bias": torch.ones(4)}, folder / "other.safetensors")
    assert "see weight" in encoded(folder / "other.safetensors", "timm:two", files)
    safetensors.torch.save_file({"weight": torch.ones(3), "layer.9": torch.ones(1)}, folder / "more.safetensors")
    assert "see layer.9" in encoded(folder / "more.safetensors", "timm:two", files)
    safetensors.torch.save_file({"weight": torch.full((3,), np.nan)}, folder / "nan.safetensors")
    assert "not finite" in encoded(folder / "nan.safetensors", "timm:two", files)
    (folder / "cut.safetensors").write_bytes(good.read_bytes()[:-4])
    assert "damaged" in encoded(folder / "cut.safetensors", "timm:two", files)
    torch.save({"weight": torch.ones(3)}, folder / "pickled.pt")
    assert "as safetensors, and no other kind is read" in encoded(folder / "pickled.pt", "timm:two", files)
    assert "files of weights" in encoded(folder, "timm:two", files)
    assert "put that back" in refused(lambda: ImageEncoder(str(good), "timm:two", wanted="another"))


@pytest.mark.parametrize("name", ["timm", "transformers"])
def test_a_package_that_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    image_encoder._seer.cache_clear()
    safetensors.torch.save_file({"weight": torch.ones(3)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    architecture = "timm:resnet18" if name == "timm" else ""
    assert f"pip install {name}" in encoded(folder, architecture, [folder / "c0" / "0.png"])
