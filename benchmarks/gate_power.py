"""How often the gate lets a worse model through, and how often it stops an equal one.

    make bench NAME=gate_power
    EXPERIMENTS=500 make bench NAME=gate_power

Each experiment draws right and wrong answers of two models on the same questions and asks the gate's own rules
(`evals.rules.apply_rules`, `evals.gate.overall`) for the verdict: 1,000 pairs an axis, a margin of 3 points, one-sided
2.5 %. `discordance` is the share of questions that one model alone gets right. A model that is worse loses the whole
margin on the first axis and is equal on the others; axes are independent, and all must pass. `worse_passes` and
`equal_refused` are the worst of all cells, `equal_passes` and `equal_inconclusive` those of one axis up to 8 %.

Then the power table that the profiles' margins come from: exact for right/wrong scores, normal for the rest.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from math import log1p
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evals.gate import overall
from evals.metrics import Score
from evals.paired import needed_score_n, power_of, score_power
from evals.rules import apply_rules
from evals.rulings import Evidence, Ruling
from evals.task import SampleResult
from pipelines.core.config import Params, parse, resolve
from pipelines.core.sections.evaluation import Rule

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = int(os.environ.get("EXPERIMENTS", "2000"))
PAIRS, MARGIN, ALPHA = 1000, 0.03, 0.025
# At 3 % a model that is worse by 3 points loses every discordant pair: where an interval errs most easily.
DISCORDANCES = (0.03, 0.04, 0.05, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
MOST_AXES = 5
RIGHT, WRONG = (
    [SampleResult(str(i), "", "", {"accuracy": Score(value)}) for i in range(PAIRS)] for value in (1.0, 0.0)
)


class Shares(NamedTuple):
    """How often each verdict fell, of all experiments."""

    passed: float
    refused: float
    inconclusive: float


def asked_of(params: Params) -> Params:
    """`params` with one non-inferiority rule and nothing else."""
    rule = Rule(
        name="an axis",
        metric="axis.accuracy",
        kind="non_inferior_difference",
        better="higher",
        bound=None,
        margin=MARGIN,
        discordance=None,
        reason="simulated",
    )
    gate = params.gate.model_copy(update={"rules": [rule], "one_sided_alpha": ALPHA})
    return params.model_copy(update={"gate": gate})


def draw(discordance: float, difference: float, rng: np.random.Generator) -> dict[str, list[SampleResult]]:
    """Both models' results of one axis; `difference` is that of the true accuracies, candidate − baseline."""
    drawn = rng.random(PAIRS)
    won = drawn < (discordance + difference) / 2
    lost = (drawn >= 1 - (discordance - difference) / 2) & ~won
    shared = rng.random(PAIRS) < 0.5
    return {
        side: [RIGHT[i] if right else WRONG[i] for i, right in enumerate(np.where(only, True, shared & ~other))]
        for side, only, other in (("candidate", won, lost), ("baseline", lost, won))
    }


def simulate(params: Params, discordance: float, difference: float, rng: np.random.Generator) -> list[Ruling]:
    """What the gate's rule says of one axis, in each of `EXPERIMENTS` experiments."""
    found = []
    for _ in range(EXPERIMENTS):
        samples = {side: {"axis": results} for side, results in draw(discordance, difference, rng).items()}
        found += apply_rules(Evidence({"data": {}}, samples, {}, {}, 0, 0, {}, {}), params)
    return found


def shares(axes: Sequence[Sequence[Ruling]]) -> Shares:
    """The gate's verdicts where each experiment has one ruling from every axis."""
    verdicts = Counter(overall(rulings) for rulings in zip(*axes, strict=True))
    return Shares(*(verdicts[word] / len(axes[0]) for word in ("pass", "refuse", "inconclusive")))


def print_profile(name: str, n_of: dict[str, int]) -> None:
    """The planned power of a profile's comparisons at its own n."""
    params = parse(resolve(ROOT, name, []), name)
    alpha = params.gate.one_sided_alpha
    print(f"\n{name}: one-sided {100 * alpha:g} %\n{'rule':<20}{'margin':>8}{'spread':>8}{'n':>6}{'power':>8}")
    for rule in params.gate.rules:
        if rule.margin is None or rule.discordance is None:
            continue
        ratio, graded = rule.kind == "non_inferior_ratio", rule.metric.startswith("reward.")
        margin, n = log1p(rule.margin) if ratio else rule.margin, n_of[rule.metric.partition(".")[0]]
        power = (power_of if ratio or graded else score_power)(margin, n, rule.discordance, alpha)
        print(f"{rule.name:<20}{rule.margin:>8g}{rule.discordance:>8g}{n:>6}{power:>8.2f}")


def sizes(name: str) -> dict[str, int]:
    """Task -> samples in a profile; held-out text comes in at least 16 passages."""
    evaluate = parse(resolve(ROOT, name, []), name).evaluate
    answers = dict.fromkeys(("chat_quality", "reward"), evaluate.judge_prompts)
    asked = {"mmlu": evaluate.mmlu_questions, "humaneval": evaluate.humaneval_tasks, "safety": evaluate.safety_prompts}
    return answers | asked | {"perplexity": 16}


def main() -> None:
    params, rng = asked_of(parse(resolve(ROOT, "smol", []), "smol")), np.random.default_rng(20261121)
    print(f"{EXPERIMENTS} experiments a cell, n = {PAIRS}, margin {MARGIN}, one-sided {ALPHA}\n")
    print(
        f"{'discordance':>11}{'axes':>6}{'worse passes':>14}{'equal passes':>14}{'refused':>9}{'open':>7}{'n, 0.9':>8}"
    )
    worse: dict[tuple[float, int], Shares] = {}
    equal: dict[tuple[float, int], Shares] = {}
    for discordance in DISCORDANCES:
        lost = simulate(params, discordance, -MARGIN, rng)
        kept = [simulate(params, discordance, 0.0, rng) for _ in range(MOST_AXES)]
        needed = needed_score_n(MARGIN, discordance, ALPHA, 0.9)
        for axes in range(1, MOST_AXES + 1):
            worse[discordance, axes] = shares([lost, *kept[: axes - 1]])
            # One axis alone: all axes are experiments of it.
            equal[discordance, axes] = found = shares(kept[:axes] if axes > 1 else [list(chain(*kept))])
            print(
                f"{discordance:>11g}{axes:>6}{worse[discordance, axes].passed:>14.4f}{found.passed:>14.4f}"
                f"{found.refused:>9.4f}{found.inconclusive:>7.3f}{needed:>8,}",
                flush=True,
            )
    for name in ("tiny", "smol", "h200"):
        print_profile(name, sizes(name))
    few_differ = [found for (discordance, axes), found in equal.items() if axes == 1 and discordance <= 0.08]
    figures = {
        "worse_passes": max(found.passed for found in worse.values()),
        "equal_passes": min(found.passed for found in few_differ),
        "equal_refused": max(found.refused for found in equal.values()),
        "equal_inconclusive": max(found.inconclusive for found in few_differ),
    }
    print(json.dumps({"name": "gate_power", "figures": figures}))


if __name__ == "__main__":
    main()
