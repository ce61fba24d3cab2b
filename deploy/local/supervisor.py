"""Keeps the services of the local stack running: starts, watches, restarts, stops. Standard library only.

One thread a service. The supervisor holds a file lock as long as it lives, so that others see whether it does; what it
started is in `state.json`, so that a supervisor that was killed can be cleaned up after. SIGHUP tries at once what
failed or waits for its next try; SIGTERM ends everything.
"""

import fcntl
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import IO, Any

from deploy.local import processes
from deploy.local import settings as local
from deploy.local.airflow_api import AirflowError
from deploy.local.services import Service, all_services, clean_environment
from deploy.local.settings import ROOT, SettingError, Settings

RESTART_DELAYS_S = (0.2, 1.0, 3.0, 10.0, 30.0)
STEADY_S = 30.0  # a service that ran this long starts again at once
CRASH_GRACE_S = 2.0  # for what a crashed service left of its group
LOOK_S = 0.25
LOCK_TRIES = 20  # others hold the lock for a moment, to see whether a supervisor lives


def state_file(settings: Settings) -> Path:
    """What the supervisor notes of itself and its services."""
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
    state = read_state(settings)
    groups: set[int] = set()
    if state.get("supervisor", {}).get("boot") == processes.boot():
        for entry in state["services"].values():
            # A leader that is gone may have left its group, whose number nobody else can have been given.
            if entry["pid"] and processes.started_at(entry["pid"]) in (None, entry["started_at"]):
                groups.add(entry["pid"])
    processes.end(lambda: processes.belonging(processes.mark(settings.home), groups), grace_s=8.0)


class Keeper(threading.Thread):
    """Keeps one service running until it is told to stop."""

    def __init__(self, service: Service, settings: Settings) -> None:
        super().__init__(name=service.name, daemon=True)
        self.service = service
        self.status = "starting"
        self.problem = ""
        self.restarts = 0
        self.healthy_after_s: float | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.process_started_at: int | None = None
        self._log = settings.logs / f"{service.name}.log"
        self._mark = processes.mark(settings.home, service.name)
        self._stopping = threading.Event()
        self._nudged = threading.Event()
        self._settled = service.after is None

    def note(self) -> dict[str, Any]:
        """What `state.json` says of the service."""
        return {
            "status": self.status,
            "problem": self.problem,
            "pid": self.process.pid if self.process else None,
            "started_at": self.process_started_at,
            "healthy_after_s": self.healthy_after_s,
            "restarts": self.restarts,
            "log": str(self._log),
        }

    def nudge(self) -> None:
        """Try now what would be tried later."""
        self._nudged.set()

    def tell_to_stop(self) -> None:
        """Let the thread end the service and itself."""
        self._stopping.set()
        self._nudged.set()

    def _start(self) -> None:
        environment = clean_environment() | self.service.environment | {processes.MARK: self._mark}
        with self._log.open("ab") as out:
            self.process = subprocess.Popen(
                self.service.command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.process_started_at = processes.started_at(self.process.pid)
        self.status, self.healthy_after_s = "starting", None

    def _settle(self) -> bool:
        """Do what is due once the service is healthy; a failure is tried again, the service keeps running."""
        if not self._settled and self.service.after:
            try:
                self.service.after()
            except (SettingError, AirflowError, OSError) as error:
                self.problem = str(error)
                return False
            self._settled, self.problem = True, ""
        return True

    def _watch(self) -> None:
        """Return when the process ended or must be ended."""
        assert self.process is not None
        began, began_wall = time.monotonic(), time.time()
        next_look = 0.0
        while not self._stopping.wait(LOOK_S):
            if self.process.poll() is not None:
                return
            if time.monotonic() < next_look:
                continue
            healthy = self.service.healthy(began_wall) and self._settle()
            if healthy and self.healthy_after_s is None:
                self.healthy_after_s = round(time.monotonic() - began, 1)
            self.status = "healthy" if healthy else "unhealthy" if self.healthy_after_s else "starting"
            next_look = time.monotonic() + (5.0 if healthy else 2.0 if self.problem else 0.3)

    def _end(self, grace_s: float) -> None:
        if self.process is not None:
            group = self.process.pid
            processes.end(lambda: processes.belonging(self._mark, [group]), grace_s)
            self.process.wait()

    def _keep(self) -> None:
        """Run the service again and again.

        Raises:
            SettingError, OSError: it can't be prepared or started at all.
        """
        if self.service.before:
            self.service.before()
        failures = 0
        while not self._stopping.is_set():
            if self.service.waits_for and not self.service.waits_for.exists():
                self.status = "waiting"
                self._stopping.wait(LOOK_S)
                continue
            began = time.monotonic()
            self._start()
            self._watch()
            crashed = self.process is not None and self.process.poll() is not None
            self._end(CRASH_GRACE_S if crashed else self.service.stop_grace_s)
            if self._stopping.is_set():
                return
            failures = failures + 1 if crashed and time.monotonic() - began < STEADY_S else 0
            self.restarts += 1
            self.status = "restarting"
            self._nudged.clear()
            self._nudged.wait(RESTART_DELAYS_S[min(failures, len(RESTART_DELAYS_S) - 1)])

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._keep()
            except (SettingError, OSError) as error:
                self.status, self.problem = "failed", str(error)
                self._nudged.clear()
                self._nudged.wait()
                self.problem = ""
        self.status = "stopped"


def _write_state(settings: Settings, state: dict[str, Any]) -> None:
    partial = state_file(settings).with_suffix(".partial")
    partial.write_text(json.dumps(state, indent=2))
    partial.replace(state_file(settings))


def _take_lock(settings: Settings) -> IO[str]:
    for _ in range(LOCK_TRIES):
        if (held := lock(settings)) is not None:
            return held
        time.sleep(0.1)
    raise SettingError("the stack is up already; make status shows it")


def supervise(settings: Settings, make_services: Callable[[], list[Service]]) -> None:
    """Run the services until SIGTERM or SIGINT; returns when all that they started has ended."""
    held = _take_lock(settings)
    end_leftovers(settings)
    for folder in (settings.logs, settings.home / "mlflow", settings.home / "stores", settings.home / "airflow"):
        folder.mkdir(parents=True, exist_ok=True)
    keepers = [Keeper(service, settings) for service in make_services()]
    stopping = threading.Event()

    def nudge(sign: int, frame: FrameType | None) -> None:
        for keeper in keepers:
            keeper.nudge()

    signal.signal(signal.SIGHUP, nudge)
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stopping.set())
    supervisor = {"pid": os.getpid(), "started_at": processes.started_at(os.getpid()), "boot": processes.boot()}

    def state() -> dict[str, Any]:
        return {"supervisor": supervisor, "services": {keeper.service.name: keeper.note() for keeper in keepers}}

    for keeper in keepers:
        keeper.start()
    written: dict[str, Any] = {}
    while not stopping.wait(LOOK_S):
        if (now := state()) != written:
            _write_state(settings, written := now)
    for keeper in keepers:
        keeper.tell_to_stop()
    for keeper in keepers:
        keeper.join(timeout=keeper.service.stop_grace_s + 5)
    end_leftovers(settings)
    _write_state(settings, {"supervisor": supervisor, "services": {}})
    held.close()


def main() -> None:
    settings = local.load()
    keys = local.load_secrets(settings)
    supervise(settings, lambda: all_services(settings, keys))


if __name__ == "__main__":
    main()
