"""Texts as what goes into the last layers of a sentence encoder, where these are to be learnt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quickstudy.core.errors import UserError
from quickstudy.tasks.text import Encoder, alike, folder_digest, sentence_model

KINDS = ("bert", "roberta", "xlm-roberta")
"""Models whose layers are those of BERT, by the model_type of their config.json."""
OLD = ("mean_tokens", "cls_token", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
WAYS = {"mean_tokens": "mean", "mean": "mean", "cls_token": "first", "cls": "first"}
"""How one vector is made of a text's, by its name in older files and in newer ones."""


class TokenStates(Encoder):
    """The vectors of a text's tokens before the last `layers` layers of a sentence-transformers model in a folder.

    A row is (tokens, width), float16: zeros behind the text's end, and a longer text is cut. The layers below are
    frozen, and stay in the folder: it is needed to read the texts of a new task. As `Sentences`, nothing is fetched,
    and the rounding of a text's vectors does not depend on the others.

    Raises UserError if the folder holds no such model, one of another make, with fewer layers, or not the one `wanted`.
    """

    def __init__(self, folder: str, layers: int, tokens: int, wanted: str = ""):
        self.folder = folder
        self.layers = layers
        self.tokens = tokens
        self.folder_digest = folder_digest(folder)
        if wanted and wanted != self.folder_digest:
            raise UserError(
                f"the sentence encoder in {folder} is not the one that the learner was trained with: put that back."
            )
        self._config = _json(Path(folder) / "config.json")
        kind, held = self._config.get("model_type"), self._config.get("num_hidden_layers", 0)
        if kind not in KINDS or self._config.get("hidden_act", "gelu") != "gelu":
            raise UserError(
                f"the layers of the {kind or 'nameless'} model in {folder} are not those of BERT, and cannot be learnt "
                "here: set layers to 0."
            )
        if not 1 <= layers <= held:
            raise UserError(f"layers is {layers} and the encoder in {folder} has {held}: give 1 to {held}, or 0.")
        most = self._config.get("max_position_embeddings", 512) - 2
        if not 2 <= tokens <= most:
            raise UserError(f"tokens is {tokens}: give how many of a text's tokens are looked at, 2 to {most}.")

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.folder_digest}/{self.layers}/{self.tokens}".encode()).hexdigest()

    def net_options(self) -> dict[str, Any]:
        """What the network `text_layers` is to be told, as JSON holds it."""
        return {
            "layers": self.layers,
            "heads": self._config["num_attention_heads"],
            "inner": self._config["intermediate_size"],
            "epsilon": self._config.get("layer_norm_eps", 1e-12),
            "pooling": self._pooling(),
            "folder": self.folder,
        }

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """The rows of the texts, (text, tokens, width), float16."""
        model = sentence_model(self.folder, self.folder_digest)
        body = model[0].auto_model.eval()
        found = np.zeros((len(texts), self.tokens, self._config["hidden_size"]), np.float16)
        for part, full in alike(model, texts):
            options: dict[str, Any] = {"truncation": True, "max_length": self.tokens, "return_tensors": "pt"}
            with torch.inference_mode():
                states = body(**model.tokenizer(full, **options), output_hidden_states=True).hidden_states
            rows = states[-1 - self.layers][: len(part)].numpy()
            found[part, : rows.shape[1]] = rows
        return found

    def _pooling(self) -> str:
        """How the model makes one vector of a text's: "mean" or "first".

        Raises UserError for another way.
        """
        places = [Path(self.folder) / str(part.get("path", "")) for part in _json(Path(self.folder) / "modules.json")]
        for place in places:
            said = _json(place / "config.json") if place.name.endswith("Pooling") else {}
            old = {name.removeprefix("pooling_mode_") for name, on in said.items() if on is True}
            way = said.get("pooling_mode", " ".join(sorted(old.intersection(OLD))))
            if isinstance(way, str) and way in WAYS:
                return WAYS[way]
        raise UserError(f"the model in {self.folder} takes neither mean nor first token of a text: set layers to 0.")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        raise UserError(f"cannot read {path}: copy the folder of the sentence encoder again.") from None
