"""Keeps the services of the local stack running: starts, watches, restarts, stops. Standard library only.

One thread a service. The supervisor holds a file lock as long as it lives, so that others see whether it does; what it
started is in `state.json`, so that a supervisor that was killed can be cleaned up after.
"""

import fcntl
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import IO, Any

from deploy.local import settings as local
from deploy.local.services import Service, all_services
from deploy.local.settings import ROOT, SettingError, Settings

RESTART_DELAYS_S = (0.2, 1.0, 3.0, 10.0, 30.0)
STEADY_S = 30.0  # a service that ran this long starts again at once
STOP_GRACE_S = 8.0
LOOK_S = 0.25


def started_at(pid: int) -> int | None:
    """Start time of a live process in clock ticks since boot; None when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def group_alive(group: int) -> bool:
    """Whether process group `group` has a live member."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                return True
    return False


def end_group(group: int, grace_s: float = STOP_GRACE_S) -> None:
    """SIGTERM to the whole group, SIGKILL to what is left after the grace."""
    for sign, patience in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(group, sign)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while group_alive(group) and time.monotonic() < deadline:
            time.sleep(0.05)


def state_file(settings: Settings) -> Path:
    return settings.home / "stack" / "state.json"


def read_state(settings: Settings) -> dict[str, Any]:
    """What the supervisor last noted; empty when there never was one."""
    try:
        found: dict[str, Any] = json.loads(state_file(settings).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found


def lock(settings: Settings) -> IO[str] | None:
    """The supervisor's lock, or None when a live supervisor holds it."""
    path = settings.home / "stack" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    held = path.open("a")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        return None
    return held


def is_running(settings: Settings) -> bool:
    """Whether a supervisor of this home lives."""
    held = lock(settings)
    if held is not None:
        held.close()
    return held is None


def end_leftovers(settings: Settings) -> None:
    """End what a killed supervisor left running."""
    for entry in read_state(settings).get("services", {}).values():
        pid = entry.get("pid")
        if pid and started_at(pid) in (None, entry["started_at"]) and group_alive(pid):
            end_group(pid)


class Keeper(threading.Thread):
    """Keeps one service running until `stopping` is set."""

    def __init__(self, service: Service, logs: Path, stopping: threading.Event) -> None:
        super().__init__(name=service.name, daemon=True)
        self.service = service
        self.status = "waiting"
        self.restarts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.process_started_at: int | None = None
        self._log = logs / f"{service.name}.log"
        self._stopping = stopping
        self._trigger: bytes | None = None
        self._was_healthy = False

    def note(self) -> dict[str, Any]:
        """What `state.json` says of the service."""
        alive = self.process is not None and self.process.poll() is None
        return {
            "status": self.status,
            "pid": self.process.pid if self.process and alive else None,
            "started_at": self.process_started_at,
            "restarts": self.restarts,
            "log": str(self._log),
        }

    def _read_trigger(self) -> bytes | None:
        try:
            return self.service.waits_for.read_bytes() if self.service.waits_for else b""
        except FileNotFoundError:
            return None

    def _start(self) -> None:
        self._trigger = self._read_trigger()
        with self._log.open("ab") as out:
            self.process = subprocess.Popen(
                self.service.command,
                cwd=ROOT,
                env=os.environ | self.service.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.process_started_at = started_at(self.process.pid)
        self.status = "starting"

    def _watch(self) -> None:
        """Return when the process ended or must be restarted."""
        assert self.process is not None
        next_look = 0.0
        while not self._stopping.wait(LOOK_S):
            if self.process.poll() is not None or self._read_trigger() not in (None, self._trigger):
                return
            if time.monotonic() < next_look:
                continue
            healthy = self.service.healthy()
            if healthy and self.service.after and not self._was_healthy:
                self.service.after()
            self._was_healthy = self._was_healthy or healthy
            self.status = "healthy" if healthy else "unhealthy" if self.status == "healthy" else self.status
            next_look = time.monotonic() + (5.0 if healthy else 0.3)

    def stop(self) -> None:
        """End the service with its whole process group."""
        if self.process is not None:
            end_group(self.process.pid)
            self.process.poll()

    def run(self) -> None:
        failures = 0
        try:
            if self.service.before:
                self.service.before()
            while not self._stopping.is_set():
                if self._read_trigger() is None:
                    self._stopping.wait(LOOK_S)
                    continue
                began = time.monotonic()
                self._start()
                self._watch()
                self.stop()
                if self._stopping.is_set():
                    break
                failures = 0 if time.monotonic() - began > STEADY_S else failures + 1
                self.restarts += 1
                self.status = "restarting"
                self._stopping.wait(RESTART_DELAYS_S[min(failures, len(RESTART_DELAYS_S) - 1)])
        except (SettingError, OSError) as error:
            self.stop()
            self.status = f"failed: {error}"
            return
        self.status = "stopped"


def supervise(settings: Settings, services: list[Service]) -> None:
    """Run `services` until SIGTERM or SIGINT; returns when all of them have ended."""
    held = lock(settings)
    if held is None:
        raise SettingError("the stack is up already; make status shows it")
    end_leftovers(settings)
    for folder in (settings.logs, settings.home / "mlflow", settings.home / "stores", settings.home / "airflow"):
        folder.mkdir(parents=True, exist_ok=True)
    stopping = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stopping.set())
    keepers = [Keeper(service, settings.logs, stopping) for service in services]
    for keeper in keepers:
        keeper.start()

    def write_state() -> None:
        state = {
            "supervisor": {"pid": os.getpid(), "started_at": started_at(os.getpid())},
            "services": {keeper.service.name: keeper.note() for keeper in keepers},
        }
        partial = state_file(settings).with_suffix(".partial")
        partial.write_text(json.dumps(state, indent=2))
        partial.replace(state_file(settings))

    while not stopping.wait(LOOK_S):
        write_state()
    enders = [threading.Thread(target=keeper.stop) for keeper in keepers]
    for thread in enders:
        thread.start()
    for thread in [*enders, *keepers]:
        thread.join(timeout=STOP_GRACE_S + 10)
    write_state()


def main() -> None:
    settings = local.load()
    supervise(settings, all_services(settings, local.load_secrets(settings)))


if __name__ == "__main__":
    main()
