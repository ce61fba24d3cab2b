"""Turns a passed gate into a model version, and its inputs into a git tag.

In: the gate's verdict, or a named person's promotion of a candidate that it did not pass (`evals/promote.py`), the
aligned model, `dvc.lock` and `params.yaml` of the run. Out: a version in the registry with the alias `challenger`, and
`lineage.json` in the run that made it; the tag `model-v<N>` on a commit that holds the run's lock, parameters and
stages; `.run/register.json`. The same lock registers once: a second call finds the version and changes nothing.
"""

import hashlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML

from pipelines.core import artifacts, lineage, registry, tracking
from pipelines.core.config import load_params, read_yaml
from pipelines.core.digests import file_sha256
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import encode, read_json, read_rows, write_json
from pipelines.core.registry import ModelVersion
from pipelines.core.stage import Stage, open_stage
from pipelines.core.workspace import write_params

PIPELINE = Path("dvc.yaml")
LOCK = Path("dvc.lock")
PARAMS = Path("params.yaml")
AUTHOR = {"NAME": "Colloquy release", "EMAIL": "release@colloquy.invalid"}
NO_COMMIT = "0" * 40
PROMOTED = ("by", "reason", "at")  # what the registry keeps of a promotion


def stages_to(lock: dict[str, Any], target: str) -> list[str]:
    """`target` and every stage of `lock` that leads to it, sorted by name."""
    stages: dict[str, dict[str, Any]] = lock["stages"]
    producers = [(Path(out["path"]), name) for name, stage in stages.items() for out in stage.get("outs", [])]
    found: set[str] = set()
    todo = [target]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        if name not in stages:
            raise BadInput(f"{LOCK} has no stage {name!r}: run the pipeline up to gate first")
        found.add(name)
        for dep in stages[name].get("deps", []):
            path = Path(dep["path"])
            todo += [maker for out, maker in producers if path.is_relative_to(out) or out.is_relative_to(path)]
    return sorted(found)


def lock_hash(lock: dict[str, Any]) -> str:
    """SHA-256 over what the stages up to `gate` read and wrote: the identity of a model with its evidence.

    Metrics that no stage reads are left out, since they may hold times.
    """
    names = stages_to(lock, "gate")
    stages = {
        name: {
            "cmd": lock["stages"][name]["cmd"],
            "deps": _hashes(lock["stages"][name].get("deps", [])),
            "params": lock["stages"][name].get("params", {}),
            "outs": _hashes(
                out
                for out in lock["stages"][name].get("outs", [])
                if not Path(out["path"]).is_relative_to(artifacts.METRICS)
            ),
        }
        for name in names
    }
    return hashlib.sha256(encode(stages)).hexdigest()


def _hashes(entries: Iterable[dict[str, Any]]) -> dict[str, str]:
    return {entry["path"]: entry[entry.get("hash", "md5")] for entry in entries}


def refusal(verdict: dict[str, Any]) -> str | None:
    """Why nothing may be released, with the rules' names; None when the gate said pass."""
    if verdict["verdict"] == "pass":
        return None
    named = [f"{rule['name']} ({rule['verdict']})" for rule in verdict["rules"] if rule["verdict"] != "pass"]
    return f"nothing is released: the gate says {verdict['verdict']}; {', '.join(named) or 'no rule is named'}"


def promotion_of_verdict() -> dict[str, str] | None:
    """Who released this candidate although the gate did not, if somebody did; another verdict voids it."""
    if not artifacts.PROMOTION.exists():
        return None
    promotion: dict[str, str] = read_json(artifacts.PROMOTION)
    if promotion["verdict_sha256"] != file_sha256(artifacts.VERDICT):
        print(f"the promotion by {promotion['by']} was of another verdict ({promotion['verdict']}); it is void")
        return None
    return promotion


def release_reason(verdict: dict[str, Any]) -> tuple[str | None, dict[str, str] | None]:
    """Why nothing may be released, if so, and the promotion that overrules the gate, if any."""
    reason = refusal(verdict)
    promotion = promotion_of_verdict() if reason else None
    return (None if promotion else reason), promotion


def compare_with_champion() -> ExitCode:
    """Evaluate and judge again when the champion is no longer the one that the gate compared with."""
    params = load_params(PARAMS)
    if params.evaluate.baseline != "champion":
        return ExitCode.OK
    champion = registry.by_alias("champion")
    now = champion.number if champion else None
    if now == params.evaluate.champion_version:
        return ExitCode.OK
    print(f"the champion is version {now}, the gate compared with {params.evaluate.champion_version}: comparing again")
    values = read_yaml(PARAMS)
    values["evaluate"]["champion_version"] = now
    write_params(Path(), values)
    for stage in ("evaluate", "gate"):
        done = subprocess.run([sys.executable, "-m", "pipelines.core.stage_runner", "repro", stage])
        if done.returncode:
            print(f"comparing with version {now} failed in {stage} (exit code {done.returncode}); a retry goes on here")
            return ExitCode.BAD_INPUT if done.returncode == ExitCode.BAD_INPUT else ExitCode.NOT_YET
    return ExitCode.OK


def labels_are(kind: Literal["simulated", "by_reward_model"]) -> str:
    """Whether any preference that the model learned from is of that `kind`, as a tag says it."""
    return str(any(row[kind] for row in read_rows(artifacts.PREFERENCES_TRAIN))).lower()


