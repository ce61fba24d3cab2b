"""Train the moderation classifier that data cleaning, evals and serving share.

In: `artifacts/ingest/moderation/*.jsonl.gz` (rows {text, labels}, labels for some categories), the project's own
`pipelines/datasets/moderation.jsonl`, `moderation_templates.yaml` and harmless `demonstrations.jsonl` (complete
labels: a category that a row does not name is absent), and `artifacts/ingest/moderation_base/` (the encoder that is
fine-tuned where `train_moderation.encoder` is set; otherwise the n-grams alone are the classifier).
Out: `artifacts/train_moderation/` for `load_moderator`; metrics: AUROC per category on texts that were not trained on.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.sections.data import ModerationEncoder
from pipelines.core.stage import open_stage
from pipelines.data.labelled import CATEGORIES, Example, expanded_examples, harmless_passages, read_examples
from pipelines.model.ngram_moderation import NGramModerator
from pipelines.training.ngram_classifier import auroc, train_ngrams

EXAMPLES = Path("pipelines/datasets/moderation.jsonl")
DEMONSTRATIONS = Path("pipelines/datasets/demonstrations.jsonl")
PATTERNS = Path("pipelines/datasets/moderation_templates.yaml")


def read_sources(max_texts: int, rng: np.random.Generator) -> list[Example]:
    """At most `max_texts` ingested comments, drawn over all sources, in random order."""
    paths = sorted(artifacts.INGEST_MODERATION.glob("*.jsonl.gz"))
    examples = [example for path in paths for example in read_examples(path, "source")]
    return [examples[index] for index in rng.permutation(len(examples))[:max_texts]]


def fine_tune(
    screen: NGramModerator, examples: list[Example], held_out: NDArray[np.bool_], encoder: ModerationEncoder, seed: int
) -> dict[str, float]:
    """Fine-tune the encoder behind `screen` and write both; returns their metrics on the held-out texts.

    Raises:
        BadInput: ingest fetched no encoder.
    """
    from pipelines.training.encoder_classifier import save_encoder, train_encoder

    base = artifacts.INGEST_MODERATION_BASE
    train = [example for example, hold in zip(examples, held_out, strict=True) if not hold]
    model = train_encoder(base, train, CATEGORIES, encoder, seed)
    moderator = save_encoder(model, screen, base, encoder, artifacts.TRAIN_MODERATION)
    unseen = [example for example, hold in zip(examples, held_out, strict=True) if hold]
    scores = moderator.score([example.text for example in unseen])
    metrics: dict[str, float] = {}
    for category in CATEGORIES:
        known = [at for at, each in enumerate(unseen) if each.origin != "source" or category in each.labels]
        positive = np.array([unseen[at].labels.get(category) == 1 for at in known])
        metrics[f"unseen_positives_{category}"] = int(positive.sum())
        if positive.any() and not positive.all():
            metrics[f"auroc_{category}"] = auroc(positive, np.array([scores[at][category] for at in known], np.float32))
    return metrics


def main() -> None:
    with open_stage("train_moderation") as stage:
        params = stage.params.train_moderation
        if len(params.char_ngrams) != 2 or not 1 <= params.char_ngrams[0] <= params.char_ngrams[1]:
            raise BadInput(f"train_moderation.char_ngrams is {params.char_ngrams}, expected [shortest, longest]")
        rng = np.random.default_rng(stage.params.seed)
        written = read_examples(EXAMPLES, "written")
        written = [written[index] for index in rng.permutation(len(written))]
        comments = read_sources(params.max_texts, rng)
        patterns = expanded_examples(PATTERNS, params.pattern_share, rng)
        passages = harmless_passages(DEMONSTRATIONS, rng)
        examples = [*comments, *written, *patterns, *passages]
        at = np.arange(len(examples))
        held_out = at < round(params.held_out_share * len(comments))
        if params.encoder is not None:
            # Too dear to train again for each fold, so some of the written examples are held out too.
            first, last = len(comments), len(comments) + round(params.held_out_share * len(written))
            held_out |= (at >= first) & (at < last)
        metrics: dict[str, float] = {"comments": len(comments), "written": len(written), "patterns": len(patterns)}
        metrics["passages"] = len(passages)
        # One thread: these vectors are too short to share, and sums then never depend on the number of cores.
        with threadpool_limits(1):
            ngrams, trained = train_ngrams(
                examples, held_out, CATEGORIES, params.hash_bits, params.char_ngrams, params.l2
            )
        if params.encoder is None:
            ngrams.save(stage.out)
            for category, each in trained.items():
                metrics |= {f"auroc_{category}": each.auroc, f"unseen_positives_{category}": each.positives}
        else:
            metrics |= fine_tune(ngrams, examples, held_out, params.encoder, stage.params.seed)
        for category in CATEGORIES:
            unseen, score = metrics[f"unseen_positives_{category}"], metrics.get(f"auroc_{category}")
            shown = "not measured" if score is None else f"{score:.3f}"
            print(f"train_moderation: {category} AUROC {shown} on {unseen} unseen positives")
        stage.write_metrics(metrics)


if __name__ == "__main__":
    main()
