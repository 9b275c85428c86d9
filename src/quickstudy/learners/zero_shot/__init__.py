"""Zero-shot methods: a class is known by its description alone."""

from __future__ import annotations

from quickstudy.core.learner import MetaLearner

TABLE: dict[str, type[MetaLearner]] = {}

__all__ = []
