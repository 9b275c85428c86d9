"""`quickstudy report`: pages that a browser shows without a complaint, and results that are measured once."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from markupsafe import Markup

from browser import browsing
from quickstudy.cli import main, measured
from quickstudy.cli.measured import held
from quickstudy.core.task import Task, examples
from quickstudy.questions.answers import Answers
from quickstudy.report.chapter import drawn_task
from quickstudy.report.comparisons import compared, pairs
from quickstudy.report.confusions import confused, confusions, matrix
from quickstudy.scores import Evaluation

FAST = ["--train.steps=6", "--train.valid_every=3", "--train.valid_tasks=4", "--net=mlp", "--quiet"]
FEW = ["--test_tasks=6", "--curve_tasks=4", "--samples=1"]
EVIL = "<script>alert(1)</script>"


def sentences(path: Path) -> Path:
    """Texts of six classes, named and worded as if they were markup."""
    nouns = [f"<b>{n}</b>" for n in ("lamp", "door", "oven", "fan", "radio", "heater", "blind", "lock", "bell", "tap")]
    verbs = [f"{EVIL}{v}" for v in ("open", "close", "paint", "lift", "wash", "sell")]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *([f"{v} the {n} now", v] for v in verbs for n in nouns)])
    return path


def patients(path: Path) -> Path:
    """A table of ten tasks with 20 rows each, a constant column first and a hole in another."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["site", "age", "dose", EVIL, "kind", "outcome"])
        for site in range(10):
            for i in range(20):
                dose = rng.normal()
                row = [
                    f"{EVIL}{site}",
                    50 + site,
                    f"{dose:.3f}",
                    "" if i % 7 == 0 else f"{rng.normal():.3f}",
                    "ab"[i % 2],
                ]
                write.writerow([*row, f"{site + 2 * dose + rng.normal():.3f}"])
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of a few steps on images, text, functions and a table."""
    folder = tmp_path_factory.mktemp("runs")
    thirds = ["--tasks.valid_fraction=0.34", "--tasks.test_fraction=0.33"]
    words = {
        "glyphs": ["--learner=protonet", "--tasks=glyphs", "--tasks.way=3", "--tasks.query=3"],
        "text": ["--learner=protonet", f"--tasks={sentences(folder / 'sentences.csv')}", "--tasks.way=2", *thirds],
        "sinusoid": ["--learner=cnp", "--tasks=sinusoid"],
        "table": ["--learner=anp", "--tasks=table", f"--tasks.path={patients(folder / 'patients.csv')}"],
    }
    words["table"] += ["--tasks.task_column=site", "--tasks.target=outcome", "--tasks.shot=6", "--tasks.query=5"]
    for name, chosen in words.items():
        fast = [word for word in FAST if name in ("glyphs", "text") or not word.startswith("--net")]
        assert main(["train", *chosen, *fast, f"--out={folder / name}"]) == 0
    return {name: folder / name for name in words}


@pytest.fixture(scope="module")
def pages(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of each run."""
    folder = tmp_path_factory.mktemp("pages")
    for name, run in runs.items():
        shots = "--shots=1,2" if name in ("glyphs", "text") else "--shots=3,6"
        assert main(["report", str(run), *FEW, shots, f"--out={folder / name}.html"]) == 0
    return {name: folder / f"{name}.html" for name in runs}


CONTRAST = """() => {
  const ctx = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = c => { ctx.clearRect(0, 0, 1, 1); ctx.fillStyle = c; ctx.fillRect(0, 0, 1, 1);
                     return [...ctx.getImageData(0, 0, 1, 1).data]; };
  const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => [.2126, .7152, .0722].reduce((s, w, i) => s + w * linear(c[i] / 255), 0);
  const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
                        if (c[3] == 255) return c; } return [255, 255, 255]; };
  const found = {};
  for (const e of document.querySelectorAll('body *')) {
    if (e.tagName == 'style' || ![...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim())) continue;
    const style = getComputedStyle(e), ink = e instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(rgb(ink)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) found[e.tagName + '.' + (e.className.baseVal ?? e.className) + ' ' + ink] = ratio;
  }
  return found;
}"""


def test_pages_are_well_on_a_desktop_and_on_a_phone_in_the_dark(pages: dict[str, Path]) -> None:
    with browsing() as visit:
        for name, page in pages.items():
            for phone in (False, True):
                seen = visit(page, phone=phone, dark=phone)
                assert not seen.complaints(), (name, phone)
                assert seen.overflow() <= 0, (name, phone)
                assert (max(seen.background()) < 60) if phone else (min(seen.background()) > 240)
                assert not seen.page.evaluate(CONTRAST), (name, phone)
                assert seen.page.title()
                bare = "[...document.querySelectorAll('img')].filter(i => !i.alt || !i.naturalWidth).length"
                assert seen.page.evaluate(bare) == 0
                figures = seen.page.locator("figure [role=img][aria-label]")
                assert figures.count() == seen.page.locator("figure").count() > 1
                lost = "[...document.querySelectorAll('a')].filter(a => !document.querySelector(a.hash)).length"
                assert seen.page.evaluate(lost) == 0
                ids = seen.page.evaluate("[...document.querySelectorAll('section [id], h2[id]')].map(e => e.id)")
                named = [
                    one for one in ids if not re.match(r"[mp][0-9a-f]+", one)
                ]  # markers are equal where named alike
                assert len(set(named)) == len(named)


