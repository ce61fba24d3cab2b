"""The DAG `learn_from_feedback`: what people rated in production becomes the next round of `train_assistant`."""

import json
import os
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import dag, get_current_context, task
from assets import FEEDBACK
from dvc_stage import RETRIES, call, settle, workspace_of
from form import COMMIT, overrides

PARAMS = {"overrides": overrides("what the champion was made with"), "commit": COMMIT}

DOC = """
### From thumbs and flags to the next candidate

`export_feedback` writes a snapshot of rated and flagged answers. `train_assistant` then runs with it: people rank these
answers beside fresh ones of champion and challenger, and their preferences align, evaluate, gate and release the next
version. Thumbs choose what people look at; nothing is trained on them.

It runs on demand, and by the cron expression in `COLLOQUY_FEEDBACK_SCHEDULE` where that is set.

| what you see | what to do |
|---|---|
| `export_feedback` is skipped | nobody who agreed has rated anything new; its log counts what was left out and why |
| `export_feedback` *refused its input* | there is no champion yet, or a store has no address: its log says which |
| the run of `train_assistant` fails | its own documentation has a table |
"""


@task(task_id="export_feedback", outlets=[FEEDBACK], **RETRIES)
def export_feedback() -> dict[str, Any]:
    """Export once for each run, and say what `train_assistant` is started with."""
    context = get_current_context()
    repo, chosen = Path(os.environ["COLLOQUY_REPO"]), context["params"]
    name = workspace_of(context["dag_run"].run_id).name
    out = Path(os.environ["COLLOQUY_HOME"], "feedback", f"{name}.json")
    if not out.exists():
        settle("export_feedback", call(repo, "serving.operations.feedback_export", "--out", str(out)))
    started: dict[str, Any] = json.loads(out.read_text())
    overrides = started["overrides"] + (chosen["overrides"] or [])
    return started | {"overrides": overrides, "commit": chosen["commit"]}


@dag(
    schedule=os.environ.get("COLLOQUY_FEEDBACK_SCHEDULE") or None,
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    doc_md=DOC,
    tags=["colloquy"],
    default_args={"owner": "colloquy"},
)
def learn_from_feedback() -> None:
    TriggerDagRunOperator(
        task_id="train_assistant",
        trigger_dag_id="train_assistant",
        trigger_run_id="feedback-{{ dag_run.run_id }}",
        conf=export_feedback(),
        skip_when_already_exists=True,  # a try that was killed had started it
        **RETRIES,
    )


learn_from_feedback()
