"""Omniglot: the counts of the splits, rotations, alphabets, and the same pixels from every form of the data."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from quickstudy.core.source import SPLITS
from quickstudy.tasks.omniglot import Omniglot, read_characters, vinyals_split


@pytest.fixture(scope="module")
def npz(test_data):
    return str(test_data / "omniglot" / "omniglot28.npz")


@pytest.fixture(scope="module")
def omniglot(npz):
    source = Omniglot(npz)
    source.prepare()
    return source


def test_vinyals_counts(omniglot, npz):
    assert [len(omniglot.names(split)) for split in SPLITS] == [4112, 688, 1692]
    assert omniglot.spec.x_shape == (1, 28, 28) and omniglot.spec.train_classes == 4112
    plain = Omniglot(npz, rotations=False)
    assert [len(plain.names(split)) for split in SPLITS] == [1028, 172, 423]


def test_vinyals_split_is_the_published_one(omniglot, test_data):
    for split, file in (("train", "train"), ("valid", "val"), ("test", "test")):
        published = (test_data / "omniglot" / "splits_vinyals" / f"{file}.txt").read_text().split()
        assert sorted(omniglot.names(split)) == sorted(published)


def test_splits_are_disjoint(omniglot):
    names = [n for members in (vinyals_split()[s] for s in SPLITS) for n in members]
    assert len(names) == len(set(names)) == 1623
    assert sum(len(c) for c in omniglot.prepare().splits.values()) == 4 * 1623


def test_background_split_holds_out_whole_alphabets(npz):
    source = Omniglot(npz, split="background", rotations=False)
    alphabets = {split: {n.split("/")[0] for n in source.names(split)} for split in SPLITS}
    assert [len(alphabets[s]) for s in SPLITS] == [24, 6, 20]
    assert len(set.union(*alphabets.values())) == 50
    assert len(source.names("test")) == 659


def test_rotated_classes_are_rotated(omniglot):
    pool = omniglot.prepare()
    for c in (0, 17, 1622):
        upright = pool.x[pool.rows[4 * c]]
        for r in range(4):
            assert torch.equal(pool.x[pool.rows[4 * c + r]], upright.rot90(r, (-2, -1)))
            assert pool.names[4 * c + r].endswith(f"rot{90 * r:03}")


def test_sampled_images_are_those_of_their_class(omniglot):
    tasks = omniglot.sample("test", 16, omniglot.rng(0))
    drawn = omniglot.draw("test", 16, omniglot.rng(0))
    pool = omniglot.prepare()
    number = pool.splits["test"][drawn.classes.gather(1, tasks.query.y)]
    own = pool.rows[number]
    assert bool((own == drawn.query_rows.unsqueeze(-1)).any(-1).all())
    assert torch.equal(tasks.query.x, pool.x[drawn.query_rows].float() / 255)
    assert float(tasks.query.x.min()) >= 0 and float(tasks.query.x.max()) == 1


def test_within_alphabet(omniglot):
    source = omniglot.reshaped(within_alphabet=True, way=20)
    assert source.prepare() is omniglot.prepare()
    drawn = source.draw("train", 50, source.rng(0))
    names = source.names("train")
    for row in drawn.classes.tolist():
        assert len({names[c].split("/")[0] for c in row}) == 1


def test_archive_folder_and_npz_hold_the_same_pixels(test_data, tmp_path, npz):
    archive = test_data / "omniglot" / "images_background_small1.zip"
    (tmp_path / "zips").mkdir()
    (tmp_path / "zips" / archive.name).symlink_to(archive)
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "unpacked")
    options = {"split": "background", "rotations": False}
    zipped = Omniglot(str(tmp_path / "zips"), **options).prepare()
    folder = Omniglot(str(tmp_path / "unpacked"), **options).prepare()
    assert zipped.names == folder.names and torch.equal(zipped.x, folder.x)
    whole = read_characters(Path(npz))
    number = {name: i for i, name in enumerate(whole["class_names"].tolist())}
    for c, name in enumerate(zipped.names):
        mine = zipped.x[zipped.rows[c], 0].numpy()
        theirs = whole["images"][whole["label"] == number[name]]
        assert sorted(i.tobytes() for i in mine) == sorted(i.tobytes() for i in theirs)
    assert len(zipped.names) == 136 and np.array_equal(zipped.counts.unique().numpy(), [20])
