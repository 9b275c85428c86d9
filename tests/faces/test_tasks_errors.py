"""What a user can get wrong with data, each with one clear sentence, and downloads that break."""

from __future__ import annotations

import hashlib
import threading
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.core.errors import UserError
from quickstudy.tasks.arrays import Arrays, read_labelled
from quickstudy.tasks.download import cache_folder, fetch, unzip_images
from quickstudy.tasks.folder import Folder
from quickstudy.tasks.glyphs import Glyphs
from quickstudy.tasks.npz import write_npz
from quickstudy.tasks.omniglot import Omniglot


def refuses(action, *words: str) -> None:
    """The action raises one sentence that holds all the words."""
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and message.endswith((".", "?")), message
    for word in words:
        assert word in message, message


def pictures(folder, classes=6, each=5, size=(40, 30), mode="RGB"):
    """A folder of class folders; the grey level of an image tells its class."""
    for c in range(classes):
        (folder / f"class {c}").mkdir(parents=True)
        for i in range(each):
            colour = 40 * c if mode == "L" else (40 * c,) * len(mode)
            Image.new(mode, size, colour).save(folder / f"class {c}" / f"{i}.png")
    return folder


EVEN = {"way": 2, "query": 3, "valid_fraction": 1 / 3, "test_fraction": 1 / 3}


def sample(source, split="train"):
    return source.sample(split, 4, source.rng(0))


# Arrays


def test_too_few_classes_and_rows():
    x, y = torch.randn(100, 3), [f"c{i % 10}" for i in range(100)]
    refuses(lambda: sample(Arrays.of(x, y, query=2), "test"), "test split has 2 classes and way is 5")
    refuses(lambda: sample(Arrays.of(x, y, query=10)), "class 'c", "has 10 rows and shot + query is 11")
    refuses(lambda: sample(Arrays.of(x, y, valid_fraction=0.0), "valid"), "valid split has 0 classes")
    refuses(
        lambda: sample(Arrays.of(x, y, valid_fraction=0.6, test_fraction=0.4)), "leave no class to train on"
    )
    source = Arrays.of(x, y, valid_fraction=0.0)
    refuses(lambda: source.sample_pooled("valid", 3, source.rng(0)), "valid split has no classes")


def test_nan_and_empty():
    x, y = torch.randn(100, 3), [i % 10 for i in range(100)]
    x[17, 1] = torch.nan
    refuses(lambda: sample(Arrays.of(x, y)), "row 17", "NaN")
    refuses(lambda: sample(Arrays.of(torch.zeros(0, 3), [])), "no labelled rows")
    refuses(lambda: sample(Arrays.of(torch.zeros(4, 3), [1, 2])), "one label for each row")
    refuses(lambda: sample(Arrays.of(torch.zeros(2, 3), [0.5, 1.0])), "whole numbers or text")
    refuses(lambda: Arrays.of(np.array([["a"], ["b"]]), [0, 1]), "not numbers")


def test_files_that_are_no_arrays(tmp_path):
    np.savez(tmp_path / "good.npz", images=np.zeros((12, 8, 8, 3), np.uint8), labels=np.array(list("abc") * 4))
    assert Arrays(str(tmp_path / "good.npz")).spec.x_shape == (3, 8, 8)
    content = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "unlabelled.npz", x=np.zeros((3, 2)))
    np.savez(tmp_path / "objects.npz", x=np.array([{}, {}], object), y=np.zeros(2))
    np.save(tmp_path / "single.npy", np.zeros((3, 2)))
    refuses(lambda: Arrays("").prepare(), "needs a path")
    refuses(lambda: Arrays(str(tmp_path / "none.npz")).prepare(), "no file", "none.npz")
    for name in ("half", "text", "empty", "objects"):
        refuses(lambda name=name: Arrays(str(tmp_path / f"{name}.npz")).prepare(), "cannot read", f"{name}.npz")
    refuses(lambda: Arrays(str(tmp_path / "single.npy")).prepare(), "single array")
    refuses(lambda: Arrays(str(tmp_path / "other.npz")).prepare(), "holds a and none of x")
    refuses(lambda: Arrays(str(tmp_path / "unlabelled.npz")).prepare(), "no labels")


