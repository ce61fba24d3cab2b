"""The only user of MLflow's model registry: versions, their aliases, and the files behind them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core import tracking
from pipelines.core.errors import BadInput

MODEL = "colloquy"


class ModelVersion(NamedTuple):
    """One registered model: its number, its tags, and the MLflow run that made it."""

    number: int
    tags: dict[str, str]
    run_id: str


def _version(found: Any) -> ModelVersion:
    return ModelVersion(int(found.version), dict(found.tags), str(found.run_id))


def find(lock_hash: str) -> ModelVersion | None:
    """The version that was registered from the same `dvc.lock`, if any."""
    found = tracking.client().search_model_versions(f"name = '{MODEL}' and tags.lock_hash = '{lock_hash}'")
    return _version(max(found, key=lambda version: int(version.version))) if found else None


def register(run_id: str, model: Path, tags: Mapping[str, str]) -> ModelVersion:
    """Upload the folder `model` to run `run_id` and make it the next version."""
    from mlflow.exceptions import MlflowException

    client = tracking.client()
    client.log_artifacts(run_id, str(model), "model")
    try:
        client.create_registered_model(MODEL)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = client.get_run(run_id).info.artifact_uri + "/model"
    return _version(client.create_model_version(MODEL, source, run_id, tags=dict(tags)))


def by_number(number: int) -> ModelVersion:
    """Version `number`, which is there."""
    return _version(tracking.client().get_model_version(MODEL, str(number)))


def by_alias(alias: str) -> ModelVersion | None:
    """The version that bears `alias`, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return _version(tracking.client().get_model_version_by_alias(MODEL, alias))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def set_alias(alias: str, number: int) -> None:
    """Point `alias` at version `number`; one call at the server, so readers see the old or the new."""
    tracking.client().set_registered_model_alias(MODEL, alias, str(number))


def set_tag(number: int, key: str, value: str) -> None:
    """Tag version `number`."""
    tracking.client().set_model_version_tag(MODEL, str(number), key, value)


def download(number: int, folder: Path) -> Path:
    """Fetch the files of version `number` (a plain Hugging Face folder) into `folder`.

    Raises:
        BadInput: the registry has no such version, or its files are gone.
    """
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    folder.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(tracking.client().tracking_uri)
    try:
        found = mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{MODEL}/{number}", dst_path=str(folder))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            raise BadInput(f"the registry has no files of version {number}: {error.message}") from error
        raise
    return Path(found)
