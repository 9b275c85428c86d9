"""Networks over a sequence in which no row sees a later one, so that what was read need not be read again."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from quickstudy.core.errors import UserError


class CausalConvolution(nn.Module):
    """tanh(a) * sigmoid(b), where (a, b) is a convolution of kernel 2: of a row and the one `back` rows before it
    (van den Oord et al. 2016, arXiv 1609.03499); before the first row there are zeros."""

    def __init__(self, inputs: int, filters: int, back: int):
        super().__init__()
        self.back = back
        self.both = nn.Linear(2 * inputs, 2 * filters)

    def forward(self, h: Tensor, context: Tensor, place: Tensor, sees: Tensor) -> Tensor:
        earlier = F.pad(context, (0, 0, self.back, 0))[:, place]
        a, b = self.both(torch.cat([earlier, h], -1)).chunk(2, -1)
        return a.tanh() * b.sigmoid()


class CausalAttention(nn.Module):
    """softmax(q k' / sqrt(keys)) v over the rows that a row may see: itself and those before it."""

    def __init__(self, inputs: int, keys: int, values: int):
        super().__init__()
        self.query = nn.Linear(inputs, keys)
        self.key = nn.Linear(inputs, keys)
        self.value = nn.Linear(inputs, values)

    def forward(self, h: Tensor, context: Tensor, place: Tensor, sees: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(
            self.query(h), self.key(context), self.value(context), attn_mask=sees
        )


class CausalStack(nn.Module):
    """Attention, convolutions, attention, convolutions, ..., attention: each appends its columns to what it read.

    inputs: columns of a row. length: convolutions go back 1, 2, 4, ... rows, until together they reach this many.
    filters: columns of a convolution. keys, values: of each attention. `size` columns come out.

    Since blocks append, the first columns of what comes out are what each block was given. So the columns of the
    rows that were read are all that a later row needs.

    Raises UserError for a length below 2, or keys and values that do not match.
    """

    def __init__(self, inputs: int, length: int, filters: int, keys: tuple[int, ...], values: tuple[int, ...]):
        super().__init__()
        if length < 2:
            raise UserError(f"length is {length}: give the number of rows of the longest sequence, at least 2.")
        if len(keys) != len(values) or not keys:
            raise UserError(f"there are {len(keys)} keys and {len(values)} values: give one of each an attention.")
        if min(filters, *keys, *values) < 1:
            raise UserError(f"filters is {filters}, keys are {keys}, values are {values}: give sizes of at least 1.")
        self.blocks = nn.ModuleList()
        width = inputs
        for number, (key, value) in enumerate(zip(keys, values, strict=True)):
            for layer in range(math.ceil(math.log2(length)) if number else 0):
                self.blocks.append(CausalConvolution(width, filters, 2**layer))
                width += filters
            self.blocks.append(CausalAttention(width, key, value))
            width += value
        self.size = width

    def read(self, rows: Float[Tensor, "task n d"], real: Bool[Tensor, "task n"]) -> Float[Tensor, "task n size"]:
        """The columns of a sequence whose padding, if any, comes first (inner/sequence.py `packed`)."""
        n = rows.shape[1]
        place = torch.arange(n, device=rows.device)
        before = place.unsqueeze(0) < place.unsqueeze(1)
        sees = (before & real.unsqueeze(1)) | torch.eye(n, dtype=torch.bool, device=rows.device)
        for block in self.blocks:
            # before the first real row there is nothing, in every layer
            rows = torch.cat([rows, block(rows, rows, place, sees) * real.unsqueeze(-1)], -1)
        return rows

    def ask(
        self,
        rows: Float[Tensor, "task m d"],
        past: Float[Tensor, "task n size"],
        real: Bool[Tensor, "task n"],
        place: Int[Tensor, " m"] | None = None,
    ) -> Float[Tensor, "task m size"]:
        """The columns of rows that each come next after the same past, and do not see one another.

        place: how many rows of the past have come before each of them; all, if not given.
        """
        m, n = rows.shape[1], past.shape[1]
        place = torch.full((m,), n, device=rows.device) if place is None else place
        before = torch.arange(n, device=rows.device) < place.unsqueeze(1)
        alone = torch.eye(m, dtype=torch.bool, device=rows.device).expand(len(rows), m, m)
        sees = torch.cat([real.unsqueeze(1) & before, alone], -1)
        for block in self.blocks:
            context = torch.cat([past[..., : rows.shape[-1]], rows], 1)
            rows = torch.cat([rows, block(rows, context, place, sees)], -1)
        return rows
