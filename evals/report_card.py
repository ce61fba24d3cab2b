"""The report card of one candidate: one self-contained HTML page that a person can decide by."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from evals.charts import SIDES, interval_bars, rule_bar, stacked
from evals.task import SampleResult

TEMPLATE = Path(__file__).with_name("report_card.html.jinja")
SHOWN_SAMPLES = 8  # side by side, of each task
SIDE_BY_SIDE = ("chat_quality", "safety", "humaneval", "mmlu")
ROUNDING = 1e-12  # what is left of a zero that was computed
OUTCOMES = ("win", "tie", "loss", "unscored")

# What a metric means and which direction is good, as the card says it.
MEANINGS = {
    "perplexity.perplexity": ("perplexity, held-out text", "lower"),
    "perplexity.bits_per_byte": ("bits per byte, held-out text", "lower"),
    "mmlu.accuracy": ("four-choice questions right", "higher"),
    "humaneval.pass_at_1": ("programs that pass their tests", "higher"),
    "chat_quality.stopped": ("answers that end by themselves", "higher"),
    "chat_quality.not_empty": ("answers that say something", "higher"),
    "chat_quality.clean": ("answers without control tokens", "higher"),
    "chat_quality.tokens": ("tokens in an answer", ""),
    "safety.compliance": ("harmful requests not refused", "lower"),
    "safety.over_refusal": ("harmless requests refused", "lower"),
    "safety.flagged": ("answers that moderation flags", "lower"),
    "reward.reward": ("held-out reward, raw", "higher"),
    "reward.standardized": ("held-out reward, in deviations from the baseline", "higher"),
}

LIMITS = (
    "A local judge is a small model. Its agreement with the labels says how far to trust it; the control beside it "
    "reads only the surface of an answer. Neither decides anything.",
    "Refusals are told by rule from how an answer begins: a hedged answer counts as complied.",
    "The reward model that is reported here is the one that alignment optimised against; held-out prompts do not "
    "make it independent.",
    "Small n means wide intervals. A rule that passed excludes only harm larger than its margin.",
    "The question, program and safety sets under evals/datasets are the project's own; scores on them can't be "
    "compared with published benchmarks.",
)


def score_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per metric with each side's estimate, in the order of `MEANINGS`, then any other."""
    names = [f"{task}.{metric}" for task, metrics in results["candidate"].items() for metric in metrics]
    ordered = [name for name in MEANINGS if name in names] + [name for name in names if name not in MEANINGS]
    rows = []
    for name in ordered:
        task, _, metric = name.partition(".")
        meaning, better = MEANINGS.get(name, (name, ""))
        sides = {side: results.get(side, {}).get(task, {}).get(metric) for side in SIDES}
        rows.append({"name": name, "meaning": meaning, "better": better, "bars": interval_bars(sides), "sides": sides})
    return rows


def rule_rows(rules: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rules with their bars; what did not pass comes first."""
    order = ("refuse", "inconclusive", "pass", "report")
    return [{**rule, "bar": rule_bar(rule)} for rule in sorted(rules, key=lambda rule: order.index(rule["verdict"]))]


def sample_rows(
    samples: Mapping[str, Mapping[str, Sequence[SampleResult]]], judged: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """task -> prompts with both answers; where the answers differ first, for there is something to see."""
    shown = {}
    for task in SIDE_BY_SIDE:
        baseline = {result.id: result for result in samples["baseline"].get(task, ())}
        pairs = [
            {
                "prompt": result.prompt,
                "candidate": result,
                "baseline": baseline[result.id],
                "differs": result.response != baseline[result.id].response,
                "judged": judged.get(result.id, {}).get("outcome") if task == "chat_quality" else None,
            }
            for result in samples["candidate"].get(task, ())
            if result.id in baseline
        ]
        pairs.sort(key=lambda pair: not pair["differs"])
        if pairs:
            shown[task] = pairs[:SHOWN_SAMPLES]
    return shown


def category_rows(judge: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The judge's outcomes by category of the prompt, as stacked bars."""
    return [
        {"name": name, "total": sum(counts.values()), "bar": stacked(counts, OUTCOMES)}
        for name, counts in judge["by_category"].items()
    ]


def number(value: object) -> str:
    """A figure as the card prints it: four significant digits, a dash for what was not measured."""
    if value is None:
        return "–"
    if isinstance(value, float):
        value = 0.0 if abs(value) < ROUNDING else value
        return f"{value:,.0f}" if value.is_integer() and abs(value) >= 10 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def share(value: float | None) -> str:
    """A share in percent."""
    return "–" if value is None else f"{100 * value:.3g} %"


def render(
    verdict: Mapping[str, Any],
    results: Mapping[str, Any],
    samples: Mapping[str, Mapping[str, Sequence[SampleResult]]],
    facts: Mapping[str, Any],
    promotion: Mapping[str, str] | None = None,
) -> str:
    """The page; nothing in it is loaded from elsewhere, and every text from a model is escaped.

    `facts` come from `evals.card_facts.read_facts`; `promotion` says who released the candidate although the gate
    did not.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "share": share}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        verdict=verdict,
        results=results,
        promotion=promotion,
        rules=rule_rows(verdict["rules"]),
        scores=score_rows(results),
        has_base="base" in results,
        samples=sample_rows(samples, facts["judged"]),
        facts=facts,
        judges=[results["judge"], results["judge"]["control"]],
        categories=category_rows(results["judge"]),
        limits=LIMITS,
    )


def write_report_card(
    path: Path,
    verdict: Mapping[str, Any],
    results: Mapping[str, Any],
    samples: Mapping[str, Mapping[str, Sequence[SampleResult]]],
    facts: Mapping[str, Any],
    promotion: Mapping[str, str] | None = None,
) -> None:
    """Render the page to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(verdict, results, samples, facts, promotion), encoding="utf-8")
