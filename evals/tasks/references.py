"""Answers beside reference answers: BLEU, chrF, ROUGE and BERTScore on held-out demonstrations.

They count shared words, so they tell form rather than truth, and a good answer in other words scores low. BERTScore
needs an encoder on this machine. MoverScore is left out: its package is of April 2020 and nobody maintains it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.metrics import Score
from evals.task import SampleResult, evenly
from evals.tasks.chat_quality import Voice, answer
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_rows
from pipelines.core.records import Conversation

ROUGE = ("rouge1", "rouge2", "rougeL")


def shared_words(answers: Sequence[str], references: Sequence[str]) -> list[dict[str, Score]]:
    """BLEU and chrF by sacrebleu, smoothed for single texts, and F-measures of ROUGE, of each answer; all 0 to 1."""
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    bleu, chrf, rouge = BLEU(effective_order=True), CHRF(), RougeScorer(list(ROUGE), use_stemmer=True)
    scores = []
    for text, reference in zip(answers, references, strict=True):
        found = {
            "bleu": Score(bleu.sentence_score(text, [reference]).score / 100),
            "chrf": Score(chrf.sentence_score(text, [reference]).score / 100),
        }
        found |= {name: Score(one.fmeasure) for name, one in rouge.score(reference, text).items()}
        scores.append(found)
    return scores


def bert_scores(answers: Sequence[str], references: Sequence[str], encoder: Path, layer: int) -> list[Score]:
    """F1 of BERTScore by the encoder in the folder `encoder`, at its layer `layer`.

    Raises:
        BadInput: there is no such folder.
    """
    if not (encoder / "config.json").is_file():
        raise BadInput(f"evaluate.bertscore_model: {encoder} holds no encoder (config.json is missing); set it to null")
    from bert_score import BERTScorer

    scorer = BERTScorer(model_type=str(encoder), num_layers=layer)
    return [Score(float(f1)) for f1 in scorer.score(list(answers), list(references))[2]]


@dataclass(frozen=True, slots=True)
class References:
    """Up to `prompts` conversations of `data`, whose last answer is the reference."""

    data: Path
    prompts: int
    max_new_tokens: int
    voice: Voice
    bertscore_model: Path | None
    bertscore_layer: int
    name: str = "references"
    metrics: tuple[str, ...] = ("bleu", "chrf", *ROUGE, "bertscore")
    groups: tuple[str, ...] = ("category",)

    def run(self, engine: Any) -> list[SampleResult]:
        samples = [Conversation.from_row(row) for row in evenly(list(read_rows(self.data)), self.prompts)]
        if not samples:
            raise BadInput(f"{self.data} has no demonstrations; raise prepare_sft.held_out_share")
        chats = [sample.chat[:-1] for sample in samples]
        answers = [one.text for one in answer(engine, chats, self.max_new_tokens, self.voice)]
        references = [sample.messages[-1].content for sample in samples]
        scores = shared_words(answers, references)
        unscored = None
        if self.bertscore_model is None:
            unscored = "evaluate.bertscore_model names no encoder"
        else:
            found = bert_scores(answers, references, self.bertscore_model, self.bertscore_layer)
            scores = [one | {"bertscore": f1} for one, f1 in zip(scores, found, strict=True)]
        return [
            SampleResult(
                sample.id,
                chat[-1]["content"],
                text,
                one,
                unscored,
                {"category": sample.category, "reference": reference},
            )
            for sample, chat, text, reference, one in zip(samples, chats, answers, references, scores, strict=True)
        ]
