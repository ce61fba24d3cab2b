"""The canary rule: is a candidate that answers a share of new conversations rolled back, promoted or watched on?

Pure functions over counts of conversations. Fold each batch of a watch into a `Watch` with `look`, then ask `decide`.
Every field may also be an array of many watches, which is how `benchmarks/canary_rule.py` measures the rule itself.

**Thumbs.** Each batch compares the thumbs up of its own candidate and champion conversations: observed minus expected
under equal rates, with the hypergeometric variance (the Mantel-Haenszel statistic). Sums of these are a martingale
under equal rates whatever the share was and however the base rate drifts from batch to batch; pooled rates would
compare the champion's Monday with the candidate's Friday. As a function of the share of planned information the sum is
a Brownian motion, and the candidate is worse when it falls below a constant: O'Brien and Fleming's boundary (Biometrika
1979) in the continuous form of Lan and DeMets (Biometrika 1983). By the reflection principle
P(max of B on [0, 1] > c) = 2 (1 − Φ(c)), so the level holds however often one looks.

Why this one: the watch has a planned end, and of the boundaries for a planned end this one spends least before it. At
2,000 ratings an arm it catches nearly what a single look at the end would; a mixture SPRT, which holds for watches
without an end, pays for that at each look (the benchmark prints all three). It is slow on a collapse, and that is what
guard rails are for.

**Guard rails.** Conversations with an event: thumbs down (of all, not only the rated), errors, slow answers, moderated
ones, answers that are unusually short or long. Given the events of a batch, how many fell to the candidate is a draw
with its share of the batch; the likelihood of a ratio above the allowed one against the allowed one, mixed over several
ratios, is a nonnegative supermartingale (Robbins, Ann. Math. Statist. 1970; for counts Lindon and Malek, NeurIPS 2022),
and by Ville's inequality exceeds 1/level with at most the chance `level`, over a watch of any length.
"""

import hashlib
from math import sqrt
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.core.sections.serving import Canary

Counts = NDArray[np.int64] | int
Numbers = NDArray[np.float64]

GUARDS = ("thumbs_down", "errors", "slow", "moderated", "short", "long")
# Ratios that a guard rail is tested for, in multiples of the allowed one; each has the same weight.
ALTERNATIVES = np.array([1.25, 1.5, 2.0, 3.0, 5.0, 10.0])


class Arm(NamedTuple):
    """One arm's conversations, of a batch or a whole watch, and how many of them had each event.

    What counts as slow, short or long is fixed before the watch, from the champion's conversations.
    """

    conversations: Counts
    rated: Counts
    thumbs_up: Counts  # of the rated
    errors: Counts
    slow: Counts
    moderated: Counts
    short: Counts
    long: Counts


NOTHING = Arm(0, 0, 0, 0, 0, 0, 0, 0)


class Batch(NamedTuple):
    """Conversations that came to rest between two looks: each counts once, with the rating that it has by then."""

    candidate: Arm
    champion: Arm


class Watch(NamedTuple):
    """What a canary has shown so far; `stage` and everything else have the shape of the counts, (…)."""

    candidate: Arm
    champion: Arm
    stage: Counts  # index into the rule's stages
    at_stage: Counts  # the candidate's conversations since that stage began
    weight: Numbers  # information in units of p(1 − p): the sum of n₁n₀ / (n₁ + n₀) over batches, of rated ones
    score: Numbers  # the candidate's thumbs up minus those expected under equal rates
    variance: Numbers  # of the score
    evidence: Numbers  # (guards, alternatives, …): log likelihood ratios


Verdict = Literal["roll back", "promote", "go on"]


class Decision(NamedTuple):
    """What to do now: `share` is that of new conversations from here on."""

    verdict: Verdict
    share: float
    reason: str


def arm_of(conversation_id: str, candidate: str, share: float) -> Literal["candidate", "champion"]:
    """The arm of a new conversation; whoever has the candidate at one share has it at every larger one.

    Ask once, when the conversation begins, and keep the answer with it. `candidate` names the release, so that two
    canaries fall on different conversations.
    """
    digest = hashlib.sha256(f"{candidate} {conversation_id}".encode()).digest()
    return "candidate" if int.from_bytes(digest[:8], "big") < share * 2**64 else "champion"


