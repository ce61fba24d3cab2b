"""Snapshots what the round before left, so that this one goes on from it.

In: the workspace of the run in `previous_round.run`, as it was when this run was opened, and that of the run in
`previous_round.challenger`, if one is named. Out: their policies, which `sample_completions` samples from; the reward
model of the first; the preferences of all rounds up to it, which this round's reward model learns from too; a manifest;
the content hashes of what each earlier round wrote, by which a later deletion finds whom it saw. In the first round
there is only the manifest, and no hashes.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from pipelines.core import artifacts
from pipelines.core.config import read_yaml
from pipelines.core.digests import file_sha256
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, read_json, read_rows, write_json, write_rows
from pipelines.core.lineage import outs_of
from pipelines.core.rounds import EarlierRound
from pipelines.core.stage import open_stage
from pipelines.core.workspace import folder

FIRST = EarlierRound(number=1, run=None, simulated=False, reward_model={}, preferences={})


def require_unchanged(named: str, workspace: Path, lock_sha256: str | None) -> None:
    """Check that the run in `workspace` is as it was when this run was opened; `named` is the parameter that says it.

    Raises:
        BadInput: it is not there, or has changed.
    """
    lock = workspace / "dvc.lock"
    if not lock.exists():
        raise BadInput(f"{named}: {workspace} is not there or has no result; name a finished run")
    if file_sha256(lock) != lock_sha256:
        raise BadInput(f"{named}: {workspace} has changed since this run was opened; start a new run")


def copy(named: str, workspace: Path, copies: Mapping[Path, Path]) -> None:
    """Copy files and folders of the run in `workspace` here.

    Raises:
        BadInput: the run has not come that far.
    """
    for source, target in copies.items():
        path = workspace / source
        if not path.exists():
            raise BadInput(f"{named} has no {source}: it did not come that far; name a finished run")
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(path, target)


def policy_of(workspace: Path) -> Path:
    """Where the run in `workspace` has its aligned model; its parameters may be older than this schema."""
    return artifacts.aligned_model(read_yaml(workspace / "params.yaml")["align"]["method"])


def rounds_before(workspace: Path, number: int) -> list[Row]:
    """The rounds that the run in `workspace`, of round `number`, goes on from; a first one may not have noted them."""
    return [] if number == 1 else list(read_rows(workspace / artifacts.EARLIER_ROUNDS))


def snapshot_challenger(run: str, workspace: Path, lock_sha256: str | None) -> None:
    """Copy the policy of the run in `workspace`, to sample from it too."""
    named = f"previous_round.challenger={run}"
    require_unchanged(named, workspace, lock_sha256)
    copy(named, workspace, {policy_of(workspace): artifacts.PREVIOUS_CHALLENGER})


def snapshot(run: str, workspace: Path, lock_sha256: str | None) -> EarlierRound:
    """Copy what the run in `workspace` made.

    Raises:
        BadInput: it is not there, has not come to an aligned model, or has changed since this run was opened.
    """
    named = f"previous_round.run={run}"
    require_unchanged(named, workspace, lock_sha256)
    copies = {
        policy_of(workspace): artifacts.PREVIOUS_POLICY,
        artifacts.REWARD_MODEL: artifacts.PREVIOUS_REWARD_MODEL,
        artifacts.PREFERENCES_TRAIN: artifacts.PREVIOUS_PREFERENCES_TRAIN,
        artifacts.PREFERENCES_HELD_OUT: artifacts.PREVIOUS_PREFERENCES_HELD_OUT,
    }
    copy(named, workspace, copies)
    its_own = {"run": run, "outs": outs_of(read_yaml(workspace / "dvc.lock")["stages"])}
    number = read_json(workspace / artifacts.PREVIOUS_ROUND_MANIFEST)["number"]
    write_rows(artifacts.EARLIER_ROUNDS, [its_own, *rounds_before(workspace, number)])
    metrics = {
        stage: read_json(workspace / artifacts.metrics_of(stage)) for stage in ("reward_model", "prepare_preferences")
    }
    return EarlierRound(
        number=number + 1,
        run=run,
        simulated=any(row["simulated"] for row in read_rows(artifacts.PREVIOUS_PREFERENCES_TRAIN)),
        reward_model=metrics["reward_model"],
        preferences=metrics["prepare_preferences"],
    )


def main() -> None:
    with open_stage("previous_round") as stage:
        params = stage.params.previous_round
        stage.out.mkdir(parents=True, exist_ok=True)
        found = FIRST
        write_rows(artifacts.EARLIER_ROUNDS, [])
        home = Path(os.environ.get("COLLOQUY_HOME", ".colloquy"))
        if params.run is not None:
            found = snapshot(params.run, folder(home, params.run), params.lock_sha256)
        if params.challenger is not None:
            snapshot_challenger(params.challenger, folder(home, params.challenger), params.challenger_sha256)
        write_json(artifacts.PREVIOUS_ROUND_MANIFEST, asdict(found))
        print(f"round {found.number}" + (f", after run {found.run}" if found.run else ""))
        stage.write_metrics({"round": float(found.number)})


if __name__ == "__main__":
    main()
