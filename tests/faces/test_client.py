"""The client says what the library says, and passes on what the server refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import quickstudy as qs
from quickstudy.client import Client, Refused
from served import of_arrays, of_images, of_tables, of_texts, of_values, running

ROWS = torch.randn(6, 4, generator=qs.generator(1))
TOKEN = "a-token-of-some-length"
LABELS = ["a", "a", "b", "b", "a", "b"]


def test_a_task_from_first_to_last(tmp_path: Path) -> None:
    path = of_arrays(tmp_path)
    with running(path, token=TOKEN) as server, Client(server.url, TOKEN) as client:
        assert client.card()["learner"] == "protonet"
        task = client.task(ROWS[:4].numpy(), LABELS[:4]).extend(ROWS[4:], LABELS[4:])
        assert task.card["version"] == 2 and client.find(task.id).card == task.card
        said = client.find(task.id).predict(ROWS.tolist(), nearest=1)
        assert said.nearest == [[i] for i in range(6)]
        stale = client.find(task.id)
        task.extend(ROWS[:1], ["b"])
        with pytest.raises(Refused, match="at version 3") as found:
            stale.extend(ROWS[:1], ["b"])
        assert found.value.status == 409
        task.forget()
        with pytest.raises(Refused, match="no such task"):
            client.find(task.id)
        with Client(server.url) as stranger, pytest.raises(Refused, match="token"):
            stranger.card()
    wanted = qs.adapt(qs.load(path), ROWS, LABELS)
    assert said.labels == wanted.labels(ROWS) and said.classes == ["a", "b"]
    torch.testing.assert_close(torch.tensor(said.probabilities), wanted.probabilities(ROWS))
    with Client("http://127.0.0.1:9") as nobody, pytest.raises(Refused, match="was not reached"):
        nobody.card()


def test_rows_of_every_kind(tmp_path: Path) -> None:
    with running(of_values(tmp_path)) as server, Client(server.url) as client:
        x = np.linspace(-3, 3, 5)
        for y in (np.sin(x), np.sin(x)[:, None]):
            answer = client.task(x[:, None], y).predict(x[:, None])
            assert np.shape(answer.values) == np.shape(answer.deviations) == (5, 1)
    with running(of_texts(tmp_path)) as server, Client(server.url) as client:
        assert client.task(["refund please", "lost card"], ["money", "card"]).predict(["lost card"]).labels == ["card"]
    with running(of_tables(tmp_path)) as server, Client(server.url) as client:
        rows = [{"dose": np.float64(0.1), "arm": "a", "age": float("nan")}, {"dose": 1, "arm": "b", "age": 3.5}]
        assert np.shape(client.task(rows, [1.0, 2.0]).predict(rows).values) == (2, 1)
    for i in range(2):
        Image.fromarray(np.full((9, 9), 200 * i, dtype=np.uint8)).save(tmp_path / f"{i}.png")
    with running(of_images(tmp_path)) as server, Client(server.url) as client:
        files = [tmp_path / "0.png", tmp_path / "1.png"]
        said = client.task(files, ["dark", "bright"]).predict([file.read_bytes() for file in files])
        assert said.labels == ["dark", "bright"]
