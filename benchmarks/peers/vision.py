"""torchvision, of which some peers take a little Python code, beside a torch without CUDA."""

from __future__ import annotations

from importlib import import_module

import torch


def make_importable() -> None:
    """PyPI has torchvision for CUDA alone. Beside a torch without it, its operators do not load, and its import ends at
    the first that it looks for."""
    try:
        import_module("torchvision")
    except RuntimeError:
        for operator in ("nms", "qnms"):
            shape = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", shape)
