"""The last layers of a text encoder, learnt: BERT's own layers, beginning as the encoder, and travelling alone."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quickstudy as qs
from quickstudy import checkpoint
from quickstudy.cli import main
from quickstudy.core.errors import UserError
from quickstudy.nets import TextLayers
from quickstudy.nets.text_layers import NAMES
from quickstudy.tasks import Intents, Texts
from quickstudy.tasks.token_states import TokenStates
from quickstudy.testing import check_learner, check_source

WIDTH, HEADS, INNER, DEPTH, WORDS = 8, 2, 12, 3, 50
VERBS = ("open", "close", "paint", "lift", "wash", "sell")
SMALL: dict[str, Any] = {"way": 2, "query": 3, "valid_fraction": 1 / 3, "test_fraction": 1 / 3, "tokens": 6}


def table() -> list[dict[str, str]]:
    """Nine texts of three to six words for each of six verbs."""
    things = [f"{a} {b}" for a in ("red", "old", "very big") for b in ("lamp", "door", "oven")]
    pairs = itertools.product(VERBS, enumerate(things))
    return [{"text": f"{verb} the {thing}" + " now" * (i % 2), "label": verb} for verb, (i, thing) in pairs]


def torchs(weights: dict[str, Tensor], layer: int) -> nn.TransformerEncoderLayer:
    """Torch's own layer with the weights of a file of transformers' BERT."""
    own = nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, 0.0, "gelu", 1e-12, batch_first=True).eval()
    part = {name: weights[f"encoder.layer.{layer}.{name}"] for name in parts()}
    attention = [[part[f"attention.self.{w}.{kind}"] for w in ("query", "key", "value")] for kind in ("weight", "bias")]
    given = {
        "self_attn.in_proj_weight": torch.cat(attention[0]), "self_attn.in_proj_bias": torch.cat(attention[1]),
        **{f"{a}.{kind}": part[f"{b}.{kind}"] for kind in ("weight", "bias") for a, b in (
            ("self_attn.out_proj", "attention.output.dense"), ("norm1", "attention.output.LayerNorm"),
            ("linear1", "intermediate.dense"), ("linear2", "output.dense"), ("norm2", "output.LayerNorm"))},
    }  # fmt: skip
    own.load_state_dict(given)
    return own


def parts() -> list[str]:
    return [f"{name}.{kind}" for name in NAMES.values() for kind in ("weight", "bias")]


def random_weights() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    shapes = {"intermediate.dense": (INNER, WIDTH), "output.dense": (WIDTH, INNER)}
    weights = {"embeddings.word_embeddings.weight": torch.randn(WORDS, WIDTH, generator=rng)}
    for layer, (name, kind) in itertools.product(range(DEPTH), itertools.product(NAMES.values(), ("weight", "bias"))):
        norm, shape = name.endswith("LayerNorm"), shapes.get(name, (WIDTH, WIDTH))
        values = 0.4 * torch.randn(*shape[: 1 if norm or kind == "bias" else 2], generator=rng)
        weights[f"encoder.layer.{layer}.{name}.{kind}"] = values + float(norm and kind == "weight")
    return weights


class Tiny:
    """Stands for sentence-transformers: the folder's weights in torch's own layers, a word a token."""

    def __init__(self, folder: str, **options: Any):
        assert options["local_files_only"] and options["model_kwargs"] == {"use_safetensors": True}
        self.weights = safetensors.torch.load_file(f"{folder}/model.safetensors")

    def tokenizer(self, texts: list[str], truncation: bool = False, max_length: int = 0, **_: Any) -> dict[str, Any]:
        ids = [[sum(map(ord, word)) % WORDS for word in text.split()] for text in texts]
        return {"input_ids": torch.tensor([row[:max_length] for row in ids]) if truncation else ids}

    def __getitem__(self, part: int) -> Any:
        assert part == 0
        return SimpleNamespace(auto_model=SimpleNamespace(eval=lambda: self.states))

    def states(self, input_ids: Tensor, output_hidden_states: bool) -> Any:
        assert output_hidden_states
        states = [self.weights["embeddings.word_embeddings.weight"][input_ids]]
        for layer in range(DEPTH):
            states.append(torchs(self.weights, layer)(states[-1]))
        return SimpleNamespace(hidden_states=tuple(states))

    def encode(self, texts: list[str], **_: Any) -> np.ndarray:
        last = self.states(torch.tensor(self.tokenizer(texts)["input_ids"]), True).hidden_states[-1]
        return F.normalize(last.mean(1), dim=-1).detach().numpy()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sentence encoder of three layers."""
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=Tiny))
    place = tmp_path / "model"
    (place / "1_Pooling").mkdir(parents=True)
    facts = {"model_type": "bert", "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "hidden_size": WIDTH}
    facts |= {"intermediate_size": INNER, "layer_norm_eps": 1e-12, "max_position_embeddings": 40}
    (place / "config.json").write_text(json.dumps(facts))
    (place / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "1_Pooling"}]))
    ways = {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (place / "1_Pooling" / "config.json").write_text(json.dumps(ways))
    safetensors.torch.save_file(random_weights(), place / "model.safetensors")
    return place


def source_of(folder: Path, layers: int = 2, **options: Any) -> Texts:
    return Texts.of(table(), encoder=str(folder), layers=layers, **SMALL | options)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_its_layers_are_those_of_torch(folder: Path, pooling: str) -> None:
    net = TextLayers((6, WIDTH), None, DEPTH, HEADS, INNER, pooling=pooling, folder=str(folder))
    x = torch.randn(2, 4, 6, WIDTH)
    lengths = torch.tensor([[1, 2, 3, 4], [6, 5, 2, 1]])
    x[torch.arange(6) >= lengths.unsqueeze(-1)] = 0
    with torch.no_grad():
        for t, i in itertools.product(range(2), range(4)):
            h = x[t, i : i + 1, : lengths[t, i]]
            for layer in range(DEPTH):
                h = torchs(random_weights(), layer)(h)
            one = h[0].mean(0) if pooling == "mean" else h[0, 0]
            torch.testing.assert_close(net(x)[t, i], F.normalize(one, dim=0) * WIDTH**0.5, rtol=1e-4, atol=1e-5)
        assert torch.isfinite(net(torch.zeros(1, 2, 6, WIDTH))).all()
        assert torch.isfinite(net(torch.cat([x[:, :2], torch.zeros(2, 1, 6, WIDTH)], 1))).all()


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"pooling_mode": "mean"}, "mean"), ({"pooling_mode": "cls", "include_prompt": True}, "first"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
        ({"pooling_mode": ["mean", "max"]}, ""),
        ({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, ""),
    ],
)  # fmt: skip
def test_how_a_model_pools_is_read_from_files_old_and_new(folder: Path, said: dict[str, Any], wanted: str) -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(said))
    encoder = TokenStates(str(folder), 1, 6)
    if wanted:
        assert encoder.net_options()["pooling"] == wanted
        return
    with pytest.raises(UserError, match="neither mean nor first token"):
        encoder.net_options()


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_untrained_it_is_the_encoder(folder: Path, layers: int) -> None:
    source, frozen = source_of(folder, layers), source_of(folder, 0)
    learner = qs.make("protonet", source.spec)
    assert isinstance(learner.net, TextLayers) and learner.net.layers == layers
    assert source.spec.x_shape == (6, WIDTH) and not source.spec.encoded and frozen.spec.encoded
    tasks, plain = (one.sample("test", 3, one.rng(0)) for one in (source, frozen))
    assert isinstance(tasks.query.x, torch.Tensor) and tasks.query.x.dtype == torch.float32
    with torch.no_grad():  # a token's vector is kept in half precision
        torch.testing.assert_close(learner.net(tasks.query.x), plain.query.x, rtol=5e-3, atol=5e-3)


