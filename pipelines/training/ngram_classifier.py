"""Trains the small moderation classifier: one logistic regression per category over hashed n-grams."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from pipelines.data.labelled import Example
from pipelines.model.ngram_moderation import FeatureShape, NGramModerator

MAX_CHARACTERS = 1000  # of a training text; what is offensive in a comment shows early, and the rest costs time
WORD_NGRAMS = 2
WORD_WEIGHT = 4.0
OWN_WEIGHT = 4.0  # of an example with complete labels, in comments of a source
POSITIVE_RATIO = 0.5  # total weight of the positives over that of the negatives, however many there are
WEAK_NEGATIVES = 8000  # inoffensive comments that stand for everyday text in categories that no source labels
FOLDS = 2
MAX_ITERATIONS = 60

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Classifier:
    """One category's logistic regression."""

    weights: Floats  # [features]
    bias: float


def feature_matrix(texts: Iterable[str], shape: FeatureShape) -> csr_matrix:
    """One row of features per text, float32 [texts, 2 ** hash_bits]."""
    rows = [shape.of(text[:MAX_CHARACTERS]) for text in texts]
    ends = np.cumsum([0] + [len(row.indices) for row in rows])
    values = np.concatenate([row.values for row in rows])
    indices = np.concatenate([row.indices for row in rows])
    return csr_matrix((values, indices, ends), shape=(len(rows), 1 << shape.hash_bits))


def sample_weights(positive: Flags, complete: Flags, ratio: float) -> Floats:
    """Weights of the texts of one category, sum 1: project examples count more, positives `ratio` times negatives."""
    weights = np.where(complete, OWN_WEIGHT, 1.0)
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
    is measured by cross-validation over those that people wrote, since all of them train.
    """
    positive = np.array([example.labels.get(category) == 1 for example in examples])
    complete = np.array([example.origin != "source" for example in examples])
    written = np.array([example.origin == "written" for example in examples])
    known = complete | np.array([category in example.labels for example in examples])
    weak = np.flatnonzero(~known & ~held_out & ~np.array([any(example.labels.values()) for example in examples]))
    known[weak[:WEAK_NEGATIVES]] = True
    unseen = known & held_out
    sourced = bool(positive[unseen].any())

    def train(rows: Flags) -> Classifier:
        return fit(features[rows], positive[rows], sample_weights(positive[rows], complete[rows], POSITIVE_RATIO), l2)

    def score(classifier: Classifier, rows: Flags) -> Floats:
        return features[rows] @ classifier.weights + np.float32(classifier.bias)

    classifier = train(known & ~held_out)
    if sourced:
        scores = score(classifier, unseen)
    else:
        unseen = written
        fold = np.arange(len(examples)) % FOLDS
        out_of_fold = np.zeros(len(examples), np.float32)
        for number in range(FOLDS):
            rows = written & (fold == number)
            out_of_fold[rows] = score(train(known & ~held_out & ~rows), rows)
        scores = out_of_fold[unseen]
    return Trained(classifier, auroc(positive[unseen], scores), int(positive[unseen].sum()))


def train_ngrams(
    examples: Sequence[Example],
    held_out: Flags,
    categories: Sequence[str],
    hash_bits: int,
    lengths: list[int],
    l2: float,
) -> tuple[NGramModerator, dict[str, Trained]]:
    """Train every category; `lengths` are the shortest and longest n-gram in characters."""
    shape = FeatureShape(hash_bits, lengths[0], lengths[1], WORD_NGRAMS, WORD_WEIGHT)
    features = feature_matrix((example.text for example in examples), shape)
    trained = {category: train_category(category, examples, features, held_out, l2) for category in categories}
    weights = np.stack([each.classifier.weights for each in trained.values()])
    bias = np.array([each.classifier.bias for each in trained.values()], np.float32)
    return NGramModerator(categories, shape, weights, bias), trained