def start(watches: tuple[int, ...] = ()) -> Watch:
    """A watch before its first batch, or an array of them."""
    none, zero = np.zeros(watches, int), np.zeros(watches)
    return Watch(NOTHING, NOTHING, none, none, zero, zero, zero, np.zeros((len(GUARDS), len(ALTERNATIVES), *watches)))


def ratio(numerator: Numbers, denominator: Numbers) -> Numbers:
    """The quotient, 0 where there is nothing to divide by."""
    return np.divide(numerator, denominator, out=np.zeros(np.shape(denominator)), where=np.asarray(denominator) > 0)


def events(arm: Arm) -> Numbers:
    """Conversations with each of `GUARDS`, shape (guards, …)."""
    down = np.subtract(arm.rated, arm.thumbs_up)
    return np.stack(np.broadcast_arrays(down, arm.errors, arm.slow, arm.moderated, arm.short, arm.long)).astype(float)


def thumbs_terms(batch: Batch) -> tuple[Numbers, Numbers, Numbers]:
    """Weight, score and variance of one batch (Mantel and Haenszel, J. Natl. Cancer Inst. 1959)."""
    ours, theirs = np.asarray(batch.candidate.rated, float), np.asarray(batch.champion.rated, float)
    rated, up = ours + theirs, np.add(batch.candidate.thumbs_up, batch.champion.thumbs_up)
    weight = ratio(ours * theirs, rated)
    score = batch.candidate.thumbs_up - ours * ratio(up, rated)
    return weight, score, weight * ratio(up * (rated - up), rated * (rated - 1))


def guard_terms(batch: Batch, rule: Canary) -> Numbers:
    """Log likelihood ratios of one batch's events, shape (guards, alternatives, …); 0 while one arm is idle."""
    ours, theirs = np.asarray(batch.candidate.conversations), np.asarray(batch.champion.conversations)
    both = (ours > 0) & (theirs > 0)
    odds = np.where(both, ours, 1) / np.where(both, theirs, 1)
    shape = (len(GUARDS), 1, *[1] * odds.ndim)
    null = np.array([getattr(rule.max_ratio, name) for name in GUARDS]).reshape(shape) * odds
    alternative = null * ALTERNATIVES.reshape(1, -1, *[1] * odds.ndim)
    candidate, champion = events(batch.candidate)[:, None], events(batch.champion)[:, None]
    # An event is the candidate's with the chance odds / (1 + odds).
    terms = candidate * np.log(alternative / null) - (candidate + champion) * np.log((1 + alternative) / (1 + null))
    return np.where(both, terms, 0.0)


def add_arms(one: Arm, other: Arm) -> Arm:
    """Both arms' counts together."""
    return Arm(*(np.add(a, b) for a, b in zip(one, other, strict=True)))


def look(watch: Watch, batch: Batch, rule: Canary) -> Watch:
    """`watch` with one more batch in it; the stage moves on when the candidate has had its conversations there."""
    at_stage = np.add(watch.at_stage, batch.candidate.conversations)
    last = len(rule.stages) - 1
    enough = np.array([stage.conversations for stage in rule.stages])[watch.stage] <= at_stage
    moves = enough & (np.asarray(watch.stage) < last)
    weight, score, variance = thumbs_terms(batch)
    return Watch(
        add_arms(watch.candidate, batch.candidate),
        add_arms(watch.champion, batch.champion),
        watch.stage + moves,
        np.where(moves, 0, at_stage),
        watch.weight + weight,
        watch.score + score,
        watch.variance + variance,
        watch.evidence + guard_terms(batch, rule),
    )


def share_of(watch: Watch, rule: Canary) -> Numbers:
    """The share of new conversations that the watch's stage gives the candidate."""
    return np.array([stage.share for stage in rule.stages])[watch.stage]


def progress(watch: Watch, rule: Canary) -> Numbers:
    """Information so far of what `rule.rated_conversations` in each arm give; at 1 the watch ends."""
    return np.minimum(2 * np.asarray(watch.weight) / rule.rated_conversations, 1.0)


