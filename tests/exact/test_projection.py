"""The projection: nothing at first, then what its formula says; weights of many tasks in one call."""

from __future__ import annotations

import pytest
import torch

import quickstudy as qs
from quickstudy.core.errors import UserError
from quickstudy.nets import Projection


def moved(out: int | None) -> Projection:
    torch.manual_seed(0)
    net = Projection((2, 3), out, width=5)
    torch.nn.init.normal_(net.up.weight)
    torch.nn.init.normal_(net.up.bias)
    return net


def test_untrained_it_is_nearest_centroid() -> None:
    spec = qs.Spec("classification", (6,), way=3)
    learner, plain = qs.make("protonet", spec, "projection"), qs.make("centroid", spec)
    support = qs.examples(torch.randn(2, 9, 6), torch.arange(9).remainder(3).expand(2, 9))
    x = torch.randn(2, 4, 6)
    a, b = (one.predict(one.adapt(support), x).argmax(-1) for one in (learner, plain))
    assert torch.equal(a, b)


@pytest.mark.parametrize("out", [None, 4])
def test_it_is_its_formula(out: int | None) -> None:
    net, x = moved(out), torch.randn(2, 7, 2, 3)
    wanted = []
    for row in x.reshape(-1, 6):
        h = row + net.up.weight @ (net.down.weight @ row + net.down.bias).clamp_min(0) + net.up.bias
        wanted.append(h if net.last is None else net.last.weight @ h + net.last.bias)
    assert net(x).shape == (2, 7, net.size)
    torch.testing.assert_close(net(x).reshape(-1, net.size), torch.stack(wanted))


@pytest.mark.parametrize("out", [None, 4])
def test_weights_of_its_own_for_every_task(out: int | None) -> None:
    nets, x = [moved(out), moved(out)], torch.randn(2, 7, 2, 3)
    with torch.no_grad():
        for p in nets[1].parameters():
            p.mul_(-0.5)
    both = [dict(one.named_parameters()) for one in nets]
    weights = {name: torch.stack([one[name] for one in both]) for name in both[0]}
    together = nets[0].per_task(weights, x)
    torch.testing.assert_close(together, torch.stack([n(x[i : i + 1])[0] for i, n in enumerate(nets)]))


def test_a_width_that_makes_no_sense() -> None:
    with pytest.raises(UserError, match="projection of width 0"):
        Projection((3,), width=0)
