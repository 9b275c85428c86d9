"""A learner as an ONNX file, which runs without torch and without this library."""

from __future__ import annotations

from quickstudy.export.written import Exported, export_learner, export_task

__all__ = ["Exported", "export_learner", "export_task"]
