"""How often the canary rule rolls an equal model back, and how often and how soon a worse one.

    make bench NAME=canary_rule
    WATCHES=4000 make bench NAME=canary_rule

Each watch draws conversations of two arms, batch by batch, and asks the shipped rule (`serving.operations.canary`)
after each one, with the parameters of params.yaml; its share follows the rule's stages. Champion: 80 % thumbs up, a
share of conversations with errors (1 %), slow answers (5 %), moderated (3 %), short and long ones (10 % each). The
candidate has the same but for its thumbs. A rollback counts while the candidate has at most `rated_conversations`
ratings. "half" gives both arms half of the traffic from the start, "stages" is what ships. Conversations are those of
both arms, from the first to the verdict: what a watch costs in time.

Then: the guard rails against a candidate that breaks one, and what other boundaries catch on the same figures.

`false_rollback` is the worst of all cells without a drop, among them a base rate that falls from 90 to 70 % during the
watch; `caught` is the worst of all cells at 5 points.
"""

import json
import os
from math import log, sqrt
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from pipelines.core.config import load_params
from pipelines.core.sections.serving import Canary, CanaryStage
from serving.operations.canary import (
    Arm,
    Batch,
    boundary,
    fewer_thumbs,
    look,
    no_drop,
    progress,
    share_of,
    start,
    tripped,
)

ROOT = Path(__file__).resolve().parents[1]
WATCHES = int(os.environ.get("WATCHES", "2000"))
BASE = 0.8
DROPS = (0, 1, 2, 3, 5, 8)  # points
RATING_SHARES = (1.0, 0.1)
LOOKS = 80  # about, in a watch that goes to its end
EVENTS = {"errors": 0.01, "slow": 0.05, "moderated": 0.03, "short": 0.1, "long": 0.1}
HALF = [CanaryStage(share=0.5, conversations=0)]


class World(NamedTuple):
    """What is true in a simulation."""

    drop: float = 0.0  # of the candidate's share of thumbs up
    rating_share: float = 1.0
    drift: float = 0.0  # by which the base rate has fallen at the end, half of it above BASE at the start
    broken: dict[str, float] = {}  # event -> the candidate's share of it


class Outcome(NamedTuple):
    """Of all watches, one value each."""

    rolled_back: np.ndarray
    rated: np.ndarray  # the candidate's, at the verdict
    conversations: np.ndarray  # of both arms, at the verdict


def draw(
    size: np.ndarray, up: np.ndarray, rating_share: float, shares: dict[str, float], rng: np.random.Generator
) -> Arm:
    """One arm's batch in each watch."""
    rated = rng.binomial(size, rating_share)
    return Arm(size, rated, rng.binomial(rated, up), *(rng.binomial(size, shares[name]) for name in EVENTS))


def simulate(rule: Canary, world: World, rng: np.random.Generator) -> Outcome:
    """`WATCHES` watches under the rule until each has its verdict."""
    watch = start((WATCHES,))
    open_, back = np.ones(WATCHES, bool), np.zeros(WATCHES, bool)
    rated, conversations = np.zeros(WATCHES, int), np.zeros(WATCHES, int)
    size = round(2 * rule.rated_conversations / world.rating_share / LOOKS)
    while open_.any():
        ours = rng.binomial(size, share_of(watch, rule))
        base = BASE + world.drift * (0.5 - progress(watch, rule))
        candidate = draw(ours, base - world.drop, world.rating_share, EVENTS | world.broken, rng)
        champion = draw(size - ours, base, world.rating_share, EVENTS, rng)
        watch = look(watch, Batch(candidate, champion), rule)
        worse = fewer_thumbs(watch, rule) | tripped(watch, rule).any(axis=0)
        done = open_ & (worse | no_drop(watch, rule))
        back |= done & worse
        rated[done] = watch.candidate.rated[done]
        conversations[done] = (watch.candidate.conversations + watch.champion.conversations)[done]
        open_ &= ~done
    return Outcome(back, rated, conversations)


def median(values: np.ndarray) -> str:
    """The median of what is there, or a dash."""
    return f"{np.median(values):,.0f}" if len(values) else "-"


