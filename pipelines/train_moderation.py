"""Train the moderation classifier that data cleaning, evals and serving share.

In: `artifacts/ingest/moderation/*.jsonl.gz` (rows {text, labels}, labels for some categories) and the project's own
`pipelines/datasets/moderation.jsonl` (complete labels: a category that a row does not name is absent).
Out: `artifacts/train_moderation/` for `Moderator.load`; metrics: AUROC per category on texts that were not trained on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from pipelines.core import artifacts
from pipelines.core.config import TrainModeration
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_rows
from pipelines.core.stage import open_stage
from pipelines.model.moderation import FeatureShape, Moderator

EXAMPLES = Path("pipelines/datasets/moderation.jsonl")
CATEGORIES = ("toxic", "self_harm", "sexual", "violence", "illicit", "prompt_injection")

MAX_CHARACTERS = 1000  # of a training text; what is offensive in a comment shows early, and the rest costs time
WORD_NGRAMS = 2
WORD_WEIGHT = 4.0
EXAMPLE_WEIGHT = 4.0  # of a project example, in comments of a source
# Total weight of the positives over that of the negatives, so that 0.8 means the same whether a category has 40
# positives or 6,000; a category that only our few examples show errs towards catching.
SOURCED_RATIO = 0.5
EXAMPLES_ONLY_RATIO = 1.3
WEAK_NEGATIVES = 1000  # inoffensive comments that stand for everyday text in categories that no source labels
FOLDS = 3
MAX_ITERATIONS = 60

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Example:
    """A text with its labels; `complete` when a category that is not named is known to be absent."""

    text: str
    labels: dict[str, int]
    complete: bool


@dataclass(frozen=True, slots=True)
class Classifier:
    """One category's logistic regression."""

    weights: Floats  # [features]
    bias: float


def read_examples(path: Path, complete: bool) -> list[Example]:
    """The rows of one file.

    Raises:
        BadInput: a row is not {text, labels} with known categories and labels 0 or 1.
    """
    examples = []
    for number, row in enumerate(read_rows(path), start=1):
        labels = row.get("labels")
        if not isinstance(row.get("text"), str) or not isinstance(labels, dict):
            raise BadInput(f"{path}: row {number} needs a string `text` and a mapping `labels`")
        if not set(labels) <= set(CATEGORIES) or not set(labels.values()) <= {0, 1}:
            raise BadInput(f"{path}: row {number} has labels {labels}; valid: 0 or 1 for {', '.join(CATEGORIES)}")
        examples.append(Example(row["text"], labels, complete))
    return examples


def read_sources(max_texts: int, rng: np.random.Generator) -> list[Example]:
    """At most `max_texts` ingested comments, drawn over all sources, in random order."""
    paths = sorted(artifacts.INGEST_MODERATION.glob("*.jsonl.gz"))
    examples = [example for path in paths for example in read_examples(path, complete=False)]
    return [examples[index] for index in rng.permutation(len(examples))[:max_texts]]


def feature_matrix(texts: Iterable[str], shape: FeatureShape) -> csr_matrix:
    """One row of features per text, float32 [texts, 2 ** hash_bits]."""
    rows = [shape.of(text[:MAX_CHARACTERS]) for text in texts]
    ends = np.cumsum([0] + [len(row.indices) for row in rows])
    values = np.concatenate([row.values for row in rows])
    indices = np.concatenate([row.indices for row in rows])
    return csr_matrix((values, indices, ends), shape=(len(rows), 1 << shape.hash_bits))


def sample_weights(positive: Flags, complete: Flags, ratio: float) -> Floats:
    """Weights of the texts of one category, sum 1: project examples count more, positives `ratio` times negatives."""
    weights = np.where(complete, EXAMPLE_WEIGHT, 1.0)
    weights[positive] *= ratio * weights[~positive].sum() / weights[positive].sum()
    return (weights / weights.sum()).astype(np.float32)


def fit(features: csr_matrix, positive: Flags, weights: Floats, l2: float) -> Classifier:
    """Logistic regression, weighted mean of the log loss + l2 / 2 · |w|², by L-BFGS. `features` is [texts, d]."""
    sign = np.where(positive, 1.0, -1.0).astype(np.float32)
    transposed = features.T

    def loss_and_gradient(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = sign * (features @ point[:-1].astype(np.float32) + np.float32(point[-1]))
        loss = float(weights @ np.logaddexp(0, -margins)) + 0.5 * l2 * float(point[:-1] @ point[:-1])
        slope = -weights * sign * np.exp(-np.logaddexp(0, margins))
        return loss, np.append(transposed @ slope + l2 * point[:-1], slope.sum())

    start = np.zeros(features.shape[1] + 1)
    options = {"maxiter": MAX_ITERATIONS, "maxcor": 6}
    point = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options=options).x
    return Classifier(point[:-1].astype(np.float32), float(point[-1]))


