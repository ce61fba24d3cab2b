"""Snapshots what the round before left, so that this one goes on from it.

In: the workspace of the run in `previous_round.run`, as it was when this run was opened. Out: its policy, which
`sample_completions` samples from; its reward model; the preferences of all rounds up to it, which this round's reward
model learns from too; a manifest. In the first round only the manifest.
"""

import os
import shutil
from dataclasses import asdict
from pathlib import Path

from pipelines.core import artifacts
from pipelines.core.config import load_params
from pipelines.core.digests import file_sha256
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, read_rows, write_json
from pipelines.core.rounds import EarlierRound
from pipelines.core.stage import open_stage
from pipelines.core.workspace import folder

FIRST = EarlierRound(number=1, run=None, simulated=False, reward_model={}, preferences={})


def snapshot(run: str, workspace: Path, lock_sha256: str | None) -> EarlierRound:
    """Copy what the run in `workspace` made.

    Raises:
        BadInput: it is not there, has not come to an aligned model, or has changed since this run was opened.
    """
    lock = workspace / "dvc.lock"
    if not lock.exists():
        raise BadInput(f"previous_round.run={run}: {workspace} is not there or has no result; name a finished run")
    if file_sha256(lock) != lock_sha256:
        raise BadInput(f"previous_round.run={run}: {workspace} has changed since this run was opened; start a new run")
    method = load_params(workspace / "params.yaml").align.method
    copies = {
        artifacts.aligned_model(method): artifacts.PREVIOUS_POLICY,
        artifacts.REWARD_MODEL: artifacts.PREVIOUS_REWARD_MODEL,
        artifacts.PREFERENCES_TRAIN: artifacts.PREVIOUS_PREFERENCES_TRAIN,
        artifacts.PREFERENCES_HELD_OUT: artifacts.PREVIOUS_PREFERENCES_HELD_OUT,
    }
    for source, target in copies.items():
        path = workspace / source
        if not path.exists():
            raise BadInput(f"previous_round.run={run} has no {source}: it did not come that far; name a finished run")
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(path, target)
    metrics = {
        stage: read_json(workspace / artifacts.metrics_of(stage)) for stage in ("reward_model", "prepare_preferences")
    }
    return EarlierRound(
        number=read_json(workspace / artifacts.PREVIOUS_ROUND_MANIFEST)["number"] + 1,
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
        if params.run is not None:
            workspace = folder(Path(os.environ["COLLOQUY_HOME"]), params.run)
            found = snapshot(params.run, workspace, params.lock_sha256)
        write_json(artifacts.PREVIOUS_ROUND_MANIFEST, asdict(found))
        print(f"round {found.number}" + (f", after run {found.run}" if found.run else ""))
        stage.write_metrics({"round": float(found.number)})


if __name__ == "__main__":
    main()
