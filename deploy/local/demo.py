"""`make demo`: checks, starts the stack, triggers `train_assistant` through Airflow's API, follows it, sums it up.

    python -m deploy.local.demo --profile smol --labelers simulated --set "ppo.steps=8 seed=7"

Everything that can be refused is refused before anything starts. Exit code 1 when a task failed or the gate did not
say pass, with the reason.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from deploy.local import settings as local
from deploy.local import stack
from deploy.local.airflow_api import AirflowApi, AirflowError
from deploy.local.settings import ADMIN, ADMIN_EMAIL, ROOT, SettingError, Settings
from pipelines.core import config, workspace
from pipelines.core.errors import BadInput
from pipelines.core.workspace import RunRequest

DAG = "train_assistant"
LOOK_S = 0.5
FOLLOW_S = 1.5  # the API server answers on the cores that train
DAG_TIMEOUT_S = 90.0
ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
AUTHOR = {"NAME": "Colloquy", "EMAIL": "colloquy@localhost"}
OPTIONAL_TOOLS = {
    "g++": "torch.compile and DeepSpeed are off",
    "bwrap": "HumanEval is unscored: model-written code runs in a sandbox or not at all",
    "chromium": "the smoke test leaves the browser out",
}
# Which of a stage's metrics its line shows.
KEY_METRIC = {
    "ingest": "documents",
    "train_moderation": "auroc_harassment",
    "prepare_corpus": "documents_kept",
    "train_tokenizer": "bytes_per_token",
    "tokenize_corpus": "train_tokens",
    "pretrain": "held_out_perplexity",
    "prepare_sft": "demonstrations",
    "sft": "held_out_loss",
    "sample_completions": "completions",
    "pull_annotations": "annotations",
    "prepare_preferences": "pairwise_agreement",
    "reward_model": "held_out_accuracy",
    "ppo": "reward_gain",
    "evaluate": "judge_win_rate",
}


def git(*words: str, **variables: str) -> str:
    """git in the repository; bad news become `BadInput`."""
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, env=os.environ | variables)
    if done.returncode:
        raise BadInput(f"git {' '.join(words)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def snapshot(run_id: str) -> str:
    """A commit of the working tree under refs/colloquy/runs/<run_id>; branch and index stay as they are."""
    author = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in AUTHOR.items()}
    with tempfile.TemporaryDirectory() as folder:
        index = str(Path(folder, "index"))
        git("read-tree", "HEAD", GIT_INDEX_FILE=index)
        git("add", "-A", GIT_INDEX_FILE=index)
        tree = git("write-tree", GIT_INDEX_FILE=index)
    commit = git("commit-tree", tree, "-p", "HEAD", "-m", f"Working tree of run {run_id}", **author)
    git("update-ref", f"refs/colloquy/runs/{workspace.slug(run_id)}", commit)
    return commit


def commit_to_run(run_id: str) -> str:
    """The commit whose code runs.

    Raises:
        BadInput: the tree is dirty and ALLOW_DIRTY is not 1; the files are listed.
    """
    dirty = git("status", "--porcelain")
    if not dirty:
        return git("rev-parse", "HEAD")
    if os.environ.get("ALLOW_DIRTY") == "1":
        return snapshot(run_id)
    raise BadInput(f"uncommitted changes would not run:\n{dirty}\ncommit them, or set ALLOW_DIRTY=1 to run a snapshot")


def check(settings: Settings, request: RunRequest) -> list[str]:
    """Refuse what can't work before anything starts; returns notes on what will be left out.

    Raises:
        BadInput: with the value and the remedy.
    """
    values = workspace.resolve(ROOT, request)
    params = config.parse(values, "the parameters")
    settings.home.mkdir(parents=True, exist_ok=True)
    workspace.check_resources(params.resources, settings.home)
    for name in ("demonstrations", "prompts"):
        path = Path(getattr(params.prepare_sft, name))
        if not (ROOT / path).is_file():
            raise BadInput(f"prepare_sft.{name}: there is no file {str(path)!r}")
    if workspace.folder(settings.home, request.run_id).exists():
        raise BadInput(f"there is a run {request.run_id!r} already; choose another RUN_ID or leave it out")
    return [f"{tool} is not installed: {effect}" for tool, effect in OPTIONAL_TOOLS.items() if not shutil.which(tool)]


def task_line(task: dict[str, Any], folder: Path) -> str:
    """One finished task: name, state, seconds, key metric."""
    name = task["task_id"]
    line = f"  {name:<22}{task['state']:<16}{task['duration'] or 0:>7.1f} s"
    path = folder / "artifacts" / "metrics" / f"{name}.json"
    if task["state"] == "success" and name in KEY_METRIC and path.exists():
        value = json.loads(path.read_text()).get(KEY_METRIC[name])
        if value is not None:
            line += f"   {KEY_METRIC[name]} {value:.4g}"
    return line


def wait_for_dag(api: AirflowApi) -> None:
    """Wait until Airflow has read the DAG files as they are now.

    Raises:
        SettingError: it can't read one, or takes too long.
    """
    changed = max(path.stat().st_mtime for path in (ROOT / "dags").glob("*.py"))
    deadline = time.monotonic() + DAG_TIMEOUT_S
    while (api.parsed_at(DAG) or 0) < changed:
        if errors := api.import_errors(changed):
            raise SettingError(f"Airflow can't read a DAG file: {'; '.join(errors)}")
        if time.monotonic() > deadline:
            raise SettingError(f"Airflow has not read {ROOT / 'dags'} within {DAG_TIMEOUT_S:.0f} s; see make status")
        time.sleep(LOOK_S)


def follow(api: AirflowApi, settings: Settings, run_id: str, started: float) -> str:
    """Print tasks as they end; returns the run's final state."""
    folder = workspace.folder(settings.home, run_id)
    reported: set[str] = set()
    told_to_label = False
    live = sys.stdout.isatty()
    while True:
        state = str(api.run(DAG, run_id)["state"])
        tasks = api.tasks(DAG, run_id)
        if live:
            print("\r\033[K", end="")
        for task in sorted(tasks, key=lambda task: task["end_date"] or "~"):
            if task["state"] in ENDED and task["task_id"] not in reported:
                reported.add(task["task_id"])
                print(task_line(task, folder), flush=True)
            again = f"{task['task_id']} {task['try_number']}"
            if task["state"] == "up_for_retry" and again not in reported:
                reported.add(again)
                print(f"  {task['task_id']:<22}try {task['try_number']} ended badly, trying again", flush=True)
        waiting = any(task["task_id"] == "wait" and task["state"] == "up_for_reschedule" for task in tasks)
        if waiting and not told_to_label and not is_simulated(folder):
            told_to_label = True
            print(f"  People rank now: {settings.url('LABEL_STUDIO')} (sign in as {ADMIN_EMAIL}; the password is in")
            print(f"  {settings.secrets_file}). The run goes on by itself; you may leave this with Ctrl-C.", flush=True)
        if state in ("success", "failed"):
            return state
        if live:
            running = [task["task_id"] for task in tasks if task["state"] == "running"]
            print(f"  {time.monotonic() - started:>5.0f} s  {' '.join(running)}", end="", flush=True)
        time.sleep(FOLLOW_S)


