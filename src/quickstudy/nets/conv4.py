"""The four-block convolutional network of the few-shot literature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core.device import on_processor
from quickstudy.core.errors import UserError
from quickstudy.core.task import State
from quickstudy.nets.at_once import block
from quickstudy.nets.net import After, Net
from quickstudy.nets.norm import ChannelNorm, Norm
from quickstudy.nets.norm_pool import room


class Conv4(Net):
    """Four blocks of 3x3 convolution, norm, ReLU and 2x2 max-pool (Vinyals et al., 1606.04080).

    (task, n, c, h, w) -> (task, n, out), or the flattened features (task, n, channels*h/16*w/16)
    if `out` is None. `norm` says which statistics normalise: "batch" (of the rows at hand, task by
    task: transductive), "running" (of training) or "group" (of each row alone).

    pool: "max", or "stride" for convolutions of stride 2 in place of the max-pool and the mean over the
    last map as features (task, n, channels): what MAML used on Omniglot (1703.03400, section 5.2), with
    a quarter of the arithmetic.

    Convolutions have no bias (a norm follows); norms by channel and ReLU come after the max-pool: the same
    function on a quarter of the data. The layout is channels_last throughout.

    Raises UserError for images smaller than 16 x 16.
    """

    papers = ("vinyals2016matching",)

    def __init__(
        self,
        x_shape: tuple[int, ...],
        out: int | None = None,
        channels: int = 64,
        norm: Norm = "batch",
        pool: Literal["max", "stride"] = "max",
    ):
        super().__init__()
        if len(x_shape) != 3 or min(x_shape[1:]) < 16:
            raise UserError(
                f"conv4 needs images of at least 16 x 16 pixels, (channels, height, width), and got rows of "
                f"shape {tuple(x_shape)}: resize them, or use --net mlp."
            )
        self.x_shape = x_shape
        self.out = out
        self.channels = channels
        self.norm = norm
        self.pool: Literal["max", "stride"] = pool
        inputs = [x_shape[0]] + [channels] * 3
        self.kernels = nn.ParameterList(nn.Parameter(torch.empty(channels, c, 3, 3)) for c in inputs)
        for kernel in self.kernels:
            nn.init.kaiming_normal_(kernel, nonlinearity="relu")
        self.norms = nn.ModuleList(ChannelNorm(channels, norm) for _ in inputs)
        self.features = channels * ((x_shape[1] // 16) * (x_shape[2] // 16) if pool == "max" else 1)
        self.head = nn.Linear(self.features, out) if out else None

    @property
    def size(self) -> int:
        return self.out or self.features

    @property
    def chunk(self) -> int | None:  # type: ignore[override]
        # one task's activations fit the cache, and memory stays flat in the meta-batch
        return 1 if on_processor(self.kernels[0]) else None

    def forward(self, x: Tensor, after: After | None = None) -> Tensor:
        """after: put behind every block."""
        return self.apart([x], after)[0]

    def apart(self, sets: Sequence[Tensor], after: After | None = None) -> list[Tensor]:
        """forward of several sets of rows, (task, n, c, h, w) each, in one pass: each with statistics of its own."""
        if after is None and not on_processor(sets[0]):
            return self.at_once(dict(self.named_parameters()), sets)
        tasks = len(sets[0])
        batch_statistics = any(n.uses_batch_statistics for n in self.norms)
        if batch_statistics and tasks > 1:
            found = [self.apart([x[t : t + 1] for x in sets], after) for t in range(tasks)]
            return [torch.cat(parts) for parts in zip(*found, strict=True)]
        rows = [x.flatten(0, 1) for x in sets]
        sizes = None if len(rows) == 1 else [len(x) for x in rows]
        h = channels_last(*rows)
        for i, (kernel, norm) in enumerate(zip(self.kernels, self.norms, strict=True)):
            assert isinstance(norm, ChannelNorm)
            h = self._block(h, kernel, norm, norm.weight, norm.bias, sets=sizes)
            h = h if after is None else after(i, h)
        h = h.flatten(1) if self.pool == "max" else h.mean((2, 3))
        h = h if self.head is None else self.head(h)
        found = [h] if sizes is None else h.split(sizes)
        return [out.unflatten(0, x.shape[:2]) for out, x in zip(found, sets, strict=True)]

    def at_once(self, weights: State, sets: Sequence[Tensor]) -> list[Tensor]:
        """`apart` for all tasks at once, with these weights for all or with (task, *shape) of each task's own."""
        sizes = [x.shape[1] for x in sets]
        h = sets[0] if len(sets) == 1 else torch.cat(list(sets), 1)
        if weights["kernels.0"].dim() == 4:
            h = channels_last(h.flatten(0, 1)).unflatten(0, h.shape[:2])
        for i, norm in enumerate(self.norms):
            assert isinstance(norm, ChannelNorm)
            scale, shift = weights[f"norms.{i}.weight"], weights[f"norms.{i}.bias"]
            h = block(h, weights[f"kernels.{i}"], norm, scale, shift, self.pool, sizes if len(sets) > 1 else None)
        h = h.flatten(2) if self.pool == "max" else h.mean((3, 4))
        if self.head is not None:
            weight, bias = weights["head.weight"], weights["head.bias"]
            own = weight.dim() == 3
            h = torch.baddbmm(bias.unsqueeze(1), h, weight.transpose(1, 2)) if own else F.linear(h, weight, bias)
        return list(h.split(sizes, 1))

    @property
    def can_group(self) -> bool:
        """Whether `grouped` gives what `forward` does; it hands no statistics to the training loop."""
        return not any(n.norm == "running" and n.training for n in self.norms)

    def grouped(self, weights: State, x: Tensor) -> Tensor:
        """forward with weights (task, *shape) of its own for every task, as one grouped convolution a layer.

        The channels of all tasks stand side by side, so that norms over channels are those of each task. Faster
        than task by task where nothing is differentiated twice, and slower where something is.
        """
        tasks, n = x.shape[:2]
        h = channels_last(x.transpose(0, 1).flatten(1, 2))
        for i, norm in enumerate(self.norms):
            assert isinstance(norm, ChannelNorm)
            scale, shift = (weights[f"norms.{i}.{name}"].flatten() for name in ("weight", "bias"))
            kernel = weights[f"kernels.{i}"].flatten(0, 1)
            h = self._block(h, kernel, norm, scale, shift, tasks)
        h = h if self.pool == "max" else h.mean((2, 3), keepdim=True)
        h = h.reshape(n, tasks, -1).transpose(0, 1)
        if self.head is None:
            return h
        return torch.baddbmm(weights["head.bias"].unsqueeze(1), h, weights["head.weight"].transpose(1, 2))

    def _block(
        self,
        h: Tensor,
        kernel: Tensor,
        norm: ChannelNorm,
        scale: Tensor,
        shift: Tensor,
        tasks: int = 1,
        sets: list[int] | None = None,
    ) -> Tensor:
        kernel = kernel.contiguous(memory_format=torch.channels_last)
        if self.pool == "max":
            return norm.pooled(h, kernel, scale, shift, tasks, sets)
        convolved = F.conv2d(h, kernel, stride=2, padding=1, groups=tasks)
        return torch.relu_(norm.normalised(convolved, scale, shift, sets))


def channels_last(*rows: Tensor) -> Tensor:
    """Images (n, c, h, w) in that layout, one after the other, whatever their number of channels."""
    # `contiguous` would leave one-channel images as they are, and every later layer slow
    sizes = [x.shape[0] for x in rows]  # not len(), which an export would take for a constant
    laid = room((sum(sizes), *rows[0].shape[1:]), rows[0])
    for images, place in zip(rows, [laid] if len(rows) == 1 else laid.split(sizes), strict=True):
        place.copy_(images)
    return laid
