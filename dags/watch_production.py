"""The DAG `watch_production`: looks at the candidate that answers a share of new conversations, every few minutes."""

import os
from pathlib import Path

from airflow.sdk import dag, task
from assets import RELEASE
from dvc_stage import RETRIES, call, settle

DOC = """
### Rolled back, promoted, or watched on

`rollout` counts the conversations that came to rest since the last look, of candidate and champion, and does what the
canary rule says (`serving/operations/canary.py`): its log has the verdict with its reason. Without a candidate it is
skipped. `COLLOQUY_WATCH_SCHEDULE` is how often, as a cron expression. To take a candidate back by hand:
`make rollback BY="your name" REASON="why"`.
"""


@task(task_id="rollout", pool="release", inlets=[RELEASE], **RETRIES)
def rollout() -> None:
    """One look, and what follows from it."""
    settle("rollout", call(Path(os.environ["COLLOQUY_REPO"]), "serving.operations.rollout"))


@dag(
    schedule=os.environ.get("COLLOQUY_WATCH_SCHEDULE", "*/5 * * * *"),
    catchup=False,
    max_active_runs=1,
    doc_md=DOC,
    tags=["colloquy"],
    default_args={"owner": "colloquy"},
)
def watch_production() -> None:
    rollout()


watch_production()