def test_what_pages_say(pages: dict[str, Path]) -> None:
    said = {name: page.read_text("utf-8") for name, page in pages.items()}
    everywhere = ("Compared on the same tasks", "More examples", "Training", "Can its confidence be believed?")
    for name, text in said.items():
        assert all(f">{title}</h2>" in text for title in everywhere), name
        assert "quickstudy report" in text and "digest of" in text and "@" in text and "Which examples make" in text
        assert "<script" not in text and not re.search(
            r"https?:|@import|url\((?!#)", re.sub(r"<pre.*?</pre>", "", text, flags=re.S)
        )
        assert len(text) < 5_000_000
    assert "&lt;script&gt;alert(1)" in said["text"] and "&lt;/b&gt; now" in said["text"]
    assert "&lt;script&gt;alert(1)" in said["table"] and "90 % interval" in said["table"]
    assert 'class="tile"' in said["glyphs"] and "In this task every class has 5 examples" in said["glyphs"]
    assert "interval over classes" in said["glyphs"] and "interval over" not in said["sinusoid"]
    assert "An interval of 90 % held" in said["sinusoid"] and "in the unit of the values" in said["sinusoid"]


def test_a_second_page_measures_nothing(runs, pages, tmp_path, monkeypatch, capsys) -> None:
    def never(*_, **__):
        raise AssertionError("measured again")

    before = re.search(r"protonet: accuracy .*", _shown(runs["text"], tmp_path, capsys)).group()  # type: ignore[union-attr]
    monkeypatch.setattr(measured, "evaluate", never)
    monkeypatch.setattr(measured, "answers", never)
    assert before in _shown(runs["text"], tmp_path, capsys)
    with pytest.raises(AssertionError, match="measured again"):
        _shown(runs["text"], tmp_path, capsys, "--again")
    with pytest.raises(AssertionError, match="measured again"):
        _shown(runs["text"], tmp_path, capsys, "--seed=1")
    for file in (runs["text"] / "evaluations").iterdir():
        file.write_text(file.read_text()[:100])
    with pytest.raises(AssertionError, match="measured again"):  # damaged: not believed
        _shown(runs["text"], tmp_path, capsys)


def test_what_evaluate_left_beside_a_run_counts(runs, tmp_path, monkeypatch, capsys) -> None:
    run = runs["sinusoid"]
    asked = ["--test_tasks=7", "--seed=5"]
    assert main(["evaluate", str(run / "best.safetensors"), *asked, f"--json={run / 'scores.json'}"]) == 0
    real, met = measured.evaluate, []

    def counted(*given, **more):
        met.append(more["name"])
        return real(*given, **more)

    monkeypatch.setattr(measured, "evaluate", counted)
    rest = [*asked, "--shots=none", "--samples=0", f"--out={tmp_path / 'page.html'}"]
    assert main(["report", str(run), *rest]) == 0 and met == []
    (run / "scores.json").write_text((run / "scores.json").read_text().replace('"digest": "', '"digest": "0'))
    assert main(["report", str(run), *rest]) == 0 and met == ["cnp", "chance", "ridge", "scratch"]
    (run / "scores.json").unlink()
    capsys.readouterr()


def _shown(run: Path, folder: Path, capsys, *more: str) -> str:
    capsys.readouterr()
    assert main(["report", str(run), *FEW, "--shots=1,2", f"--out={folder / 'page.html'}", *more]) == 0
    return capsys.readouterr().out


def test_several_runs(runs, tmp_path, capsys) -> None:
    page = tmp_path / "both.html"
    fast = [*FEW, "--shots=none", f"--out={page}"]
    assert main(["report", str(runs["glyphs"]), str(runs["text"]), *fast]) == 0
    assert "2 different sets of tasks" in capsys.readouterr().out
    text = page.read_text("utf-8")
    assert "Scores on different tasks cannot be compared" in text and text.count('<h2 id="c') == 2
    assert "protonet (glyphs)" in text and "protonet (text)" in text
    # two runs on the same tasks stand in one chapter, and are compared
    again = tmp_path / "again"
    again.mkdir()
    for name in ("best.safetensors", "log.jsonl"):
        (again / name).write_bytes((runs["glyphs"] / name).read_bytes())
    assert main(["report", str(runs["glyphs"]), str(again), "--tasks.query=2", *fast]) == 0
    text = page.read_text("utf-8")
    assert "cannot be compared" not in text and "cannot tell" in text and "protonet (again)" in text


