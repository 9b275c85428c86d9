"""Images in every mode mean what they show; domains stay apart; an encoder sees every image once."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

import quickstudy as qs
from quickstudy import checkpoint
from quickstudy.cli import main
from quickstudy.tasks import image_encoder
from quickstudy.tasks.folder import Folder
from quickstudy.tasks.image_encoder import ImageEncoder
from quickstudy.tasks.images import open_image, to_array
from quickstudy.tasks.picture_reader import PictureReader
from quickstudy.tasks.pictures import Pictures

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200), (200, 30, 200)]
THIRDS = {"valid_fraction": 1 / 3, "test_fraction": 1 / 3}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def album(folder: Path, each: int = 6, domains: int = 1) -> Path:
    """A table of pictures of one colour a class, of several sizes, and the folder they lie in."""
    rng, rows = np.random.default_rng(0), ["path,label,domain"]
    for d in range(domains):
        for c, colour in enumerate(COLOURS):
            (folder / f"d{d}" / f"c{c}").mkdir(parents=True)
            for i in range(each):
                noise = rng.integers(-20, 20, (12 + i, 20 - i, 3))
                pixels = np.clip(np.array(colour) + noise + 5 * d, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"d{d}" / f"c{c}" / f"{i}.png")
                rows.append(f"d{d}/c{c}/{i}.png,colour {c},domain {d}")
    (folder / "album.csv").write_text("\n".join(rows) + "\n")
    return folder / "album.csv"


class Grid(nn.Module):
    """A network that sees the mean of each channel in each quarter of an image of 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1:] == (3, 8, 8)
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1) * self.weight


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """What stands in for the package, with one model; it counts what was made."""
    package = types.ModuleType("timm")
    wants = {"input_size": (3, 8, 8), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    package.list_models = lambda: ["grid"]  # type: ignore[attr-defined]
    package.create_model = lambda name, pretrained, num_classes: Grid()  # type: ignore[attr-defined]
    package.data = types.SimpleNamespace(resolve_data_config=lambda config, model: wants)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", package)
    image_encoder._seer.cache_clear()
    yield package
    image_encoder._seer.cache_clear()


def weights(path: Path, **tensors: torch.Tensor) -> str:
    given = {"weight": torch.arange(1.0, 13.0), "fc.weight": torch.zeros(2), **tensors}
    safetensors.torch.save_file(given, path)
    return str(path)


def shown(file: Path, mode: str = "RGB") -> np.ndarray:
    return to_array(open_image(file, mode), (2, 2))


def test_every_mode_shows_the_same(tmp_path: Path) -> None:
    plain = Image.fromarray(np.array([[[200, 30, 30], [30, 200, 30]], [[30, 30, 200], [90, 90, 90]]], np.uint8))
    plain.save(tmp_path / "plain.png")
    wanted = shown(tmp_path / "plain.png")
    plain.quantize(4).save(tmp_path / "palette.png")
    plain.convert("RGBA").save(tmp_path / "alpha.png")
    plain.convert("CMYK").save(tmp_path / "cmyk.tif")
    for name in ("palette.png", "alpha.png", "cmyk.tif"):
        assert np.abs(shown(tmp_path / name).astype(int) - wanted).max() <= 1, name
    clear = plain.convert("RGBA")
    clear.putalpha(Image.fromarray(np.array([[0, 255], [255, 255]], np.uint8)))
    clear.save(tmp_path / "clear.png")
    assert shown(tmp_path / "clear.png")[:, 0, 0].tolist() == [255, 255, 255]
    assert (shown(tmp_path / "clear.png")[:, 1] == wanted[:, 1]).all()


def test_a_camera_turn_is_undone(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its left side
    image.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(np.asarray(open_image(tmp_path / "turned.png", "L")), np.asarray(image))


def test_grey_levels_of_more_than_eight_bit(tmp_path: Path) -> None:
    levels = np.array([[0, 65535], [32768, 255]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert shown(tmp_path / "deep.png", "L")[0].tolist() == [[0, 255], [128, 0]]
    Image.fromarray(levels.astype(np.int32)).save(tmp_path / "deep.tif")
    assert shown(tmp_path / "deep.tif", "L")[0].tolist() == [[0, 255], [128, 0]]
    Image.fromarray(np.array([[0.0, 1.0], [0.5, 0.25]], np.float32)).save(tmp_path / "unit.tif")
    assert shown(tmp_path / "unit.tif", "L")[0].tolist() == [[0, 255], [127, 63]]


def test_a_table_and_its_folder_are_the_same_tasks(tmp_path: Path) -> None:
    table = album(tmp_path)
    options = {"way": 2, "shot": 1, "query": 2, "size": 8, **THIRDS}
    a, b = Pictures(str(table), **options, domain_column=""), Pictures(str(tmp_path / "d0"), **options)
    c = Folder(str(tmp_path / "d0"), **options, grey=False)
    assert a.spec == b.spec == c.spec and a.spec.x_shape == (3, 8, 8)
    for split in ("train", "test"):
        x, y, z = (source.sample(split, 4, source.rng(1)).query.x for source in (a, b, c))
        assert torch.equal(x, y) and torch.equal(y, z)


def test_tasks_stay_within_a_domain_and_domains_are_held_out(tmp_path: Path) -> None:
    table = album(tmp_path, domains=3)
    options = {"way": 2, "shot": 1, "query": 2, "size": 8, **THIRDS}
    for hold_out, domains_in_test in (("classes", 3), ("domains", 1)):
        source = Pictures(str(table), hold_out=hold_out, **options)
        names = source.names("test")
        assert len({name.split("/")[0] for name in names}) == domains_in_test
        assert not set(names) & set(source.names("train"))
        if hold_out == "domains":
            assert not {n.split("/")[0] for n in names} & {n.split("/")[0] for n in source.names("train")}
        drawn = source.draw("test", 30, source.rng(0)).classes
        found = [{names[c].split("/")[0] for c in task} for task in drawn.tolist()]
        assert all(len(domains) == 1 for domains in found)
        assert len(set.union(*found)) == domains_in_test


def test_an_encoder_sees_each_image_once(
    tmp_path: Path, cache: Path, timm: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, encoder = album(tmp_path), weights(tmp_path / "grid.safetensors")
    options = {"way": 2, "shot": 1, "query": 2, "encoder": encoder, "architecture": "timm:grid", **THIRDS}
    seen: list[object] = []
    vector = ImageEncoder.vector
    monkeypatch.setattr(ImageEncoder, "vector", lambda self, image: (seen.append(image), vector(self, image))[1])
    source = Pictures(str(table), **options)
    assert source.spec.x_shape == (12,) and len(seen) == 36 and len(list(cache.glob("*.npz"))) == 1
    first = source.prepare().x
    pixels = to_array(open_image(tmp_path / "d0/c0/0.png", "RGB"), (8, 8))
    means = torch.from_numpy(pixels).double().reshape(3, 2, 4, 2, 4).mean((2, 4)).flatten()
    wanted = (means / 127.5 - 1) * torch.arange(1.0, 13.0)
    wanted = wanted / wanted.norm() * 12**0.5
    assert torch.allclose(first[0].double(), wanted, atol=1e-5)
    assert torch.equal(Pictures(str(table), **options).prepare().x, first) and len(seen) == 36
    # another image, or other weights, are encoded anew
    Image.new("RGB", (9, 9), (1, 2, 3)).save(tmp_path / "d0/c0/0.png")
    again = Pictures(str(table), **options).prepare().x
    assert len(seen) == 72 and not torch.equal(again[0], first[0]) and torch.equal(again[1:], first[1:])
    weights(tmp_path / "grid.safetensors", weight=torch.ones(12))
    assert not torch.equal(Pictures(str(table), **options).prepare().x[1], first[1])


def test_work_that_was_broken_off_goes_on(
    tmp_path: Path, timm: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(album(tmp_path).parent.rglob("*.png"))
    monkeypatch.setattr(image_encoder, "BLOCK", 10)
    encoder = ImageEncoder(weights(tmp_path / "grid.safetensors"), "timm:grid")
    seen: list[object] = []
    vector = ImageEncoder.vector

    def stops(self: ImageEncoder, image: Image.Image) -> np.ndarray:
        if len(seen) == 25:
            raise KeyboardInterrupt
        seen.append(image)
        return vector(self, image)

    monkeypatch.setattr(ImageEncoder, "vector", stops)
    with pytest.raises(KeyboardInterrupt):
        encoder.encode(files, keep=True)
    seen.clear()
    assert encoder.encode(files, keep=True).shape == (36, 12) and len(seen) == 16


def test_the_reader_reads_what_training_read(tmp_path: Path, timm: types.ModuleType) -> None:
    table, encoder = album(tmp_path), weights(tmp_path / "grid.safetensors")
    for options in ({"size": 8}, {"encoder": encoder, "architecture": "timm:grid"}):
        source = Pictures(str(table), way=2, shot=1, query=2, domain_column="", **THIRDS, **options)
        reader = source.reader()
        assert isinstance(reader, PictureReader)
        pool = source.prepare()
        whole = pool.gather(torch.arange(36).unsqueeze(0))[0]
        rows, tree = reader.read(str(table)), reader.read(str(tmp_path / "d0"))
        assert torch.equal(rows.x, whole) and torch.equal(tree.x, whole)
        assert rows.labels == [f"colour {i // 6}" for i in range(36)]
        assert tree.labels == [f"c{i // 6}" for i in range(36)]
        flat, one = reader.read(str(tmp_path / "d0/c1")), reader.read(str(tmp_path / "d0/c1/2.png"))
        assert flat.labels is None and torch.equal(flat.x, whole[6:12]) and torch.equal(one.x, whole[8:9])


@pytest.mark.parametrize("encoded", [False, True])
def test_from_training_to_predictions(
    tmp_path: Path, timm: types.ModuleType, capsys: pytest.CaptureFixture[str], encoded: bool
) -> None:
    table, run = album(tmp_path), tmp_path / "run"
    words = ["--tasks", str(table), "--tasks.way=2", "--tasks.query=2", "--tasks.domain_column=", "--net=mlp"]
    words += ["--tasks.valid_fraction=0.34", "--tasks.test_fraction=0.34", f"--out={run}", "--quiet"]
    if encoded:
        encoder = weights(tmp_path / "grid.safetensors")
        words += [f"--tasks.encoder={encoder}", "--tasks.architecture=timm:grid"]
    assert main(["train", "--learner=protonet", *words, "--train.steps=2", "--train.valid_every=0"]) == 0
    made = checkpoint.load(run / "best.safetensors")
    assert isinstance(made.reader, PictureReader) and bool(made.reader.encoder) == encoded
    out = tmp_path / "task.safetensors"
    assert main(["adapt", str(run / "best.safetensors"), str(table), f"--out={out}"]) == 0
    assert main(["predict", str(out), str(table)]) == 0
    assert "of the 36 labelled rows are right" in capsys.readouterr().out
    assert main(["predict", str(out), str(tmp_path / "d0" / "c0"), str(tmp_path / "d0" / "c1" / "0.png")]) == 0
    if encoded:
        weights(tmp_path / "grid.safetensors", weight=torch.ones(12))
        assert main(["predict", str(out), str(table)]) == 2
        assert "is not the one that the learner was trained with" in capsys.readouterr().err


def test_a_model_of_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18", pretrained=False)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "resnet18.safetensors")
    files = sorted(album(tmp_path, each=1).parent.rglob("*.png"))
    x = ImageEncoder(str(tmp_path / "resnet18.safetensors"), "timm:resnet18").encode(files)
    assert x.shape == (6, 512) and torch.allclose(x.norm(dim=1), torch.full((6,), 512**0.5))
    pixels = torch.from_numpy(to_array(open_image(files[0], "RGB"), (224, 224))).float() / 255
    mean, deviation = (torch.tensor(model.default_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        f = model.eval().forward_head(model.forward_features(((pixels - mean) / deviation)[None]), pre_logits=True)[0]
    assert torch.allclose(x[0], f / f.norm() * 512**0.5, atol=1e-4)
    with pytest.raises(qs.UserError, match="does not hold the weights of resnet34"):
        ImageEncoder(str(tmp_path / "resnet18.safetensors"), "timm:resnet34").encode(files)


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = transformers.ViTModel(transformers.ViTConfig(**shape, image_size=16, patch_size=8))
    model.save_pretrained(tmp_path / "vit", safe_serialization=True)
    files = sorted(album(tmp_path, each=1).parent.rglob("*.png"))
    x = ImageEncoder(str(tmp_path / "vit")).encode(files)
    pixels = torch.from_numpy(to_array(open_image(files[0], "RGB"), (16, 16))).float() / 127.5 - 1
    with torch.no_grad():
        f = model.eval()(pixel_values=pixels[None]).pooler_output[0]
    assert x.shape == (6, 16) and torch.allclose(x[0], f / f.norm() * 4, atol=1e-4)
