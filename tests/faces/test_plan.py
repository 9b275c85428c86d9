"""A budget finds the fastest exact plan that keeps to it, or one sentence; explain-plan says what would run."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

import quickstudy as qs
from quickstudy.checkpoint import read
from quickstudy.cli import main
from quickstudy.compiled import Compiled
from quickstudy.core.task import Task
from quickstudy.nets.norm import collect
from quickstudy.outer import Outer
from quickstudy.plan import budget_of, choose, cost, costs

SINES = ["--learner=maml", "--tasks=sinusoid", "--train.meta_batch=4", "--train.valid_every=0", "--quiet"]


def source() -> qs.Source:
    return qs.tasks.Sinusoid(shot=200, query=200)


def maml(**options: object) -> qs.MetaLearner:
    torch.manual_seed(0)
    return qs.make("maml", source().spec, **{"inner_steps": 10, "inner_lr": 0.01, **options})


def waves(tasks: int = 4) -> Task:
    return source().sample("train", tasks, source().rng(0))


def test_a_budget_chooses_and_is_kept_to() -> None:
    model, tasks = maml(), waves()
    roomy, tight = (cost(model, tasks, plan).bytes for plan in ("store", "sweep"))
    assert tight < roomy / 2
    assert choose(model, tasks, "1GB").parts == 1
    squeezed = choose(model, tasks, f"{roomy / 2e6}MB")
    assert (squeezed.plan, squeezed.parts) != ("store", 1)
    one = cost(model, waves(1), "sweep").bytes
    smallest = choose(model, tasks, f"{one * 1.05 / 1e6}MB")
    assert smallest.plan != "store"
    assert smallest.parts == 4


def test_a_budget_that_nothing_fits_is_one_sentence() -> None:
    with pytest.raises(qs.UserError, match=r"no exact plan keeps to 1KB: one task needs .* MB"):
        choose(maml(), waves(), "1KB")
    protonet = qs.make("protonet", qs.tasks.Glyphs().spec, net="mlp")
    glyphs = qs.tasks.Glyphs()
    with pytest.raises(qs.UserError, match="fewer queries"):
        choose(protonet, glyphs.sample("train", 2, glyphs.rng(0)), "1KB")
    with pytest.raises(qs.UserError, match="no inner steps to plan"):
        choose(protonet, glyphs.sample("train", 2, glyphs.rng(0)), "sweep")


@pytest.mark.parametrize("text", ["500", "12parsecs", "swep", "1.2.3MB"])
def test_a_budget_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(qs.UserError):
        budget_of(text)


def test_costs_leave_the_learner_as_it_was_and_report_the_cosine() -> None:
    model = maml()
    found = {c.plan: c for c in costs(model, waves(2))}
    assert (model.memory, model.first_order) == ("store", False)  # type: ignore[attr-defined]
    assert all(p.grad is None for p in model.parameters())
    for plan in ("store", "checkpoint", "sweep"):
        assert found[plan].cosine == pytest.approx(1.0, abs=1e-5)
    for plan in ("truncated", "first_order", "implicit"):
        assert found[plan].cosine < 1 - 1e-4
    assert found["sweep"].bytes < found["store"].bytes / 3


def test_training_under_a_budget_gives_the_weights_of_training_without(tmp_path: Path) -> None:
    options = dict(steps=3, meta_batch=4, valid_every=0, progress=False, precision="64-true")
    plain, planned = maml(), maml()
    qs.train(plain, source(), **options)  # type: ignore[arg-type]
    qs.train(planned, source(), memory="0.7MB", out=tmp_path / "run", **options)  # type: ignore[arg-type]
    assert planned.memory != "store"  # type: ignore[attr-defined]
    for a, b in zip(plain.parameters(), planned.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    card = read(tmp_path / "run" / "last.safetensors", "training")[1]
    assert card["plan"]["plan"] == card["learner"]["memory"] == planned.memory  # type: ignore[attr-defined]


def test_a_run_under_a_budget_resumes_to_the_same_weights(tmp_path: Path) -> None:
    words = [*SINES, "--memory=300KB", "--tasks.shot=50", "--train.schedule=constant"]
    assert main(["train", *words, "--train.steps=4", f"--out={tmp_path / 'whole'}"]) == 0
    assert main(["train", *words, "--train.steps=2", f"--out={tmp_path / 'part'}"]) == 0
    assert main(["train", "--resume", "--train.steps=4", "--quiet", f"--out={tmp_path / 'part'}"]) == 0
    tensors = [read(tmp_path / name / "last.safetensors", "training") for name in ("whole", "part")]
    if tensors[0][1]["plan"] == tensors[1][1]["plan"]:  # chosen by the clock: two plans of one speed may change places
        assert all(torch.equal(tensors[0][0][k], tensors[1][0][k]) for k in tensors[0][0])


def test_explain_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["explain-plan", *SINES, "--memory=1GB"]) == 0
    said = capsys.readouterr().out
    for word in ("one batched product a layer", "store", "sweep", "cosine", "--memory 1GB: plan", "--compile"):
        assert word in said
    assert main(["train", *SINES, "--print_config"]) == 0
    config = tmp_path / "maml.yaml"
    config.write_text(capsys.readouterr().out)
    assert main(["explain-plan", str(config)]) == 0
    assert "maml on sinusoid: 4 tasks in an outer step" in capsys.readouterr().out


def test_explain_plan_says_what_goes_side_by_side(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    glyphs = ["explain-plan", "--learner=protonet", "--tasks=glyphs", "--tasks.query=2"]
    assert main([*glyphs, "--memory=1GB"]) == 0
    said = capsys.readouterr().out
    assert "support and query of a task in one pass, each normalised by itself" in said
    assert "1 in one graph, 2 graphs side by side" in said
    assert "in 4 parts, 2 of them side by side" in said
    for alone in ("--train.accumulate=2", "--train.precision=bf16-mixed"):
        assert main([*glyphs, alone]) == 0
        assert "side by side" not in capsys.readouterr().out
    assert main([*glyphs, "--compile"]) == 0
    said = capsys.readouterr().out
    assert "2 graphs side by side" in said
    assert "run as it is (as fast or faster than compiled)" in said
    assert main(["explain-plan", *SINES, "--compile"]) == 0
    assert "one compiled program a shape of tasks" in capsys.readouterr().out


def test_a_budget_counts_what_goes_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    spec = qs.Spec("classification", (1, 28, 28), way=2)
    learner = qs.make("protonet", spec, "conv4", {"channels": 8}).train()
    tasks = qs.tasks.Glyphs(way=2, shot=1, query=1).sample("train", 4, torch.Generator().manual_seed(0))
    one = cost(learner, qs.select(tasks, slice(0, 1)), "store").bytes
    for times, side in ((1.5, 1), (2.5, 2), (9.0, 4)):
        assert choose(learner, tasks, f"{times * one / 1e3:.3f}KB").side == side


def test_explain_plan_and_budgets_in_clumsy_hands(refused, tmp_path: Path) -> None:
    assert "cannot read the config" in refused("explain-plan", "nowhere.yaml")
    out = f"--out={tmp_path / 'run'}"
    assert "no exact plan keeps to 1KB" in refused("train", *SINES, "--memory=1KB", out)
    assert "did you mean 'sweep'" in refused("train", *SINES, "--memory=sweeep", out)
    assert "no inner steps to plan" in refused("train", "--learner=cnp", *SINES[1:], "--memory=sweep", out)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["store", "sweep"])
def test_compiled_training_gives_the_weights_of_training_as_it_is(
    memory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = dict(steps=3, meta_batch=4, valid_every=0, progress=False, precision="64-true")
    plain, compiled = (maml(inner_steps=2, memory=memory) for _ in range(2))
    qs.train(plain, source(), **options)  # type: ignore[arg-type]
    qs.train(compiled, source(), compile=True, **options)  # type: ignore[arg-type]
    assert "compiled the outer step in" in capsys.readouterr().err
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_the_norm_of_a_compiled_step_is_that_of_its_whole_gradient(parts: int) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    model, norms = maml(inner_steps=1), []
    for compile in (False, True):
        model.zero_grad()
        outer = Outer(fabric, fabric.setup_module(model), model, None, parts, mixed=False, compile=compile)
        norms.append(outer.gradient(waves(), False).norm)
        assert outer.compiled is None or not outer.compiled.refused
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)


@pytest.mark.slow
def test_a_compiled_part_gives_the_gradient_and_the_running_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the weights after some steps: Adam would blow the rounding of gradients that are truly 0 up."""
    monkeypatch.setattr("quickstudy.compiled.quicker_without", lambda _: False)  # as on a GPU
    spec = qs.Spec("classification", (1, 16, 16), way=2)
    learner = qs.make("protonet", spec, "conv4", {"norm": "running", "channels": 8}).double().train()
    compiled = Compiled(learner, nullcontext)
    for seed in (0, 1):  # the second time with other values through the same program
        rng = torch.Generator().manual_seed(seed)
        parts = []
        for n in (2, 4):
            x = torch.rand(1, n, 1, 16, 16, generator=rng, dtype=torch.float64)
            parts.append(qs.examples(x, torch.arange(2).repeat_interleave(n // 2)[None]))
        tasks = Task(*parts)
        with collect() as seen:
            loss = learner(tasks)
        expected = torch.autograd.grad(loss, list(learner.parameters()))
        found = compiled.of(tasks)
        assert found is not None, compiled.refused
        torch.testing.assert_close(found.loss, loss.detach(), rtol=1e-10, atol=1e-12)
        norm = torch.nn.utils.get_total_norm(expected)
        torch.testing.assert_close(found.norm, norm, rtol=1e-8, atol=1e-11)
        for a, b in zip(found.grads, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)
        for (layer, a), (same, b) in zip(found.statistics, seen.items(), strict=True):
            assert layer is same
            torch.testing.assert_close(a, torch.stack(b).mean(0), rtol=1e-10, atol=1e-12)
    assert len(compiled.programs) == 1


@pytest.mark.parametrize("trained", [True, False])
def test_convolutions_on_a_processor_are_left_as_they_are(trained: bool) -> None:
    learner = qs.make("protonet", qs.Spec("classification", (1, 16, 16), way=2), "conv4", {"channels": 8}).train()
    learner.net.kernels.requires_grad_(trained)  # type: ignore[union-attr]
    rows = qs.examples(torch.rand(1, 2, 1, 16, 16), torch.tensor([[0, 1]]))
    compiled = Compiled(learner, nullcontext)
    with pytest.warns(UserWarning, match="as fast or faster without"):
        assert compiled.of(Task(rows, rows)) is None


def test_what_cannot_be_compiled_runs_as_it_is_after_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: object, **__: object) -> object:
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr("torch._inductor.compile", no_compiler)
    options = dict(steps=3, meta_batch=4, valid_every=0, progress=False)
    plain, refused = maml(), maml()
    qs.train(plain, source(), **options)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match=r"not compiled \(no C\+\+ compiler found\)") as seen:
        qs.train(refused, source(), compile=True, **options)  # type: ignore[arg-type]
    assert len(seen) == 1
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), refused.parameters(), strict=True))


def test_the_plan_is_in_the_card_as_json(tmp_path: Path) -> None:
    qs.train(maml(), source(), steps=1, memory="sweep", valid_every=0, progress=False, out=tmp_path / "run")
    card = read(tmp_path / "run" / "last.safetensors", "training")[1]
    assert json.loads(json.dumps(card["plan"])) == {"plan": "sweep", "parts": 1, "side": None}
