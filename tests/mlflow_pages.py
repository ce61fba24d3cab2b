"""Whether a page of MLflow's web interface has something to show: what it is about is asked of the server."""

import re

import httpx

PAGE = re.compile(
    r"(?P<server>.*)/#/(?:models/(?P<model>\w+)/versions/(?P<version>\d+)"
    r"|experiments/(?P<experiment>\d+)/runs/(?P<run>\w+)(?:/artifacts/(?P<artifact>.+))?)"
)


def require_page(page: str) -> None:
    """Fail unless the version, run or file that `page` shows is there."""
    found = PAGE.fullmatch(page)
    assert found, page
    part = found.groupdict()
    api = f"{part['server']}/api/2.0/mlflow"
    if part["model"]:
        named = {"name": part["model"], "version": part["version"]}
        assert httpx.get(f"{api}/model-versions/get", params=named).is_success, page
        return
    run = httpx.get(f"{api}/runs/get", params={"run_id": part["run"]})
    assert run.is_success and run.json()["run"]["info"]["experiment_id"] == part["experiment"], page
    if part["artifact"]:
        asked = {"run_id": part["run"], "path": part["artifact"]}
        assert httpx.get(f"{part['server']}/get-artifact", params=asked).is_success, page
