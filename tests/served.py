"""A room for tests of the server: small learners of every kind, and servers that run in a thread of the test.

    with running(of_arrays(folder)) as server:
        server.client.get("/healthz")
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
import torch

import quickstudy as qs
from quickstudy import checkpoint
from quickstudy.serve.running import Settings, built, listening, server_for
from quickstudy.serve.store import store_at

WORDS = ("refund", "lost card", "weather", "balance", "transfer", "opening hours")


class Server(NamedTuple):
    url: str
    client: httpx.Client
    app: Any  # the guard, and in its `app` FastAPI's application


@contextmanager
def running(path: Path, store: str | Path = "", **told: Any) -> Iterator[Server]:
    """A server in a thread, at a free port, and stopped in order at the end; store: a new file unless given."""
    place = store or path.with_name(f"{secrets.token_hex(8)}.sqlite")
    settings = Settings(str(path), store=str(place), port=0, **told)
    kept = store_at(settings.store)
    headers = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
    with listening(settings.host, 0) as listener:
        kept.open()
        app = built(settings, kept)
        server = server_for(app, settings.limits)
        thread = threading.Thread(target=lambda: asyncio.run(server._serve([listener])))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
                yield Server(url, client, app)
        finally:
            server.should_exit = True
            thread.join()
            kept.close()


def learner(folder: Path, name: str, method: str, source: Any, **options: Any) -> Path:
    """The checkpoint of an untrained learner for the tasks of a source."""
    torch.manual_seed(0)
    path = folder / f"{name}.safetensors"
    checkpoint.save(qs.make(method, source.spec, **options), path, source)
    return path


def of_arrays(folder: Path, method: str = "protonet") -> Path:
    """Tasks of rows of four numbers, in three classes."""
    rows = np.random.default_rng(0).standard_normal((60, 4), dtype=np.float32)
    source = qs.tasks.Arrays.of(rows, [f"class {i // 4}" for i in range(60)], way=3, shot=2, query=2)
    return learner(folder, method, method, source)


def of_values(folder: Path, method: str = "cnp") -> Path:
    """Tasks of functions of one number."""
    return learner(folder, method, method, qs.tasks.Sinusoid())


def of_images(folder: Path) -> Path:
    """Tasks of grey images."""
    return learner(folder, "images", "protonet", qs.tasks.Glyphs(way=3, shot=1, query=1, drawings=2))


def of_texts(folder: Path) -> Path:
    """Tasks of sentences."""
    texts = [f"{word} please {i}" for word in WORDS for i in range(4)]
    said = {"text": texts, "label": [word for word in WORDS for _ in range(4)]}
    source = qs.tasks.Texts.of(said, way=2, shot=1, query=1, size=6, valid_fraction=0, test_fraction=0)
    return learner(folder, "texts", "protonet", source)


def of_tables(folder: Path) -> Path:
    """Tasks of rows of a table with a number, a category and gaps."""
    rng = np.random.default_rng(0)
    rows = []
    for row in range(144):
        age = "" if rng.random() < 0.2 else f"{rng.normal():.3f}"
        rows.append(f"p{row // 12},{rng.normal():.3f},{'abc'[int(rng.integers(3))]},{age},{rng.normal():.3f}")
    (folder / "table.csv").write_text("\n".join(["patient,dose,arm,age,score", *rows]) + "\n")
    source = qs.tasks.Table(str(folder / "table.csv"), "patient", "score", shot=4, query=4)
    return learner(folder, "table", "alpaca", source)


def of_classes(folder: Path) -> Path:
    """Tasks of rows of a table whose classes mean the same in every task."""
    rng = np.random.default_rng(1)
    rows = [f"p{i // 12},{rng.normal():.3f},{('no', 'yes', 'unsure')[i % 3]}" for i in range(144)]
    (folder / "classes.csv").write_text("\n".join(["patient,dose,ill", *rows]) + "\n")
    source = qs.tasks.Table(str(folder / "classes.csv"), "patient", "ill", shot=6, query=4)
    return learner(folder, "classes", "protonet", source)


def of_descriptions(folder: Path) -> Path:
    """Zero-shot tasks: two by two numbers describe a class, of which rows are five."""
    rng = np.random.default_rng(0)
    rows, names = rng.standard_normal((60, 5), dtype=np.float32), [f"class {i // 5:02}" for i in range(60)]
    described = rng.random((12, 2, 2), dtype=np.float32)
    source = qs.tasks.Described.of(rows, names, described, way=3, query=2)
    return learner(folder, "zero-shot", "semantic_protonet", source)


@contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL server of its own; gives its URL. Skips where there is none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        import databases  # of benchmarks
    if not databases.there():
        pytest.skip("PostgreSQL is not installed")
    with databases.database() as url:
        yield url