def auroc(positive: Flags, scores: Floats) -> float:
    """The chance that a positive scores above a negative, ties counting half."""
    negatives = np.sort(scores[~positive])
    below = np.searchsorted(negatives, scores[positive], side="left")
    not_above = np.searchsorted(negatives, scores[positive], side="right")
    return float((below + not_above).sum() / (2 * len(negatives) * positive.sum()))


@dataclass(frozen=True, slots=True)
class Trained:
    """One category: the classifier, and how well one like it did on texts that it had not seen."""

    classifier: Classifier
    auroc: float
    positives: int  # among the unseen texts


def train_category(
    category: str, examples: Sequence[Example], features: csr_matrix, held_out: Flags, l2: float
) -> Trained:
    """Train `category` on the examples whose label is known, less `held_out`.

    A category that sources label is measured on the held-out comments; one that only the project's examples have
    is measured by cross-validation over them, since all of them train.
    """
    positive = np.array([example.labels.get(category) == 1 for example in examples])
    complete = np.array([example.complete for example in examples])
    known = complete | np.array([category in example.labels for example in examples])
    weak = np.flatnonzero(~known & ~held_out & ~np.array([any(example.labels.values()) for example in examples]))
    known[weak[:WEAK_NEGATIVES]] = True
    unseen = known & held_out
    sourced = bool(positive[unseen].any())
    ratio = SOURCED_RATIO if sourced else EXAMPLES_ONLY_RATIO

    def train(rows: Flags) -> Classifier:
        return fit(features[rows], positive[rows], sample_weights(positive[rows], complete[rows], ratio), l2)

    def score(classifier: Classifier, rows: Flags) -> Floats:
        return features[rows] @ classifier.weights + np.float32(classifier.bias)

    classifier = train(known & ~held_out)
    if sourced:
        scores = score(classifier, unseen)
    else:
        unseen = complete
        fold = np.arange(len(examples)) % FOLDS
        out_of_fold = np.zeros(len(examples), np.float32)
        for number in range(FOLDS):
            rows = complete & (fold == number)
            out_of_fold[rows] = score(train(known & ~rows), rows)
        scores = out_of_fold[unseen]
    return Trained(classifier, auroc(positive[unseen], scores), int(positive[unseen].sum()))


def train_moderator(
    comments: Sequence[Example], own: Sequence[Example], params: TrainModeration
) -> tuple[Moderator, dict[str, float]]:
    """Train every category; returns the classifier and its metrics."""
    shortest, longest = params.char_ngrams
    shape = FeatureShape(params.hash_bits, shortest, longest, WORD_NGRAMS, WORD_WEIGHT)
    examples = [*comments, *own]
    features = feature_matrix((example.text for example in examples), shape)
    held_out = np.arange(len(examples)) < round(params.held_out_share * len(comments))
    metrics: dict[str, float] = {"comments": len(comments), "examples": len(own)}
    classifiers = []
    for category in CATEGORIES:
        trained = train_category(category, examples, features, held_out, params.l2)
        print(f"train_moderation: {category} AUROC {trained.auroc:.3f} on {trained.positives} unseen positives")
        metrics[f"auroc_{category}"] = trained.auroc
        metrics[f"unseen_positives_{category}"] = trained.positives
        classifiers.append(trained.classifier)
    weights = np.stack([classifier.weights for classifier in classifiers])
    bias = np.array([classifier.bias for classifier in classifiers], np.float32)
    return Moderator(CATEGORIES, shape, weights, bias), metrics


def main() -> None:
    with open_stage("train_moderation") as stage:
        params = stage.params.train_moderation
        if len(params.char_ngrams) != 2 or not 1 <= params.char_ngrams[0] <= params.char_ngrams[1]:
            raise BadInput(f"train_moderation.char_ngrams is {params.char_ngrams}, expected [shortest, longest]")
        rng = np.random.default_rng(stage.params.seed)
        own = read_examples(EXAMPLES, complete=True)
        own = [own[index] for index in rng.permutation(len(own))]
        comments = read_sources(params.max_texts, rng)
        # One thread: these vectors are too short to share, and sums then never depend on the number of cores.
        with threadpool_limits(1):
            moderator, metrics = train_moderator(comments, own, params)
        moderator.save(stage.out)
        stage.write_metrics(metrics)


if __name__ == "__main__":
    main()