def is_simulated(folder: Path) -> bool:
    """Whether the run's labelers are simulated."""
    path = folder / ".run" / "run.json"
    return path.exists() and json.loads(path.read_text())["tags"]["labelers"] == "simulated"


def print_summary(settings: Settings, run_id: str, notes: list[str], seconds: float) -> list[str]:
    """Everything worth knowing at the end; returns why the run failed, if it did."""
    path = workspace.folder(settings.home, run_id) / ".run" / "summary.json"
    if not path.exists():
        return ["the run ended before its summary; open_workspace's or summarize's log in Airflow says why"]
    summary = json.loads(path.read_text())
    print(f"\nRun {run_id}: {seconds:.0f} s")
    for entry in summary["stages"]:
        print(f"  {entry['stage']:<22}{entry['seconds']:>7.1f} s{'   from cache' if entry['cached'] else ''}")
    print("Figures")
    for name, value in summary["figures"].items():
        print(f"  {name:<22}{value:>10.4g}")
    verdict = summary["verdict"]
    print(f"Gate           {verdict.get('text', 'did not run')}")
    for rule in verdict.get("rules", []):
        needs = f"; needs n = {rule['planned_n']:,}" if rule.get("planned_n") else ""
        print(f"  {rule['name']:<34}{rule['verdict']:<14}{rule['reason']}{needs}")
    print(f"Model version  {summary['model_version'] or 'none'}")
    print(f"Bento          {summary['bento'] or 'none'}")
    for note in notes + summary["notes"]:
        print(f"Note: {note}")
    return list(summary["failures"])


def run(arguments: argparse.Namespace) -> int:
    settings = local.load()
    run_id = arguments.run_id or f"{arguments.profile}-{time.strftime('%Y%m%d-%H%M%S')}"
    request = RunRequest(
        run_id, arguments.profile, labelers=arguments.labelers, overrides=tuple(shlex.split(arguments.set))
    )
    notes = check(settings, request)
    commit = commit_to_run(run_id)
    started = time.monotonic()
    print(f"Run {run_id} of commit {commit[:12]}, profile {request.profile}, {request.labelers} labelers", flush=True)
    keys = stack.start(settings)
    stack.print_passwords(settings, keys)
    # Label Studio takes longest to start and is needed late: its clients wait for it.
    stack.wait_until_healthy(settings, ["airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "mlflow"])
    api = AirflowApi(settings.url("AIRFLOW"), ADMIN, keys.airflow_password)
    wait_for_dag(api)
    conf = {"profile": request.profile, "labelers": request.labelers, "overrides": list(request.overrides)}
    api.trigger(DAG, run_id, conf | {"commit": commit})
    print(f"Following {settings.url('AIRFLOW')}/dags/{DAG}/runs/{run_id}", flush=True)
    state = follow(api, settings, run_id, started)
    failures = print_summary(settings, run_id, notes, time.monotonic() - started)
    stack.print_addresses(settings)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    if state != "success" and not failures:
        print("error: the run failed; its tasks in Airflow say why", file=sys.stderr)
    return 0 if state == "success" and not failures else 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.local.demo")
    parser.add_argument("--profile", required=True)
    parser.add_argument("--labelers", default=workspace.FROM_PROFILE, choices=["simulated", "human", "profile"])
    parser.add_argument("--set", default="", help='overrides, for example "ppo.steps=8 seed=7"')
    parser.add_argument("--run-id", default="")
    try:
        sys.exit(run(parser.parse_args()))
    except (BadInput, SettingError, AirflowError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nThe run goes on in Airflow; make status shows the stack, make down stops it.")


if __name__ == "__main__":
    main()
