"""Bayesian and hierarchical methods: a distribution over what was learnt, or several places to start from."""

from __future__ import annotations

from quickstudy.core.learner import MetaLearner

TABLE: dict[str, type[MetaLearner]] = {}

__all__ = []
