"""A DAG run's workspace: a git worktree at one commit with resolved parameters, sharing one DVC cache.

    python -m pipelines.core.workspace open --run-id R --profile P …    what the DAG's first task runs
    python -m pipelines.core.workspace clean --keep 3                   what `make clean-runs` runs
    python -m pipelines.core.workspace push|pull [--run-id R]           what `make push` and `make pull` run

`.run/run.json` in the workspace is the contract between a run and the DAG code, which may be newer than the run:
its `contract` number changes when the commands, files or exit codes that the two share change.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from pipelines.core import artifacts, config, feedback, registry, tracking
from pipelines.core.digests import file_sha256, folder_sha256
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import write_json
from pipelines.core.sections.serving import Resources

CONTRACT = 3
REMOTE = "store"  # the name that DVC knows it by
REMOTES = ("s3://", "gs://", "azure://")
FROM_PROFILE = "profile"  # a form field left at "whatever the profile says"


class RunRequest(NamedTuple):
    """What a person chose in the form or on the command line."""

    run_id: str
    profile: str
    base_model: str = FROM_PROFILE
    labelers: str = FROM_PROFILE
    align_method: str = FROM_PROFILE
    overrides: tuple[str, ...] = ()
    commit: str = "HEAD"


def slug(run_id: str) -> str:
    """`run_id` as a folder name and git ref component."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", run_id).strip("-.")


def folder(home: Path, run_id: str) -> Path:
    """Where the workspace of `run_id` lies."""
    return home / "workspaces" / slug(run_id)


