"""The server says what the library says: tasks are made, extended, asked and forgotten over HTTP."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import quickstudy as qs
from quickstudy.adaptation import Support, adapt_all
from quickstudy.adapted import predict_all
from quickstudy.questions.trust import Trust, place_for, sets
from quickstudy.serve.running import Settings, built
from quickstudy.serve.sqlite import SQLite
from served import Server, of_arrays, of_classes, of_descriptions, of_images, of_tables, of_texts, of_values, running

ROWS = torch.randn(6, 4, generator=qs.generator(1))
LABELS = ["a", "a", "b", "b", "a", "b"]
ASKED = torch.randn(5, 4, generator=qs.generator(2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with running(of_arrays(folder)) as server:
        yield server


def create(server: Server, rows: object, labels: list[str]) -> dict:
    answer = server.client.post("/tasks", json={"rows": rows, "labels": labels})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_task_says_what_the_library_says(server: Server, folder: Path) -> None:
    card = create(server, ROWS.tolist(), LABELS)
    task = qs.adapt(qs.load(folder / "protonet.safetensors"), ROWS, LABELS)
    said = server.client.post(f"/tasks/{card['id']}/predict", json={"rows": ASKED.tolist(), "nearest": 2}).json()
    assert said["classes"] == ["a", "b"] and said["labels"] == task.labels(ASKED)
    assert torch.equal(torch.tensor(said["probabilities"]), task.probabilities(ASKED))
    assert [len(row) for row in said["nearest"]] == [2] * 5
    assert card == server.client.get(f"/tasks/{card['id']}").json()
    assert (card["rows"], card["counts"], card["version"], card["kind"]) == (6, [3, 3], 1, "classification")
    itself = server.client.post(f"/tasks/{card['id']}/predict", json={"rows": ROWS.tolist(), "nearest": 1}).json()
    assert itself["nearest"] == [[i] for i in range(6)]


def test_more_examples_are_as_if_given_at_once(server: Server, folder: Path) -> None:
    trained = qs.load(folder / "protonet.safetensors")
    assert trained.learner.incremental
    card = create(server, ROWS[:3].tolist(), LABELS[:3])
    for labels, rows in ((LABELS[3:], ROWS[3:]), (["new", "new"], ASKED[:2])):  # folded in; learnt from all again
        said = server.client.patch(f"/tasks/{card['id']}", json={"rows": rows.tolist(), "labels": labels}).json()
    assert (said["rows"], said["classes"], said["counts"], said["version"]) == (8, ["a", "b", "new"], [3, 3, 2], 3)
    task = qs.adapt(trained, torch.cat([ROWS, ASKED[:2]]), [*LABELS, "new", "new"])
    answer = server.client.post(f"/tasks/{card['id']}/predict", json={"rows": ASKED.tolist()}).json()
    torch.testing.assert_close(torch.tensor(answer["probabilities"]), task.probabilities(ASKED))


def test_a_learner_that_is_not_incremental_learns_from_all_again(folder: Path) -> None:
    path = of_arrays(folder, "anil")
    with running(path) as server:
        assert not server.client.get("/card").json()["incremental"]
        card = create(server, ROWS[:3].tolist(), LABELS[:3])
        server.client.patch(f"/tasks/{card['id']}", json={"rows": ROWS[3:].tolist(), "labels": LABELS[3:]})
        said = server.client.post(f"/tasks/{card['id']}/predict", json={"rows": ASKED.tolist()}).json()
    wanted = qs.adapt(qs.load(path), ROWS, LABELS).probabilities(ASKED)
    assert torch.equal(torch.tensor(said["probabilities"]), wanted)


def test_an_extension_sent_twice_is_made_once(server: Server) -> None:
    card = create(server, ROWS[:3].tolist(), LABELS[:3])
    more = {"rows": ROWS[3:].tolist(), "labels": LABELS[3:], "version": 1}
    assert server.client.patch(f"/tasks/{card['id']}", json=more).json()["version"] == 2
    again = server.client.patch(f"/tasks/{card['id']}", json=more)
    assert (again.status_code, again.json()) == (
        409, {"error": "the task is at version 2 and not 1: look at it again."}
    )  # fmt: skip


def test_a_deleted_task_is_gone(server: Server) -> None:
    card = create(server, ROWS.tolist(), LABELS)
    address = f"/tasks/{card['id']}"
    assert server.client.delete(address).status_code == 204
    asked = {"rows": ROWS[:2].tolist(), "labels": LABELS[:2]}
    gone = [server.client.get(address), server.client.delete(address), server.client.patch(address, json=asked)]
    gone.append(server.client.post(f"{address}/predict", json={"rows": ASKED.tolist()}))
    assert [answer.status_code for answer in gone] == [404] * 4
    assert {answer.json()["error"] for answer in gone} == {"there is no such task: make one with POST /tasks."}


def test_tasks_outlive_a_restart_and_other_learners_are_refused(folder: Path) -> None:
    path, store = of_arrays(folder), folder / "kept.sqlite"
    with running(path, store) as server:
        card = create(server, ROWS.tolist(), LABELS)
        before = server.client.post(f"/tasks/{card['id']}/predict", json={"rows": ASKED.tolist()}).json()
    with running(path, store) as server:
        assert server.client.post(f"/tasks/{card['id']}/predict", json={"rows": ASKED.tolist()}).json() == before
    assert store.stat().st_mode & 0o077 == 0
    with running(of_arrays(folder, "matching"), store) as server:
        answer = server.client.get(f"/tasks/{card['id']}")
    assert answer.status_code == 409 and "another learner" in answer.json()["error"]


def test_values_with_deviations(folder: Path) -> None:
    path, x = of_values(folder), torch.linspace(-3, 3, 5).unsqueeze(1)
    with running(path) as server:
        card = server.client.post("/tasks", json={"rows": x.tolist(), "values": x.sin().tolist()}).json()
        assert (card["kind"], card["classes"], card["rows"]) == ("regression", [], 5)
        said = server.client.post(f"/tasks/{card['id']}/predict", json={"rows": [0.5, 1.0]}).json()
    mean, deviation = qs.adapt(qs.load(path), x, x.sin()).values(torch.tensor([[0.5], [1.0]]))
    assert torch.equal(torch.tensor(said["values"]), mean)
    assert deviation is not None and torch.equal(torch.tensor(said["deviations"]), deviation)
    assert "labels" not in said and "sets" not in said


def test_texts(folder: Path) -> None:
    path, texts = of_texts(folder), ["refund please 7", "lost card please 7"]
    with running(path) as server:
        card = create(server, texts, ["money", "card"])
        said = server.client.post(f"/tasks/{card['id']}/predict", json={"rows": texts}).json()
        empty = server.client.post(f"/tasks/{card['id']}/predict", json={"rows": ["  "]})
    trained = qs.load(path)
    assert trained.reader is not None
    x = trained.reader.given(texts)
    wanted = qs.adapt(trained, x, ["money", "card"]).probabilities(x)
    assert torch.equal(torch.tensor(said["probabilities"]), wanted) and said["labels"] == ["money", "card"]
    assert empty.status_code == 422 and empty.json()["error"].startswith("row 0 is no text")


def png(grey: np.ndarray, kind: str = "PNG") -> str:
    file = BytesIO()
    Image.fromarray(grey).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def test_images_as_files_and_as_numbers(folder: Path) -> None:
    path = of_images(folder)
    side = qs.load(path).card["spec"]["x_shape"][1]
    grey = np.random.default_rng(0).integers(0, 256, (4, side, side), dtype=np.uint8)
    with running(path) as server:
        assert server.client.get("/card").json()["rows"] == "images"
        card = create(server, [png(one) for one in grey], ["x", "y", "x", "y"])
        address, array = f"/tasks/{card['id']}/predict", (grey[:1, None] / 255).astype(np.float32)
        said = [
            server.client.post(address, json={"rows": rows, "invert": invert}).json()["probabilities"]
            for rows, invert in (
                ([png(grey[0])], False), (array.tolist(), False), ([f"data:image/png;base64,{png(grey[0])}"], False),
                ([png(255 - grey[0])], True), ((1 - array).tolist(), True),
            )
        ]  # fmt: skip
        assert server.client.post(address, json={"rows": [png(grey[0], "JPEG")]}).status_code == 200
    for other in said[1:]:
        np.testing.assert_allclose(other, said[0], atol=1e-5)
    assert np.argmax(said[0]) == 0


def test_rows_of_a_table(folder: Path) -> None:
    path = of_tables(folder)
    rows = [{"dose": d, "arm": "b", "age": None, "city": "any"} for d in (0.1, 0.5, -1.0)]
    with running(path) as server:
        about = server.client.get("/card").json()
        assert (about["rows"], about["columns"]) == ("frame", ["dose", "arm", "age"])
        card = server.client.post("/tasks", json={"rows": rows, "values": [[1.0], [2.0], [0.5]]}).json()
        said = server.client.post(f"/tasks/{card['id']}/predict", json={"rows": rows[:1]})
        lacking = server.client.post(f"/tasks/{card['id']}/predict", json={"rows": [{"dose": 1}]})
    (folder / "one.csv").write_text("dose,arm,age,score\n0.1,b,,1\n0.5,b,,2\n-1.0,b,,0.5\n")
    trained = qs.load(path)
    assert trained.reader is not None
    read = trained.reader.read(str(folder / "one.csv"))
    assert read.values is not None
    mean, _ = qs.adapt(trained, read.x, read.values).values(read.x[:1])
    assert torch.equal(torch.tensor(said.json()["values"]), mean)
    assert lacking.json() == {"error": "row 0 has no 'arm': give every column, with null where a cell is missing."}


def test_classes_that_mean_the_same_in_every_task(folder: Path) -> None:
    with running(of_classes(folder)) as server:
        card = create(server, [{"dose": 0.5}, {"dose": -0.5}], ["yes", "no"])
        assert (card["classes"], card["counts"]) == (["no", "unsure", "yes"], [1, 0, 1])
        said = server.client.post(f"/tasks/{card['id']}/predict", json={"rows": [{"dose": 0.4}]}).json()
        assert said["labels"] == ["yes"] and said["probabilities"][0][1] == 0
        new = server.client.post("/tasks", json={"rows": [{"dose": 1}, {"dose": 2}], "labels": ["yes", "perhaps"]})
    assert new.status_code == 422 and "the class 'perhaps' is unknown in training" in new.json()["error"]


def test_descriptions_of_classes(folder: Path) -> None:
    path, described = of_descriptions(folder), torch.rand(3, 2, 2, generator=qs.generator(3))
    asked, names = torch.randn(4, 5, generator=qs.generator(4)), ["owl", "fox", "eel"]
    with running(path) as server:
        about = server.client.get("/card").json()
        assert about["describes"] and about["x_shape"] == [5]
        card = create(server, described.tolist(), names)
        said = server.client.post(f"/tasks/{card['id']}/predict", json={"rows": asked.tolist()}).json()
        near = server.client.post(f"/tasks/{card['id']}/predict", json={"rows": asked.tolist(), "nearest": 1})
    wanted = qs.adapt(qs.load(path), described, names)
    assert said["classes"] == ["eel", "fox", "owl"]
    assert torch.equal(torch.tensor(said["probabilities"]), wanted.probabilities(asked))
    assert near.status_code == 422 and "describe classes" in near.json()["error"]


def test_the_shipped_learner_of_tables(folder: Path) -> None:
    (folder / "tabular").mkdir()
    with running(Path("tabular"), folder / "tabular" / "tasks.sqlite") as server:
        assert server.client.get("/card").json()["rows"] == "cells"
        card = create(server, [[0, 3], [1, None], [8, 1], [9, 2]], ["low", "low", "high", "high"])
        address = f"/tasks/{card['id']}/predict"
        assert server.client.post(address, json={"rows": [[0.5, 4], [8.5, None]]}).json()["labels"] == ["low", "high"]
        other = server.client.post(address, json={"rows": [[0.5, 4, 1]]})
    assert other.json()["error"] == "the rows have 3 columns and those of the task 2: give the same columns."


def test_calibrated_answers(folder: Path) -> None:
    place = folder / "calibrated"
    place.mkdir()
    path = of_arrays(place)
    source = qs.tasks.Arrays.of(np.random.default_rng(0).standard_normal((90, 4)), [f"{i // 9}" for i in range(90)],
                                way=2, shot=3, query=4, valid_fraction=0.4)  # fmt: skip
    trained = qs.load(path)
    from quickstudy.questions.trust import calibrate

    trust = calibrate(trained.learner, source, tasks=60, digest=trained.card["digest"])
    trust.write(place_for(path))
    with running(path) as server:
        assert server.client.get("/card").json()["calibrated"]
        card = create(server, ROWS.tolist(), LABELS)
        said = server.client.post(f"/tasks/{card['id']}/predict", json={"rows": ASKED.tolist(), "coverage": 0.9}).json()
    task = qs.adapt(trained, ROWS, LABELS)
    assert said["sets"] == sets(task, ASKED, Trust.read(place_for(path)), 0.9)


@pytest.mark.parametrize("method", ["protonet", "matching", "bd_cspn", "anil"])
def test_many_tasks_at_once_are_as_each_alone(method: str, folder: Path) -> None:
    """Of sums, of kept rows, of what looks at all that is asked, and of gradients."""
    trained, rng = qs.load(of_arrays(folder, method)), qs.generator(5)
    supports, alone, rows = [], [], []
    for i in range(12):
        x = torch.randn(4 + i % 4, 4, generator=rng)
        y = [f"class {j % (2 + i % 2)}" for j in range(len(x))]
        supports.append(Support.of(trained, x, y))
        alone.append(qs.adapt(trained, x, y))
        rows.append(torch.randn(1 + i % 5, 4, generator=rng))
    tasks = adapt_all(supports)
    for task, one in zip(tasks, alone, strict=True):
        assert (task.classes, task.card) == (one.classes, one.card)
        same = {name: t.shape for name, t in task.state.items()} == {name: t.shape for name, t in one.state.items()}
        assert same or method in ("matching", "bd_cspn")  # whose states are the rows, padding and all
        if same:
            torch.testing.assert_close(task.state, one.state, atol=1e-5, rtol=1e-4)
    for said, one, x in zip(predict_all(tasks, rows), alone, rows, strict=True):
        torch.testing.assert_close(said, one.predict(x), atol=1e-5, rtol=1e-4)
    assert torch.equal(predict_all(tasks[:1], rows[:1])[0], tasks[0].predict(rows[0]))


def test_what_is_counted(server: Server) -> None:
    create(server, ROWS.tolist(), LABELS)
    text = server.client.get("/metrics").text
    assert 'quickstudy_requests_total{path="/tasks",status="201",verb="POST"}' in text
    assert "quickstudy_batch_questions_count" in text and "quickstudy_request_seconds_bucket" in text
    kept = next(line for line in text.splitlines() if line.startswith("quickstudy_tasks "))
    assert float(kept.split()[1]) >= 1
    assert server.client.get("/nothing/at/all").status_code == 404
    assert "nothing" not in server.client.get("/metrics").text


def test_a_server_needs_a_calibration_of_its_own_learner(folder: Path, tmp_path: Path) -> None:
    path = of_arrays(folder)
    Trust("classification", "0" * 64, "valid", 0, 0.9, []).write(tmp_path / "trust.json")
    with pytest.raises(qs.UserError):
        built(Settings(str(path), trust=str(tmp_path / "trust.json")), SQLite(str(tmp_path / "tasks.sqlite")))
