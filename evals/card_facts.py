"""What the report card shows beside scores and rules, read from the run's artifacts: lineage, funnel, curves, labels.

A file that an older run does not have leaves its part of the card out.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.charts import curve
from pipelines.core import artifacts
from pipelines.core.config import Params
from pipelines.core.curves import read_curve
from pipelines.core.jsonl import Row, read_json, read_rows

# What is drawn of a training, in this order, where it was logged.
CURVES = {
    "loss": "loss",
    "held_out_loss": "held-out loss",
    "held_out_perplexity": "held-out perplexity",
    "accuracy": "accuracy on its pairs",
    "reward": "reward of the rollouts",
    "kl": "KL from SFT, nats a response",
    "entropy": "entropy, nats a token",
}


def _json(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.exists() else {}


def _metrics(stage: str) -> dict[str, Any]:
    return _json(artifacts.metrics_of(stage))


def funnel(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each step over all sources: documents in and out, and what was dropped, most frequent first."""
    found: dict[str, dict[str, Any]] = {}
    for step in steps:
        row = found.setdefault(step["step"], {"step": step["step"], "in": 0, "out": 0, "dropped": Counter()})
        row["in"] += step["documents_in"]
        row["out"] += step["documents_out"]
        row["dropped"].update(step["dropped"])
    return [row | {"dropped": row["dropped"].most_common()} for row in found.values()]


def curves(method: str) -> list[dict[str, Any]]:
    """The curves of every training that leads to the candidate; fewer than two points are no curve."""
    found = []
    for stage in ("pretrain", "sft", "reward_model", method):
        rows = read_curve(stage)
        for metric, title in CURVES.items():
            points = [(row["step"], row[metric]) for row in rows if metric in row]
            if len(points) > 1:
                found.append(curve(f"{stage}: {title}", points))
    return found


def base_model_name(manifest: Mapping[str, Any]) -> str:
    """The base model and where it was pinned."""
    source = manifest.get("base_model") or {}
    parts = (source.get(key) for key in ("package", "repo", "path", "revision"))
    return " at ".join(str(part) for part in parts if part) or "trained from scratch"


def lineage(params: Params) -> list[dict[str, Any]]:
    """What the candidate came from, first things first: a title, a figure, and lines that say which."""
    manifest, kept = _json(artifacts.INGEST_MANIFEST), _json(artifacts.CORPUS_FUNNEL).get("kept", {})
    sft, prepared, batch = _metrics("sft"), _metrics("prepare_sft"), _json(artifacts.LABEL_BATCH_MANIFEST)
    labels, reward_model = _metrics("prepare_preferences"), _metrics("reward_model")
    aligned = _metrics(params.align.method)
    sources = [source for source in manifest.get("sources", ()) if source["use"] == "corpus"]
    pretrained = _metrics("pretrain")
    earlier = _json(artifacts.PREVIOUS_ROUND_MANIFEST)
    return [
        {
            "title": "Corpus",
            "figure": f"{kept.get('train', {}).get('words', 0):,} words",
            "lines": [f"{source['name']}, {source['license']}" for source in sources],
        },
        {
            "title": "Base model",
            "figure": f"{pretrained.get('parameters', 0) / 1e6:,.0f} M parameters",
            "lines": [
                base_model_name(manifest),
                "passed through" if pretrained.get("passed_through") else f"{pretrained.get('steps', 0):,.0f} steps",
            ],
        },
        {
            "title": "SFT",
            "figure": f"{sft.get('train_conversations', 0):,.0f} conversations",
            "lines": [
                f"{sft.get('train_tokens', 0):,.0f} tokens",
                f"{prepared.get('written_demonstrations', 0):,.0f} written by people",
            ],
        },
        {
            "title": "Labels",
            "figure": f"{labels.get('labels') or 0:,.0f} rankings",
            "lines": [
                f"batch {batch.get('batch_id', 'unknown')}, {batch.get('tasks', 0)} tasks",
                f"guidelines {batch.get('guideline_version', 'unknown')}",
                f"round {earlier.get('number', 1)}" + (f", after run {earlier['run']}" if earlier.get("run") else ""),
            ],
        },
        {
            "title": "Reward model",
            "figure": f"{reward_model.get('train_pairs', 0):,.0f} pairs",
            "lines": [f"{reward_model.get('held_out_pairs', 0):,.0f} pairs held out"],
        },
        {
            "title": params.align.method.replace("_", " ").upper(),
            "figure": f"{aligned.get('steps', 0):,.0f} steps" if aligned.get("steps") else "candidate",
            "lines": [f"seed {params.seed}", f"profile {params.profile}"],
        },
    ]


def reward_model_beside_people(reward_model: Mapping[str, Any], labels: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Held-out accuracy of the reward model and the labelers' own agreement, which is its ceiling."""
    simulated = (labels.get("simulated_share") or 0) > 0
    rows = [
        {
            "name": "reward model agrees with held-out labels",
            "value": reward_model.get("held_out_accuracy"),
            "low": reward_model.get("held_out_accuracy_low"),
            "high": reward_model.get("held_out_accuracy_high"),
        },
        {
            "name": f"{'simulated labelers' if simulated else 'labelers'} agree with each other",
            "value": labels.get("pairwise_agreement"),
            "low": None,
            "high": None,
        },
    ]
    return [row for row in rows if row["value"] is not None]


def label_figures(labels: Mapping[str, Any], reward_model: Mapping[str, Any]) -> dict[str, Any]:
    """What is worth knowing of the labels and of what was made of them; what was not measured is left out."""
    found = {
        "rankings": labels.get("labels"),
        "tasks that several labelers ranked": labels.get("tasks_with_overlap"),
        "Krippendorff's alpha": labels.get("krippendorff_alpha"),
        "share of labels that are simulated": labels.get("simulated_share"),
        "pairs trained on": labels.get("pairs_train"),
        "pairs held out": labels.get("pairs_held_out"),
        "calibration error of the reward model": reward_model.get("calibration_error"),
        "correlation of reward and length": reward_model.get("length_correlation"),
    }
    return {name: value for name, value in found.items() if value is not None}


def judged_rows() -> dict[str, Row]:
    """What the judge said of each prompt."""
    path = artifacts.EVALUATION_SAMPLES / "judge.jsonl"
    return {row["id"]: row for row in read_rows(path)} if path.exists() else {}


def read_facts(params: Params) -> dict[str, Any]:
    """Everything that `evals.report_card.render` takes as `facts`."""
    method = params.align.method
    labels, reward_model = _metrics("prepare_preferences"), _metrics("reward_model")
    return {
        "profile": params.profile,
        "lineage": lineage(params),
        "funnel": funnel(_json(artifacts.CORPUS_FUNNEL).get("steps", ())),
        "kept": _json(artifacts.CORPUS_FUNNEL).get("kept", {}),
        "curves": curves(method),
        "labels": labels,
        "reward_model": reward_model,
        "label_figures": label_figures(labels, reward_model),
        "agreement": reward_model_beside_people(reward_model, labels),
        "alignment": _metrics(method),
        "judged": judged_rows(),
    }
