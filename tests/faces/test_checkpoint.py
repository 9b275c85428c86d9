"""Saving and loading: the same predictions to the bit, and one sentence for every file that is not right."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

import quickstudy as qs
from quickstudy import checkpoint
from quickstudy.core.catalogue import describe
from quickstudy.core.source import Spec
from quickstudy.learners import LEARNERS
from quickstudy.testing import synthetic_tasks

IMAGES = Spec("classification", (1, 16, 16), way=3, train_classes=7)
ROWS = Spec("classification", (4,), way=3, train_classes=7)
WAVES = Spec("regression", (2,), y_size=1)
DESCRIBED = Spec("zero-shot", (4,), way=3, train_classes=7, description_shape=(5,))
ALIKE = Spec("zero-shot", (4,), way=3, train_classes=7, description_shape=(4,))


def learner(name: str = "protonet", spec: Spec = ROWS, **options: Any) -> qs.MetaLearner:
    """A learner whose every number differs from what its constructor gives."""
    made = qs.make(name, spec, **options)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (*made.parameters(), *made.buffers()):
            if tensor.is_floating_point():
                tensor.add_(0.03 * torch.randn(tensor.shape, generator=rng))
    return made


def predictions(made: qs.MetaLearner, x_shape: tuple[int, ...]) -> Tensor:
    described = tuple(getattr(made, "description_shape", ()))
    tasks = synthetic_tasks(made.objective, x_shape, description_shape=described)
    support, query = (
        qs.Examples(p.x.float(), p.y if p.y.dtype == torch.long else p.y.float(), p.weight.float()) for p in tasks
    )  # type: ignore[union-attr]
    with torch.no_grad():
        return made.predict(made.adapt(support), query.x, query.weight)


def refused(path: Path, load: Callable[[Path], object] = qs.load) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises(qs.UserError) as error:
        load(path)
    sentence = str(error.value)
    assert "\n" not in sentence and sentence.endswith(".") and str(path) in sentence
    assert error.value.__context__ is None or error.value.__suppress_context__  # no second traceback
    return sentence


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "protonet.safetensors"
    qs.save(learner(), path)
    return path


def header(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON at the head of a safetensors file, and the bytes of the tensors behind it."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def signed_again(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the card and give the file a digest that fits it, as one does who means harm."""
    tensors, card, _ = checkpoint.read(path, "learner")
    change(card)
    text = json.dumps(card, sort_keys=True)
    metadata = {"quickstudy": text, "digest": checkpoint._digest(tensors, text)}
    path.write_bytes(safetensors.torch.save(tensors, metadata=metadata))


# --- what is saved comes back ---


