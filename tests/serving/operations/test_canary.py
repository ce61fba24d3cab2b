"""The canary rule: its statistics by hand, its verdicts in words, the arms of conversations, its error rates."""

from functools import reduce
from math import log
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from pydantic import ValidationError

from benchmarks import canary_rule
from pipelines.core.config import load_params
from pipelines.core.sections.serving import Canary
from serving.operations import canary
from serving.operations.canary import ALTERNATIVES, Arm, Batch, Watch

RULE = load_params(Path(__file__).parents[3] / "params.yaml").release.canary
HALF = RULE.model_copy(update={"stages": canary_rule.HALF})


def arm(conversations: int, rated: int = 0, up: int = 0, **events: int) -> Arm:
    return Arm(**canary.NOTHING._asdict() | {"conversations": conversations, "rated": rated, "thumbs_up": up} | events)


def watch_of(rule: Canary, *batches: Batch) -> Watch:
    return reduce(lambda watch, batch: canary.look(watch, batch, rule), batches, canary.start())


def rated(rule: Canary, n: int, ours: float, theirs: float, batches: int = 10) -> Watch:
    """A watch with `n` ratings an arm at these shares of thumbs up."""
    size = n // batches
    each = Batch(arm(size, size, round(size * ours)), arm(size, size, round(size * theirs)))
    return watch_of(rule, *[each] * batches)


def test_a_batch_gives_observed_minus_expected_with_the_hypergeometric_variance() -> None:
    weight, score, variance = canary.thumbs_terms(Batch(arm(3, 3, 1), arm(2, 2, 2)))
    assert (weight, score, variance) == pytest.approx((6 / 5, 1 - 3 * 3 / 5, 3 * 2 * 3 * 2 / (25 * 4)))


def test_a_batch_without_ratings_in_one_arm_says_nothing() -> None:
    assert canary.thumbs_terms(Batch(arm(9), arm(9, 9, 5))) == (0, 0, 0)
    assert canary.thumbs_terms(Batch(arm(0), arm(0))) == (0, 0, 0)


def test_a_motion_reaches_the_boundary_with_its_level() -> None:
    assert canary.boundary(0.05) == pytest.approx(1.95996, abs=1e-5)  # 2 (1 − Φ(1.96)), the reflection principle
    steps = np.random.default_rng(1).standard_normal((4000, 400)).cumsum(axis=1) / 20
    assert 0.03 < (steps > canary.boundary(0.05)).any(axis=1).mean() <= 0.055


def test_the_evidence_of_one_error_is_its_likelihood_ratio() -> None:
    evidence = watch_of(HALF, Batch(arm(10, errors=1), arm(10))).evidence
    allowed = RULE.max_ratio.errors
    ratios = [log(allowed * k / (1 + allowed * k) / (allowed / (1 + allowed))) for k in ALTERNATIVES]
    assert evidence[canary.GUARDS.index("errors")] == pytest.approx(ratios)
    assert evidence[canary.GUARDS.index("slow")] == pytest.approx(0)


@pytest.mark.parametrize("candidate", [1, 5, 20])
def test_a_guard_rail_at_its_limit_expects_no_evidence(candidate: int) -> None:
    """The mean likelihood ratio of a batch is at most 1 at a ratio of 1, also when few conversations have no event."""
    rng, champion = np.random.default_rng(2), 20
    ours = Arm(*[rng.binomial(candidate, 0.3, 20_000)] * 8)._replace(conversations=np.full(20_000, candidate))
    theirs = Arm(*[rng.binomial(champion, 0.3, 20_000)] * 8)._replace(conversations=np.full(20_000, champion))
    equal = RULE.model_copy(update={"max_ratio": RULE.max_ratio.model_copy(update={"errors": 1.0})})
    ratios = np.exp(canary.guard_terms(Batch(ours, theirs), equal)[canary.GUARDS.index("errors")])
    assert ratios.mean() < 1 + 4 * ratios.mean(axis=0).std() / np.sqrt(20_000)


def test_a_drop_is_rolled_back_with_its_numbers() -> None:
    decision = canary.decide(rated(HALF, 1500, 0.74, 0.8), HALF)
    assert (decision.verdict, decision.share) == ("roll back", 0.0)
    assert "thumbs up: 74.0 % of 1,500 rated conversations against 80.0 % of 1,500" in decision.reason
    assert "-6.0 points" in decision.reason
    assert "at most 4 % of watches" in decision.reason


def test_a_broken_candidate_is_rolled_back_by_its_first_conversations() -> None:
    watch = watch_of(RULE, *[Batch(arm(5, errors=4), arm(95, errors=1))] * 4)
    decision = canary.decide(watch, RULE)
    assert decision.verdict == "roll back"
    assert "errors: 80.0 % of 20 conversations against 1.1 % of 380, beyond the allowed ratio of 1.2" in decision.reason
    assert "slow" not in decision.reason


