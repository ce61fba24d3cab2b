"""Perplexity and bits per byte on held-out documents of the corpus: how well the model still knows its language.

A sample is one passage, the same characters for every model; each counts its tokens (or bytes). Windows, strides and
weights are those of transformers' guide on perplexity, to the digit.
"""

from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

from evals.likelihood import document_likelihoods
from evals.metrics import Score
from evals.task import SampleResult, evenly
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, read_rows

MIN_SAMPLES = 16  # passages that the budget is cut into at least, so that n allows an interval
CHARACTERS_PER_TOKEN = 4  # of English prose, by which the budget in tokens becomes the same text for every model


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Strided perplexity of about `tokens` tokens of `data`."""

    data: Path  # Document rows
    tokens: int
    stride: int
    batch_size: int
    name: str = "perplexity"
    metrics: tuple[str, ...] = ("perplexity", "bits_per_byte")
    groups: tuple[str, ...] = ("source",)

    def samples(self) -> list[Row]:
        """Passages spread over the whole file, as many as the token budget holds."""
        size = self.tokens * CHARACTERS_PER_TOKEN // MIN_SAMPLES
        passages = [
            row | {"id": f"{row['id']}#{start // size}", "text": row["text"][start : start + size]}
            for row in read_rows(self.data)
            for start in range(0, len(row["text"]), size)
            if len(row["text"][start : start + size].split()) > 1
        ]
        if not passages:
            raise BadInput(f"{self.data} has no documents; raise prepare_corpus.held_out_share or ingest.max_documents")
        mean = sum(len(passage["text"]) for passage in passages) / len(passages)
        return evenly(passages, max(1, round(self.tokens * CHARACTERS_PER_TOKEN / mean)))

    def run(self, engine: Any) -> list[SampleResult]:
        rows = self.samples()
        ids = [engine.tokenizer(row["text"], add_special_tokens=False)["input_ids"] for row in rows]
        window = min(engine.model.config.max_position_embeddings, 2 * self.stride)  # half of it is context
        found = document_likelihoods(engine.model, ids, window, min(self.stride, window), self.batch_size)
        results = []
        for row, likelihood in zip(rows, found, strict=True):
            size = len(row["text"].encode())
            scores = {}
            if likelihood.tokens:
                scores = {
                    "perplexity": Score(likelihood.guide_nll / likelihood.guide_tokens, likelihood.guide_tokens),
                    "bits_per_byte": Score(likelihood.nll / log(2) / size, size),
                }
            unscored = None if scores else "shorter than two tokens"
            results.append(SampleResult(row["id"], row["text"][:200], "", scores, unscored, {"source": row["source"]}))
        return results