CASES: dict[str, tuple[str, Spec, dict[str, Any]]] = {
    **{name: (name, next(s for s in (ROWS, WAVES, DESCRIBED, ALIKE) if cls.fits(s)), {})
       for name, cls in LEARNERS.items()},
    "maml-conv": ("maml", IMAGES, {"net_options": {"channels": 8}, "first_order": True}),
    "maml-stride": ("maml", IMAGES, {"net_options": {"channels": 8, "pool": "stride"}}),
    "protonet-conv-running": ("protonet", IMAGES, {"net_options": {"channels": 8, "norm": "running"}}),
    "r2d2-waves": ("r2d2", WAVES, {"penalty": 0.3, "intercept": False}),
    "maml-waves": ("maml", WAVES, {"inner_steps": 2, "eval_steps": 4}),
    "linear_probe-waves": ("linear_probe", WAVES, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_learner_predicts_the_same_to_the_bit(case: str, tmp_path: Path) -> None:
    name, spec, options = CASES[case]
    before = learner(name, spec, **options).eval()
    qs.save(before, tmp_path / "it.safetensors")
    state = torch.get_rng_state()
    after = qs.load(tmp_path / "it.safetensors").learner
    assert torch.equal(torch.get_rng_state(), state)  # nothing was initialised first
    assert type(after) is type(before) and not after.training
    assert torch.equal(predictions(after, spec.x_shape), predictions(before, spec.x_shape))
    assert all(p.requires_grad and p.device.type == "cpu" for p in after.parameters())


def test_a_loaded_learner_can_be_trained_on(tmp_path: Path) -> None:
    qs.save(learner("maml", WAVES), tmp_path / "it.safetensors")
    again = qs.load(tmp_path / "it.safetensors").learner
    tasks = synthetic_tasks(again.objective, WAVES.x_shape)
    again.double()(tasks).backward()
    assert all(p.grad is not None for p in again.parameters())


def test_the_card_says_what_was_saved(tmp_path: Path) -> None:
    source = qs.tasks.Sinusoid(shot=(3, 5))
    card = qs.save(learner("maml", source.spec), tmp_path / "it.safetensors", source, seed=3, scores={"mse": 0.5})
    found = qs.load(tmp_path / "it.safetensors").card
    assert {k: found[k] for k in card} == card
    assert found["learner"]["name"] == "maml" and found["learner"]["net"]["name"] == "mlp"
    assert found["tasks"] == {"name": "sinusoid", "shot": [3, 5], "query": 10, "noise": 0.0}
    assert (found["seed"], found["scores"], found["format"]) == (3, {"mse": 0.5}, checkpoint.FORMAT)


def test_a_state_comes_back_to_the_bit(tmp_path: Path) -> None:
    made = learner()
    state = made.adapt(qs.examples(torch.randn(1, 6, 4), torch.tensor([[0, 0, 1, 1, 2, 2]])))
    checkpoint.save_adapted(tmp_path / "state.safetensors", state, classes=["a", "b", "c"])
    again = checkpoint.load_adapted(tmp_path / "state.safetensors")
    assert again.card["classes"] == ["a", "b", "c"] and set(again.state) == set(state)
    assert all(torch.equal(again.state[k], v) for k, v in state.items())


# --- what is not right is refused ---


def test_a_missing_file(tmp_path: Path) -> None:
    assert "no checkpoint at" in refused(tmp_path / "nowhere.safetensors")
    assert "is a folder and no checkpoint" in refused(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_cut_short(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    assert "cut short or of another format" in refused(saved)


def test_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.safetensors"
    path.write_text("These are notes, and no checkpoint.\n" * 50)
    assert "another format" in refused(path)


def test_a_safetensors_file_of_others(tmp_path: Path) -> None:
    path = tmp_path / "bert.safetensors"
    for metadata in (None, {"format": "pt"}, {"quickstudy": "{}"}, {"quickstudy": "[1", "digest": ""}):
        safetensors.torch.save_file({"weight": torch.zeros(3)}, path, metadata=metadata)
        assert "not one of quickstudy's" in refused(path)


@pytest.mark.parametrize("card", ["[]", "7", '{"format": Infinity, "kind": "learner"}', "[" * 100_000])
def test_a_card_that_is_no_card(tmp_path: Path, card: str) -> None:
    path = tmp_path / "odd.safetensors"
    metadata = {"quickstudy": card, "digest": checkpoint._digest({}, card)}
    path.write_bytes(safetensors.torch.save({}, metadata=metadata))
    assert "not one of quickstudy's" in refused(path)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "it ran"),))

    torch.save({"learner": Payload()}, tmp_path / "torch.safetensors")
    (tmp_path / "plain.safetensors").write_bytes(pickle.dumps(Payload()))
    for name in ("torch.safetensors", "plain.safetensors"):
        assert "another format" in refused(tmp_path / name)
    assert not (tmp_path / "it ran").exists()


def test_a_card_edited_in_place(saved: Path) -> None:
    content = saved.read_bytes()
    assert content.count(b'\\"width\\": 40') == 1
    saved.write_bytes(content.replace(b'\\"width\\": 40', b'\\"width\\": 50'))
    assert "changed after it was written (its digest differs)" in refused(saved)


def test_a_tensor_edited_in_place(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    assert "changed after it was written" in refused(saved)


def test_any_byte_that_flips_is_noticed(saved: Path) -> None:
    content, good = saved.read_bytes(), checkpoint.read(saved, "learner")
    for place in range(0, len(content), 41):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        saved.write_bytes(changed)
        refused(saved)
    saved.write_bytes(content)
    assert checkpoint.read(saved, "learner")[1:] == good[1:]


def test_tensors_that_were_renamed_or_retyped(saved: Path) -> None:
    head, body = header(saved)
    for old, new in [('"net.layers.0.bias"', '"net.layers.9.bias"'), ('"F32"', '"I32"')]:
        text = json.dumps(head).replace(old, new).encode()
        saved.write_bytes(struct.pack("<Q", len(text)) + text + body)
        assert "changed after it was written" in refused(saved)


def test_a_newer_format(saved: Path) -> None:
    signed_again(saved, lambda card: card.update(format=checkpoint.FORMAT + 1, quickstudy="9.1"))
    sentence = refused(saved)
    assert "newer quickstudy (9.1, format 2)" in sentence and "pip install -U quickstudy" in sentence


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card["learner"]["net"].update(width=41),
        lambda card: card["learner"]["net"].update(depth=1),
        lambda card: card["learner"]["net"].update(width="wide"),
        lambda card: card["learner"]["net"].update(width=10**12),  # never allocated
        lambda card: card["learner"].update(net=None),
        lambda card: card.update(learner=describe(learner("r2d2"), "learner")),
    ],
)
def test_a_card_that_does_not_fit_the_weights(saved: Path, change: Callable[[dict[str, Any]], object]) -> None:
    signed_again(saved, change)
    assert "the card and the weights do not fit each other" in refused(saved)


