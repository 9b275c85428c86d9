"""Reading image files with Pillow, and bringing image arrays to one shape."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from quickstudy.core.errors import UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})


def image_files(folder: Path) -> list[Path]:
    """The image files directly in a folder, by name; hidden files are left out."""
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file()
    )


def sub_folders(folder: Path) -> list[Path]:
    """The folders directly in a folder, by name; hidden ones are left out."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")


def open_image(file: str | os.PathLike[str] | bytes, mode: str, name: str = "") -> Image.Image:
    """An image file, fully read, in `mode` "L" or "RGB"; what is transparent becomes white, a camera's turn is undone.

    Of several frames the first counts. Grey levels of 16 bit, or real ones, become bytes.

    Raises UserError naming the file if it cannot be read.
    """
    name = name or (os.fspath(file) if not isinstance(file, bytes) else "the image")
    try:
        with Image.open(BytesIO(file) if isinstance(file, bytes) else file) as image:
            image.load()
            image = ImageOps.exif_transpose(image)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            elif image.mode[0] in "IF":
                image = _bytes(np.asarray(image))
            return image.convert(mode)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        reason = "it does not exist" if isinstance(error, FileNotFoundError) else "it is damaged or no image"
        raise UserError(
            f"cannot read the image {name}: {reason}; replace or remove it."
        ) from None


def _bytes(grey: np.ndarray) -> Image.Image:
    """Grey levels of more than 8 bit: 16 bit by their upper byte, real numbers up to 1 times 255; else cut off."""
    if grey.dtype.kind == "f" and grey.size and float(np.nanmax(grey)) <= 1:
        grey = np.nan_to_num(grey) * 255
    elif grey.dtype == np.uint16 or (grey.size and grey.max() > 255):
        grey = grey.astype(np.float64) // 256
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))


def to_array(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """An image as (channel, height, width) bytes of `size` (height, width), resized by area if it differs."""
    height, width = size
    if image.size != (width, height):
        image = image.resize(
            (width, height), Image.Resampling.BOX if image.width >= width else Image.Resampling.BICUBIC
        )
    pixels = np.array(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def read_images(files: Iterable[Path | bytes], x_shape: tuple[int, ...], invert: bool = False) -> Tensor:
    """Image files as float32 (n, channel, height, width) in [0, 1]."""
    mode = "L" if x_shape[0] == 1 else "RGB"
    arrays = [to_array(open_image(file, mode), (x_shape[1], x_shape[2])) for file in files]
    x = torch.from_numpy(np.stack(arrays)).float().div_(255)
    return 1 - x if invert else x


def channels_first(x: Tensor) -> Tensor:
    """Image arrays (n, h, w) or (n, h, w, c) as (n, c, h, w); vectors and anything else as they are.

    Four axes are taken as channels last if the last has 1, 3 or 4 entries and the second has not.
    """
    if x.dim() == 3:
        return x.unsqueeze(1)
    if x.dim() == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        return x.permute(0, 3, 1, 2).contiguous()
    return x


def scaled_pixels(x: Tensor, where: str) -> Tensor:
    """Images (n, c, h, w) of real numbers that are bytes by their look, from 0 to 255, scaled to [0, 1] with a warning:
    so they mean what the same images mean as bytes or as files. Anything else as it is.
    """
    if x.dim() != 4 or x.shape[1] not in (1, 3, 4) or not x.is_floating_point() or x.numel() == 0:
        return x
    low, high = float(x.amin()), float(x.amax())
    if low < 0 or not 1 < high <= 255 or (high < 128 and not bool((x == x.round()).all())):
        return x
    warnings.warn(
        f"{where} holds images of real numbers up to {high:g}: taken as pixels from 0 to 255 and scaled to [0, 1]; "
        "save them as uint8, or in [0, 1], to say so",
        stacklevel=2,
    )
    return x / 255


def fit_shape(x: Tensor, x_shape: tuple[int, ...], where: str) -> Tensor:
    """Rows of arrays brought to the shape a learner was trained on; images are resized and made grey or RGB.

    Raises UserError if the shapes cannot be reconciled.
    """
    x = x.float().div(255) if x.dtype == torch.uint8 else x.float()
    if tuple(x.shape[1:]) == x_shape:
        return x
    if len(x_shape) == 3:
        x = channels_first(x)
        if x.dim() == 4 and x.shape[1] in (1, 3, 4):
            if x_shape[0] == 1 and x.shape[1] > 1:
                grey = torch.tensor([0.299, 0.587, 0.114], dtype=x.dtype).view(1, 3, 1, 1)
                x = (x[:, :3] * grey).sum(1, keepdim=True)
            elif x_shape[0] == 3:
                x = x[:, :3].expand(-1, 3, -1, -1) if x.shape[1] == 1 else x[:, :3]
            if x.shape[1] == x_shape[0]:
                return F.interpolate(x, x_shape[1:], mode="bilinear", antialias=True, align_corners=False)
    raise UserError(
        f"{where} holds rows of shape {tuple(x.shape[1:])} and the learner was trained on {x_shape}: "
        "give rows of that shape."
    )
