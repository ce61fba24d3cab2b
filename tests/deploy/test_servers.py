"""The files for servers and clusters: valid by their schemas, closed to the outside, and with the stack's own names."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from deploy.local import services, settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
MANIFESTS = [path for path in KUBERNETES if path.name != "airflow-values.yaml"]
KUBERNETES_VERSION = "1.33"
OF_THE_CALLER = {"NO_PROXY", "no_proxy"}
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN$|_KEY$")
NOT_SECRET = {"LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN", "AWS_ACCESS_KEY_ID"}


def documents(path: Path) -> list[dict[str, Any]]:
    return list(YAML(typ="safe", pure=True).load_all(path))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return documents(DEPLOY / "compose.yaml")[0]


def given_to_processes() -> set[str]:
    found = settings.Settings(Path("home"), Path("envs"), dict(settings.DEFAULT_PORTS))
    return set(services.shared_environment(found)) - OF_THE_CALLER


def test_the_compose_file_keeps_the_specification(compose: dict[str, Any]) -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="the package compose-spec is not installed")
    # Compose fills in the environment before it reads values.
    filled = re.sub(r"\$\{\w+:\?\}", "secret", re.sub(r"\$\{\w+:-(\w+)\}", r"\1", json.dumps(compose)))
    parsed = compose_spec.PyCompose.from_yaml(filled)
    assert set(parsed.service_names()) == set(compose["services"])


def test_compose_publishes_on_loopback_only(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert set(published) == {"mlflow", "label-studio", "airflow-api-server", "chat"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert all(service.get("network_mode") != "host" for service in compose["services"].values())


def test_databases_of_compose_have_no_way_out(compose: dict[str, Any]) -> None:
    assert compose["networks"]["stores"]["internal"]
    for name in ("postgres", "redis", "valkey", "mongodb", "object-store"):
        assert compose["services"][name]["networks"] == ["stores"]


def test_secrets_of_compose_come_from_the_environment(compose: dict[str, Any]) -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    required = set(re.findall(r"\$\{([A-Z_]+):\?\}", text)) | {
        secret["environment"] for secret in compose["secrets"].values()
    }
    assert {name for name in required if not SECRET.search(name)} == set()
    offered = dict(
        line.split("=", 1)
        for line in (DEPLOY / "compose.env.example").read_text().splitlines()
        if "=" in line and line[0] != "#"
    )
    assert required <= set(offered)
    assert not any(offered[name] for name in required), "an example must not be a usable secret"
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key) and key not in NOT_SECRET:
                assert value.startswith(("${", "/run/secrets/")), f"{name}: {key} holds a value"


def test_every_server_of_compose_is_looked_at_and_comes_back(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        once = service.get("restart") == "no"
        assert once or service["restart"] == "unless-stopped", name
        assert once or service["healthcheck"]["test"], name


def test_what_waits_in_compose_waits_for_something_that_can_come(compose: dict[str, Any]) -> None:
    found = compose["services"]
    for name, service in found.items():
        for other, how in service.get("depends_on", {}).items():
            once = found[other].get("restart") == "no"
            expected = "service_completed_successfully" if once else "service_healthy"
            assert how["condition"] == expected, f"{name} on {other}"


def test_volumes_networks_and_secrets_of_compose_are_declared(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        named = {volume.split(":")[0] for volume in service.get("volumes", []) if not volume.startswith(".")}
        assert named <= set(compose["volumes"])
        assert set(service["networks"]) <= set(compose["networks"])
        assert set(service.get("secrets", [])) <= set(compose["secrets"])


def test_files_that_compose_mounts_or_builds_exist(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            if volume.startswith("."):
                assert (DEPLOY / volume.split(":")[0]).exists(), volume
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()


@pytest.mark.parametrize("server", ["airflow-worker", "chat", "labelers", "mlflow"])
def test_compose_gives_processes_the_variables_of_the_local_stack(compose: dict[str, Any], server: str) -> None:
    assert given_to_processes() <= set(compose["services"][server]["environment"])


def test_kubernetes_gives_stages_the_variables_of_the_local_stack() -> None:
    given = set(documents(DEPLOY / "kubernetes" / "settings.yaml")[0]["data"])
    assert given_to_processes() <= given | {"MONGODB_URL", "REDIS_URL", "SQL_URL"}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_keep_the_schemas_of_kubernetes(path: Path) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="the package kubernetes-validate is not installed")
    for document in documents(path):
        kubernetes.validate(document, KUBERNETES_VERSION, strict=True)


def test_a_manifest_with_a_misspelled_key_would_be_refused() -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="the package kubernetes-validate is not installed")
    document = documents(DEPLOY / "kubernetes" / "namespace.yaml")[0]
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate(document | {"metdata": {}}, KUBERNETES_VERSION, strict=True)


def test_values_of_the_airflow_chart_keep_its_schema() -> None:
    schema = os.environ.get("AIRFLOW_CHART_SCHEMA")
    if not schema:
        pytest.skip("the chart is in no Python package; AIRFLOW_CHART_SCHEMA names its values.schema.json")
    jsonschema = pytest.importorskip("jsonschema")
    values = documents(DEPLOY / "kubernetes" / "airflow-values.yaml")[0]
    jsonschema.Draft7Validator(json.loads(Path(schema).read_text())).validate(values)


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in MANIFESTS:
        for document in documents(path):
            if document["kind"] == "Pod":
                yield path.name, document["spec"]
            elif document["kind"] == "Deployment":
                yield path.name, document["spec"]["template"]["spec"]


@pytest.mark.parametrize(("name", "spec"), list(pods()), ids=lambda value: value if isinstance(value, str) else "")
def test_pods_run_without_rights(name: str, spec: dict[str, Any]) -> None:
    assert spec["securityContext"]["runAsNonRoot"]
    for container in spec["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


def test_one_of_the_two_pods_for_stages_has_a_gpu() -> None:
    limits = {name: spec["containers"][0]["resources"]["limits"] for name, spec in pods()}
    assert limits["gpu-pod.yaml"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in limits["pod.yaml"]
    named = documents(DEPLOY / "kubernetes" / "settings.yaml")[0]["data"]["COLLOQUY_GPU_POD_TEMPLATE"]
    assert (ROOT / named.removeprefix("/colloquy/repo/")).exists()


def test_kubernetes_offers_nothing_outside_and_holds_no_secret() -> None:
    kinds = [document for path in MANIFESTS for document in documents(path)]
    assert not any(document["kind"] in {"Ingress", "Secret"} for document in kinds)
    assert {document["spec"]["type"] for document in kinds if document["kind"] == "Service"} == {"ClusterIP"}
    closed = next(d for d in kinds if d["metadata"]["name"] == "nothing-by-default")
    assert closed["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_what_the_autoscaler_and_the_budget_name_exists() -> None:
    found = {(d["kind"], d["metadata"]["name"]): d for d in documents(DEPLOY / "kubernetes" / "chat.yaml")}
    deployment = found["Deployment", "chat"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert found["HorizontalPodAutoscaler", "chat"]["spec"]["scaleTargetRef"]["name"] == "chat"
    assert found["Service", "chat"]["spec"]["selector"].items() <= labels.items()
    assert found["PodDisruptionBudget", "chat"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def wait_until(true: Any) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_buckets_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    moto = pytest.importorskip("moto")
    boto3 = pytest.importorskip("boto3")
    from deploy import make_buckets

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with moto.mock_aws():
        make_buckets.make(["mlflow", "dvc"])
        make_buckets.make(["mlflow", "dvc"])
        assert {bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]} == {"dvc", "mlflow"}


def test_the_image_has_the_airflow_of_the_constraints() -> None:
    version = re.search(r"^apache-airflow==(\S+)", (ROOT / "constraints" / "airflow.txt").read_text(), re.MULTILINE)
    assert version
    assert f"FROM apache/airflow:{version[1]}-python3.11" in (DEPLOY / "Dockerfile").read_text()
    assert documents(DEPLOY / "kubernetes" / "airflow-values.yaml")[0]["airflowVersion"] == version[1]


def test_the_image_for_label_studio_is_that_of_the_constraints(compose: dict[str, Any]) -> None:
    pin = (ROOT / "constraints" / "label-studio.in").read_text().strip().partition("==")[2]
    assert compose["services"]["label-studio"]["image"] == f"heartexlabs/label-studio:{pin}"


def test_shell_scripts_of_the_compose_file_parse(compose: dict[str, Any]) -> None:
    script = compose["services"]["airflow-init"]["command"][0].replace("${COMPUTE_SLOTS:-1}", "1")
    assert subprocess.run(["bash", "-n", "-c", script], capture_output=True).returncode == 0
