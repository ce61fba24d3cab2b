"""What `up` says when it can't."""

import json
import os
import socket
from pathlib import Path

import pytest

from deploy.local import processes, stack, supervisor
from deploy.local.settings import DEFAULT_PORTS, SettingError, Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(tmp_path / "home", tmp_path / "envs", dict(DEFAULT_PORTS))
    for environment in stack.ENVIRONMENTS:
        settings.python(environment).parent.mkdir(parents=True)
        settings.python(environment).touch()
    return settings


def write_state(settings: Settings, **services: dict) -> None:
    path = supervisor.state_file(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    here = {"pid": os.getpid(), "started_at": processes.started_at(os.getpid()), "boot": processes.boot()}
    path.write_text(json.dumps({"supervisor": here, "services": services}))


def entry(status: str, problem: str = "") -> dict:
    return {"status": status, "problem": problem, "pid": None, "started_at": None, "restarts": 0, "log": "x.log"}


def test_a_missing_environment_is_named(settings: Settings):
    settings.python("airflow").unlink()
    with pytest.raises(SettingError, match="no environment airflow.*make setup"):
        stack.start(settings)


def test_a_taken_port_stops_the_start_before_anything_runs(settings: Settings):
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings.ports["AIRFLOW"] = other.getsockname()[1]
        with pytest.raises(SettingError, match="COLLOQUY_AIRFLOW_PORT"):
            stack.start(settings)
    assert not supervisor.is_running(settings)


def test_a_supervisor_that_ends_at_once_is_reported_with_its_log(settings: Settings, tmp_path: Path):
    python = settings.python("project")
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    with socket.socket() as probe:  # ports that nobody has
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    settings.ports.update(dict.fromkeys(settings.ports, free))
    with pytest.raises(SettingError, match=r"supervisor\.log"):
        stack.start(settings)


def test_a_failed_service_ends_the_wait_with_its_reason(settings: Settings):
    write_state(settings, mlflow=entry("failed", "no space left"))
    with supervisor.lock(settings), pytest.raises(SettingError, match="mlflow failed: no space left"):
        stack.wait_until_healthy(settings)


def test_the_wait_ends_when_all_are_healthy_or_wait_for_a_release(settings: Settings):
    write_state(settings, mlflow=entry("healthy"), chat=entry("waiting"))
    with supervisor.lock(settings):
        stack.wait_until_healthy(settings)


def test_the_wait_can_leave_a_slow_service_to_itself(settings: Settings):
    write_state(settings, mlflow=entry("healthy"), **{"label-studio": entry("starting")})
    with supervisor.lock(settings):
        stack.wait_until_healthy(settings, ["mlflow"])


def test_a_supervisor_that_is_gone_ends_the_wait(settings: Settings):
    write_state(settings, mlflow=entry("starting"))
    with pytest.raises(SettingError, match="the supervisor ended"):
        stack.wait_until_healthy(settings)


def test_down_without_a_stack_changes_nothing(settings: Settings):
    assert not stack.stop(settings)


def test_processes_of_an_earlier_boot_are_not_ended(settings: Settings):
    write_state(settings, mlflow=entry("healthy") | {"pid": os.getpid(), "started_at": None})
    state = supervisor.read_state(settings)
    state["supervisor"]["boot"] = "another"
    supervisor.state_file(settings).write_text(json.dumps(state))
    supervisor.end_leftovers(settings)  # this very process is named in it
