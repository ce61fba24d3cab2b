"""The only importer of MLflow's tracking API: one parent run per DAG run, one child run per stage."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pipelines.core import artifacts
from pipelines.core.jsonl import read_json

EXPERIMENT = "colloquy"
URI_VARIABLE = "MLFLOW_TRACKING_URI"


class Tracker(Protocol):
    """Where a stage's parameters, numbers and files go."""

    def log_params(self, params: Mapping[str, Any]) -> None: ...
    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None: ...
    def log_artifact(self, path: Path, folder: str | None = None) -> None: ...
    def set_tags(self, tags: Mapping[str, str]) -> None: ...


class NoTracker:
    """Used outside a DAG run, when no tracking server is named."""

    def log_params(self, params: Mapping[str, Any]) -> None: ...
    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None: ...
    def log_artifact(self, path: Path, folder: str | None = None) -> None: ...
    def set_tags(self, tags: Mapping[str, str]) -> None: ...


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as dotted names, as MLflow's pages list and compare them."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


class MlflowTracker:
    """Logs into one MLflow run."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client = client
        self.run_id = run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        entries = [Param(key, value[:6000]) for key, value in flatten(params).items()]
        for start in range(0, len(entries), 100):  # MLflow's limit for one batch
            self._client.log_batch(self.run_id, params=entries[start : start + 100])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(key, float(value), now, step) for key, value in metrics.items() if value is not None]
        for start in range(0, len(entries), 1000):
            self._client.log_batch(self.run_id, metrics=entries[start : start + 1000])

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder)
        else:
            self._client.log_artifact(self.run_id, str(path), folder)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])


def client() -> Any:
    """An MLflow client for the server in MLFLOW_TRACKING_URI. Importing MLflow costs seconds, hence only here."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=os.environ[URI_VARIABLE])


def experiment_id(mlflow_client: Any) -> str:
    """The id of the project's experiment, made when it is not there."""
    found = mlflow_client.get_experiment_by_name(EXPERIMENT)
    if found:
        return str(found.experiment_id)
    # MLflow's page opens on the training runs then, not on traces.
    return str(mlflow_client.create_experiment(EXPERIMENT, tags={"mlflow.experimentKind": "custom_model_development"}))


def open_parent(name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> str:
    """Create the parent run `name` of a DAG run, or return the one that an earlier try made."""
    mlflow_client = client()
    experiment = experiment_id(mlflow_client)
    found = mlflow_client.search_runs([experiment], f"tags.dag_run = '{name}' and tags.stage = 'run'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    run = mlflow_client.create_run(experiment, tags={**tags, "dag_run": name, "stage": "run"}, run_name=name)
    MlflowTracker(mlflow_client, run.info.run_id).log_params(params)
    return str(run.info.run_id)


@contextmanager
def open_run(stage: str) -> Iterator[Tracker]:
    """Open the child run of `stage` under the parent named in `.run/run.json`.

    A child that an earlier, killed try left running is ended as KILLED. Without a tracking server in the
    environment nothing is logged, and one line says so.
    """
    if URI_VARIABLE not in os.environ:
        print(f"{stage}: {URI_VARIABLE} is not set, so nothing is tracked")
        yield NoTracker()
        return
    info = read_json(artifacts.RUN_INFO)
    mlflow_client = client()
    experiment = experiment_id(mlflow_client)
    same = f"tags.mlflow.parentRunId = '{info['mlflow_run_id']}' and tags.stage = '{stage}'"
    for stale in mlflow_client.search_runs([experiment], f"{same} and attributes.status = 'RUNNING'"):
        mlflow_client.set_terminated(stale.info.run_id, "KILLED")
    tags = info["tags"] | {"mlflow.parentRunId": info["mlflow_run_id"], "stage": stage, "dag_run": info["run_id"]}
    run = mlflow_client.create_run(experiment, tags=tags, run_name=stage)
    tracker = MlflowTracker(mlflow_client, run.info.run_id)
    try:
        yield tracker
    except BaseException as error:
        tracker.set_tags({"error": str(error)[:500]})
        mlflow_client.set_terminated(run.info.run_id, "FAILED")
        raise
    mlflow_client.set_terminated(run.info.run_id, "FINISHED")


def current_run_url() -> str:
    """The address of the parent run's page."""
    info = read_json(artifacts.RUN_INFO)
    experiment = experiment_id(client())
    return f"{os.environ[URI_VARIABLE]}/#/experiments/{experiment}/runs/{info['mlflow_run_id']}"
