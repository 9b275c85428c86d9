"""The twelve-layer residual network of the few-shot literature."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core.device import on_processor
from quickstudy.core.errors import UserError
from quickstudy.nets.conv4 import channels_last
from quickstudy.nets.net import Net
from quickstudy.nets.norm import ChannelNorm, Norm


class ResNet12(Net):
    """Four residual blocks of three 3x3 convolutions, each block ending in a 2x2 max-pool, then the mean over the map
    (Oreshkin, Rodriguez, Lacoste 2018, arXiv 1805.10123; in the form of MetaOptNet, arXiv 1904.03758).

    (task, n, c, h, w) -> (task, n, out), or the features (task, n, widths[-1]) if `out` is None. A block is
    lrelu(norm(conv(lrelu(norm(conv(lrelu(norm(conv(x)))))))) + norm(conv_1x1(x))) with a leak of 0.1. `norm`: as in
    Conv4. Departure: no DropBlock, so that adapting draws no random numbers.

    Raises UserError for images smaller than 16 x 16.
    """

    papers = ("oreshkin2018tadam", "he2016resnet")

    def __init__(
        self,
        x_shape: tuple[int, ...],
        out: int | None = None,
        widths: tuple[int, ...] = (64, 160, 320, 640),
        norm: Norm = "batch",
    ):
        super().__init__()
        if len(x_shape) != 3 or min(x_shape[1:]) < 16:
            raise UserError(
                f"resnet12 needs images of at least 16 x 16 pixels, (channels, height, width), and got rows of "
                f"shape {tuple(x_shape)}: resize them, or use --net mlp."
            )
        if len(widths) != 4:
            raise UserError(f"resnet12 has four blocks, and widths is {tuple(widths)}: give four numbers.")
        self.x_shape = x_shape
        self.out = out
        self.widths = tuple(widths)
        self.norm = norm
        inputs = (x_shape[0], *self.widths[:3])
        self.blocks = nn.ModuleList(_Block(a, b, norm) for a, b in zip(inputs, self.widths, strict=True))
        self.head = nn.Linear(self.widths[-1], out) if out else None

    @property
    def size(self) -> int:
        return self.out or self.widths[-1]

    @property
    def chunk(self) -> int | None:  # type: ignore[override]
        return 1 if on_processor(next(self.parameters())) else None

    def forward(self, x: Tensor) -> Tensor:
        batch_statistics = any(getattr(m, "uses_batch_statistics", False) for m in self.modules())
        if batch_statistics and len(x) > 1:
            return torch.cat([self.forward(x[t : t + 1]) for t in range(len(x))])
        h = channels_last(x.flatten(0, 1))
        for block in self.blocks:
            h = block(h)
        h = h.mean((2, 3))
        return (h if self.head is None else self.head(h)).unflatten(0, x.shape[:2])


class _Block(nn.Module):
    def __init__(self, inputs: int, width: int, norm: Norm):
        super().__init__()
        sizes = (inputs, width, width)
        self.kernels = nn.ParameterList(nn.Parameter(torch.empty(width, c, 3, 3)) for c in sizes)
        self.shortcut = nn.Parameter(torch.empty(width, inputs, 1, 1))
        for kernel in (*self.kernels, self.shortcut):
            nn.init.kaiming_normal_(kernel, a=0.1, mode="fan_out", nonlinearity="leaky_relu")
        self.norms = nn.ModuleList(ChannelNorm(width, norm) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for i, (kernel, norm) in enumerate(zip(self.kernels, self.norms, strict=False)):
            h = norm(F.conv2d(h, _laid(kernel), padding=1))
            if i < 2:
                h = F.leaky_relu(h, 0.1)
        h = h + self.norms[3](F.conv2d(x, _laid(self.shortcut)))
        # the pool keeps what is largest, and so it does before the leak: the same on a quarter of the data
        return F.leaky_relu(F.max_pool2d(h, 2), 0.1)


def _laid(kernel: Tensor) -> Tensor:
    return kernel.contiguous(memory_format=torch.channels_last)
