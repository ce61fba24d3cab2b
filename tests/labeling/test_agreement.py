import math
import random

import numpy as np
import pytest

from labeling.agreement import (
    by_labeler,
    compare,
    kendall_tau,
    kendall_w,
    krippendorff_alpha,
    measure,
    task_counts,
)
from tests.labeling.batches import annotation

# The example of Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011): four observers, twelve units.
OBSERVERS = [
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
]


def ranking(text):
    return tuple(tuple(group) for group in text.split())


def test_pairs_alike_are_counted_and_ties_are_not_compared():
    assert compare(ranking("a b c"), ranking("a c b")) == (2, 3)
    assert compare(ranking("a bc"), ranking("a c b")) == (2, 2)
    assert compare(ranking("a b"), ranking("c d")) == (0, 0)


def test_every_two_labelers_of_a_task_are_compared():
    assert task_counts([ranking("a b"), ranking("a b"), ranking("b a")]) == (1, 3)


def test_kendall_tau_of_same_reversed_and_half_turned_orders():
    assert kendall_tau(ranking("a b c d"), ranking("a b c d")) == 1
    assert kendall_tau(ranking("a b c d"), ranking("d c b a")) == -1
    assert kendall_tau(ranking("a b c d"), ranking("b a d c")) == pytest.approx(1 / 3)


def test_kendall_tau_b_corrects_for_ties():
    # Five of six pairs count in one ranking: 5 / sqrt(6 * 5).
    assert kendall_tau(ranking("a b c d"), ranking("a bc d")) == pytest.approx(5 / math.sqrt(30))
    assert math.isnan(kendall_tau(ranking("a b"), ranking("ab")))


def test_kendall_w_of_perfect_and_of_cancelled_agreement():
    assert kendall_w([ranking("a b c")] * 3) == 1
    assert kendall_w([ranking("a b c"), ranking("c b a")]) == 0
    # Sums of places 4, 5, 9 (mean 6): 12 * 14 / (9 * 24).
    assert kendall_w([ranking("a b c"), ranking("b a c"), ranking("a b c")]) == pytest.approx(12 * 14 / (9 * 24))


def test_kendall_w_needs_complete_rankings():
    assert math.isnan(kendall_w([ranking("a b c"), ranking("a b")]))


def test_alpha_is_that_of_krippendorffs_own_example():
    columns = zip(*(line.split() for line in OBSERVERS), strict=True)
    units = [[float(value) for value in column if value != "."] for column in columns]
    assert krippendorff_alpha(units) == pytest.approx(0.815, abs=0.0005)


def test_alpha_is_that_of_the_krippendorff_package():
    package = pytest.importorskip("krippendorff")
    rng = random.Random(5)
    for labelers, noise in ((2, 0.1), (3, 0.4), (5, 0.8)):
        units = []
        for _ in range(40):
            truth = rng.sample(range(1, 6), 5)
            given = [[value if rng.random() > noise else rng.randint(1, 5) for value in truth] for _ in range(labelers)]
            units += [[row[item] if rng.random() > 0.2 else math.nan for row in given] for item in range(5)]
        table = np.array(units).T  # labelers x units, nan where a labeler did not judge
        expected = package.alpha(reliability_data=table, level_of_measurement="ordinal")
        ours = krippendorff_alpha([[value for value in unit if not math.isnan(value)] for unit in units])
        assert ours == pytest.approx(expected, abs=1e-12)


def test_alpha_of_full_agreement_is_one_and_of_random_orders_about_zero():
    assert krippendorff_alpha([[1, 1], [2, 2], [3, 3]]) == 1
    rng = random.Random(1)
    units = []
    for _ in range(2000):
        two = [rng.sample(range(4), 4), rng.sample(range(4), 4)]
        units += [[two[0][item], two[1][item]] for item in range(4)]
    assert abs(krippendorff_alpha(units)) < 0.03


def noisy(rng, names, noise):
    order = list(names)
    for place in range(len(order) - 1):
        if rng.random() < noise:
            order[place], order[place + 1] = order[place + 1], order[place]
    return tuple((name,) for name in order)


def test_agreement_of_a_known_noise_is_recovered():
    """Two labelers who swap each neighbouring pair with chance 0.2; the truth by enumerating all of their swaps."""
    names = ["m0", "m1", "m2", "m3"]

    class Scripted:
        def __init__(self, swaps):
            self.swaps = list(swaps)

        def random(self):
            return 0.0 if self.swaps.pop(0) else 1.0

    outcomes = []
    for bits in range(8):
        swaps = [bool(bits >> place & 1) for place in range(3)]
        chance = math.prod(0.2 if swap else 0.8 for swap in swaps)
        outcomes.append((chance, noisy(Scripted(swaps), names, 0.5)))
    truth = sum(p * q * compare(a, b).alike / 6 for p, a in outcomes for q, b in outcomes)

    rng = random.Random(7)
    rankings = {str(task): [noisy(rng, names, 0.2) for _ in range(2)] for task in range(600)}
    estimate = measure(rankings, np.random.default_rng(0)).pairwise
    assert abs(estimate.value - truth) < 0.03
    assert estimate.low < truth < estimate.high
    assert estimate.tasks == 600


def test_tasks_with_one_label_say_nothing_of_agreement():
    agreement = measure({"t": [ranking("a b c")]}, np.random.default_rng(0))
    assert all(math.isnan(estimate.value) and estimate.tasks == 0 for estimate in agreement)


def test_a_random_a_lazy_and_a_hasty_labeler_are_found_among_ten():
    rng = random.Random(3)
    names = ["m0", "m1", "m2", "m3", "m4"]
    annotations, number = [], 0
    for task in range(200):
        truth = rng.sample(names, 5)
        shown = rng.sample(names, 5)
        for labeler in rng.sample(range(10), 3):
            order = [group[0] for group in noisy(rng, truth, 0.2)]
            lead = rng.uniform(15, 40)
            if labeler == 0:
                order = rng.sample(names, 5)
            elif labeler == 1:
                order = shown
            elif labeler == 2:
                lead = rng.uniform(0.3, 1.5)
            number += 1
            annotations.append(
                annotation(str(task), " ".join(order), f"labeler-{labeler}", number=number, lead_time_s=lead)
            )
            annotations[-1] = type(annotations[-1]).from_row(annotations[-1].to_row() | {"shown_order": shown})
    found = {report.labeler: report.suspicions for report in by_labeler(annotations, 2.0, np.random.default_rng(0))}
    assert "orders at random" in found["labeler-0"]
    assert "keeps the shown order" in found["labeler-1"]
    assert found["labeler-2"] == ("is too fast to have read the responses",)
    assert all(found[f"labeler-{honest}"] == () for honest in range(3, 10))


def test_a_labeler_is_compared_with_others_only():
    annotations = [
        annotation("t", "m0 m1 m2 m3", "ann", number=1),
        annotation("t", "m0 m1 m2 m3", "ann", number=2),
        annotation("t", "m3 m2 m1 m0", "bob", number=3),
    ]
    reports = by_labeler(annotations, 2.0, np.random.default_rng(0))
    assert [(report.labeler, report.agreement.value, report.compared_pairs) for report in reports] == [
        ("ann", 0.0, 12),
        ("bob", 0.0, 12),
    ]
