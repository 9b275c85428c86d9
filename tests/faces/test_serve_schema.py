"""Schemathesis, told nothing but the server's own OpenAPI document, finds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from quickstudy.serve.limits import Limits
from served import Server, of_arrays, of_tables, of_texts, of_values, running

TOKEN = "a-token-of-some-length"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
EXAMPLES = 8
"""Of each operation, valid and invalid ones, of a task that there is and of one that there is not."""
MADE = {"classes": of_arrays, "values": of_values, "texts": of_texts, "table": of_tables}
LABELS, VALUES = {"labels": ["a", "b"]}, {"values": [[1.0], [2.0]]}
KNOWN: dict[str, dict[str, Any]] = {
    "classes": {"rows": [[0, 1, 2, 3], [3, 2, 1, 0]], **LABELS},
    "values": {"rows": [[0], [1]], **VALUES},
    "texts": {"rows": ["refund please", "lost card"], **LABELS},
    "table": {"rows": [{"dose": 1, "arm": "a", "age": None}, {"dose": 2, "arm": "b", "age": 3}], **VALUES},
}
OPERATIONS = {"create", "describe", "extend", "forget", "predict", "learner", "health", "metrics"}
# a schema cannot say that there are as many labels as rows, of two classes or more: that is a 422 which it documents
ACCEPTED = ["2xx", "401", "404", "409", "422"]


@pytest.fixture(params=MADE)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Server, dict[str, Any]]]:
    path = MADE[request.param](tmp_path)
    with running(path, token=TOKEN, limits=Limits(tasks=100_000, rows=6, letters=60)) as server:
        yield server, KNOWN[request.param]


def test_nothing_is_found(served: tuple[Server, dict[str, Any]]) -> None:
    server, known = served
    config = SchemathesisConfig.from_dict({"checks": {"positive_data_acceptance": {"expected-statuses": ACCEPTED}}})
    schema = schemathesis.openapi.from_dict(server.client.get("/openapi.json").json(), config=config)
    schema.config.update(base_url=server.url)
    met: dict[str, set[int]] = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        statuses = met.setdefault(operation.definition.raw["operationId"], set())
        for mode in GenerationMode:
            statuses |= asked(operation.as_strategy(generation_mode=mode), mode)
            if "{id}" in operation.path:
                task = server.client.post("/tasks", json=known).json()["id"]
                statuses |= asked(operation.as_strategy(generation_mode=mode, path_parameters={"id": task}), mode)
    done = {name for name, statuses in met.items() if statuses & {200, 201, 204}}
    assert set(met) == OPERATIONS and done >= OPERATIONS - {"create"}, met  # two classes are rarely made by chance
    assert all(422 in met[name] for name in ("create", "extend", "predict")), met


def asked(strategy: SearchStrategy[schemathesis.Case], mode: GenerationMode) -> set[int]:
    """The statuses that cases of a strategy met; all checks of schemathesis are made."""
    met: set[int] = set()

    @given(case=strategy)
    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def ask(case: schemathesis.Case) -> None:
        response = case.call(headers=HEADERS)
        met.add(response.status_code)
        case.validate_response(response, headers=HEADERS)

    try:
        ask()
    except Unsatisfiable:  # there is nothing about it that could be wrong
        assert mode is GenerationMode.NEGATIVE
    return met