def test_an_equal_candidate_is_watched_and_then_promoted() -> None:
    early, enough, end = (canary.decide(rated(HALF, n, 0.8, 0.8), HALF) for n in (500, 1600, 2000))
    assert (early.verdict, early.share) == ("go on", 0.5)
    assert early.reason.startswith("25 % of the watch at a share of 50 %")
    assert (enough.verdict, enough.share) == ("promote", 1.0)
    assert enough.reason.startswith("no drop of 5 points")
    assert end.reason.startswith("the watch is over and shows no drop")


def test_a_watch_ends_even_when_every_thumb_is_up() -> None:
    assert canary.decide(rated(HALF, 2000, 1.0, 1.0), HALF).verdict == "promote"


def test_before_any_rating_the_watch_goes_on() -> None:
    decision = canary.decide(canary.start(), RULE)
    assert (decision.verdict, decision.share) == ("go on", 0.01)
    assert "none of 0" in decision.reason


def test_the_share_grows_by_the_candidates_conversations() -> None:
    shares = []
    watch = canary.start()
    for _ in range(6):
        watch = canary.look(watch, Batch(arm(60), arm(600)), RULE)
        shares.append(canary.decide(watch, RULE).share)
    assert shares == [0.1, 0.1, 0.1, 0.1, 0.5, 0.5]


def test_nobody_is_promoted_before_the_last_stage() -> None:
    slow = RULE.model_copy(
        update={"stages": [RULE.stages[0].model_copy(update={"conversations": 9999}), RULE.stages[2]]}
    )
    assert canary.decide(rated(slow, 2000, 0.85, 0.8), slow).verdict == "go on"
    assert canary.decide(rated(HALF, 2000, 0.85, 0.8), HALF).verdict == "promote"


def test_a_base_rate_that_falls_while_the_share_grows_is_no_drop() -> None:
    """Pooled, the candidate has 70 % and the champion 85 %, since most of its conversations came on the worse day."""
    good_day = Batch(arm(100, 100, 90), arm(900, 900, 810))
    bad_day = Batch(arm(900, 900, 630), arm(900, 900, 630))
    watch = watch_of(HALF, good_day, bad_day)
    assert canary.walk(watch, HALF, 0.0) == pytest.approx(0)
    assert not canary.fewer_thumbs(watch, HALF)


def test_many_watches_at_once_are_each_as_one_alone() -> None:
    rng = np.random.default_rng(3)
    size = rng.integers(20, 60, 7)
    up = rng.binomial(size, 0.7)
    together = canary.look(
        canary.start((7,)),
        Batch(Arm(size, size, up, *[size // 9] * 5), Arm(size, size, size // 2, *[up // 9] * 5)),
        RULE,
    )
    for i in range(7):
        n, u = int(size[i]), int(up[i])
        alone = watch_of(RULE, Batch(Arm(n, n, u, *[n // 9] * 5), Arm(n, n, n // 2, *[u // 9] * 5)))
        assert together.evidence[..., i] == pytest.approx(alone.evidence)
        assert canary.walk(together, RULE, 0.05)[i] == pytest.approx(float(canary.walk(alone, RULE, 0.05)))
        assert together.stage[i] == alone.stage


def test_conversations_keep_the_candidate_as_its_share_grows() -> None:
    names = [f"conversation-{i}" for i in range(4000)]
    of = {
        share: {name for name in names if canary.arm_of(name, "v7", share) == "candidate"} for share in (0.01, 0.1, 0.5)
    }
    assert of[0.01] < of[0.1] < of[0.5]
    assert [len(of[share]) / 4000 for share in (0.1, 0.5)] == pytest.approx([0.1, 0.5], abs=0.03)
    assert all(canary.arm_of(name, "v7", 1.0) == "candidate" for name in names)
    assert all(canary.arm_of(name, "v7", 0.0) == "champion" for name in names)


def test_two_canaries_fall_on_different_conversations() -> None:
    same = mean(canary.arm_of(str(i), "v7", 0.5) == canary.arm_of(str(i), "v8", 0.5) for i in range(2000))
    assert 0.45 < same < 0.55


def test_shares_must_grow() -> None:
    with pytest.raises(ValidationError, match=r"must grow, these do not: \[0\.5, 0\.1\]"):
        Canary.model_validate(
            RULE.model_dump() | {"stages": [RULE.stages[2].model_dump(), RULE.stages[1].model_dump()]}
        )


@pytest.mark.parametrize("rating_share", [1.0, 0.1])
def test_the_shipped_rule_keeps_its_error_rates(monkeypatch: pytest.MonkeyPatch, rating_share: float) -> None:
    """300 watches of each kind; the benchmark has more."""
    monkeypatch.setattr(canary_rule, "WATCHES", 300)
    rng = np.random.default_rng(4)
    equal = canary_rule.simulate(RULE, canary_rule.World(0.0, rating_share), rng)
    worse = canary_rule.simulate(RULE, canary_rule.World(0.05, rating_share), rng)
    assert equal.rolled_back.mean() <= 0.08  # 0.05 and three standard errors
    assert (worse.rolled_back & (worse.rated <= RULE.rated_conversations)).mean() >= 0.9
