"""Backbones by name."""

from quickstudy.core.catalogue import Catalogue
from quickstudy.nets.conv4 import Conv4
from quickstudy.nets.mlp import MLP
from quickstudy.nets.net import Net, RowNet
from quickstudy.nets.projection import Projection
from quickstudy.nets.resnet12 import ResNet12
from quickstudy.nets.text_layers import TextLayers
from quickstudy.nets.transformer import Transformer

NETS: Catalogue[Net] = Catalogue(
    "net",
    {
        "conv4": Conv4,
        "resnet12": ResNet12,
        "mlp": MLP,
        "projection": Projection,
        "transformer": Transformer,
        "text_layers": TextLayers,
    },
)

__all__ = ["DEFAULTS", "MLP", "NETS", "Conv4", "Net", "Projection", "ResNet12", "RowNet", "TextLayers", "Transformer"]


DEFAULTS = ("conv4", "mlp", "projection")
"""The networks that `default_net` chooses from."""


def default_net(x_shape: tuple[int, ...], encoded: bool = False) -> str:
    """The name of the backbone that suits rows of this shape: images get conv4, what a frozen encoder made (`encoded`)
    a projection that begins as no change, the rest an MLP."""
    if encoded:
        return "projection"
    return "conv4" if len(x_shape) == 3 and min(x_shape[1:]) >= 16 else "mlp"