def version_tags(
    stage: Stage, info: dict[str, Any], verdict: dict[str, Any], digest: str, promotion: dict[str, str] | None
) -> dict[str, str]:
    """What the registry says of the version, for a person and for the bento."""
    labels = read_json(artifacts.metrics_of("prepare_preferences"))
    return {
        "profile": stage.params.profile,
        "git_commit": info["commit"],
        "lock_hash": digest,
        "run_id": info["run_id"],
        "align_method": stage.params.align.method,
        "base_model": stage.params.base_model.kind,
        "simulated_labels": labels_are("simulated"),
        "reward_model_labels": labels_are("by_reward_model"),
        "verdict": verdict["text"],
        "pairwise_agreement": str(labels.get("pairwise_agreement", "unknown")),
    } | ({f"promoted_{key}": promotion[key] for key in PROMOTED} if promotion else {})


def _git(*words: str, **variables: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, env=os.environ | variables)
    if done.returncode:
        raise BadInput(f"git {' '.join(words)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def stages_that_ran(pipeline: bytes, lock: dict[str, Any]) -> bytes:
    """dvc.yaml without the stages that `lock` does not have; comments stay."""
    yaml = YAML()
    yaml.width = 4096
    document = yaml.load(pipeline)
    for name in set(document["stages"]) - set(lock["stages"]):
        del document["stages"][name]
    written = io.BytesIO()
    yaml.dump(document, written)
    return written.getvalue()


def commit_inputs(commit: str, message: str) -> str:
    """A commit on top of `commit` with the run's lock, its parameters and the stages that ran; returns its id.

    Stages that did not run (alignment methods that were not chosen) have no outputs, and `dvc checkout` would fail on
    them. Made from an index of its own: no branch, index, hook or configuration of the user takes part.
    """
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git("read-tree", commit, **index)
        _git("add", "--force", "--", str(LOCK), str(PARAMS), **index)
        pipeline = Path(folder) / "dvc.yaml"
        pipeline.write_bytes(stages_that_ran(PIPELINE.read_bytes(), read_yaml(LOCK)))
        blob = _git("hash-object", "-w", "--", str(pipeline))
        _git("update-index", "--cacheinfo", f"100644,{blob},{PIPELINE}", **index)
        tree = _git("write-tree", **index)
    date = _git("show", "--no-patch", "--format=%cI", commit)  # same inputs, same commit id
    identity = {f"GIT_{who}_{key}": value for who in ("AUTHOR", "COMMITTER") for key, value in AUTHOR.items()}
    dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
    return _git("commit-tree", tree, "-p", commit, "-m", message, **identity, **dates)


def tag_inputs(number: int, digest: str, commit: str) -> str:
    """Tag the run's inputs as `model-v<number>` and return the tag's name.

    A tag of that name with other inputs belongs to another registry that shares this repository; it is left alone,
    and this one gets the start of its lock hash added.
    """
    for tag in (f"model-v{number}", f"model-v{number}-{digest[:8]}"):
        if not _git("tag", "--list", tag):
            inputs = commit_inputs(commit, f"Inputs of model version {number}\n\nlock {digest}")
            _git("update-ref", f"refs/tags/{tag}", inputs, NO_COMMIT)
            return tag
        tagged = _git("show", f"refs/tags/{tag}:{LOCK}")
        if lock_hash(YAML(typ="safe", pure=True).load(tagged)) == digest:
            return tag
        print(f"the tag {tag} names other inputs and is left as it is")
    raise BadInput(f"both model-v{number} and model-v{number}-{digest[:8]} name other inputs; delete the wrong one")


def keep_lineage(version: ModelVersion) -> None:
    """Lay what the version came from beside it, in the MLflow run that made it."""
    lock = read_yaml(LOCK)
    stages = {name: lock["stages"][name] for name in stages_to(lock, "gate")}
    write_json(artifacts.LINEAGE, lineage.collect(stages))
    tracking.MlflowTracker(tracking.client(), version.run_id).log_artifact(artifacts.LINEAGE)


def register(stage: Stage) -> ExitCode:
    """Register the run's model, or find the version that its lock already has."""
    verdict = read_json(artifacts.VERDICT)
    reason, promotion = release_reason(verdict)
    if reason is None:
        if code := compare_with_champion():
            return code
        verdict = read_json(artifacts.VERDICT)
        reason, promotion = release_reason(verdict)
    if reason is not None:
        print(reason)
        return ExitCode.SKIP
    info = read_json(artifacts.RUN_INFO)
    digest = lock_hash(read_yaml(LOCK))
    version = registry.find(digest)
    reused = version is not None
    if version is None:
        tags = version_tags(stage, info, verdict, digest, promotion)
        version = registry.register(info["mlflow_run_id"], artifacts.aligned_model(stage.params.align.method), tags)
    keep_lineage(version)
    registry.set_alias("challenger", version.number)
    tag = tag_inputs(version.number, digest, info["commit"])
    registry.set_tag(version.number, "git_tag", tag)
    registered = {"version": version.number, "lock_hash": digest, "tag": tag, "reused": reused}
    write_json(artifacts.REGISTERED, registered | {"promoted": bool(promotion)})
    stage.tracker.set_tags({"model_version": str(version.number), "git_tag": tag})
    stage.tracker.log_artifact(artifacts.GATE)
    if promotion:
        stage.tracker.log_artifact(artifacts.PROMOTED_CARD)  # in place of the card without name and reason
        stage.tracker.set_tags({f"promoted_{key}": promotion[key] for key in PROMOTED})
        print(f"released by {promotion['by']} although the gate says {verdict['text']}: {promotion['reason']}")
    print(f"model version {version.number} {'was registered before' if reused else 'registered'}, inputs tagged {tag}")
    return ExitCode.OK


def main() -> None:
    with open_stage("register") as stage:
        code = register(stage)
    sys.exit(code)


if __name__ == "__main__":
    main()
