"""ResNet-12 and the transformer against plain torch: the same function, rows apart, the right second derivatives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import Classification
from quickstudy.core.errors import UserError
from quickstudy.inner.apply import apply_per_task, task_weights
from quickstudy.learners import MAML
from quickstudy.nets import ResNet12, Transformer
from quickstudy.testing import check_meta_gradient, synthetic_tasks

WIDTHS = (3, 4, 5, 6)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def jittered(net: nn.Module) -> nn.Module:
    net = net.double()
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.add_(0.2 * noise(*p.shape, seed=i))
    return net


def plain_resnet(net: ResNet12, rows: Tensor) -> Tensor:
    """The paper's block, written out, with torch's own batch norm and the leak before the pool."""

    def norm(h: Tensor, layer: nn.Module) -> Tensor:
        return F.batch_norm(h, None, None, layer.weight, layer.bias, True, 0.0, 1e-5)  # type: ignore[arg-type]

    h = rows
    for block in net.blocks:
        k, n = block.kernels, block.norms  # type: ignore[attr-defined]
        a = F.leaky_relu(norm(F.conv2d(h, k[0], padding=1), n[0]), 0.1)
        a = F.leaky_relu(norm(F.conv2d(a, k[1], padding=1), n[1]), 0.1)
        a = norm(F.conv2d(a, k[2], padding=1), n[2])
        shortcut = norm(F.conv2d(h, block.shortcut), n[3])  # type: ignore[arg-type]
        h = F.max_pool2d(F.leaky_relu(a + shortcut, 0.1), 2)
    h = h.mean((2, 3))
    return h if net.head is None else net.head(h)


@pytest.mark.parametrize("out", [None, 2])
def test_resnet12_is_the_plain_network(out: int | None) -> None:
    net = jittered(ResNet12((2, 18, 16), out=out, widths=WIDTHS))
    x = noise(2, 5, 2, 18, 16)
    wanted = torch.stack([plain_resnet(net, rows) for rows in x])  # type: ignore[arg-type]
    torch.testing.assert_close(net(x), wanted, rtol=1e-11, atol=1e-12)
    assert net(x).shape == (2, 5, out or WIDTHS[-1])


def test_resnet12_has_twelve_layers_and_the_published_size() -> None:
    net = ResNet12((3, 84, 84))
    assert sum(k.dim() == 4 and k.shape[-1] == 3 for k in net.parameters()) == 12
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(12.4e6, rel=0.01)


def plain_transformer(net: Transformer, rows: Tensor) -> Tensor:
    """torch's own encoder layers with the same weights."""
    if len(net.x_shape) == 1:
        h = rows.unsqueeze(-1) * net.entry
    elif len(net.x_shape) == 2:
        h = net.embed(rows)
    else:
        c, p = net.x_shape[0], net.patch
        cut = rows.unfold(2, p, p).unfold(3, p, p)  # (n, c, rows, columns, p, p)
        h = net.embed(cut.permute(0, 2, 3, 1, 4, 5).reshape(len(rows), -1, c * p * p))
    h = h + net.place
    for block in net.blocks:
        layer = nn.TransformerEncoderLayer(
            net.width, net.heads, 4 * net.width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        ).double()
        ours = {
            "self_attn.in_proj_weight": block.project.weight, "self_attn.in_proj_bias": block.project.bias,
            "self_attn.out_proj.weight": block.merge.weight, "self_attn.out_proj.bias": block.merge.bias,
            "linear1.weight": block.up.weight, "linear1.bias": block.up.bias,
            "linear2.weight": block.down.weight, "linear2.bias": block.down.bias,
            "norm1.weight": block.before[0].weight, "norm1.bias": block.before[0].bias,
            "norm2.weight": block.before[1].weight, "norm2.bias": block.before[1].bias,
        }  # type: ignore[attr-defined] # fmt: skip
        layer.load_state_dict(ours)
        h = layer(h)
    h = net.last(h).mean(1)
    return h if net.head is None else net.head(h)


@pytest.mark.parametrize("x_shape", [(5,), (4, 3), (2, 6, 9)])
def test_transformer_is_torchs_own(x_shape: tuple[int, ...]) -> None:
    net = jittered(Transformer(x_shape, out=2, width=8, depth=2, heads=2, patch=3))
    x = noise(2, 3, *x_shape)
    wanted = torch.stack([plain_transformer(net, rows) for rows in x])  # type: ignore[arg-type]
    torch.testing.assert_close(net(x), wanted, rtol=1e-11, atol=1e-12)
    alone = torch.cat([net(x[:, i : i + 1]) for i in range(3)], 1)
    torch.testing.assert_close(alone, net(x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", ["transformer", "resnet12"])
def test_weights_of_each_task(kind: str) -> None:
    shape = (4,) if kind == "transformer" else (1, 16, 16)
    made = Transformer(shape, width=4, depth=1, heads=2) if kind == "transformer" else ResNet12(shape, widths=WIDTHS)
    net = jittered(made)
    weights = {k: w.detach() + 0.1 * noise(*w.shape, seed=i) for i, (k, w) in enumerate(task_weights(net, 2).items())}
    x = noise(2, 3, *shape)
    both = apply_per_task(net, weights, x)
    for t in range(2):
        one = torch.func.functional_call(net, {k: w[t] for k, w in weights.items()}, (x[t : t + 1],))
        torch.testing.assert_close(both[t : t + 1], one, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2])
def test_second_order_through_attention(depth: int) -> None:
    torch.manual_seed(0)
    net = jittered(Transformer((3, 2), out=2, width=4, depth=depth, heads=2))
    maml = MAML(net, Classification(2), inner_steps=2, inner_lr=0.3).double().train()  # type: ignore[arg-type]
    tasks = synthetic_tasks(Classification(2), (3, 2), 2, 2)
    names, parameters = zip(*maml.named_parameters(), strict=True)
    check_meta_gradient(lambda: maml(tasks), parameters, names)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ResNet12((1, 8, 8)), "resnet12 needs images of at least 16 x 16"),
        (lambda: ResNet12((1, 16, 16), widths=(2, 2)), "four blocks"),
        (lambda: Transformer((3,), width=6, heads=4), "heads divides"),
        (lambda: Transformer((1, 28, 28), patch=5), "patch is 5 and images are 28 x 28"),
        (lambda: Transformer((1, 2, 3, 4)), "vectors, series and images"),
    ],
)
def test_errors(make, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()
