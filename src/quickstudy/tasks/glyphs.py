"""Letters of the fonts that matplotlib ships: a few-shot task that needs no download."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.source import Split, generator
from quickstudy.tasks.download import cache_folder
from quickstudy.tasks.npz import read_npz, write_npz
from quickstudy.tasks.pool import ClassSource, Pool
from quickstudy.tasks.sampling import Count

FONTS = (
    *(f"DejaVuSans{face}" for face in ("", "-Oblique", "-Bold", "-BoldOblique")),
    *(f"DejaVuSerif{face}" for face in ("", "-Italic", "-Bold", "-BoldItalic")),
    *(f"DejaVuSansMono{face}" for face in ("", "-Oblique", "-Bold", "-BoldOblique")),
    *(f"STIXGeneral{face}" for face in ("", "Italic", "Bol", "BolIta")),
)
"""The first of these that holds a letter is the letter's main face."""

TEST_SCRIPTS = frozenset({"GEORGIAN", "ARMENIAN", "HEBREW", "LAO", "LISU"})
VALID_SCRIPTS = frozenset({"TIFINAGH", "NKO", "OGHAM", "OLD ITALIC", "COPTIC"})
VERSION = 1
FEWEST_FACES = 2
SIZE = 28
CANVAS = 56
INK = 42
ALIKE = 0.97


class Glyphs(ClassSource):
    """Letters of many writing systems, 28 x 28, ink bright; a class is a letter with at least two faces.

    Every class has `drawings` images: a random face of the letter, slightly turned, slanted, scaled, shifted,
    made bolder or thinner. Letters that look the same (Latin A, Greek Alpha, Cyrillic A; c and C, since ink
    is scaled to one size) are one class. The classes are split by writing system: test is Georgian, Armenian,
    Hebrew, Lao and Lisu, valid is Tifinagh, N'Ko, Ogham, Old Italic and Coptic; a class that also stands for a
    letter of a training script is in train. About a third of the training letters are Latin, and many of those
    differ by a diacritic alone: they are kept, and make a harder distinction than Omniglot's.

    Made on first use in some seconds and cached; the same for everyone with the same matplotlib and Pillow.
    within_alphabet: all classes of a task come from one writing system.
    """

    def __init__(
        self,
        way: Count = 5,
        shot: Count = 1,
        query: Count = 15,
        imbalance: float = 0.0,
        scheme: str = "fixed",
        drawings: int = 20,
        rotations: bool = False,
        within_alphabet: bool = False,
    ):
        self.way = way
        self.shot = shot
        self.query = query
        self.imbalance = imbalance
        self.scheme = scheme
        self.drawings = drawings
        self.rotations = rotations
        self.within_alphabet = within_alphabet

    def load(self) -> Pool:
        """All drawings, from the cache if they have been made before."""
        if self.drawings < 2:
            raise UserError(f"drawings is {self.drawings}: give at least 2 for each letter.")
        path = cache_folder() / f"glyphs-v{VERSION}-{self.drawings}-matplotlib-{matplotlib.__version__}.npz"
        try:
            data = read_npz(path, ("images", "letters", "owner"))
        except UserError:  # not made yet, or damaged
            images, letters, owner = draw_letters(self.drawings)
            data = {"images": images, "letters": np.array(letters), "owner": owner}
            write_npz(path, **data)
        letters = [str(text) for text in data["letters"].tolist()]
        kinds = [split_of(text) for text in letters]
        splits: dict[Split, Tensor] = {
            split: torch.tensor([i for i, kind in enumerate(kinds) if kind == split])
            for split in ("train", "valid", "test")
        }
        scripts = [script(text[0]) for text in letters]
        known = sorted(set(scripts))
        groups = torch.tensor([known.index(s) for s in scripts])
        x = torch.from_numpy(data["images"]).unsqueeze(1)
        names = [f"{text[0]} {unicodedata.name(text[0])}" for text in letters]
        return Pool.of(x, torch.from_numpy(data["owner"]), names, splits, groups, where="glyphs")