def test_folders_of_arrays(tmp_path):
    rows, labels, content = np.zeros((12, 3)), np.arange(12) % 3, {}

    def holding(name, **arrays):
        place = tmp_path / name
        place.mkdir()
        for key, array in arrays.items():
            np.save(place / f"{key}.npy", array, allow_pickle=True)
        content[name] = place
        return Arrays(str(place))

    assert holding("good", x=rows, y=labels).spec.train_classes == 1
    refuses(holding("empty").prepare, "holds no x.npy", "the tasks named folder")
    refuses(holding("unlabelled", images=rows).prepare, "no y.npy", "every row of images.npy")
    refuses(holding("short", x=rows, y=labels[:5]).prepare, "shape (5,)", "12 rows")
    refuses(holding("flat", x=rows[:, 0], y=labels).prepare, "x.npy", "shape (12,)", "one row for each example")
    refuses(holding("text", x=rows.astype(str), y=labels).prepare, "x.npy", "not numbers")
    refuses(holding("complex", x=rows.astype(complex), y=labels).prepare, "complex128, not numbers")
    refuses(holding("objects", x=np.full((12, 3), None), y=labels).prepare, "cannot read", "Python objects")
    refuses(holding("object labels", x=rows, y=labels.astype(object)).prepare, "cannot read", "y.npy")
    refuses(holding("halves", x=rows, y=labels + 0.5).prepare, "whole numbers or text")
    refuses(holding("none", x=rows[:0], y=labels[:0]).prepare, "none")
    holding("cut", x=rows, y=labels)
    whole = (content["cut"] / "x.npy").read_bytes()
    for length in (0, 5, 100, len(whole) - 1):
        (content["cut"] / "x.npy").write_bytes(whole[:length])
        refuses(Arrays(str(content["cut"])).prepare, "cannot read", "x.npy", "cut short")
    (content["cut"] / "x.npy").write_text("hello")
    refuses(Arrays(str(content["cut"])).prepare, "cannot read", "x.npy")
    with open(content["cut"] / "x.npy", "wb") as file:
        np.savez(file, x=rows)
    refuses(Arrays(str(content["cut"])).prepare, "x.npy is an archive")


def test_options_that_make_no_sense():
    x, y = torch.randn(100, 3), [i % 10 for i in range(100)]
    refuses(lambda: sample(Arrays.of(x, y, scheme="meta-dataset")), "did you mean 'meta_dataset'")
    refuses(lambda: sample(Arrays.of(x, y, imbalance=-1.0)), "imbalance is -1.0")
    refuses(lambda: sample(Arrays.of(x, y, way="many")), "way is 'many'")
    refuses(lambda: sample(Arrays.of(x, y), "dev"), "unknown split 'dev'")
    refuses(lambda: Arrays.of(x, y).reshaped(ways=3), "no option 'ways'")
    refuses(lambda: Glyphs(drawings=1).prepare(), "drawings is 1")


# Folders


def test_a_folder_is_read(tmp_path):
    source = Folder(str(pictures(tmp_path)), **EVEN, size=12)
    tasks = sample(source, "test")
    drawn = source.draw("test", 4, source.rng(0))
    assert tasks.query.x.shape == (4, 6, 1, 12, 12)
    level = torch.tensor([40 * int(n[-1]) for n in source.names("test")]) / 255
    assert torch.allclose(tasks.query.x[:, :, 0, 5, 5], level[drawn.classes.gather(1, tasks.query.y)])
    inverted = sample(Folder(str(tmp_path), **EVEN, size=12, invert=True), "test")
    assert torch.allclose(inverted.query.x, 1 - tasks.query.x)
    assert Folder(str(tmp_path), **EVEN, grey=False).spec.x_shape == (3, 28, 28)


def test_ready_made_splits(tmp_path):
    for split, classes in (("train", 4), ("valid", 2), ("test", 3)):
        pictures(tmp_path / split, classes)
    source = Folder(str(tmp_path), **EVEN)
    assert source.names("valid") == ["valid/class 0", "valid/class 1"]
    assert [len(source.names(s)) for s in ("train", "valid", "test")] == [4, 2, 3]


def test_folders_that_are_none(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "flat").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "flat" / "a.png")
    (tmp_path / "hollow" / "a").mkdir(parents=True)
    refuses(lambda: Folder().prepare(), "needs a path")
    refuses(lambda: Folder(str(tmp_path / "none")).prepare(), "no folder", "none")
    refuses(lambda: Folder(str(tmp_path / "empty")).prepare(), "is empty")
    refuses(lambda: Folder(str(tmp_path / "flat")).prepare(), "no sub-folders")
    refuses(lambda: Folder(str(tmp_path / "flat" / "a.png")).prepare(), "is a file")
    refuses(lambda: Folder(str(tmp_path / "hollow")).prepare(), "no readable image")