def test_what_is_refused(runs, refused, tmp_path) -> None:
    assert "there is no run at" in refused("report", tmp_path / "nowhere")
    assert "there is no run in" in refused("report", tmp_path)
    young = tmp_path / "young"
    young.mkdir()
    (young / "config.yaml").write_text("tasks: {name: glyphs}")
    assert "still training" in refused("report", young)
    (tmp_path / "best.safetensors").write_bytes(b"no tensors")
    assert "no readable checkpoint" in refused("report", tmp_path)
    assert "is a folder" in refused("report", runs["text"], "--out", _folder(tmp_path / "page.html"))
    assert "ends in .html" in refused("report", runs["text"], "--out", tmp_path / "page.safetensors")
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused("report", runs["text"], "--out", tmp_path / "file" / "page.html")
    out = ["--out", str(tmp_path / "new.html")]
    assert "regression" in refused("report", runs["text"], runs["sinusoid"], *out)
    assert "--shots" in refused("report", runs["text"], "--shots=0", *out)
    assert "--test_tasks is 1" in refused("report", runs["text"], "--test_tasks=1", *out)
    assert "at most 5" in refused("report", runs["text"], "--samples=9", *out)
    assert "needs runs" in refused("report")
    assert not (tmp_path / "new.html").exists()


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_help_has_an_example(capsys) -> None:
    assert main(["report", "--help"]) == 0
    assert "quickstudy report runs/maml runs/protonet" in capsys.readouterr().out


def test_confusions_by_hand() -> None:
    names = [["cat", "dog", "owl"], ["dog", "cat", "hen"]]
    y = np.array([[0, 0, 1, 2], [1, 1, 0, 2]])
    said = np.array([[1, 1, 1, 0], [0, 1, 0, 0]])
    weight = np.array([[1, 1, 1, 1], [1, 1, 1, 0.0]])
    found = confusions(y, said, weight, names)
    assert [(c.true, c.said, c.times, c.of, c.where) for c in found] == [
        ("cat", "dog", 3, 4, [(0, 0), (0, 1), (1, 0)]),
        ("owl", "cat", 1, 1, [(0, 3)]),
    ]
    whole = matrix(y, said, weight, names)
    assert whole and whole.names == ["cat", "dog", "hen", "owl"]
    assert whole.counts == [[1, 3, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert matrix(y, said, weight, [[f"{t}{n}" for n in range(9)] for t in range(2)]) is None
    section = confused(found, None, lambda *_: {"asked": [Markup("<i>x</i>")]}, "me", 4, 7, 2)
    assert "4 of 7 answers were wrong" in section.words
    assert "cat is taken for dog: 3 of the 4 times that it was asked beside it" in section.body


def test_pairs_and_what_they_say() -> None:
    def met(name: str, values: list[float], fingerprint: str = "same") -> Evaluation:
        shared = ("test", 0, "classification", 5, 1, {"accuracy": 1})
        return Evaluation(name, "glyphs", *shared, {"accuracy": values}, None, 0.0, 0.0, fingerprint)

    noise = np.random.default_rng(0).normal(0, 0.01, 50)
    a, b = met("a", (0.9 + noise).tolist()), met("b", (0.8 - noise).tolist())
    made = pairs([a, b, met("c", (0.9 - noise).tolist()), met("d", [0.5] * 50, "other")], runs=2)
    assert [(p.a, p.b, p.found.verdict if p.found else "") for p in made] == [
        ("a", "b", "better"), ("a", "c", "cannot tell"), ("a", "d", ""), ("b", "c", "worse"), ("b", "d", ""),
    ]  # fmt: skip
    section = compared(made)
    assert section and "not comparable" in section.body and "did not meet the same tasks" in section.notes[0]
    assert "Of 5 comparisons" in section.words and compared([]) is None


def test_how_much_intervals_hold() -> None:
    rng = np.random.default_rng(0)
    out, deviation = rng.normal(size=(400, 50, 1)), np.full((400, 50, 1), 0.7)
    y = out + 0.7 * rng.normal(size=out.shape)
    y[:, 25:] += 100  # padding
    weight = np.repeat([[1.0] * 25 + [0.0] * 25], 400, 0)
    found = held(Answers("regression", out, deviation, True, y, weight, (0, 0), (5, 5)))
    assert found == pytest.approx([*(0.1 * i for i in range(1, 10)), 0.95], abs=0.02)


def test_large_pictures_stay_small() -> None:
    x = torch.rand(1, 100, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    rows = examples(x, torch.arange(10).repeat_interleave(10).unsqueeze(0))
    section = drawn_task(Task(rows, rows), None, None)
    assert section is not None and len(section.body) < 2_000_000


def test_kept_results_are_json_that_says_what_it_is(runs, pages) -> None:
    card = json.loads(next((runs["glyphs"] / "evaluations").glob("evaluation-*.json")).read_text("utf-8"))
    assert card["facts"]["what"] == "evaluation" and card["facts"]["split"] == "test"
    assert len(card["facts"]["tasks"]) == 64 and card["result"]["fingerprint"] == card["facts"]["tasks"]
