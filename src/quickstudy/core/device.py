"""Where tensors live, as far as it decides how something is computed."""

from __future__ import annotations

from torch import Tensor


def on_processor(x: Tensor) -> bool:
    """Whether it is in the memory of the processor: what fits its caches is then what is fast."""
    return x.device.type == "cpu"
