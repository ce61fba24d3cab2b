"""Paths, ports and secrets of the local stack."""

import socket
import stat
from pathlib import Path

import pytest

from deploy.local import settings as local
from deploy.local.settings import DEFAULT_PORTS, ROOT, SettingError, Settings


@pytest.fixture(autouse=True)
def no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch):
    for name in (
        "COLLOQUY_HOME",
        "COLLOQUY_ENVS",
        "MONGODB_URL",
        "REDIS_URL",
        *map(local.port_variable, DEFAULT_PORTS),
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "home", tmp_path / "envs", dict(DEFAULT_PORTS))


def test_without_settings_everything_lies_in_the_checkout_on_default_ports():
    found = local.load()
    assert (found.home, found.envs, found.ports) == (ROOT / ".colloquy", ROOT / ".envs", DEFAULT_PORTS)


def test_the_environment_moves_folders_and_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("COLLOQUY_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLLOQUY_LABEL_STUDIO_PORT", "9181")
    found = local.load()
    assert found.home == tmp_path / "state"
    assert found.url("LABEL_STUDIO") == "http://127.0.0.1:9181"


@pytest.mark.parametrize("text", ["", "http", "0", "65536", "-1"])
def test_a_port_that_is_none_is_named_with_its_setting(monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setenv("COLLOQUY_CHAT_PORT", text)
    with pytest.raises(SettingError, match="COLLOQUY_CHAT_PORT"):
        local.load()


def test_two_services_on_one_port_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLLOQUY_CHAT_PORT", "8080")
    with pytest.raises(SettingError, match="two services have one port"):
        local.load()


def test_a_taken_port_is_named_with_its_use_and_its_setting(settings: Settings):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings.ports["MLFLOW"] = port
        with pytest.raises(
            SettingError, match=rf"port {port} for mlflow is taken; free it or set COLLOQUY_MLFLOW_PORT"
        ):
            local.require_free_ports(settings, ["MLFLOW"])
    local.require_free_ports(settings, ["MLFLOW"])


def test_an_address_that_is_given_replaces_the_embedded_server(monkeypatch: pytest.MonkeyPatch):
    assert local.given_address("MONGODB") is None
    monkeypatch.setenv("MONGODB_URL", "mongodb://db.example:27017")
    assert local.given_address("MONGODB") == "mongodb://db.example:27017"
    assert local.given_address("AIRFLOW") is None


def test_secrets_are_made_once_and_readable_by_their_owner_alone(settings: Settings):
    first, second = local.load_secrets(settings), local.load_secrets(settings)
    assert first.fresh and not second.fresh
    assert first.airflow_password == second.airflow_password
    assert settings.label_studio_token.read_text() == first.label_studio_token
    for path in settings.secrets_file.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(settings.secrets_file.parent.stat().st_mode) == 0o700


def test_each_home_has_secrets_of_its_own(tmp_path: Path):
    passwords = {
        local.load_secrets(Settings(tmp_path / name, tmp_path, dict(DEFAULT_PORTS))).airflow_password for name in "ab"
    }
    assert len(passwords) == 2
