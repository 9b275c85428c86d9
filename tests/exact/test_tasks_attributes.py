"""Attributes of drawings are what one sees, and those of a letter never come from a drawing that is asked for."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.tasks import GlyphAttributes, Glyphs
from quickstudy.tasks.attributes import ATTRIBUTES, drawing_attributes, thinned


def drawn(*boxes: tuple[int, int, int, int], holes: tuple[tuple[int, int, int, int], ...] = ()) -> Tensor:
    """A picture (1, 28, 28) of filled boxes (top, bottom, left, right), from which `holes` are taken."""
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    for value, parts in ((255, boxes), (0, holes)):
        for top, bottom, left, right in parts:
            image[0, top:bottom, left:right] = value
    return image


DRAWINGS: dict[str, tuple[Tensor, dict[str, float]]] = {
    "bar": (drawn((4, 24, 12, 15)), {"wide": 3 / 23, "full": 1, "in parts": 0, "with a hole": 0, "left is right": 1,
                                      "top is bottom": 1, "half a turn": 1, "ends": 2 / 6, "forks": 0}),
    "i": (drawn((10, 24, 12, 15), (4, 7, 12, 15)), {"in parts": 1, "in three parts": 0, "left is right": 1}),
    "three": (drawn((4, 8, 4, 24), (12, 16, 4, 24), (20, 24, 4, 24)), {"in parts": 1, "in three parts": 1,
                                                                         "top is bottom": 1}),
    "8": (drawn((4, 24, 8, 20), holes=((7, 12, 11, 17), (15, 21, 11, 17))), {"with a hole": 1, "with two holes": 1,
                                                                                  "left is right": 1, "ends": 0}),
    "L": (drawn((4, 24, 6, 9), (21, 24, 6, 20)), {"ends": 2 / 6, "forks": 0, "ink top right": 0}),
    "T": (drawn((4, 7, 4, 24), (4, 24, 12, 16)), {"ends": 3 / 6, "forks": 1 / 6, "left is right": 1,
                                                      "ink bottom left": 0}),
    "plus": (drawn((12, 15, 4, 23), (4, 23, 12, 15)), {"ends": 4 / 6, "forks": 1 / 6, "half a turn": 1, "wide": 1 / 2}),
    "nothing": (drawn(), {"full": 0, "in parts": 0, "with a hole": 0, "ends": 0, "forks": 0}),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWINGS)
def test_attributes_are_what_one_sees(name: str) -> None:
    image, wanted = DRAWINGS[name]
    found = dict(zip(ATTRIBUTES, drawing_attributes(image)[0].tolist(), strict=True))
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, abs=1e-6)
    assert all(0 <= value <= 1 for value in found.values())


def test_drawings_never_mix() -> None:
    images = torch.cat([image for image, _ in DRAWINGS.values()])
    one_by_one = torch.cat([drawing_attributes(image) for image, _ in DRAWINGS.values()])
    assert torch.equal(drawing_attributes(images), one_by_one)


def test_strokes_run_the_way_they_are_drawn() -> None:
    across, up = drawn((12, 15, 2, 26)), drawn((2, 26, 12, 15))
    falling = sum(torch.eye(28, dtype=torch.uint8).roll(i, 1).tril(4).triu(-4) for i in range(3)) * 255
    found = drawing_attributes(torch.cat([across, up, falling.unsqueeze(0), falling.flip(1).unsqueeze(0)]))  # type: ignore
    columns = found[:, [ATTRIBUTES.index("strokes across"), ATTRIBUTES.index("strokes rising")]]
    assert columns[1, 0] < 0.25 and columns[0, 0] > 0.75
    assert columns[2, 1] < 0.3 and columns[3, 1] > 0.7 and columns[:2, 1].sub(0.5).abs().max() < 0.05


def test_thin_lines_hold_together() -> None:
    made = Glyphs(query=4)
    ink = made.sample("test", 8, made.rng(0)).query.x.flatten(0, 1)[:, 0] > 0.4  # type: ignore[index]
    lines = thinned(ink)
    assert not (lines & ~ink).any() and lines.sum() < ink.sum() / 2
    corners = ndimage.generate_binary_structure(2, 2)
    for whole, thin in zip(ink.numpy(), lines.numpy(), strict=True):
        label, count = ndimage.label(whole, corners)  # type: ignore[misc]
        assert ndimage.label(thin, corners)[1] <= count  # type: ignore[index]
        for part in range(1, count + 1):  # the method is known to lose small blots
            assert (label == part).sum() < 16 or thin[label == part].any()


def test_what_describes_a_letter_is_never_asked_for() -> None:
    made, letters = GlyphAttributes(), Glyphs()
    pool, whole = made.prepare(), letters.prepare()
    assert pool.names == whole.names and pool.rows.shape == (len(pool.names), 15)
    for c in range(0, len(pool.names), 199):
        shown = set(whole.rows[c].tolist()) - set(pool.rows[c].tolist())
        assert len(shown) == 5
        images = whole.x[torch.tensor(sorted(shown))].squeeze(1)  # type: ignore[index]
        torch.testing.assert_close(pool.descriptions[c], drawing_attributes(images).mean(0))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="describing is 6 and drawings is 6: give at least 1"):
        _ = GlyphAttributes(drawings=6, describing=6).spec
