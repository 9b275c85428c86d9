"""The last layers of a text encoder, to be learnt: from what goes into them to one vector a text."""

from __future__ import annotations

import math
import re

import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.tracing import is_tracing
from quickstudy.nets.net import Net

POOLING = ("mean", "first")


class TextLayers(Net):
    """`layers` layers of BERT (Devlin and others 2019, arXiv 1810.04805) over the tokens of a text, then the mean of
    the tokens (or the first), as long as the root of its entries; a linear layer after it if `out` is given.

    (task, n, tokens, width) -> (task, n, out or width). A token of zeros is none: it stands behind a text's end.

    folder: of a sentence-transformers model, whose own last layers the network begins as; untrained it then gives the
    model's own vectors back. "" for random ones. The weights travel in a checkpoint: the folder is not read again when
    one is loaded. heads, inner, epsilon, pooling are of that model, and filled in by the source of texts that makes
    such rows (its `layers`). Departure: no dropout.

    Trained at a small rate (`--train.lr 0.0001`, say): it begins near what is sought.

    Raises UserError for a width that heads does not divide, or a folder without such layers.
    """

    papers = ("devlin2019bert",)
    chunk = 1

    def __init__(
        self,
        x_shape: tuple[int, ...],
        out: int | None = None,
        layers: int = 1,
        heads: int = 4,
        inner: int = 256,
        epsilon: float = 1e-12,
        pooling: str = "mean",
        folder: str = "",
    ):
        super().__init__()
        if len(x_shape) != 2:
            raise UserError(f"text_layers takes rows (tokens, width), not {tuple(x_shape)}: set the text's `layers`.")
        if layers < 1 or heads < 1 or x_shape[1] % heads:
            raise UserError(f"{layers} layers of width {x_shape[1]} with {heads} heads: give 1 or more, and a divisor.")
        if pooling not in POOLING:
            raise UserError(f"unknown pooling {pooling!r}: choose mean or first.")
        self.x_shape = x_shape
        self.out = out
        self.layers = layers
        self.heads = heads
        self.inner = inner
        self.epsilon = epsilon
        self.pooling = pooling
        self.folder = folder
        blocks = [_Layer(x_shape[1], heads, inner, epsilon) for _ in range(layers)]
        self.blocks = nn.ModuleList(blocks)
        self.last = nn.Linear(x_shape[1], out) if out else None
        # where a checkpoint is loaded, nothing lies in memory yet, and the file brings the weights
        if folder and not blocks[0].up.weight.is_meta:
            self._begin()

    @property
    def size(self) -> int:
        return self.out or self.x_shape[1]

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(0, 1)
        there = (h != 0).any(-1)
        if not is_tracing():  # nothing behind the longest text
            longest = max(int(there.sum(1).max()), 1) if there.numel() else 1
            h, there = h[:, :longest], there[:, :longest]
        # a row of padding has no token at all: its tokens then look at each other, and its weight is 0
        looked_at = (there | ~there.any(1, keepdim=True)).view(len(h), 1, 1, -1)
        for block in self.blocks:
            h = block(h, looked_at)
        share = there.to(h.dtype).unsqueeze(-1)
        pooled = (h * share).sum(1) / share.sum(1).clamp_min(1) if self.pooling == "mean" else h[:, 0]
        v = F.normalize(pooled, dim=-1, eps=1e-12) * math.sqrt(self.x_shape[1])
        return (v if self.last is None else self.last(v)).unflatten(0, x.shape[:2])

    def _begin(self) -> None:
        """Take the weights of the model in the folder."""
        path = f"{self.folder}/model.safetensors"
        try:
            with safe_open(path, "pt") as file:  # type: ignore[no-untyped-call]
                found = {re.sub(r"^.*encoder\.layer\.", "", k): k for k in file.keys() if "encoder.layer." in k}  # noqa: SIM118
                first = max(int(key.split(".")[0]) for key in found) + 1 - self.layers
                given = {
                    f"{i}.{own}.{part}": file.get_tensor(found[f"{first + i}.{name}.{part}"])
                    for i in range(self.layers)
                    for own, name in NAMES.items()
                    for part in ("weight", "bias")
                }
            self.blocks.load_state_dict({name: tensor.float() for name, tensor in given.items()})
        except (SafetensorError, OSError, RuntimeError, KeyError, ValueError):
            raise UserError(f"{path} holds no {self.layers} such layers: copy the encoder's folder again.") from None


NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "merge": "attention.output.dense",
    "after_attention": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "after": "output.LayerNorm",
}
"""What a layer's parts are called in a file of transformers' BERT."""


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, epsilon: float):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.merge = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.after_attention, self.after = (nn.LayerNorm(width, epsilon) for _ in range(2))

    def forward(self, h: Tensor, looked_at: Tensor) -> Tensor:
        q, k, v = (f(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=looked_at).transpose(1, 2).flatten(2)
        h = self.after_attention(h + self.merge(attended))
        return self.after(h + self.down(F.gelu(self.up(h))))