def test_a_corrupt_image_among_good_ones(tmp_path):
    pictures(tmp_path)
    bad = tmp_path / "class 3" / "2.png"
    bad.write_bytes(bad.read_bytes()[:40])
    refuses(lambda: Folder(str(tmp_path), **EVEN).prepare(), str(bad), "damaged")
    with pytest.warns(UserWarning, match="2.png") as caught:
        pool = Folder(str(tmp_path), **EVEN, skip_unreadable=True).prepare()
    assert len(caught) == 1 and pool.counts.tolist() == [5, 5, 5, 4, 5, 5]


def test_mixed_sizes_and_modes(tmp_path):
    pictures(tmp_path)
    Image.new("RGBA", (11, 50), (0, 0, 0, 0)).save(tmp_path / "class 0" / "5.png")
    Image.new("1", (40, 30), 1).save(tmp_path / "class 0" / "6.png")
    Image.fromarray(np.full((30, 40), 65535, np.uint16)).save(tmp_path / "class 0" / "7.png")
    Image.new("P", (40, 30), 0).save(tmp_path / "class 0" / "8.gif")
    pool = Folder(str(tmp_path), **EVEN).prepare()
    assert pool.x[pool.rows[0, 5:8]].unique().tolist() == [255], "transparent, bilevel and 16 bit white"
    refuses(
        lambda: Folder(str(tmp_path), **EVEN, mixed_sizes="refuse").prepare(), "11 x 50", "40 x 30", "5.png"
    )
    refuses(lambda: Folder(str(tmp_path), **EVEN, mixed_sizes="resise").prepare(), "did you mean 'resize'")


# Labelled and new examples


def test_read_labelled_from_every_form(tmp_path):
    folder = pictures(tmp_path / "labelled", classes=3, each=2)
    x, labels, names = read_labelled(folder, (1, 28, 28))
    assert x.shape == (6, 1, 28, 28) and x.dtype == torch.float32
    assert labels == [f"class {c}" for c in (0, 0, 1, 1, 2, 2)] and names[3] == "class 1/1.png"
    assert torch.allclose(x[4], torch.tensor(80 / 255))
    flat, none, names = read_labelled(folder / "class 2", (3, 10, 20))
    assert flat.shape == (2, 3, 10, 20) and none is None and names == ["0.png", "1.png"]
    one, none, names = read_labelled(folder / "class 2" / "0.png", (1, 28, 28), invert=True)
    assert one.shape == (1, 1, 28, 28) and torch.allclose(one, torch.tensor(175 / 255))
    np.savez(tmp_path / "a.npz", images=np.full((4, 56, 56, 3), 255, np.uint8), label=np.array(["u", "v"] * 2))
    x, labels, names = read_labelled(tmp_path / "a.npz", (1, 28, 28))
    assert x.shape == (4, 1, 28, 28) and labels == ["u", "v", "u", "v"] and names[0] == "row 0"
    assert torch.allclose(x, torch.ones(()), atol=1e-5)
    np.savez(tmp_path / "b.npz", x=np.zeros((4, 7)))
    x, labels, _ = read_labelled(tmp_path / "b.npz", (7,))
    assert x.shape == (4, 7) and labels is None


def test_read_labelled_refuses(tmp_path):
    np.savez(tmp_path / "b.npz", x=np.zeros((4, 7)))
    np.savez(tmp_path / "nan.npz", x=np.full((4, 7), np.nan))
    np.savez(tmp_path / "none.npz", x=np.zeros((0, 7)))
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "bad.png").write_text("hello")
    refuses(lambda: read_labelled(tmp_path / "missing", (7,)), "no file or folder", "missing")
    refuses(lambda: read_labelled(tmp_path / "b.npz", (8,)), "(7,)", "(8,)")
    refuses(lambda: read_labelled(tmp_path / "nan.npz", (7,)), "row 0", "NaN")
    refuses(lambda: read_labelled(tmp_path / "none.npz", (7,)), "no rows")
    refuses(lambda: read_labelled(tmp_path / "empty", (1, 28, 28)), "is empty")
    refuses(lambda: read_labelled(tmp_path / "empty", (7,)), "not images")
    refuses(lambda: read_labelled(tmp_path / "text.txt", (7,)), "text.txt", ".npz")
    refuses(lambda: read_labelled(tmp_path / "bad.png", (1, 28, 28)), "bad.png", "damaged")


# Omniglot


