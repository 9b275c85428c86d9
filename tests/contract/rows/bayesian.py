"""Bayesian and hierarchical methods: one row a learner, with the variants that matter."""

from __future__ import annotations

from contract.rows.made import Row

ROWS: dict[str, Row] = {}
