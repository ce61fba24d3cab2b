"""The run's last command: seconds, figures and verdict to `.run/summary.json` and to the parent MLflow run.

Stages that came from the cache get a child run of their own here, so that every run's page shows every stage.
Exits with 65 and the reason when a task failed or the gate did not say pass.
"""

import json
import sys
from pathlib import Path
from typing import Any

from pipelines.core import artifacts, tracking
from pipelines.core.config import load_params
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import read_json, write_json

SUMMARY = artifacts.RUN / "summary.json"
FAILED_RULES = ("refuse", "inconclusive")

# What the summary shows: its name, the stage whose metrics have it (`align` is that of the method), and the key there.
FIGURES = [
    ("perplexity", "evaluate", "perplexity"),
    ("mmlu", "evaluate", "mmlu_accuracy"),
    ("humaneval", "evaluate", "humaneval_pass_at_1"),
    ("judge_win_rate", "evaluate", "judge_win_rate"),
    ("reward_sft", "align", "reward_sft"),
    ("reward_aligned", "align", "reward_aligned"),
    ("kl", "align", "kl_final"),
    ("agreement", "prepare_preferences", "pairwise_agreement"),
    ("reward_model_accuracy", "reward_model", "held_out_accuracy"),
]


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def stage_entries() -> list[dict[str, Any]]:
    """What the runner noted of each task that ran, in the order in which they ended."""
    entries = [read_json(path) for path in artifacts.STAGE_LOG.glob("*.json")]
    return sorted(entries, key=lambda entry: entry["ended"])


def figures(method: str) -> dict[str, float]:
    """The headline numbers; one that no stage measured is left out."""
    found = {}
    for name, stage, key in FIGURES:
        value = _read(artifacts.metrics_of(method if stage == "align" else stage)).get(key)
        if value is not None:
            found[name] = value
    return found


def failures() -> list[str]:
    """Why tasks failed: what they said themselves, or else how they ended."""
    said = {path.stem: read_json(path)["error"] for path in sorted(artifacts.FAILURES.glob("*.json"))}
    ended = {entry["stage"]: entry["exit_code"] for entry in stage_entries()}
    quiet = (ExitCode.OK, ExitCode.SKIP, ExitCode.NOT_YET)
    return [
        f"{stage}: {said.get(stage, f'ended with exit code {code}; its log in Airflow says more')}"
        for stage, code in ended.items()
        if code not in quiet
    ]


def promoted_note(promotion: dict[str, str]) -> list[str]:
    """What a release says of itself that a person forced."""
    if not promotion:
        return []
    return [f"released by {promotion['by']} although the gate says {promotion['verdict']}: {promotion['reason']}"]


def collect() -> dict[str, Any]:
    """Everything the summary says, from the files of this workspace."""
    params = load_params(Path("params.yaml"))
    verdict = _read(artifacts.VERDICT)
    promotion = _read(artifacts.PROMOTION) if _read(artifacts.REGISTERED).get("promoted") else {}
    return {
        "profile": params.profile,
        "align_method": params.align.method,
        "stages": stage_entries(),
        "figures": figures(params.align.method),
        "verdict": verdict,
        "promotion": promotion,
        "model_version": _read(artifacts.REGISTERED).get("version"),
        "bento": _read(artifacts.BENTO).get("bento"),
        "failures": failures(),
        "notes": promoted_note(promotion) + verdict.get("notes", []) + _read(artifacts.SMOKE_TEST).get("notes", []),
    }


def track(summary: dict[str, Any]) -> None:
    """Give cached stages their child runs, and the parent its figures, verdict and end."""
    client = tracking.client()
    info = read_json(artifacts.RUN_INFO)
    tracker = tracking.MlflowTracker(client, info["mlflow_run_id"])
    params = load_params(Path("params.yaml"))
    for entry in summary["stages"]:
        metrics = _read(artifacts.metrics_of(entry["stage"]))
        if entry["cached"]:
            with tracking.open_run(entry["stage"]) as cached:
                cached.log_params(params.section(entry["stage"]))
                cached.log_metrics(metrics)
                cached.set_tags({"cached": "true"})
    tracker.log_metrics(summary["figures"] | {f"seconds_{e['stage']}": e["seconds"] for e in summary["stages"]})
    tags = {"verdict": summary["verdict"].get("text", "none"), "model_version": summary["model_version"] or "none"}
    tracker.set_tags(tags | {"bento": summary["bento"] or "none"})
    tracker.log_artifact(SUMMARY)
    client.set_terminated(info["mlflow_run_id"], "FAILED" if summary["failures"] else "FINISHED")


def main() -> None:
    summary = collect()
    verdict = summary["verdict"]
    if not summary["failures"] and verdict and verdict["verdict"] != "pass" and not summary["promotion"]:
        rules = [f"{rule['name']}: {rule['reason']}" for rule in verdict["rules"] if rule["verdict"] in FAILED_RULES]
        summary["failures"] = [f"the gate says {verdict['verdict']}: " + "; ".join(rules)]
    if not summary["failures"] and not artifacts.DEPLOYED.exists():
        said = "the failed task's log in Airflow says why, if nobody said no to the release"
        summary["failures"] = [f"the run ended before its release; {said}"]
    write_json(SUMMARY, summary)
    track(summary)
    print(json.dumps(summary["figures"], indent=2))
    for failure in summary["failures"]:
        print(failure, file=sys.stderr)
    if summary["failures"]:
        sys.exit(ExitCode.BAD_INPUT)


if __name__ == "__main__":
    main()