def test_omniglot_that_is_not_all_there(test_data, tmp_path):
    archive = test_data / "omniglot" / "images_background_small1.zip"
    (tmp_path / "zips").mkdir()
    (tmp_path / "zips" / archive.name).symlink_to(archive)
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "images_background.zip").write_bytes(archive.read_bytes()[:5000])
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    refuses(lambda: Omniglot(str(tmp_path / "zips")).prepare(), "136 characters", "1623", "background")
    background = Omniglot(str(tmp_path / "zips"), split="background")
    assert sample(background).query.x.shape == (4, 75, 1, 28, 28)
    refuses(lambda: sample(background, "test"), "test split has 0 classes")
    wide = background.reshaped(within_alphabet=True, way=400)
    refuses(lambda: sample(wide), "no alphabet", "400")
    refuses(lambda: Omniglot(str(tmp_path / "empty")).prepare(), "no Omniglot drawings")
    refuses(
        lambda: Omniglot(str(tmp_path / "cut")).prepare(), "cannot read the archive", "images_background.zip"
    )
    refuses(lambda: Omniglot(str(tmp_path / "none")).prepare(), "no file or folder")
    refuses(lambda: Omniglot(str(tmp_path / "other.npz")).prepare(), "other.npz", "class_names")
    refuses(lambda: Omniglot(split="vinyal").prepare(), "did you mean 'vinyals'")


# Downloads


@pytest.fixture
def server(test_data, monkeypatch):
    """A server of one archive that knows ranges; `cut` is how many bytes it sends before it hangs up."""
    content = (test_data / "omniglot" / "images_background_small1.zip").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.headers.get("Range"))
            if self.path != "/archive.zip":
                return self.send_error(404)
            start = 0
            if self.headers.get("Range") and self.server.ranges:
                start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    return self.send_error(416)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            cut, self.server.cut = self.server.cut, None
            self.wfile.write(content[start:][:cut])

        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.cut, server.asked, server.content, server.ranges = None, [], content, True
    server.md5, server.sha256 = hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest()
    server.url = f"http://127.0.0.1:{server.server_port}/archive.zip"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_is_checked_and_kept(server, tmp_path):
    path = tmp_path / "deep" / "archive.zip"
    assert fetch(server.url, path, server.md5) == path
    assert path.read_bytes() == server.content and list(path.parent.iterdir()) == [path]
    fetch(server.url, path, server.md5)
    assert server.asked == [None], "what is there is not fetched again"
    fetch(server.url, tmp_path / "again.zip", server.sha256)


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on(server, tmp_path, ranges):
    path = tmp_path / "archive.zip"
    server.cut, server.ranges = 300_000, ranges
    refuses(lambda: fetch(server.url, path, server.md5), "cut", "check the network")
    part = tmp_path / "archive.zip.part"
    assert not path.exists() and part.stat().st_size == 300_000
    fetch(server.url, path, server.md5)
    assert server.asked == [None, "bytes=300000-"]
    assert path.read_bytes() == server.content and not part.exists()


def test_a_complete_part_is_not_fetched_again(server, tmp_path):
    (tmp_path / "archive.zip.part").write_bytes(server.content)
    assert fetch(server.url, tmp_path / "archive.zip", server.md5).read_bytes() == server.content


def test_a_wrong_checksum_is_refused_and_leaves_nothing(server, tmp_path):
    refuses(lambda: fetch(server.url, tmp_path / "archive.zip", "0" * 32), "checksum", server.md5, "0" * 32)
    assert list(tmp_path.iterdir()) == []


def test_no_such_file_and_no_network(server, tmp_path):
    refuses(lambda: fetch(server.url + "x", tmp_path / "a.zip", server.md5), "404")
    refuses(lambda: fetch("http://127.0.0.1:1/a.zip", tmp_path / "a.zip", server.md5), "check the network")


def test_a_full_disk(server, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", full)
        refuses(lambda: fetch(server.url, tmp_path / "a.zip", server.md5), "disk is full", "a.zip")
    write_npz(tmp_path / "kept.npz", x=np.ones(3))
    monkeypatch.setattr("numpy.savez_compressed", full)
    refuses(lambda: write_npz(tmp_path / "kept.npz", x=np.zeros(3)), "No space left", "kept.npz")
    with np.load(tmp_path / "kept.npz") as file:
        assert file["x"].tolist() == [1, 1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["kept.npz"]


def test_an_archive_cannot_reach_outside(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("a/../../../evil.png", b"x")
    refuses(lambda: list(unzip_images(tmp_path / "bad.zip")), "evil.png")


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("QUICKSTUDY_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "quickstudy")


def test_a_damaged_glyph_cache_is_made_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path))
    drawn = np.zeros((4, 28, 28), np.uint8), ["a", "b"], np.array([0, 0, 1, 1])
    monkeypatch.setattr("quickstudy.tasks.glyphs.draw_letters", lambda drawings: drawn)
    Glyphs().prepare()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Glyphs().prepare().x.shape == (4, 1, 28, 28)