def _git(repo: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(repo), *words], capture_output=True, text=True)
    if done.returncode:
        raise BadInput(f"git {' '.join(words)} in {repo} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def base_model_from(text: str) -> dict[str, Any]:
    """A base model as a form's text names it: scratch, hub:repo@revision, folder:path, or a YAML mapping.

    Raises:
        BadInput: none of these.
    """
    kind, _, rest = text.partition(":")
    if text == "scratch":
        return {"kind": "scratch"}
    if kind == "folder" and rest:
        if not Path(rest).is_dir():
            raise BadInput(f"base model {text!r}: there is no folder {rest!r}")
        return {"kind": "folder", "path": str(Path(rest).resolve()), "sha256": None}
    if kind == "hub" and "@" in rest:
        repo, _, revision = rest.rpartition("@")
        return {"kind": "hub", "repo": repo, "revision": revision}
    if text.lstrip().startswith("{"):
        value = YAML(typ="safe", pure=True).load(text)
        if isinstance(value, dict):
            return value
    raise BadInput(f"base model {text!r} is not one of: scratch, hub:repo@revision, folder:path, {{kind: package, …}}")


def overrides_of(request: RunRequest) -> list[str]:
    """The choices of `request` as overrides, explicit ones last, so that they win."""
    chosen = []
    if request.labelers != FROM_PROFILE:
        chosen.append(f"labeling.labelers={request.labelers}")
    if request.align_method != FROM_PROFILE:
        chosen.append(f"align.method={request.align_method}")
    if request.base_model != FROM_PROFILE:
        chosen.append(f"base_model={json.dumps(base_model_from(request.base_model))}")
    return chosen + list(request.overrides)


def resolve(root: Path, request: RunRequest) -> dict[str, Any]:
    """The parameters of `request` over the files in `root`, checked."""
    values = config.resolve(root, request.profile, overrides_of(request))
    model = values["base_model"]
    if model["kind"] == "folder" and not Path(model["path"]).is_dir():
        raise BadInput(f"base_model.path: there is no folder {model['path']!r}")
    return values


def pin(values: dict[str, Any], home: Path) -> None:
    """Fix in place what may change outside the workspace: champion, model folders, earlier runs, feedback."""
    if values["evaluate"]["baseline"] == "champion":
        champion = registry.by_alias("champion")
        values["evaluate"]["champion_version"] = champion.number if champion else None
    ingest = values["ingest"]
    for model in (values["base_model"], ingest["gpt2_tokenizer"], ingest["moderation_base"]):
        if model is not None and model["kind"] == "folder" and model["sha256"] is None and Path(model["path"]).is_dir():
            model["sha256"] = folder_sha256(Path(model["path"]))
    before = values["previous_round"]
    for named, pinned in (("run", "lock_sha256"), ("challenger", "challenger_sha256")):
        if before[named] is not None and before[pinned] is None:
            lock = folder(home, before[named]) / "dvc.lock"
            if not lock.exists():
                raise BadInput(
                    f"previous_round.{named}={before[named]}: there is no finished run of that name ({lock})"
                )
            before[pinned] = file_sha256(lock)
    pulled = values["pull_feedback"]
    if pulled["snapshot"] is not None and pulled["sha256"] is None:
        pulled["sha256"] = feedback.answers_sha256(home, pulled["snapshot"])


def check_resources(resources: Resources, home: Path) -> None:
    """Fail before the start when disk, memory or GPU fall short, with the numbers."""
    free = shutil.disk_usage(home).free / 2**30
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if free < resources.min_free_disk_gib:
        raise BadInput(
            f"{home} has {free:.1f} GiB free, this profile needs {resources.min_free_disk_gib}; "
            "free some (make clean-runs) or set resources.min_free_disk_gib"
        )
    if memory < resources.min_memory_gib:
        raise BadInput(
            f"this machine has {memory:.1f} GiB of memory, this profile needs {resources.min_memory_gib}; "
            "take a smaller profile or set resources.min_memory_gib"
        )
    if resources.require_gpu and not Path("/dev/nvidia0").exists():
        raise BadInput("this profile needs an NVIDIA GPU and there is none; take profile smol or tiny")


def add_worktree(repo: Path, workspace: Path, revision: str) -> str:
    """Check `revision` out as `workspace` unless that is done already; returns its commit id."""
    commit = _git(repo, "rev-parse", "--verify", f"{revision}^{{commit}}")
    if (workspace / ".git").exists():
        if _git(workspace, "rev-parse", "HEAD") != commit:
            raise BadInput(f"{workspace} is at another commit than {commit}; start the run under another run id")
        return commit
    workspace.parent.mkdir(parents=True, exist_ok=True)
    _git(repo, "worktree", "prune")
    _git(repo, "worktree", "add", "--quiet", "--detach", str(workspace), commit)
    return commit


def write_params(workspace: Path, values: dict[str, Any]) -> None:
    """Write `values` as the workspace's params.yaml, in their reading order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # keep the reading order
    partial = workspace / ".params.yaml.partial"
    yaml.dump(values, partial)
    partial.replace(workspace / "params.yaml")


def remote_url(home: Path, environ: Mapping[str, str]) -> str:
    """Where `dvc push` puts artifacts: $COLLOQUY_DVC_REMOTE, or a folder under `home`.

    Credentials and endpoints come from the provider's own variables (AWS_…, GOOGLE_APPLICATION_CREDENTIALS, AZURE_…).

    Raises:
        BadInput: neither an address of a known store nor an absolute folder.
    """
    url = environ.get("COLLOQUY_DVC_REMOTE")
    if not url:
        return str(home / "dvc-remote")
    if not re.fullmatch(rf"(?:(?:{'|'.join(REMOTES)})[^\s'\"]+|/[^\r\n'\"]+)", url):
        raise BadInput(f"COLLOQUY_DVC_REMOTE={url!r} is not of the form {'bucket/path, '.join(REMOTES)}… or /a/folder")
    return url


def _share_cache(workspace: Path, home: Path) -> None:
    """One DVC cache and one remote for all runs, and DVC's own state beside them instead of in a system folder."""
    lines = [
        "[cache]",
        f"    dir = {home / 'dvc-cache'}",
        "[core]",
        f"    site_cache_dir = {home / 'dvc-state'}",
        f"    remote = {REMOTE}",
        f"['remote \"{REMOTE}\"']",
        f"    url = {remote_url(home, os.environ)}",
    ]
    (workspace / ".dvc" / "config.local").write_text("\n".join(lines) + "\n")


def _dvc(at: Path, *words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=at, capture_output=True, text=True)
    if done.returncode:
        raise BadInput(f"dvc {' '.join(words)} in {at} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    print(done.stdout.strip())


def transfer(direction: str, at: Path, home: Path) -> None:
    """`dvc push` or `dvc pull` of what the dvc.lock in `at` names, with the remote that is set now.

    Raises:
        BadInput: there is no dvc.lock, or the store refuses or can't be reached.
    """
    if not (at / "dvc.lock").exists():
        raise BadInput(
            f"{at} has no dvc.lock, so nothing says which artifacts are meant; name a run (RUN_ID=…), or check out a "
            "release first (git checkout model-v<N>)"
        )
    url = remote_url(home, os.environ)
    _dvc(at, "remote", "add", "--quiet", "--local", "--force", "--default", REMOTE, url)
    try:
        _dvc(at, direction)
    except BadInput as error:
        raise BadInput(f"{error}\nThe remote is {url}; look at its credentials, and at COLLOQUY_DVC_REMOTE") from error


def promote(workspace: Path, by: str, reason: str) -> int:
    """Run `evals.promote` with the code of the run in `workspace`; returns its exit code.

    Raises:
        BadInput: that run has no verdict.
    """
    if not (workspace / artifacts.VERDICT).exists():
        raise BadInput(f"{workspace} has no {artifacts.VERDICT}: name a run (RUN_ID=…) that got as far as its gate")
    command = [sys.executable, "-m", "evals.promote", "--by", by, "--reason", reason]
    return subprocess.run(command, cwd=workspace, env=os.environ | {"PYTHONPATH": str(workspace)}).returncode


def open_workspace(repo: Path, home: Path, request: RunRequest) -> Path:
    """Create the workspace of a run and its MLflow parent run; a second call finds both as they are."""
    workspace = folder(home, request.run_id)
    info_path = workspace / artifacts.RUN_INFO
    if info_path.exists():
        return workspace
    commit = add_worktree(repo, workspace, request.commit)
    values = resolve(workspace, request)
    params = config.parse(values, "the resolved parameters")
    check_resources(params.resources, home)
    pin(values, home)
    write_params(workspace, values)
    _share_cache(workspace, home)
    tags = {
        "git_commit": commit,
        "profile": request.profile,
        "labelers": params.labeling.labelers,
        "overrides": json.dumps(overrides_of(request)),
    }
    parent = tracking.open_parent(request.run_id, tags, values)
    info = {
        "contract": CONTRACT,
        "run_id": request.run_id,
        "commit": commit,
        "profile": request.profile,
        "align_method": params.align.method,
        "threads": params.resources.threads,
        "approval": params.release.approval,
        "mlflow_run_id": parent,
        "tags": tags,
    }
    write_json(info_path, info)
    print(f"workspace {workspace} at commit {commit[:12]}, profile {request.profile}")
    return workspace


def clean(repo: Path, home: Path, keep: int) -> list[str]:
    """Remove the workspaces of finished, unreleased runs but the newest `keep`; returns their names.

    A run that still runs or waits has no summary yet and is never touched, nor is a released one.
    """
    finished = [
        workspace
        for workspace in sorted((home / "workspaces").glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
        if (workspace / artifacts.RUN / "summary.json").exists() and not (workspace / artifacts.DEPLOYED).exists()
    ]
    removed = finished[keep:]
    for workspace in removed:
        _git(repo, "worktree", "remove", "--force", str(workspace))
    return [workspace.name for workspace in removed]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipelines.core.workspace", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    opening = commands.add_parser("open", help="make the workspace of a run")
    opening.add_argument("--run-id", required=True)
    opening.add_argument("--profile", required=True)
    opening.add_argument("--base-model", default=FROM_PROFILE)
    opening.add_argument("--labelers", default=FROM_PROFILE)
    opening.add_argument("--align-method", default=FROM_PROFILE)
    opening.add_argument("--override", action="append", default=[])
    opening.add_argument("--commit", default="HEAD")
    cleaning = commands.add_parser("clean", help="remove workspaces of finished, unreleased runs")
    cleaning.add_argument("--keep", type=int, required=True)
    for direction in ("push", "pull"):
        moving = commands.add_parser(direction, help=f"{direction} the artifacts of a run, or of what is checked out")
        moving.add_argument("--run-id", default="")
    forcing = commands.add_parser("promote", help="release a run that the gate did not pass, by name and reason")
    for word in ("--run-id", "--by", "--reason"):
        forcing.add_argument(word, required=True)
    return parser.parse_args()


def go_on_inside(repo: Path, workspace: Path, revision: str) -> None:
    """Replace this process by the same command of the code in `workspace`: a commit is opened by its own rules."""
    commit = add_worktree(repo, workspace, revision)
    words = [sys.executable, "-m", "pipelines.core.workspace", *sys.argv[1:], "--commit", commit]
    os.chdir(workspace)
    os.execve(sys.executable, words, os.environ | {"PYTHONPATH": str(workspace)})


def main() -> None:
    arguments = _arguments()
    repo = Path(os.environ["COLLOQUY_REPO"])
    home = Path(os.environ["COLLOQUY_HOME"])
    try:
        if arguments.command == "open":
            inside = folder(home, arguments.run_id)
            if not (inside / artifacts.RUN_INFO).exists() and not Path(__file__).is_relative_to(inside):
                go_on_inside(repo, inside, arguments.commit)
            request = RunRequest(
                arguments.run_id,
                arguments.profile,
                arguments.base_model,
                arguments.labelers,
                arguments.align_method,
                tuple(arguments.override),
                arguments.commit,
            )
            open_workspace(repo, home, request)
        elif arguments.command in ("push", "pull"):
            transfer(arguments.command, folder(home, arguments.run_id) if arguments.run_id else repo, home)
        elif arguments.command == "promote":
            sys.exit(promote(folder(home, arguments.run_id), arguments.by, arguments.reason))
        else:
            removed = clean(repo, home, arguments.keep)
            print(f"removed {len(removed)} workspaces: {' '.join(removed) or 'none'}")
    except BadInput as error:
        print(error, file=sys.stderr)
        sys.exit(ExitCode.BAD_INPUT)


if __name__ == "__main__":
    main()