def script(letter: str) -> str:
    """The writing system of a letter, from its Unicode name; a compatibility form has that of its letter.

    >>> script("a"), script("ა"), script("𐌀"), script("\N{ALEF SYMBOL}")
    ('LATIN', 'GEORGIAN', 'OLD ITALIC', 'HEBREW')
    """
    proper = unicodedata.normalize("NFKC", letter)
    proper = next((c for c in proper if unicodedata.category(c)[0] == "L"), letter)
    words = unicodedata.name(proper, "UNKNOWN").split()
    return " ".join(words[:2]) if words[0] == "OLD" else words[0]


def split_of(letters: str) -> Split:
    """The split of a class that stands for all of `letters`: train unless all are of held-out scripts.

    >>> split_of("ა"), split_of("Aꓮ")
    ('test', 'train')
    """
    scripts = {script(letter) for letter in letters}
    if scripts - TEST_SCRIPTS - VALID_SCRIPTS:
        return "train"
    return "valid" if scripts & VALID_SCRIPTS else "test"


def draw_letters(drawings: int, seed: int = 0) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Images (row, 28, 28) uint8, the letters that each class stands for, and the class of each row."""
    faces, letter_of, letters = render_faces()
    main = torch.from_numpy(np.searchsorted(letter_of, np.arange(len(letters))))
    merged = look_alikes(faces[main])
    count = int(merged.max()) + 1
    texts = ["".join(letters[i] for i in (merged == c).nonzero()[0]) for c in range(count)]
    order = torch.from_numpy(merged[letter_of]).argsort(stable=True)
    number = torch.bincount(torch.from_numpy(merged[letter_of]), minlength=count)
    rng = generator("glyphs", VERSION, seed)
    pick = (torch.rand(count, drawings, generator=rng, dtype=torch.float64) * number.unsqueeze(1)).long()
    chosen = order[(number.cumsum(0) - number).unsqueeze(1) + pick].flatten()
    images = torch.cat([vary(faces[part], rng) for part in chosen.split(4096)])
    # In order of writing system, so that neighbours in a list belong together.
    place = sorted(range(count), key=lambda c: (script(texts[c][0]), texts[c]))
    images = images.view(count, drawings, SIZE, SIZE)[place].flatten(0, 1)
    return images.numpy(), [texts[c] for c in place], np.arange(count).repeat(drawings)


def render_faces() -> tuple[Tensor, np.ndarray, list[str]]:
    """Every face of every letter: images (face, 56, 56) uint8, the letter of each (sorted), and the letters.

    The ink box of a face is scaled to 42 pixels at its longer side and centred. Letters that are a mere style
    of another in Unicode (mathematical bold, double-struck and so on) are left out.
    """
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    holding: dict[str, list[str]] = {}
    for name in FONTS:
        for code in FT2Font(str(folder / f"{name}.ttf")).get_charmap():
            letter = chr(code)
            if unicodedata.category(letter)[0] == "L" and not unicodedata.decomposition(letter).startswith(
                "<font>"
            ):
                holding.setdefault(letter, []).append(name)
    fonts = {
        name: ImageFont.truetype(str(folder / f"{name}.ttf"), 64, layout_engine=ImageFont.Layout.BASIC)
        for name in FONTS
    }
    images, letter_of, letters = [], [], []
    for letter in sorted(holding):
        drawn = [image for name in holding[letter] if (image := _render(fonts[name], letter)) is not None]
        if len(drawn) >= FEWEST_FACES:
            images += drawn
            letter_of += [len(letters)] * len(drawn)
            letters.append(letter)
    return torch.from_numpy(np.stack(images)), np.array(letter_of), letters


def _render(font: ImageFont.FreeTypeFont, letter: str) -> np.ndarray | None:
    """One face of a letter, or None if it has no ink."""
    left, top, right, bottom = font.getbbox(letter)
    image = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8))
    ImageDraw.Draw(image).text((4 - left, 4 - top), letter, fill=255, font=font)
    box = image.getbbox()
    if box is None:
        return None
    image = image.crop(box)
    scale = INK / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(
        image.resize(size, Image.Resampling.BILINEAR), ((CANVAS - size[0]) // 2, (CANVAS - size[1]) // 2)
    )
    return np.asarray(canvas)


def look_alikes(faces: Tensor) -> np.ndarray:
    """A class number for each letter (letter,), the same for letters whose main faces look the same.

    Two look the same if the cosine between their slightly blurred images exceeds 0.97, or if both look like
    a third.
    """
    x = F.avg_pool2d(faces.float().unsqueeze(1), 2)
    x = F.normalize(x.flatten(1), dim=1)
    alike = (x @ x.T) > ALIKE
    return connected_components(alike.numpy(), directed=False)[1]


def vary(faces: Tensor, rng: torch.Generator) -> Tensor:
    """One drawing (n, 28, 28) uint8 of each face (n, 56, 56), each a little different.

    It is turned, slanted, scaled, shifted, and made bolder or thinner. It is never cut: where it would leave
    the picture it is made smaller and shifted less.
    """
    n = len(faces)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=rng)

    x = faces.float().div_(255).unsqueeze(1)
    weight = between(-0.6, 1.0).view(-1, 1, 1, 1)
    bolder, thinner = _spread(x, torch.maximum), _spread(x, torch.minimum)
    x = torch.where(weight > 0, x.lerp(bolder, weight.clamp_min(0)), x.lerp(thinner, (-weight).clamp_min(0)))

    angle, slant = between(-0.2, 0.2), between(-0.2, 0.2)
    wide, high = between(0.75, 1.1), between(0.75, 1.1)
    cos, sin = angle.cos(), angle.sin()
    # Columns: where the axes of the letter go in the drawing, in half-widths of the picture.
    forward = torch.stack([cos * wide, (slant * cos - sin) * high, sin * wide, (slant * sin + cos) * high], 1)
    forward = forward.view(n, 2, 2)
    half = torch.stack([_half(faces, 1), _half(faces, 2)], 1)
    reach = (forward.abs() @ half.unsqueeze(-1)).squeeze(-1)
    limit = 1 - 4 / SIZE
    shrink = (limit / reach.amax(1)).clamp_max(1.0)
    forward, reach = forward * shrink.view(-1, 1, 1), reach * shrink.view(-1, 1)
    room = (limit - reach).clamp(0.0, 4 / SIZE)
    shift = room * torch.stack([between(-1, 1), between(-1, 1)], 1)
    back = torch.linalg.inv(forward)
    theta = torch.cat([back, -back @ shift.unsqueeze(-1)], 2)
    across = ((2 * torch.arange(CANVAS) + 1) / CANVAS - 1).view(1, 1, -1)
    place = [
        t[:, 0].view(n, 1, 1) * across + t[:, 1].view(n, 1, 1) * across.mT + t[:, 2].view(n, 1, 1)
        for t in theta.unbind(1)
    ]
    grid = torch.stack(place, -1)
    x = F.grid_sample(x, grid, align_corners=False)
    return F.avg_pool2d(x, CANVAS // SIZE).squeeze(1).mul_(255).round_().clamp_(0, 255).byte()


def _spread(x: Tensor, extreme: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The largest (or smallest) value in the 3 x 3 neighbourhood of every pixel but those of the border."""
    x = x.clone()
    x[..., 1:-1] = extreme(extreme(x[..., :-2], x[..., 1:-1]), x[..., 2:])
    x[..., 1:-1, :] = extreme(extreme(x[..., :-2, :], x[..., 1:-1, :]), x[..., 2:, :])
    return x


def _half(faces: Tensor, axis: int) -> Tensor:
    """Half the extent of the ink across the columns (axis 1) or rows (axis 2), relative to half the picture."""
    return (faces.amax(axis) > 0).sum(1) / CANVAS
