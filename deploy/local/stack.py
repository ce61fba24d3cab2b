"""`make up`, `make down`, `make status`: the local stack under one supervisor, on loopback. Standard library only.

python -m deploy.local.stack up | down | status
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from deploy.local import settings as local
from deploy.local import supervisor
from deploy.local.settings import ADMIN, ADMIN_EMAIL, ROOT, Secrets, SettingError, Settings

START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 40.0
PAGES = {"airflow-api-server": "AIRFLOW", "mlflow": "MLFLOW", "label-studio": "LABEL_STUDIO", "chat": "CHAT"}
TITLES = {"AIRFLOW": "Airflow", "MLFLOW": "MLflow", "LABEL_STUDIO": "Label Studio", "CHAT": "Chat"}


def _start_supervisor(settings: Settings) -> None:
    supervisor.end_leftovers(settings)
    needed = [name for name in settings.ports if f"{name}_URL" not in os.environ or name not in ("MONGODB", "REDIS")]
    local.require_free_ports(settings, needed)
    settings.logs.mkdir(parents=True, exist_ok=True)
    with (settings.logs / "supervisor.log").open("ab") as log:
        subprocess.Popen(
            [str(settings.python("project")), "-m", "deploy.local.supervisor"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def start(settings: Settings) -> Secrets:
    """Start the supervisor unless it lives; returns at once."""
    keys = local.load_secrets(settings)
    if not supervisor.is_running(settings):
        supervisor.state_file(settings).unlink(missing_ok=True)
        _start_supervisor(settings)
    return keys


def wait_until_healthy(settings: Settings, names: Sequence[str] | None = None) -> None:
    """Wait for the services `names` (all that are not waiting for a release, when None).

    Raises:
        SettingError: one failed or did not get healthy in time; its log is named.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    reported: set[str] = set()
    while True:
        services = supervisor.read_state(settings).get("services", {})
        wanted = [name for name in services if (name in names if names else services[name]["status"] != "waiting")]
        for name in wanted:
            status = services[name]["status"]
            if status.startswith("failed"):
                raise SettingError(f"{name} {status}; its log is {services[name]['log']}")
            if status == "healthy" and name not in reported:
                reported.add(name)
                print(f"  {name} is healthy", flush=True)
        if services and wanted and set(wanted) <= reported and (not names or set(names) <= reported):
            return
        if time.monotonic() > deadline:
            slow = {name: services[name]["log"] for name in wanted if name not in reported}
            raise SettingError(f"not healthy after {START_TIMEOUT_S:.0f} s: {slow or 'the supervisor'}; see the logs")
        time.sleep(0.2)


def stop(settings: Settings) -> None:
    """End the supervisor with all that it started; also what a killed supervisor left."""
    state = supervisor.read_state(settings)
    if supervisor.is_running(settings):
        os.kill(state["supervisor"]["pid"], signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while supervisor.is_running(settings):
            if time.monotonic() > deadline:
                os.kill(state["supervisor"]["pid"], signal.SIGKILL)
            time.sleep(0.1)
    supervisor.end_leftovers(settings)


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
        print(f"  {name:<22}{entry['status']:<12}restarts {entry['restarts']:<4}{address}")
    print(f"logs {settings.logs}, passwords {settings.secrets_file}")
    return running and all(entry["status"] in ("healthy", "waiting") for entry in services.values())


def main() -> None:
    try:
        settings = local.load()
        action = sys.argv[1] if len(sys.argv) == 2 else ""
        if action == "up":
            if supervisor.is_running(settings):
                print("the stack is up already")
            keys = start(settings)
            wait_until_healthy(settings)
            print_addresses(settings)
            print_passwords(settings, keys)
        elif action == "down":
            stop(settings)
            print("the stack is down")
        elif action == "status":
            sys.exit(0 if print_status(settings) else 1)
        else:
            sys.exit("usage: python -m deploy.local.stack up | down | status")
    except SettingError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
