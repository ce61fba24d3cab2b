"""What a model version came from: `register` collects it, trace and deletion read it back from MLflow.

Reading is plain HTTP: importing MLflow's client takes longer than a whole trace may, and the served bento has none.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import httpx

from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, read_rows
from pipelines.core.registry import MODEL
from pipelines.core.tracking import URI_VARIABLE

FILE = artifacts.LINEAGE.name
TIMEOUT_S = 10.0


class Origin(NamedTuple):
    """A registered version with what it came from; `pages` are the MLflow runs of its stages by name."""

    number: int
    tags: dict[str, str]
    lineage: dict[str, Any]
    version_page: str
    run_page: str
    pages: dict[str, str]


def outs_of(stages: Mapping[str, Any]) -> dict[str, str]:
    """The content hash of each output in the `stages` of a dvc.lock, by its path; a folder's ends with .dir."""
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ())}


def collect(stages: Mapping[str, Any]) -> dict[str, Any]:
    """What the candidate in the current workspace came from; `stages` are those of dvc.lock that lead to it.

    Holds facts and content hashes only, so that the same lock gives the same bytes.
    """
    manifest, kept = read_json(artifacts.INGEST_MANIFEST), read_json(artifacts.CORPUS_FUNNEL)["kept"]["train"]
    agreement = read_json(artifacts.AGREEMENT)
    outs = outs_of(stages)
    return {
        "base_model": manifest["base_model"],
        "corpus": {
            "version": outs[str(artifacts.PREPARE_CORPUS)],
            "documents": kept["documents"],
            "words": kept["words"],
            "sources": [
                {key: source[key] for key in ("name", "license", "origin", "sha256")}
                for source in manifest["sources"]
                if source["use"] == "corpus"
            ],
        },
        "sft": {
            "version": outs[str(artifacts.PREPARE_SFT)],
            "demonstrations": read_json(artifacts.metrics_of("prepare_sft"))["demonstrations"],
            "licenses": sorted({row["license"] for row in read_rows(artifacts.SFT_TRAIN)}),
        },
        "labels": read_json(artifacts.LABEL_BATCH_MANIFEST)
        | {
            "version": outs[str(artifacts.PULL_ANNOTATIONS)],
            "labels": agreement["labels"],
            "simulated_share": agreement["simulated_share"],
            "agreement": agreement["agreement"],
            "labelers": {row["labeler"]: row["agreement_with_others"] for row in agreement["labelers"]},
        },
        "outs": outs,
        "earlier_rounds": list(read_rows(artifacts.EARLIER_ROUNDS)),
    }


class Reader:
    """Reads versions and their lineage from the MLflow server at `address`."""

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        self._client = httpx.Client(base_url=self._address, timeout=TIMEOUT_S)

    def close(self) -> None:
        self._client.close()

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            said = f"MLflow at {self._address} does not answer ({error}); start it, or correct {URI_VARIABLE}"
            raise BadInput(said) from error
        if answer.status_code == 404:
            return None
        if not answer.is_success:
            raise BadInput(f"MLflow at {self._address}{path}: {answer.status_code} {answer.text[:200]}")
        return answer.json()

    def versions(self) -> list[int]:
        """The numbers of all registered versions, the first one first."""
        found: list[int] = []
        token = ""
        while True:
            asked = {"filter": f"name='{MODEL}'", "max_results": 200} | ({"page_token": token} if token else {})
            page = self._ask("GET", "/api/2.0/mlflow/model-versions/search", params=asked) or {}
            found += [int(version["version"]) for version in page.get("model_versions", ())]
            token = page.get("next_page_token", "")
            if not token:
                return sorted(found)

    def origin(self, number: int) -> Origin:
        """What version `number` came from.

        Raises:
            BadInput: the registry does not have it, or it was registered before its lineage was kept.
        """
        asked = {"name": MODEL, "version": str(number)}
        answer = self._ask("GET", "/api/2.0/mlflow/model-versions/get", params=asked)
        if answer is None:
            raise BadInput(f"the registry at {self._address} has no version {number}")
        version = answer["model_version"]
        tags = {tag["key"]: tag["value"] for tag in version.get("tags", ())}
        run = version["run_id"]
        lineage = self._ask("GET", "/get-artifact", params={"run_id": run, "path": FILE})
        if lineage is None:
            raise BadInput(
                f"version {number} has no {FILE}: it was registered before that was kept; clear the task register of "
                f"run {tags.get('run_id')} in Airflow"
            )
        experiment = self._ask("GET", "/api/2.0/mlflow/runs/get", params={"run_id": run})["run"]["info"][
            "experiment_id"
        ]
        runs = f"{self._address}/#/experiments/{experiment}/runs"
        pages = {stage: f"{runs}/{child}" for stage, child in self._children(experiment, run).items()}
        page = f"{self._address}/#/models/{MODEL}/versions/{number}"
        return Origin(number, tags, lineage, page, f"{runs}/{run}", pages)

    def _children(self, experiment: str, run: str) -> dict[str, str]:
        """The newest finished child run of each stage of `run`."""
        wanted = f"tags.mlflow.parentRunId = '{run}' and attributes.status = 'FINISHED'"
        query = {"experiment_ids": [experiment], "filter": wanted, "max_results": 1000}
        query["order_by"] = ["attributes.start_time ASC"]
        found = self._ask("POST", "/api/2.0/mlflow/runs/search", json=query).get("runs", ())
        stages = ({tag["key"]: tag["value"] for tag in child["data"]["tags"]}["stage"] for child in found)
        return {stage: child["info"]["run_id"] for stage, child in zip(stages, found, strict=True)}


def tracking_address() -> str:
    """Where MLflow is.

    Raises:
        BadInput: nobody says it.
    """
    address = os.environ.get(URI_VARIABLE, "")
    if not address:
        raise BadInput(f"{URI_VARIABLE} is not set: it holds the address of MLflow (make up sets it)")
    return address
