"""Processes as /proc shows them: who lives, who belongs to which service, and how to end them all."""

import os
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

# Every process of a service bears this variable, whatever session or group it moved to: `<home>:<service>:`.
MARK = "COLLOQUY_SERVICE"

UNKILLABLE_S = 10.0  # a process that hangs in the kernel can't be waited for


def mark(home: Path, service: str = "") -> str:
    """The mark of one service of the stack in `home`, or what the marks of all of them begin with."""
    return f"{home}:{service}:" if service else f"{home}:"


def _fields(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the state on; None when the process is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields


def started_at(pid: int) -> int | None:
    """Start time of a live process in clock ticks since boot; None when there is none."""
    fields = _fields(pid)
    return int(fields[19]) if fields else None


def boot() -> str:
    """Tells this boot of the machine from others, whose process numbers mean nothing now."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def belonging(prefix: str, groups: Collection[int] = ()) -> set[int]:
    """The live processes whose mark begins with `prefix`, and those of the process groups `groups`.

    A program that rewrites its title overwrites its environment too (Airflow's workers do): hence the groups.
    """
    wanted = f"{MARK}={prefix}".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or (pid := int(entry.name)) == os.getpid():
            continue
        fields = _fields(pid)
        if fields is None:
            continue
        marked = False
        with suppress(OSError):
            marked = any(variable.startswith(wanted) for variable in (entry / "environ").read_bytes().split(b"\0"))
        if marked or int(fields[2]) in groups:
            found.add(pid)
    return found


def end(find: Callable[[], set[int]], grace_s: float) -> None:
    """SIGTERM to all that `find` finds, SIGKILL to those that are left after the grace, until none is found."""
    told: set[int] = set()
    deadline = time.monotonic() + grace_s
    while (left := find()) and time.monotonic() < deadline + UNKILLABLE_S:
        late = time.monotonic() > deadline
        for pid in left if late else left - told:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        told |= left
        time.sleep(0.05)
