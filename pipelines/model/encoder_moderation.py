"""The moderation classifier on a BERT encoder: mean of its last states, one output per category, run by OpenVINO.

The n-gram classifier reads first; only what it finds at all suspicious is worth the encoder's milliseconds, which
makes it affordable over a corpus and over every window of a streamed answer. Where both have read, their logits are
averaged: one knows words and spellings from many comments, the other what a sentence means.

A model folder holds `model.safetensors` (the encoder under its Hugging Face names, `head.weight` [categories, hidden],
`head.bias`), `tokenizer.json`, `screen/` (the n-gram classifier) and `config.json`. Scoring needs neither torch nor
transformers.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json
from pipelines.model.disguise import undisguise
from pipelines.model.moderation import CONFIG
from pipelines.model.ngram_moderation import NGramModerator

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
SCREEN = "screen"
BATCH_TEXTS = 32
ENCODER_WEIGHT = 0.6
CERTAIN = 1e-6  # the least distance of a probability from 0 and 1
LARGE_NEGATIVE = -1e4  # on the scores of padding, in every precision

Weights = Mapping[str, NDArray[np.float32]]


def bert_graph(weights: Weights, heads: int, epsilon: float) -> ov.Model:
    """An OpenVINO model of token ids and mask, int64 [batch, tokens], that gives logits [batch, categories]."""
    ids = ops.parameter([-1, -1], np.int64, name="ids")
    mask = ops.parameter([-1, -1], np.int64, name="mask")
    hidden_size = weights["head.weight"].shape[1]
    head_size = hidden_size // heads

    def linear(states: Any, name: str) -> Any:
        kernel = ops.constant(weights[f"{name}.weight"])
        return ops.add(ops.matmul(states, kernel, False, True), ops.constant(weights[f"{name}.bias"]))

    def norm(states: Any, name: str) -> Any:
        scaled = ops.mvn(states, ops.constant(np.array([-1])), True, epsilon, "inside_sqrt")
        return ops.add(
            ops.multiply(scaled, ops.constant(weights[f"{name}.weight"])), ops.constant(weights[f"{name}.bias"])
        )

    def by_head(states: Any) -> Any:
        parted = ops.reshape(states, ops.constant(np.array([0, 0, heads, head_size])), True)
        return ops.transpose(parted, ops.constant(np.array([0, 2, 1, 3])))

    axis = ops.constant(np.int64(0))
    length = ops.gather(ops.shape_of(ids), ops.constant(np.array([1])), axis)
    positions = ops.slice(
        ops.constant(weights["embeddings.position_embeddings.weight"]),
        ops.constant(np.array([0])),
        length,
        ops.constant(np.array([1])),
        ops.constant(np.array([0])),
    )
    words = ops.gather(ops.constant(weights["embeddings.word_embeddings.weight"]), ids, axis)
    first_segment = ops.constant(weights["embeddings.token_type_embeddings.weight"][0])
    states = norm(ops.add(ops.add(words, positions), first_segment), "embeddings.LayerNorm")
    kept = ops.convert(mask, np.float32)
    bias = ops.multiply(ops.subtract(ops.constant(np.float32(1)), kept), ops.constant(np.float32(LARGE_NEGATIVE)))
    bias = ops.unsqueeze(bias, ops.constant(np.array([1, 2])))
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
    for layer in range(layers):
        here = f"encoder.layer.{layer}"
        query, key, value = (
            by_head(linear(states, f"{here}.attention.self.{part}")) for part in ("query", "key", "value")
        )
        mixed = ops.transpose(
            ops.scaled_dot_product_attention(query, key, value, bias), ops.constant(np.array([0, 2, 1, 3]))
        )
        mixed = ops.reshape(mixed, ops.constant(np.array([0, 0, hidden_size])), True)
        states = norm(
            ops.add(states, linear(mixed, f"{here}.attention.output.dense")), f"{here}.attention.output.LayerNorm"
        )
        inner = ops.gelu(linear(states, f"{here}.intermediate.dense"), "erf")
        states = norm(ops.add(states, linear(inner, f"{here}.output.dense")), f"{here}.output.LayerNorm")
    kept = ops.unsqueeze(kept, ops.constant(np.array([2])))
    tokens = ops.constant(np.array([1]))
    mean = ops.divide(ops.reduce_sum(ops.multiply(states, kept), tokens), ops.reduce_sum(kept, tokens))
    return ov.Model([linear(mean, "head")], [ids, mask], "moderation")


def windows_of(text: str, size: int) -> Iterator[str]:
    """`text` in windows of up to `size` characters that overlap by half, cut between words."""
    start = 0
    while len(text) - start > size:
        yield text[start : start + size].rpartition(" ")[0] or text[start : start + size]
        middle = start + size // 2
        space = text.find(" ", middle, start + size)
        start = middle if space < 0 else space + 1
    yield text[start:]


class EncoderModerator:
    """Scores texts in every category that the folder was trained on; a long text is scored in windows."""

    def __init__(self, folder: Path) -> None:
        config: dict[str, Any] = read_json(folder / CONFIG)
        for name in (WEIGHTS, TOKENIZER):
            if not (folder / name).is_file():
                raise BadInput(f"{folder / name} does not exist; run train_moderation")
        self.categories: tuple[str, ...] = tuple(config["categories"])
        self.version: str = config["version"]
        self._screen = NGramModerator.load(folder / SCREEN)
        self._suspicious: float = config["suspicious"]
        self._characters: int = config["window_characters"]
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(config["window_tokens"])
        weights = {name: tensor.astype(np.float32) for name, tensor in load_file(folder / WEIGHTS).items()}
        settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "bf16"}
        self._graph = ov.Core().compile_model(bert_graph(weights, config["heads"], config["epsilon"]), "CPU", settings)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder that train_moderation wrote.

        Raises:
            BadInput: a file is missing.
        """
        return cls(folder)

    def score(self, texts: list[str]) -> list[dict[str, float]]:
        """The probability of each category for each text, the highest over its windows."""
        windows: list[str] = []
        owner: list[int] = []
        for at, text in enumerate(texts):
            for window in windows_of(undisguise(text).text, self._characters):
                windows.append(window)
                owner.append(at)
        scores = np.array(
            [[each[category] for category in self.categories] for each in self._screen.score(windows)]
        ).reshape(len(windows), len(self.categories))
        np.clip(scores, CERTAIN, 1 - CERTAIN, out=scores)
        suspicious = np.flatnonzero(scores.max(1, initial=0) >= self._suspicious)
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch([windows[at] for at in suspicious])]
        first = np.log(scores[suspicious]) - np.log1p(-scores[suspicious])
        both = ENCODER_WEIGHT * self._logits(rows) + (1 - ENCODER_WEIGHT) * first
        scores[suspicious] = 1 / (1 + np.exp(-both))
        highest = np.zeros((len(texts), len(self.categories)))
        np.maximum.at(highest, owner, scores)
        return [dict(zip(self.categories, each, strict=True)) for each in highest.tolist()]

    def _logits(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Logits [rows, categories] of token ids, in batches of similar length."""
        logits = np.zeros((len(rows), len(self.categories)))
        order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
        for start in range(0, len(order), BATCH_TEXTS):
            batch = order[start : start + BATCH_TEXTS]
            longest = len(rows[batch[-1]])
            ids = np.zeros((len(batch), longest), np.int64)
            mask = np.zeros((len(batch), longest), np.int64)
            for at, row in enumerate(batch):
                ids[at, : len(rows[row])] = rows[row]
                mask[at, : len(rows[row])] = 1
            logits[batch] = self._graph([ids, mask])[0]
        return logits