def thumbs_table(rule: Canary, rng: np.random.Generator) -> tuple[float, float]:
    """Print what the rule does at each drop; returns the worst false rollback and the worst share caught."""
    plans = {"half": rule.model_copy(update={"stages": HALF}), "stages": rule}
    false, caught = [], []
    print(f"{WATCHES} watches a row, base rate {BASE}, at most {rule.rated_conversations} ratings an arm\n")
    print(f"{'plan':<8}{'rated':>7}{'drop':>6}{'rolled back':>13}{'promoted':>10}", end="")
    print(f"{'ratings to rollback':>21}{'conversations to rollback':>27}{'to promotion':>14}")
    for plan, asked in plans.items():
        for rating_share in RATING_SHARES:
            for drop in DROPS:
                found = simulate(asked, World(drop / 100, rating_share), rng)
                back = found.rolled_back & (found.rated <= rule.rated_conversations)
                if drop == 0:
                    false.append(found.rolled_back.mean())
                if drop == 5:
                    caught.append(back.mean())
                print(
                    f"{plan:<8}{rating_share:>7.0%}{drop:>6}{back.mean():>13.4f}{1 - found.rolled_back.mean():>10.4f}"
                    f"{median(found.rated[back]):>21}{median(found.conversations[back]):>27}"
                    f"{median(found.conversations[~found.rolled_back]):>14}",
                    flush=True,
                )
    drifting = simulate(rule, World(drift=0.2), rng).rolled_back.mean()
    print(f"no drop, base rate from 90 to 70 % while the share grows: rolled back {drifting:.4f}")
    return max(*false, drifting), min(caught)


def guards_table(rule: Canary, rng: np.random.Generator) -> None:
    """Print how soon a broken candidate is rolled back, in its own conversations."""
    print(f"\n{'broken, at a rating share of 10 %':<44}{'rolled back':>12}{'conversations to rollback':>27}")
    worlds = {
        "errors in 2 % of conversations, not 1 %": World(0, 0.1, 0, {"errors": 0.02}),
        "errors in 50 %": World(0, 0.1, 0, {"errors": 0.5}),
        "slow answers in 10 %, not 5 %": World(0, 0.1, 0, {"slow": 0.1}),
        "moderated in 6 %, not 3 %": World(0, 0.1, 0, {"moderated": 0.06}),
        "short answers in 40 %, not 10 %": World(0, 0.1, 0, {"short": 0.4}),
        "thumbs up from 80 to 50 %": World(0.3, 0.1),
    }
    for name, world in worlds.items():
        found = simulate(rule, world, rng)
        back = found.rolled_back
        print(f"{name:<44}{back.mean():>12.4f}{median(found.conversations[back]):>27}", flush=True)


def boundaries_table(rule: Canary, rng: np.random.Generator) -> None:
    """Print what other boundaries catch, on the Brownian motion that the thumbs' score is, at the same level."""
    level, looks = rule.thumbs_level, 2 * LOOKS
    low = BASE - rule.thumbs_drop
    drift = rule.thumbs_drop * sqrt(rule.rated_conversations / (BASE * (1 - BASE) + low * (1 - low)))
    time = np.arange(1, looks + 1) / looks
    noise = rng.standard_normal((4 * WATCHES, looks)).cumsum(axis=1) / sqrt(looks)
    # Robbins' normal mixture, one-sided as two-sided at twice the level, with its best weight at the end of the watch.
    weight = 1 / (-2 * log(2 * level) + log(-2 * log(2 * level)) + 1)
    heights = {
        "one look at the end, none before": np.where(time < 1, np.inf, NormalDist().inv_cdf(1 - level)),
        "this rule: any look, to a planned end": np.full(looks, boundary(level)),
        "mixture SPRT: any look, no planned end": np.sqrt(
            (time + weight) * np.log((time + weight) / weight / (2 * level) ** 2)
        ),
    }
    print(
        f"\n{'boundary, a drop of ' + f'{100 * rule.thumbs_drop:g} points':<44}{'level':>8}{'caught':>8}{'ratings':>9}"
    )
    for name, height in heights.items():
        crossed = noise + drift * time > height
        first = time[crossed.argmax(axis=1)[crossed.any(axis=1)]] * rule.rated_conversations
        false = (noise > height).any(axis=1).mean()
        print(f"{name:<44}{false:>8.4f}{crossed.any(axis=1).mean():>8.4f}{median(first):>9}")


def main() -> None:
    rule, rng = load_params(ROOT / "params.yaml").release.canary, np.random.default_rng(20261121)
    false_rollback, caught = thumbs_table(rule, rng)
    guards_table(rule, rng)
    boundaries_table(rule, rng)
    figures = {"false_rollback": round(float(false_rollback), 4), "caught": round(float(caught), 4)}
    print(json.dumps({"name": "canary_rule", "figures": figures}))


if __name__ == "__main__":
    main()
