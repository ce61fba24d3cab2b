"""The task factory: a stage becomes `dvc repro --single-item <stage>`, a command `python -m <module>`.

Both run through `pipelines.core.stage_runner` in the run's workspace and in the project's environment; nothing of
the project is imported here. What DAG and workspace say to each other is contract 3: the stages' names, the runner's
command line, the exit codes below, and `.run/run.json`, `push_tasks.json`, `wait.json` and the label backups. A run can
be older than this file, so its contract is checked.
"""

import json
import os
import re
import subprocess
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import BaseSensorOperator, get_current_context, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

CONTRACT = 3
BAD_INPUT, NOT_YET, SKIP = 65, 75, 99

RETRIES: dict[str, Any] = {"retries": 3, "retry_delay": timedelta(seconds=5)}
SECONDS_BETWEEN_LOOKS = {"simulated": 5, "human": 60}
SECONDS_WHILE_PEOPLE_WORK = 10
AT_WORK_S = 120  # since the last label that came in
# Stages that train or generate; on Kubernetes their pods come from COLLOQUY_GPU_POD_TEMPLATE, where that is set.
ON_GPU = {
    "pretrain",
    "sft",
    "sample_completions",
    "reward_model",
    "ppo",
    "dpo",
    "grpo",
    "rloo",
    "best_of_n",
    "evaluate",
}
FOREVER = timedelta(days=3650)  # the deadline is labeling.deadline_hours, which `labeling.wait` keeps


def workspace_of(run_id: str) -> Path:
    """The folder of a run; the rule for its name is that of `pipelines.core.workspace.slug`."""
    return Path(os.environ["COLLOQUY_HOME"], "workspaces", re.sub(r"[^A-Za-z0-9_.-]+", "-", run_id).strip("-."))


def run_info(workspace: Path) -> dict[str, Any]:
    """`.run/run.json`, after a look at its contract."""
    path = workspace / ".run" / "run.json"
    if not path.exists():
        raise AirflowFailException(f"{path} is missing: the run has no workspace; see open_workspace's log")
    info: dict[str, Any] = json.loads(path.read_text())
    if info["contract"] != CONTRACT:
        raise AirflowFailException(
            f"the run was opened under contract {info['contract']}, these DAGs speak {CONTRACT}; start a new run"
        )
    return info


def call(folder: Path, *words: str) -> int:
    """Run `python -m <words>` in `folder` with the project's Python; its output becomes the task's log."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONNOUSERSITE": "1"}
    child = subprocess.Popen(
        [os.environ["COLLOQUY_PYTHON"], "-m", *words],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert child.stdout is not None
    for line in child.stdout:
        print(line, end="")
    return child.wait()


def settle(task_id: str, exit_code: int) -> None:
    """Turn an exit code into what Airflow does next."""
    if exit_code == SKIP:
        raise AirflowSkipException(f"{task_id} has nothing to do; the reason is in the log above")
    if exit_code == BAD_INPUT:
        raise AirflowFailException(f"{task_id} refused its input; the reason is in the log above, a retry can't help")
    if exit_code:
        raise AirflowException(f"{task_id} ended with exit code {exit_code}")


def _here() -> tuple[str, Path]:
    context = get_current_context()
    return context["task"].task_id, workspace_of(context["dag_run"].run_id)


def place(name: str) -> dict[str, Any]:
    """What KubernetesExecutor must know of the stage `name`; other executors don't look at it."""
    template = os.environ.get("COLLOQUY_GPU_POD_TEMPLATE")
    return {"executor_config": {"pod_template_file": template}} if template and name in ON_GPU else {}


def dvc_stage(name: str, pool: str = "compute", **options: Any) -> Any:
    """The task of the DVC stage `name`."""

    @task(task_id=name, pool=pool, **RETRIES, **place(name), **options)
    def repro() -> None:
        task_id, workspace = _here()
        run_info(workspace)
        settle(task_id, call(workspace, "pipelines.core.stage_runner", "repro", task_id))

    return repro()


def alignment_stage(name: str) -> Any:
    """The task of an alignment method: skipped unless the run chose it."""

    @task(task_id=name, pool="compute", **RETRIES, **place(name))
    def align() -> None:
        task_id, workspace = _here()
        chosen = run_info(workspace)["align_method"]
        if chosen != task_id:
            raise AirflowSkipException(f"this run aligns by {chosen}")
        settle(task_id, call(workspace, "pipelines.core.stage_runner", "repro", task_id))

    return align()


def command(name: str, module: str, pool: str = "default_pool", **options: Any) -> Any:
    """The task of an idempotent command that acts on a server; never cached."""

    @task(task_id=name, pool=pool, **RETRIES, **options)
    def run() -> None:
        task_id, workspace = _here()
        run_info(workspace)
        settle(task_id, call(workspace, "pipelines.core.stage_runner", "run", task_id, module))

    return run()


def people_work(workspace: Path) -> bool:
    """Whether a label came in a moment ago: a look or a webhook added to the batch's backup."""
    pushed = json.loads((workspace / ".run" / "push_tasks.json").read_text())
    backup = Path(os.environ["COLLOQUY_HOME"], "label-backups", f"{pushed['batch_id']}.jsonl")
    return backup.exists() and time.time() - backup.stat().st_mtime < AT_WORK_S


class LabelsReady(BaseSensorOperator):
    """Looks whether the batch is ranked, and gives its worker back between two looks.

    What the run waits for is in the log, and as the XCom `waits_for` of the task.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(mode="reschedule", timeout=FOREVER, **RETRIES, **options)

    def poke(self, context: Any) -> bool:
        workspace = workspace_of(context["dag_run"].run_id)
        labelers = run_info(workspace)["tags"]["labelers"]
        code = call(workspace, "pipelines.core.stage_runner", "run", self.task_id, "labeling.wait", "--once")
        said = workspace / ".run" / "wait.json"
        if said.exists():
            context["ti"].xcom_push("waits_for", json.loads(said.read_text())["says"])
        if code == NOT_YET:
            soon = labelers == "human" and people_work(workspace)
            self.poke_interval = SECONDS_WHILE_PEOPLE_WORK if soon else SECONDS_BETWEEN_LOOKS[labelers]
            return False
        settle(self.task_id, code)
        return True