def walk(watch: Watch, rule: Canary, drop: float) -> Numbers:
    """B(t) of the score against a true drop of `drop`: a standard Brownian motion in the progress t if that is true."""
    deviation = np.sqrt(watch.variance)
    return ratio(np.asarray(watch.score + drop * watch.weight), deviation) * np.sqrt(progress(watch, rule))


def boundary(level: float) -> float:
    """The height that a standard Brownian motion on [0, 1] reaches with the chance `level`."""
    return NormalDist().inv_cdf(1 - level / 2)


def fewer_thumbs(watch: Watch, rule: Canary) -> NDArray[np.bool_]:
    """Whether fewer thumbs up than the champion's are shown."""
    return np.asarray(-walk(watch, rule, 0.0) > boundary(rule.thumbs_level))


def tripped(watch: Watch, rule: Canary) -> NDArray[np.bool_]:
    """Which guard rails show a ratio above the allowed one, shape (guards, …)."""
    most = watch.evidence.max(axis=1, keepdims=True)
    mixed = most[:, 0] + np.log(np.exp(watch.evidence - most).mean(axis=1))
    return np.asarray(mixed > -np.log(rule.guards_level / len(GUARDS)))


def no_drop(watch: Watch, rule: Canary) -> NDArray[np.bool_]:
    """Whether a drop of `rule.thumbs_drop` is ruled out, or the watch has ended, in the last stage."""
    shown = walk(watch, rule, rule.thumbs_drop) > boundary(rule.early_promotion_level)
    ended = progress(watch, rule) >= 1
    return np.asarray((shown | ended) & (np.asarray(watch.stage) == len(rule.stages) - 1))


def percent(part: float, whole: float) -> str:
    """`part` of `whole` in words."""
    return f"{100 * part / whole:.1f} % of {whole:,.0f}" if whole else "none of 0"


def compare(name: str, watch: Watch) -> str:
    """Both arms' share of conversations with the event `name`, in words."""
    index = GUARDS.index(name)
    ours, theirs = (float(events(arm)[index]) for arm in (watch.candidate, watch.champion))
    return (
        f"{name.replace('_', ' ')}: {percent(ours, float(watch.candidate.conversations))} conversations against "
        f"{percent(theirs, float(watch.champion.conversations))}"
    )


def thumbs_in_words(watch: Watch) -> str:
    """Both arms' thumbs, and the drop between conversations of the same batches with its 95 % interval."""
    ours, theirs = (percent(float(arm.thumbs_up), float(arm.rated)) for arm in (watch.candidate, watch.champion))
    words = f"thumbs up: {ours} rated conversations against {theirs}"
    if not watch.weight:
        return words
    middle, half = float(watch.score / watch.weight), 1.96 * sqrt(watch.variance) / float(watch.weight)
    return f"{words}, in the same batches {100 * middle:+.1f} points ({100 * half:.1f} either way)"


def decide(watch: Watch, rule: Canary) -> Decision:
    """The verdict on one watch, with its reason and numbers in words."""
    broken = [name for name, trips in zip(GUARDS, tripped(watch, rule), strict=True) if trips]
    thumbs = thumbs_in_words(watch)
    share = float(share_of(watch, rule))
    if broken:
        allowed = "; ".join(
            f"{compare(name, watch)}, beyond the allowed ratio of {getattr(rule.max_ratio, name):g}" for name in broken
        )
        return Decision("roll back", 0.0, f"{allowed}; {thumbs}")
    if fewer_thumbs(watch, rule):
        chance = f"equal models show this in at most {100 * rule.thumbs_level:g} % of watches"
        return Decision("roll back", 0.0, f"{thumbs}; {chance}")
    done = progress(watch, rule)
    if no_drop(watch, rule):
        why = "the watch is over and shows no drop" if done >= 1 else f"no drop of {100 * rule.thumbs_drop:g} points"
        return Decision("promote", 1.0, f"{why}; {thumbs}")
    return Decision("go on", share, f"{100 * float(done):.0f} % of the watch at a share of {100 * share:g} %; {thumbs}")
