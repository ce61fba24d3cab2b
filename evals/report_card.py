"""The report card of one candidate: one self-contained HTML page with scores, rules, judge, samples and limits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from evals.task import SampleResult

TEMPLATE = Path(__file__).with_name("report_card.html.jinja")
SHOWN_SAMPLES = 8  # side by side, of each task
SIDE_BY_SIDE = ("chat_quality", "safety", "humaneval", "mmlu")

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
    "The judge, where no endpoint is named, is a small local model. Its agreement with the labels above says how far "
    "to trust it; the control beside it reads only the surface of an answer.",
    "Refusals are told by rule from how an answer begins: a hedged answer counts as complied.",
    "The reward model that is reported here is the one that alignment optimised against; held-out prompts do not "
    "make it independent.",
    "Small n means wide intervals. A rule that passed excludes only harm larger than its margin.",
    "The question, program and safety sets under evals/datasets are the project's own; scores on them can't be "
    "compared with published benchmarks.",
)


def score_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per metric with both sides' estimates, in the order of `MEANINGS`, then any other."""
    names = [f"{task}.{metric}" for task, metrics in results["candidate"].items() for metric in metrics]
    ordered = [name for name in MEANINGS if name in names] + [name for name in names if name not in MEANINGS]
    rows = []
    for name in ordered:
        task, _, metric = name.partition(".")
        meaning, better = MEANINGS.get(name, (name, ""))
        sides = {side: results[side].get(task, {}).get(metric) for side in ("candidate", "baseline")}
        rows.append({"name": name, "meaning": meaning, "better": better, "bar": interval_bar(sides), **sides})
    return rows


def interval_bar(sides: Mapping[str, Mapping[str, Any] | None]) -> list[dict[str, float | str]]:
    """Where each side's interval and value lie on a common scale from 0 to 100; empty when nothing was scored."""
    shown = {side: found for side, found in sides.items() if found and found["value"] is not None}
    if not shown:
        return []
    low = min(found["low"] for found in shown.values())
    high = max(found["high"] for found in shown.values())
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - low) / span, 2) if high > low else 50.0

    return [
        {
            "side": side,
            "left": place(found["low"]),
            "width": round(place(found["high"]) - place(found["low"]), 2),
            "at": place(found["value"]),
        }
        for side, found in shown.items()
    ]


def sample_rows(samples: Mapping[str, Mapping[str, Sequence[SampleResult]]]) -> dict[str, list[dict[str, Any]]]:
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
            }
            for result in samples["candidate"].get(task, ())
            if result.id in baseline
        ]
        pairs.sort(key=lambda pair: not pair["differs"])
        if pairs:
            shown[task] = pairs[:SHOWN_SAMPLES]
    return shown


def number(value: object) -> str:
    """A figure as the card prints it: four significant digits, a dash for what was not measured."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def render(
    verdict: Mapping[str, Any],
    results: Mapping[str, Any],
    samples: Mapping[str, Mapping[str, Sequence[SampleResult]]],
    facts: Mapping[str, Any],
) -> str:
    """The page; nothing in it is loaded from elsewhere, and every text from a model is escaped."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["number"] = number
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        verdict=verdict,
        results=results,
        scores=score_rows(results),
        samples=sample_rows(samples),
        facts=facts,
        judges=[results["judge"], results["judge"]["control"]],
        limits=LIMITS,
    )


def write_report_card(
    path: Path,
    verdict: Mapping[str, Any],
    results: Mapping[str, Any],
    samples: Mapping[str, Mapping[str, Sequence[SampleResult]]],
    facts: Mapping[str, Any],
) -> None:
    """Render the page to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(verdict, results, samples, facts), encoding="utf-8")
