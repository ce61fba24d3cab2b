"""`make up`, `make down`, `make status`: the local stack under one supervisor, on loopback. Standard library only.

python -m deploy.local.stack up | down | status | run MODULE …

`run` starts `python -m MODULE …` with the addresses of the stack in its environment.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from deploy.local import settings as local
from deploy.local import supervisor
from deploy.local.environments import ENVIRONMENTS
from deploy.local.services import clean_environment, shared_environment
from deploy.local.settings import ADMIN, ADMIN_EMAIL, ROOT, Secrets, SettingError, Settings

START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 60.0
PAGES = {"airflow-api-server": "AIRFLOW", "mlflow": "MLFLOW", "label-studio": "LABEL_STUDIO", "chat": "CHAT"}
TITLES = {"AIRFLOW": "Airflow", "MLFLOW": "MLflow", "LABEL_STUDIO": "Label Studio", "CHAT": "Chat"}


def _start_supervisor(settings: Settings) -> None:
    supervisor.end_leftovers(settings)
    local.require_free_ports(settings, [name for name in settings.ports if not local.given_address(name)])
    settings.logs.mkdir(parents=True, exist_ok=True)
    supervisor.state_file(settings).unlink(missing_ok=True)
    with (settings.logs / "supervisor.log").open("ab") as log:
        started = subprocess.Popen(
            [str(settings.python("project")), "-m", "deploy.local.supervisor"],
            cwd=ROOT,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    while not supervisor.read_state(settings):
        if started.poll() is not None:
            raise SettingError(f"the supervisor ended at once; {settings.logs / 'supervisor.log'} says why")
        time.sleep(0.05)


def start(settings: Settings) -> Secrets:
    """Start the supervisor, or let the one that lives try at once what failed; does not wait for the services."""
    for environment in ENVIRONMENTS:
        if not settings.python(environment).exists():
            raise SettingError(f"there is no environment {environment} in {settings.envs}; make setup creates it")
    keys = local.load_secrets(settings)
    if supervisor.is_running(settings):
        os.kill(supervisor.read_state(settings)["supervisor"]["pid"], signal.SIGHUP)
    else:
        _start_supervisor(settings)
    return keys


def wait_until_healthy(settings: Settings, names: Sequence[str] | None = None) -> None:
    """Wait for the services `names` (all that are not waiting for a release, when None).

    Raises:
        SettingError: one failed or did not get healthy in time; its log is named.
    """
    started = time.monotonic()
    reported: set[str] = set()
    while True:
        services = supervisor.read_state(settings).get("services", {})
        wanted = set(names) if names else {name for name in services if services[name]["status"] != "waiting"}
        for name in sorted(wanted & set(services) - reported):
            entry = services[name]
            if entry["status"] == "failed":
                raise SettingError(f"{name} failed: {entry['problem']}")
            if entry["status"] == "healthy":
                reported.add(name)
                print(f"  {name:<22} is healthy, {time.monotonic() - started:.0f} s", flush=True)
        if wanted and wanted <= reported:
            return
        if not supervisor.is_running(settings):
            raise SettingError(f"the supervisor ended; {settings.logs / 'supervisor.log'} says why")
        if time.monotonic() - started > START_TIMEOUT_S:
            slow = "; ".join(f"{name} (log {services[name]['log']})" for name in sorted(wanted - reported))
            raise SettingError(f"not healthy after {START_TIMEOUT_S:.0f} s: {slow}")
        time.sleep(0.2)


def stop(settings: Settings) -> bool:
    """End the supervisor with all that it started, and what a killed supervisor left; returns whether one ran."""
    running = supervisor.is_running(settings)
    if running:
        pid = supervisor.read_state(settings)["supervisor"]["pid"]
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while supervisor.is_running(settings):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
    supervisor.end_leftovers(settings)
    return running


def print_addresses(settings: Settings) -> None:
    """The four addresses."""
    for name, title in TITLES.items():
        print(f"  {title:<13}{settings.url(name)}")


def print_passwords(settings: Settings, keys: Secrets) -> None:
    """The passwords, the one time that they are shown; afterwards only where they are."""
    if keys.fresh:
        print("Passwords, generated for this machine and shown once:")
        print(f"  Airflow      {ADMIN} / {keys.airflow_password}")
        print(f"  Label Studio {ADMIN_EMAIL} / {keys.label_studio_password}")
    print(f"Passwords are in {settings.secrets_file}, labeler accounts in {settings.labelers}")


def print_status(settings: Settings) -> bool:
    """One line a service; returns whether all that should run are healthy."""
    running = supervisor.is_running(settings)
    print(f"supervisor {'is running' if running else 'is not running; make up starts it'}")
    services = supervisor.read_state(settings).get("services", {}) if running else {}
    for name, entry in services.items():
        port = PAGES.get(name)
        address = settings.url(port) if port else ""
        print(f"  {name:<22}{entry['status']:<12}restarts {entry['restarts']:<4}{address}{entry['problem']}")
    print(f"logs {settings.logs}, passwords {settings.secrets_file}")
    return running and all(entry["status"] in ("healthy", "waiting") for entry in services.values())


def run(settings: Settings, words: Sequence[str]) -> None:
    """Become `python -m words…` in the project's environment."""
    python = str(settings.python("project"))
    environment = clean_environment() | shared_environment(settings) | {"PYTHONPATH": str(ROOT)}
    os.execve(python, [python, "-m", *words], environment)


def main() -> None:
    try:
        settings = local.load()
        action = sys.argv[1] if len(sys.argv) == 2 or sys.argv[1:2] == ["run"] else ""
        if action == "up":
            print("the stack is up already" if supervisor.is_running(settings) else "starting the stack", flush=True)
            keys = start(settings)
            wait_until_healthy(settings)
            print_addresses(settings)
            print_passwords(settings, keys)
        elif action == "down":
            print("the stack is down" if stop(settings) else "the stack was down already")
        elif action == "status":
            sys.exit(0 if print_status(settings) else 1)
        elif action == "run" and len(sys.argv) > 2:
            run(settings, sys.argv[2:])
        else:
            sys.exit("usage: python -m deploy.local.stack up | down | status | run MODULE …")
    except SettingError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
