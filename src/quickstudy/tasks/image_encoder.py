"""Images as vectors, by a pretrained network on the disk. What was encoded is kept; nothing that runs code is read."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.tasks.images import open_image, to_array
from quickstudy.tasks.text import kept

VERSION = 1
BLOCK = 256
"""Images whose vectors are kept together: long work that was broken off goes on after the last full block."""
TIMM, TRANSFORMERS = "timm:", "transformers"


class Seer(NamedTuple):
    """A network that is ready: `vector` of one image (1, 3, height, width), and how it wants its pixels."""

    vector: Callable[[Tensor], Tensor]
    size: tuple[int, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class ImageEncoder:
    """A pretrained network without its last layer: v(image) = sqrt(size) f / |f| with f its pooled features.

    path: a .safetensors file, or the folder that holds one. architecture: "timm:resnet18", say, for the weights of that
    model of timm; "transformers" for a folder with its config.json. wanted: the digest it must have; any if not given.
    Images are squeezed to the square that the network was trained on, whatever their shape, in RGB, one at a time:
    within a batch rounding would depend on the others. The network is frozen: its weights are not trained any further.

    Raises UserError if nothing is there, it is no such network, or another one than is wanted.
    """

    def __init__(self, path: str, architecture: str = "", wanted: str = ""):
        self.path = path
        self.architecture = architecture or (TRANSFORMERS if (Path(path) / "config.json").is_file() else "")
        if self.architecture != TRANSFORMERS and not self.architecture.removeprefix(TIMM):
            raise UserError(
                f"architecture does not say what the weights in {path} are: give the name of a timm model, as "
                "timm:resnet18, or a folder of transformers with its config.json."
            )
        self.digest = _digest(path, self.architecture)
        if wanted and wanted != self.digest:
            raise UserError(f"the encoder {path} is not the one that the learner was trained with: put that back.")

    def encode(self, files: Sequence[Path] | Sequence[bytes], keep: bool = False) -> Tensor:
        """A vector for each image file, (file, size), float32.

        keep: put the vectors into the cache, by the digests of the files, or find them there.
        Raises UserError for a file that is no image.
        """
        if not keep:
            return torch.from_numpy(self._vectors(files))
        blocks = [files[i : i + BLOCK] for i in range(0, len(files), BLOCK)]
        quiet = not Console(stderr=True).is_terminal
        shown = track(blocks, "encoding images", console=Console(stderr=True), transient=True, disable=quiet)
        return torch.from_numpy(np.concatenate([self._kept(block) for block in shown]))

    def _kept(self, files: Sequence[Path] | Sequence[bytes]) -> np.ndarray:
        key = hashlib.sha256(json.dumps(["images", VERSION, self.digest, *map(_file_digest, files)]).encode())
        return kept(key.hexdigest(), ("vectors",), lambda: {"vectors": self._vectors(files)}, "images")["vectors"]

    def _vectors(self, files: Sequence[Path] | Sequence[bytes]) -> np.ndarray:
        return np.stack([self.vector(open_image(file, "RGB")) for file in files])

    @torch.inference_mode()
    def vector(self, image: Image.Image) -> np.ndarray:
        """The vector (size,) of one image in RGB."""
        seer = _seer(self.path, self.architecture, self.digest)
        pixels = torch.from_numpy(to_array(image, seer.size)).float().div_(255)
        mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (seer.mean, seer.deviation))
        f = seer.vector(((pixels - mean) / deviation).unsqueeze(0)).flatten().double()
        if not torch.isfinite(f).all():
            raise UserError(f"the encoder {self.path} gives values that are not finite: check its weights.")
        return (f / f.norm().clamp_min(1e-12) * len(f) ** 0.5).float().numpy()


def _file_digest(path: Path | bytes) -> str:
    if isinstance(path, bytes):
        return hashlib.sha256(path).hexdigest()
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path.") from None


def _weights(path: str) -> list[Path]:
    """The .safetensors files of an encoder. Raises UserError if there is none."""
    place = Path(path)
    if not place.exists():
        raise UserError(f"there is no encoder at {path}: give a .safetensors file, or the folder that holds one.")
    found = sorted(place.glob("*.safetensors")) if place.is_dir() else [place]
    if not found or found[0].suffix != ".safetensors":
        raise UserError(f"{path} holds no weights as safetensors, and no other kind is read: convert them first.")
    return found


def _digest(path: str, architecture: str) -> str:
    files = _weights(path)
    if architecture == TRANSFORMERS:
        files += [f for f in (Path(path) / "config.json", Path(path) / "preprocessor_config.json") if f.is_file()]
    stated = "".join(f"{file.name}{_file_digest(file)}" for file in files)
    return hashlib.sha256(f"{architecture}{stated}".encode()).hexdigest()


@lru_cache(maxsize=1)
def _seer(path: str, architecture: str, digest: str) -> Seer:
    return _transformers(path) if architecture == TRANSFORMERS else _timm(path, architecture.removeprefix(TIMM))


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"this encoder needs the package {name}: pip install {name}, or leave encoder out.") from None


def _timm(path: str, name: str) -> Seer:
    timm = _package("timm")
    if name not in timm.list_models():
        raise UserError(f"timm has no model {name!r}: {nearest(name, timm.list_models())}")
    files = _weights(path)
    if len(files) > 1:
        raise UserError(f"{path} holds {len(files)} files of weights: give the one of the encoder.")
    model = timm.create_model(name, pretrained=False, num_classes=0).eval()
    try:
        given = safetensors.torch.load_file(files[0])
        left = model.load_state_dict(given, strict=False)
    except (SafetensorError, OSError, RuntimeError, ValueError):
        raise UserError(f"{files[0]} is damaged, or holds no weights of {name}: give those of that model.") from None
    heads = ("fc.", "head.", "head_dist.", "classifier.", "last_linear.")
    foreign = [key for key in left.unexpected_keys if not key.startswith(heads)]
    if left.missing_keys or foreign:
        word = left.missing_keys[0] if left.missing_keys else foreign[0]
        raise UserError(f"{files[0]} does not hold the weights of {name} (see {word}): give those of that model.")
    wants = timm.data.resolve_data_config({}, model=model)
    height, width = wants["input_size"][-2:]
    return Seer(model, (height, width), tuple(wants["mean"]), tuple(wants["std"]))


def _transformers(path: str) -> Seer:
    package = _package("transformers")
    try:
        model = package.AutoModel.from_pretrained(
            path, local_files_only=True, use_safetensors=True, trust_remote_code=False
        ).eval()
        extra = Path(path) / "preprocessor_config.json"
        wants = json.loads(extra.read_text("utf-8")) if extra.is_file() else {}
    except Exception as error:  # the package raises nearly anything on a folder it cannot read
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(f"cannot read the encoder {path} ({first}): give a folder that transformers wrote.") from None
    size = wants.get("size", getattr(model.config, "image_size", None)) or 224
    size = size.get("height", size.get("shortest_edge", 224)) if isinstance(size, dict) else size
    height, width = size if isinstance(size, list | tuple) else (size, size)
    mean, deviation = (tuple(wants.get(key) or (0.5,) * 3) for key in ("image_mean", "image_std"))

    def vector(pixels: Tensor) -> Tensor:
        out = model(pixel_values=pixels)
        pooled = getattr(out, "pooler_output", None)
        if pooled is not None:
            return pooled
        last = out.last_hidden_state  # (1, tokens, size), the first one for the whole; or a map (1, size, h, w)
        return last[:, 0] if last.dim() == 3 else last.mean((2, 3))

    return Seer(vector, (height, width), mean, deviation)
