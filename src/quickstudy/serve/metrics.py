"""What the server counts, for Prometheus."""

from __future__ import annotations

import os
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, multiprocess

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder in which several processes count together."""
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)
VERBS = frozenset({"GET", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "PUT"})
PATHS = frozenset({"/", "/card", "/tasks", "/healthz", "/metrics", "/docs", "/openapi.json"})


class Metrics:
    """Requests by verb, path and status with their seconds, and batches with their sizes and seconds."""

    def __init__(self) -> None:
        own = CollectorRegistry()
        several: Any = {"registry": own}
        self.own = own
        self.requests = Counter("quickstudy_requests", "requests answered", ["verb", "path", "status"], **several)
        self.seconds = Histogram(
            "quickstudy_request_seconds", "from a request's head to its answer", ["verb", "path"], buckets=SECONDS,
            **several,
        )  # fmt: skip
        self.batch = Histogram("quickstudy_batch_questions", "questions in one call", buckets=BATCH, **several)
        self.batch_seconds = Histogram("quickstudy_batch_seconds", "seconds of a call", buckets=SECONDS, **several)

    def request(self, verb: str, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        verb, path = verb if verb in VERBS else "other", _template(path)
        self.requests.labels(verb, path, str(status)).inc()
        self.seconds.labels(verb, path).observe(seconds)

    def batched(self, questions: int, seconds: float) -> None:
        """Count a batch."""
        self.batch.observe(questions)
        self.batch_seconds.observe(seconds)

    def text(self, tasks: int) -> bytes:
        """All counts, of all processes, and how many tasks are kept."""
        kept = f"# HELP quickstudy_tasks tasks kept\n# TYPE quickstudy_tasks gauge\nquickstudy_tasks {float(tasks)}\n"
        found = self.own
        if SHARED in os.environ:
            found = CollectorRegistry()
            multiprocess.MultiProcessCollector(found)  # type: ignore[no-untyped-call]
        return generate_latest(found) + kept.encode()


def _template(path: str) -> str:
    """The path without what is in it of a task, so that names cannot grow without bound."""
    if path in PATHS:
        return path
    parts = path.strip("/").split("/")
    if parts[0] == "tasks" and len(parts) in (2, 3):
        return "/tasks/{id}" if len(parts) == 2 else "/tasks/{id}/predict" if parts[2] == "predict" else "other"
    return "other"
