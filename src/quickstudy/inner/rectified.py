"""Class means that take the queries in: the shift of the queries, and means over those that look like a class."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quickstudy.inner.closed import class_sums, prototypes
from quickstudy.inner.neighbours import cosines, nearest


def shifted(
    rows: Float[Tensor, "task n d"],
    share: Float[Tensor, "task n"],
    asked: Float[Tensor, "task m d"],
    real: Bool[Tensor, "task m"],
) -> Float[Tensor, "task m d"]:
    """The rows that are asked, moved so that their mean is that of the support: asked + mean(rows) - mean(asked).

    share: the weights of the support's rows. real: which of those asked are no padding.
    """

    def mean(values: Tensor, weight: Tensor) -> Tensor:
        weight = weight.to(values.dtype).unsqueeze(-1)
        return (values * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1e-12)

    return asked + mean(rows, share) - mean(asked, real)


def rectified(
    rows: Float[Tensor, "task n d"],
    one_hot: Float[Tensor, "task n way"],
    asked: Float[Tensor, "task m d"],
    real: Bool[Tensor, "task m"],
    pseudo: int,
    sharpness: float,
    scale: Tensor | float,
) -> Float[Tensor, "task way d"]:
    """Class means over the support and `pseudo` of the rows that are asked, each counting as it is like the class
    (Liu, Song, Qin 2020, arXiv 1911.10713, section 3.3).

    With P_k the mean of class k in the support, a row that is asked belongs to the class of the largest
    cos(x, P_k); of those that belong to it, class k takes the `pseudo` whose softmax_k (scale cos(x, P_k)) is largest:

        P'_k = sum_i w_ik x_i,   w_ik proportional to exp(sharpness cos(x_i, P_k)),   i in class k or taken by it
    """
    sums, counts = class_sums(rows, one_hot)
    centres = prototypes(sums, counts)
    alike = cosines(asked, centres).masked_fill(counts.unsqueeze(1) == 0, -torch.inf)
    mine = (alike == alike.amax(-1, keepdim=True)) & real.unsqueeze(-1) & (counts.unsqueeze(1) > 0)
    doubt = -(scale * alike).log_softmax(-1).masked_fill(~mine, -torch.inf)
    taken = nearest(doubt.transpose(1, 2), mine.transpose(1, 2), pseudo).transpose(1, 2)
    both, belongs = torch.cat([rows, asked], 1), torch.cat([one_hot, taken.to(one_hot.dtype)], 1)
    # a cosine is at most 1, so that this exponential is too
    like = (sharpness * (cosines(both, centres) - 1)).exp() * belongs
    return prototypes(*class_sums(both, like))
