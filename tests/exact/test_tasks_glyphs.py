"""Glyphs: the splits, the merging of look-alikes, and drawings that are whole and always the same."""

from __future__ import annotations

import pytest
import torch

from quickstudy.core.source import SPLITS, generator
from quickstudy.tasks.glyphs import (
    CANVAS,
    TEST_SCRIPTS,
    VALID_SCRIPTS,
    Glyphs,
    look_alikes,
    render_faces,
    script,
    split_of,
    vary,
)


@pytest.fixture(scope="module")
def faces():
    return render_faces()


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICKSTUDY_CACHE", str(tmp_path_factory.mktemp("cache")))
        source = Glyphs()
        made = source.prepare()
        patch.setattr("quickstudy.tasks.glyphs.draw_letters", None)
        assert torch.equal(Glyphs().prepare().x, made.x), "the second time it comes from the cache"
        yield source


def test_sizes(glyphs):
    pool = glyphs.prepare()
    sizes = {split: len(pool.splits[split]) for split in SPLITS}
    assert sizes["train"] >= 1900 and sizes["valid"] >= 100 and sizes["test"] >= 200
    assert pool.x.shape[1:] == (1, 28, 28) and pool.x.dtype == torch.uint8
    assert pool.counts.unique().tolist() == [20]


def test_writing_systems_of_the_splits_are_disjoint(glyphs):
    scripts = {split: {script(n[0]) for n in glyphs.names(split)} for split in SPLITS}
    assert scripts["test"] == TEST_SCRIPTS and scripts["valid"] == VALID_SCRIPTS
    assert {"GEORGIAN", "ARMENIAN", "HEBREW", "LAO", "LISU"} <= scripts["test"]
    # A class of the training split may be named after a letter that is drawn like a training letter.
    assert {"LATIN", "GREEK", "CYRILLIC", "ARABIC", "CANADIAN"} <= scripts["train"]


def test_look_alikes_are_one_class_and_train(faces):
    images, letter_of, letters = faces
    main = torch.searchsorted(torch.from_numpy(letter_of), torch.arange(len(letters)))
    number = dict(zip(letters, look_alikes(images[main]).tolist(), strict=True))
    same = "A\N{GREEK CAPITAL LETTER ALPHA}\N{CYRILLIC CAPITAL LETTER A}\N{LISU LETTER A}"
    round_ones = "o\N{GREEK SMALL LETTER OMICRON}\N{CYRILLIC SMALL LETTER O}\N{ARMENIAN SMALL LETTER OH}"
    assert len({number[c] for c in same}) == len({number[c] for c in round_ones}) == 1
    assert len({number[c] for c in "ABEKXYabegk"}) == 11
    assert split_of(same) == "train" and split_of("ა") == "test" and split_of("ⵣ") == "valid"


def test_drawings_are_legible_whole_and_varied(glyphs):
    x = glyphs.prepare().x[:, 0]
    assert bool((x.amax((1, 2)) >= 100).all()), "every drawing has ink"
    border = torch.cat([x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1]], 1)
    assert float((border > 60).any(1).float().mean()) < 0.01, "hardly a drawing touches the border"
    one = glyphs.prepare().x[glyphs.prepare().rows[100]].flatten(1)
    assert len(one.unique(dim=0)) == 20


def test_the_same_generator_draws_the_same(faces):
    some = faces[0][:64]
    assert torch.equal(vary(some, generator(1)), vary(some, generator(1)))
    assert not torch.equal(vary(some, generator(1)), vary(some, generator(2)))


def test_a_wide_face_is_not_cut():
    bar = torch.zeros(500, CANVAS, CANVAS, dtype=torch.uint8)
    bar[:, 7:49, 7:49] = 255  # the largest ink there is
    drawn = vary(bar, generator(0))
    border = torch.cat([drawn[:, 0], drawn[:, -1], drawn[:, :, 0], drawn[:, :, -1]], 1)
    assert int(border.max()) == 0


def test_within_alphabet(glyphs):
    source = glyphs.reshaped(within_alphabet=True)
    names = source.names("test")
    for row in source.draw("test", 30, source.rng(0)).classes.tolist():
        assert len({script(names[c][0]) for c in row}) == 1