def test_a_text_has_one_row_whatever_comes_with_it_and_is_cut(folder: Path) -> None:
    encoder = source_of(folder).reader().made()  # type: ignore[attr-defined]
    texts = [row["text"] for row in table()]
    assert torch.equal(encoder.encode(texts), torch.cat([encoder.encode([text]) for text in texts]))
    few, many = encoder.encode(["wash the door"])[0], encoder.encode(["wash the door " * 5])[0]
    assert bool((few != 0).any(1).equal(torch.arange(6) < 3)) and bool((many != 0).any(1).all())


def test_what_is_kept_of_other_layers_or_tokens_is_not_taken(folder: Path) -> None:
    kept = [source_of(folder, layers, tokens=tokens).prepare().x for layers, tokens in ((1, 6), (2, 6), (2, 4))]
    assert [tuple(x.shape[1:]) for x in kept] == [(6, WIDTH), (6, WIDTH), (4, WIDTH)]
    assert not torch.equal(kept[0], kept[1])  # type: ignore[arg-type]


def test_the_source_keeps_its_contract(folder: Path) -> None:
    source = source_of(folder, query=2)
    source.prepare()  # the encoder of this file draws its first weights from torch's global numbers
    check_source(source)


@pytest.mark.parametrize("name", ["protonet", "maml"])
def test_training_moves_the_layers_and_a_checkpoint_needs_no_folder(folder: Path, tmp_path: Path, name: str) -> None:
    source = source_of(folder)
    learner = qs.make(name, source.spec)
    before = {key: p.clone() for key, p in learner.named_parameters()}
    qs.train(learner, source, steps=3, meta_batch=2, lr=1e-2, valid_every=3, valid_tasks=4, progress=False)
    moved = [key for key, p in learner.named_parameters() if not torch.equal(p, before[key])]
    assert all(any(f"blocks.{i}.{part}.weight" in key for key in moved) for i in range(2) for part in ("query", "down"))
    checkpoint.save(learner, tmp_path / "a.safetensors", source)
    task = source.sample("test", 1, source.rng(1))
    wanted = learner.eval().predict(learner.adapt(task.support), task.query.x)
    shutil.move(folder, tmp_path / "away")
    again = checkpoint.load(tmp_path / "a.safetensors")
    assert torch.equal(again.learner.predict(again.learner.adapt(task.support), task.query.x), wanted)
    (tmp_path / "a.txt").write_text("wash the door\n")
    assert again.reader is not None
    with pytest.raises(UserError, match="there is no sentence encoder at"):
        again.reader.read(str(tmp_path / "a.txt"))
    shutil.move(tmp_path / "away", folder)
    texts = TokenStates(str(folder), 2, 6).encode(["wash the door"])
    assert torch.equal(again.reader.read(str(tmp_path / "a.txt")).x, texts.float())