@pytest.mark.parametrize("size", [{"width": -1}, {"depth": 10**30}], ids=str)
def test_a_card_that_asks_for_an_impossible_network(saved: Path, size: dict[str, int]) -> None:
    signed_again(saved, lambda card: card["learner"]["net"].update(size))
    assert "an MLP of depth" in refused(saved)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda card: card["learner"].update(name="protnet"), "did you mean 'protonet'?"),
        (lambda card: card["learner"].update(name="os.system"), "unknown learner 'os.system'"),
        (lambda card: card["learner"]["net"].update(name="builtins.exec"), "unknown net 'builtins.exec'"),
        (lambda card: card["learner"].update(command="rm"), "has no option 'command'"),
        (lambda card: card["learner"].pop("objective"), "needs objective"),
        (lambda card: card.pop("learner"), "do not fit each other"),
    ],
)
def test_a_card_that_names_what_is_unknown(saved: Path, change: Callable[[dict[str, Any]], object], says: str) -> None:
    signed_again(saved, change)
    with pytest.raises(qs.UserError) as error:
        qs.load(saved)
    assert says in str(error.value) and str(saved) in str(error.value)


def test_a_file_of_another_kind(saved: Path) -> None:
    assert "holds 'learner' and 'adapted' is needed here" in refused(saved, checkpoint.load_adapted)
    checkpoint.save_adapted(saved, {"sums": torch.zeros(1, 2)})
    assert "`quickstudy train`" in refused(saved)


# --- what cannot be saved ---


def test_a_full_disk_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    before = saved.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(qs.UserError, match=r"the file that was there is untouched\): No space left on device; free"):
        qs.save(learner("r2d2"), saved)
    with pytest.raises(qs.UserError, match="No space left"):
        qs.save(learner("r2d2"), saved.with_name("new.safetensors"))
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_place_that_cannot_be_written(saved: Path) -> None:
    with pytest.raises(qs.UserError, match=r"^cannot write .*choose another place"):
        qs.save(learner(), saved / "below a file.safetensors")


def test_a_module_of_ones_own_must_be_named_first(tmp_path: Path) -> None:
    net = qs.nets.RowNet(torch.nn.Linear(4, 3), 3)
    with pytest.raises(qs.UserError, match=r"RowNet is not in the net catalogue"):
        qs.save(qs.learners.MAML(net, qs.Classification(3)), tmp_path / "own.safetensors")
    assert not list(tmp_path.iterdir())
