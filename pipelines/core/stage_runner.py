"""Runs one stage or command of a workspace in a process group of its own, and ends it when its parent ends.

    python -m pipelines.core.stage_runner repro <stage>            `dvc repro --single-item <stage>`
    python -m pipelines.core.stage_runner run <task> <module> …    `python -m <module> …`

Started in the workspace by an Airflow task. The environment that the child gets points at the workspace only.
A retry first ends what a killed try left behind: DVC's stage lives on as an orphan when `dvc` is killed, and the
next `dvc repro` would be refused. Standard library only: it starts for every task of every run.
"""

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from pipelines.core.errors import ExitCode

RUN_INFO = Path(".run/run.json")
RUNNING = Path(".run/running")
STAGE_LOG = Path(".run/stages")
FAILURES = Path(".run/failures")
DVC_PATHS_LOCK = Path(".dvc/tmp/rwlock")
END_GRACE_S = 5.0

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Outcome(NamedTuple):
    """How the child ended; `cached` when DVC had the result already."""

    exit_code: int
    cached: bool


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl failed")


def started_at(pid: int) -> int | None:
    """The start time of `pid` in clock ticks since boot, which tells a process from a later one with its number."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def group_members(group: int) -> list[int]:
    """The live processes of process group `group`."""
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            members.append(int(entry.name))
    return members


def end_group(group: int) -> None:
    """SIGTERM to the whole group, SIGKILL to what is left after the grace."""
    deadline = time.monotonic() + END_GRACE_S
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(group, sign)
        except ProcessLookupError:
            return
        while group_members(group) and time.monotonic() < deadline:
            time.sleep(0.05)
        deadline = time.monotonic() + END_GRACE_S


def end_leftovers(task: str) -> None:
    """End the group that a killed try of `task` recorded, if it still runs."""
    record = RUNNING / f"{task}.json"
    try:
        left = json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        return
    # The leader may be dead and its children alive; then its number can't have been given to another group.
    leader = started_at(left["group"])
    if leader in (None, left["started_at"]) and group_members(left["group"]):
        print(f"{task}: ending process group {left['group']} of an earlier try", flush=True)
        end_group(left["group"])
    record.unlink(missing_ok=True)


def clear_dead_locks() -> None:
    """Take the entries of dead processes out of DVC's path locks."""
    try:
        locks: dict[str, dict[str, Any]] = json.loads(DVC_PATHS_LOCK.read_text() or "{}")
    except (FileNotFoundError, ValueError):
        return
    alive: dict[str, dict[str, Any]] = {}
    for path, entry in locks.items():
        kept: dict[str, Any] = {}
        if (writer := entry.get("write")) and started_at(writer["pid"]) is not None:
            kept["write"] = writer
        if readers := [reader for reader in entry.get("read", []) if started_at(reader["pid"]) is not None]:
            kept["read"] = readers
        if kept:
            alive[path] = kept
    if alive != locks:
        DVC_PATHS_LOCK.write_text(json.dumps(alive))


def environment(workspace: Path) -> dict[str, str]:
    """The child's environment: code from the workspace, tools from this Python's environment, nothing of the user's."""
    binaries = str(Path(sys.executable).parent)
    chosen = {
        "PYTHONPATH": str(workspace),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}",
        # Threads that spin while they wait starve the rest of a machine that also runs the stack.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    try:
        threads = json.loads((workspace / RUN_INFO).read_text())["threads"]
    except FileNotFoundError:
        threads = None
    return os.environ | chosen | ({"OMP_NUM_THREADS": str(threads)} if threads else {})


@contextmanager
def _one_dvc_at_a_time() -> Iterator[None]:
    """DVC gives up on its repository lock after three seconds; tasks of one workspace queue here instead."""
    RUNNING.mkdir(parents=True, exist_ok=True)
    with (RUNNING / "dvc.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run_child(task: str, command: list[str], workspace: Path) -> Outcome:
    """Run `command` in a group of its own, pass its output on, and leave none of the group behind."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = subprocess.Popen(
        command,
        cwd=workspace,
        env=environment(workspace),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )
    record = RUNNING / f"{task}.json"
    record.write_text(json.dumps({"group": child.pid, "started_at": started_at(child.pid), "command": command}))

    def end_child(sign: int, frame: FrameType | None) -> None:
        end_group(child.pid)

    signal.signal(signal.SIGTERM, end_child)
    signal.signal(signal.SIGINT, end_child)
    cached = threading.Event()

    def pass_on() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            if "didn't change, skipping" in line or "is cached - skipping run" in line:
                cached.set()
            print(line, end="", flush=True)

    # In a thread: the pipe stays open as long as an orphan of a killed child holds it.
    reader = threading.Thread(target=pass_on)
    reader.start()
    exit_code = child.wait()
    end_group(child.pid)
    reader.join()
    record.unlink(missing_ok=True)
    return Outcome(exit_code, cached.is_set())


def record_end(task: str, outcome: Outcome, seconds: float) -> None:
    """Note how the task ended, for the run's summary."""
    STAGE_LOG.mkdir(parents=True, exist_ok=True)
    entry = {"stage": task, "seconds": round(seconds, 2), "cached": outcome.cached, "exit_code": outcome.exit_code}
    partial = STAGE_LOG / f".{task}.partial"
    partial.write_text(json.dumps(entry | {"ended": time.time()}))
    partial.replace(STAGE_LOG / f"{task}.json")


def main() -> None:
    kind, task, *rest = sys.argv[1:]
    workspace = Path.cwd()
    started = time.monotonic()
    parent = os.getppid()
    RUNNING.mkdir(parents=True, exist_ok=True)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the task that started this stage is gone")
    end_leftovers(task)
    if kind == "repro":
        with _one_dvc_at_a_time():
            clear_dead_locks()
            outcome = run_child(task, ["dvc", "repro", "--single-item", task], workspace)
    else:
        outcome = run_child(task, [sys.executable, "-m", *rest], workspace)
    record_end(task, outcome, time.monotonic() - started)
    if outcome.exit_code and (FAILURES / f"{task}.json").exists():
        sys.exit(ExitCode.BAD_INPUT)
    # A child that a signal ended has a negative code; to the DAG that is one more reason to try again.
    sys.exit(outcome.exit_code if outcome.exit_code >= 0 else 1)


if __name__ == "__main__":
    main()