def test_from_a_table_to_answers_by_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    lines = ["text\tlabel", *(f"{row['text']}\t{row['label']}" for row in table())]
    (tmp_path / "all.tsv").write_text("\n".join(lines))
    (tmp_path / "few.tsv").write_text("text\tlabel\nwash the lamp\twash\nsell the oven\tsell\n")
    (tmp_path / "new.txt").write_text("wash the lamp\nsell the oven\n")
    out, task = tmp_path / "run", tmp_path / "task.safetensors"
    words = {"tasks.path": tmp_path / "all.tsv", "tasks.encoder": folder, "tasks.layers": 1, "tasks.tokens": 6}
    words |= {"tasks.way": 2, "tasks.query": 2, "tasks.valid_fraction": 0.34, "tasks.test_fraction": 0.34}
    words |= {"train.steps": 2, "train.valid_every": 2, "train.valid_tasks": 2, "out": out}
    options = [part for key, value in words.items() for part in (f"--{key}", str(value))]
    assert main(["train", "--tasks", "text", "--learner", "protonet", *options, "--quiet"]) == 0
    best = str(out / "best.safetensors")
    assert main(["evaluate", best, "--test_tasks", "20"]) == 0
    assert main(["adapt", best, str(tmp_path / "few.tsv"), "--out", str(task)]) == 0
    capsys.readouterr()
    assert main(["predict", str(task), str(tmp_path / "new.txt")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[-3] for line in said if "line" in line] == ["wash", "sell"]


@pytest.mark.parametrize("name", ["protonet", "maml"])
def test_learners_keep_their_laws_with_it(name: str) -> None:
    learner = qs.make(name, qs.Spec("classification", (3, 4), way=3), "text_layers", {"heads": 2, "inner": 5})
    check_learner(learner)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "hashed": ({"encoder": "hashed"}, "layers is 2 and a hashed text has none"),
    "too many": ({"layers": 4}, "layers is 4 and the encoder in .* has 3: give 1 to 3"),
    "tokens": ({"tokens": 1}, "tokens is 1: give how many of a text's tokens are looked at, 2 to 38"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_options_that_make_no_sense(folder: Path, what: str) -> None:
    options, said = REFUSED[what]
    with pytest.raises(UserError, match=said):
        Texts.of(table(), **{"encoder": str(folder), "layers": 2, **SMALL, **options}).prepare()


def _other(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / file
    path.write_text(path.read_text().replace(old, new))


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "kind": (lambda f: _other(f, "config.json", '"bert"', '"mpnet"'), "layers of the mpnet model in .* are not those"),
    "pooling": (lambda f: _other(f, "1_Pooling/config.json", "true", "false"), "neither mean nor first token"),
    "config": (lambda f: (f / "config.json").write_text("{"), "cannot read .*config.json"),
    "weights": (lambda f: safetensors.torch.save_file({"a": torch.zeros(1)}, f / "model.safetensors"), "no 2 such lay"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_folder_that_does_not_serve(folder: Path, what: str) -> None:
    damage, said = DAMAGED[what]
    source = source_of(folder)
    if what == "weights":
        spec = source.spec
        damage(folder)
        with pytest.raises(UserError, match=said):
            qs.make("protonet", spec)
        return
    damage(folder)
    with pytest.raises(UserError, match=said):
        qs.make("protonet", source.spec)


def test_zero_shot_tasks_and_other_rows_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("\n".join(["text\tlabel", *(f"{r['text']}\t{r['label']}" for r in table())]))
    source = Intents(str(tmp_path / "a.tsv"), 2, 1, 2, encoder=str(folder), layers=1, zero_shot=True, fold=0)
    with pytest.raises(UserError, match="layers is 1, which is for tasks that show examples"):
        source.prepare()
    with pytest.raises(UserError, match=r"takes rows \(tokens, width\), not \(4,\)"):
        TextLayers((4,))
    with pytest.raises(UserError, match="with 3 heads"):
        TextLayers((3, 4), heads=3)
    with pytest.raises(UserError, match="unknown pooling 'most'"):
        TextLayers((3, 4), pooling="most")
