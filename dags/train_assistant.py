"""The DAG `train_assistant`: raw text and human judgement become a moderated assistant that is served."""

import os
from pathlib import Path

from airflow.sdk import Param, TaskGroup, dag, get_current_context, task
from approval import Approval
from assets import FEEDBACK, RELEASE
from dvc_stage import RETRIES, LabelsReady, alignment_stage, call, command, dvc_stage, run_info, settle, workspace_of
from form import COMMIT, overrides

PROFILES = sorted(path.stem for path in (Path(__file__).parents[1] / "profiles").glob("*.yaml"))
AS_PROFILE = "profile"
ALIGNMENT = ("ppo", "dpo", "grpo", "rloo", "best_of_n")

PARAMS = {
    "profile": Param(
        "smol" if "smol" in PROFILES else PROFILES[0],
        enum=PROFILES,
        title="Profile",
        description="The size of the run, a file in profiles/. tiny: from scratch in minutes, answers gibberish; "
        "smol: starts from SmolLM2-135M on two CPU cores; h200: one GPU; cluster: several nodes.",
    ),
    "base_model": Param(
        AS_PROFILE,
        type="string",
        title="Base model",
        description="`profile` keeps the profile's. Else: scratch, hub:<repo>@<revision>, folder:<path>, "
        "or a mapping such as {kind: package, package: name==1.0, sha256: …, file: …}.",
    ),
    "labelers": Param(
        AS_PROFILE,
        enum=[AS_PROFILE, "simulated", "human"],
        title="Labelers",
        description="Who ranks the responses. human: the run waits until people are done in Label Studio. "
        "simulated: accounts that rank by a rule; what they touch is marked as simulated up to the chat page.",
    ),
    "align_method": Param(
        AS_PROFILE,
        enum=[AS_PROFILE, *ALIGNMENT],
        title="Alignment method",
        description="How the policy learns from the rankings: ppo (reward model, KL penalty), grpo and rloo (without a "
        "value model), best_of_n (fine-tuned on its own best answers), or dpo (without a reward model).",
    ),
    "overrides": overrides("params.yaml and the profile"),
    "commit": COMMIT,
}

DOC = """
### Raw text to a served assistant

Each task is one DVC stage or one idempotent command, run in the run's own workspace
(`$COLLOQUY_HOME/workspaces/<run id>`). Same inputs: the stage comes from the cache.

**When a task fails**

| what you see | what to do |
|---|---|
| *refused its input* | the last lines of its log name value and remedy; change it and start a new run |
| killed, out of memory | clear the task: it goes on with what the earlier stages left |
| `wait` is rescheduled | people are ranking, or disagree: its log and its XCom `waits_for` say who has how many left, \
which tasks are disputed and whom to ask; it goes on by itself |
| `approve` awaits input | `release.approval` is `required`: answer below "Required actions"; a no ends the release |
| release tasks are skipped | the gate did not pass; `summarize` names the rules, MLflow has the report card. To \
release all the same: `make promote RUN_ID=… BY="your name" REASON="why"`, then clear `register` with what follows it |

Parameters, metrics, plots and the report card are in MLflow under the run's id.
"""


APPROVAL = "Release the candidate of {{ dag_run.run_id }}?"
APPROVAL_BODY = "It passed its gate and its bento is built; its report card is in MLflow, at the run's task register."


@task(task_id="open_workspace", **RETRIES)
def open_workspace() -> None:
    """Make the run's worktree with its resolved parameters, and its MLflow run."""
    context = get_current_context()
    chosen = context["params"]
    words = ["open", "--run-id", context["dag_run"].run_id, "--profile", chosen["profile"]]
    words += ["--base-model", chosen["base_model"], "--labelers", chosen["labelers"]]
    words += ["--align-method", chosen["align_method"], "--commit", chosen["commit"]]
    for override in chosen["overrides"] or []:
        words += ["--override", override]
    settle("open_workspace", call(Path(os.environ["COLLOQUY_REPO"]), "pipelines.core.workspace", *words))


@task(task_id="summarize", trigger_rule="all_done", **RETRIES)
def summarize() -> None:
    """Collect figures and verdict; fails when the run did, so that the run shows it."""
    workspace = workspace_of(get_current_context()["dag_run"].run_id)
    run_info(workspace)
    settle("summarize", call(workspace, "pipelines.core.stage_runner", "run", "summarize", "pipelines.summarize"))


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=4,
    max_active_tasks=8,
    params=PARAMS,
    doc_md=DOC,
    tags=["colloquy"],
    default_args={"owner": "colloquy"},
)
def train_assistant() -> None:
    def group(name: str) -> TaskGroup:
        return TaskGroup(name, prefix_group_id=False)

    opened = open_workspace()

    with group("data"):
        corpus = dvc_stage("validate_corpus")
        opened >> dvc_stage("ingest") >> dvc_stage("train_moderation") >> dvc_stage("prepare_corpus") >> corpus

    with group("pretraining"):
        tokenizer = dvc_stage("train_tokenizer")
        base = dvc_stage("pretrain")
        corpus >> tokenizer >> dvc_stage("tokenize_corpus") >> base

    with group("finetuning"):
        sft = dvc_stage("sft")
        validated = dvc_stage("validate_sft")
        opened >> dvc_stage("pull_demonstrations") >> dvc_stage("prepare_sft") >> validated >> sft
        tokenizer >> validated
        base >> sft

    with group("labeling"):
        preferences = dvc_stage("validate_preferences")
        pushed = command("push_tasks", "labeling.push_tasks")
        labeled = LabelsReady(task_id="wait")
        feedback = dvc_stage("pull_feedback", inlets=[FEEDBACK])
        opened >> dvc_stage("previous_round") >> (sampled := dvc_stage("sample_completions"))
        validated >> feedback >> sampled
        sft >> sampled >> pushed >> labeled
        labeled >> dvc_stage("pull_annotations") >> dvc_stage("prepare_preferences") >> preferences

    with group("alignment"):
        aligned = [alignment_stage(method) for method in ALIGNMENT]
        preferences >> dvc_stage("reward_model") >> aligned

    with group("evaluation"):
        gate = dvc_stage("gate")
        aligned >> dvc_stage("evaluate", trigger_rule="none_failed_min_one_success") >> gate

    with group("release"):
        registered = command("register", "pipelines.register", pool="release")
        built = command("build_bento", "serving.build_bento", pool="release")
        approved = Approval(task_id="approve", subject=APPROVAL, body=APPROVAL_BODY, pool="release", **RETRIES)
        deployed = command("deploy", "serving.deploy", pool="release", trigger_rule="none_failed_min_one_success")
        smoke_tested = command("smoke_test", "serving.smoke_test", pool="release", outlets=[RELEASE])
        gate >> registered >> built >> approved
        [built, approved] >> deployed >> smoke_tested

    [gate, smoke_tested] >> summarize()


train_assistant()
