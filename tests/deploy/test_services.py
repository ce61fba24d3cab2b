"""What the stack starts, as far as it can be seen without starting it."""

from pathlib import Path

import pytest

from deploy.local import services
from deploy.local.services import Service
from deploy.local.settings import ADDRESSES, DEFAULT_PORTS, HOST, Settings, load_secrets


@pytest.fixture(autouse=True)
def no_addresses(monkeypatch: pytest.MonkeyPatch):
    for variable in ADDRESSES.values():
        monkeypatch.delenv(variable, raising=False)


def stack_in(folder: Path) -> dict[str, Service]:
    settings = Settings(folder / "home", folder / "envs", dict(DEFAULT_PORTS))
    return {service.name: service for service in services.all_services(settings, load_secrets(settings))}


def test_the_whole_stack_is_started(tmp_path: Path):
    assert sorted(stack_in(tmp_path)) == [
        "airflow-api-server",
        "airflow-dag-processor",
        "airflow-scheduler",
        "airflow-triggerer",
        "chat",
        "document-store",
        "label-studio",
        "mlflow",
        "valkey",
    ]


def test_a_store_whose_address_is_given_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MONGODB_URL", "mongodb://db.example")
    found = stack_in(tmp_path)
    assert "document-store" not in found and "valkey" in found
    assert found["airflow-scheduler"].environment["MONGODB_URL"] == "mongodb://db.example"


def test_every_server_is_told_to_listen_on_loopback(tmp_path: Path):
    found = stack_in(tmp_path)
    for name in ("mlflow", "label-studio", "document-store", "valkey"):
        assert HOST in found[name].command, name
    assert found["airflow-api-server"].environment["AIRFLOW__API__HOST"] == HOST
    for name in ("airflow-scheduler", "airflow-triggerer"):  # their log servers listen on every interface
        assert "--skip-serve-logs" in found[name].command
    assert HOST in found["chat"].environment["CHAT_URL"]


def test_tasks_get_every_address_and_file_that_stages_read(tmp_path: Path):
    environment = stack_in(tmp_path)["airflow-scheduler"].environment
    for name in (
        "COLLOQUY_HOME",
        "COLLOQUY_REPO",
        "COLLOQUY_PYTHON",
        "MLFLOW_TRACKING_URI",
        "LABEL_STUDIO_URL",
        "LABEL_STUDIO_TOKEN_FILE",
        "LABELERS_FILE",
        "BENTOML_HOME",
        "CHAT_URL",
        "MONGODB_URL",
        "REDIS_URL",
        "SQL_URL",
    ):
        assert environment[name], name


def test_no_secret_is_on_a_command_line(tmp_path: Path):
    settings = Settings(tmp_path / "home", tmp_path / "envs", dict(DEFAULT_PORTS))
    keys = load_secrets(settings)
    words = " ".join(word for service in services.all_services(settings, keys) for word in service.command)
    for secret in (keys.airflow_password, keys.airflow_key, keys.label_studio_password, keys.label_studio_token):
        assert secret not in words


def test_airflow_settings_of_the_caller_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "16")
    assert stack_in(tmp_path)["airflow-scheduler"].environment["AIRFLOW__CORE__PARALLELISM"] == "16"


def test_the_callers_python_does_not_leak_into_services(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("PIP_FIND_LINKS", "/links")
    environment = services.clean_environment()
    assert "PYTHONPATH" not in environment
    assert environment["PIP_FIND_LINKS"] == "/links"
