"""Runs model-written programs, which are hostile until shown otherwise, inside bubblewrap.

A program sees a read-only system and an empty 16 MiB /tmp; no network, no home, no /proc, no environment. It can
start no process and open no socket (seccomp), and memory, CPU time, file size and open files have hard limits.
Where bubblewrap does not work nothing runs, and the caller gets the reason.
"""

import contextlib
import json
import os
import platform
import secrets
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import IO

MIB = 1024 * 1024
MEMORY_BYTES = 1024 * MIB  # address space; a bare interpreter takes about 20 MiB
DISK_BYTES = 16 * MIB  # all of /tmp, and any one file
OPEN_FILES = 64
START_ALLOWANCE_S = 1.0  # bubblewrap and the interpreter start in about 0.05 s on an idle machine

# Trusted code that runs first inside the sandbox: lowers the limits for good, then runs the program and reports.
# The program's own output goes nowhere. The report is a random word only when the program ended by itself, so a
# program that exits early counts as failed.
HARNESS = """
import json, os, resource, sys
job = json.load(sys.stdin)
report = os.dup(1)
null = os.open("/dev/null", os.O_RDWR)
for descriptor in (0, 1, 2):
    os.dup2(null, descriptor)
for limit, value in job["limits"].items():
    resource.setrlimit(getattr(resource, limit), (value, value))
try:
    exec(compile(job["program"], "<program>", "exec"), {})
    verdict = job["passed"]
except BaseException as error:
    verdict = f"{type(error).__name__}: {error}"
os.write(report, verdict.encode("utf-8", "replace")[:500])
os._exit(0)
"""


@dataclass(frozen=True, slots=True)
class Execution:
    """How one program ended."""

    passed: bool
    reason: str  # "passed", "timed out", or what went wrong


class _Machine:
    """Numbers of the system calls that a program may not make, on one processor architecture."""

    def __init__(self, audit: int, clone: int, denied: Sequence[int]) -> None:
        self.audit = audit
        self.clone = clone
        self.denied = denied


# In both lists: starting processes other than threads, sockets (vsock has no network namespace), memory outside the
# address-space limit (memfd, System V), mounts and namespaces, tracing, keys, and kernel interfaces with a history.
MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        56,
        # fmt: off
        [
            57,
            58,
            41,
            319,
            447,
            29,
            64,
            68,
            240,
            272,
            308,
            165,
            166,
            155,
            161,
            428,
            429,
            430,
            442,
            101,
            310,
            311,
            304,
            248,
            249,
            250,
            321,
            298,
            323,
            425,
            426,
            427,
            175,
            313,
            246,
            167,
            169,
        ],
        # fmt: on
    ),
    "aarch64": _Machine(
        0xC00000B7,
        220,
        # fmt: off
        [
            198,
            279,
            447,
            194,
            190,
            186,
            180,
            97,
            268,
            40,
            39,
            41,
            51,
            428,
            429,
            430,
            442,
            117,
            270,
            271,
            265,
            217,
            218,
            219,
            280,
            241,
            282,
            425,
            426,
            427,
            105,
            273,
            104,
            224,
            142,
        ],
        # fmt: on
    ),
}
CLONE3 = 435  # the same everywhere
CLONE_THREAD = 0x10000

# Classic BPF over struct seccomp_data {u32 nr; u32 arch; u64 instruction_pointer; u64 args[6]} (linux/seccomp.h).
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS = 1, 38


def seccomp_filter(machine: str) -> bytes:
    """The compiled filter for `machine` (as `platform.machine()` says)."""
    numbers = MACHINES[machine]
    program = [
        (LOAD, 0, 0, 4),
        (JUMP_EQUAL, 1, 0, numbers.audit),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0),
        (JUMP_AT_LEAST, 0, 1, 0x40000000),  # the x32 interface, a second door to every call
        (RETURN, 0, 0, KILL),
        (JUMP_EQUAL, 0, 1, CLONE3),
        (RETURN, 0, 0, REFUSE | ENOSYS),  # its flags are out of a filter's reach; libc then takes clone
    ]
    for number in numbers.denied:
        program += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE | EPERM)]
    program += [
        (JUMP_EQUAL, 0, 3, numbers.clone),
        (LOAD, 0, 0, 16),
        (JUMP_SET, 1, 0, CLONE_THREAD),
        (RETURN, 0, 0, REFUSE | EPERM),
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _system_mounts() -> list[str]:
    """Read-only binds for the interpreter and the libraries it needs."""
    mounts = ["--ro-bind", "/usr", "/usr"]
    for path in (Path("/bin"), Path("/lib"), Path("/lib64")):
        if path.is_symlink():
            mounts += ["--symlink", str(path.readlink()), str(path)]
        elif path.exists():
            mounts += ["--ro-bind", str(path), str(path)]
    prefix = Path(sys.base_prefix).resolve()
    if not prefix.is_relative_to("/usr"):
        mounts += ["--ro-bind", str(prefix), str(prefix)]
    return mounts


class Sandbox:
    """Where programs run. `allow_unsafe` runs them without isolation where bubblewrap does not work."""

    def __init__(self, allow_unsafe: bool = False) -> None:
        self._allow_unsafe = allow_unsafe

    @cached_property
    def unavailable(self) -> str | None:
        """Why programs can't be isolated here; None when they can."""
        if platform.machine() not in MACHINES:
            return f"no system call filter for the processor {platform.machine()}"
        if shutil.which("bwrap") is None:
            return "bubblewrap (bwrap) is not installed"
        try:
            trial = self._execute("import sys", 10.0, isolated=True)
        except OSError as error:
            return f"bubblewrap does not start: {error}"
        return None if trial.passed else f"bubblewrap does not work here: {trial.reason}"

    @property
    def unscored(self) -> str | None:
        """Why nothing may run here at all; None when programs can run."""
        return None if self._allow_unsafe else self.unavailable

    def run(self, programs: Sequence[str], timeout_s: float) -> list[Execution]:
        """Run each program in a sandbox of its own, as many at once as there are processors; order kept.

        Raises:
            RuntimeError: no sandbox works here (ask `unscored` first).
        """
        if self.unscored is not None:
            raise RuntimeError(f"refusing to run model-written code: {self.unscored}")
        isolated = self.unavailable is None
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(lambda program: self._execute(program, timeout_s, isolated), programs))

    def _execute(self, program: str, timeout_s: float, isolated: bool) -> Execution:
        passed = secrets.token_hex(16)
        limits = {
            "RLIMIT_AS": MEMORY_BYTES,
            "RLIMIT_CPU": ceil(timeout_s + START_ALLOWANCE_S),
            "RLIMIT_FSIZE": DISK_BYTES,
            "RLIMIT_NOFILE": OPEN_FILES,
            "RLIMIT_CORE": 0,
        }
        job = json.dumps({"program": program, "passed": passed, "limits": limits}).encode()
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            stdin.write(job)
            stdin.seek(0)
            ended = self._wait(stdin, stdout, stderr, timeout_s + START_ALLOWANCE_S, isolated)
            report = _head(stdout)
            if not ended:
                return Execution(False, "timed out")
            if report == passed:
                return Execution(True, "passed")
            return Execution(False, report or _head(stderr) or "ended without a report")

    def _wait(self, stdin: IO[bytes], stdout: IO[bytes], stderr: IO[bytes], timeout_s: float, isolated: bool) -> bool:
        """Start the harness and wait; False when it had to be killed."""
        python = [str(Path(sys.executable).resolve()), "-I", "-S", "-c", HARNESS]
        with tempfile.TemporaryFile() as rules, tempfile.TemporaryDirectory() as scratch:
            command = python
            if isolated:
                rules.write(seccomp_filter(platform.machine()))
                rules.seek(0)
                command = [*self._bubblewrap(rules.fileno()), *python]
            process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=scratch,
                env={},
                pass_fds=(rules.fileno(),),
                start_new_session=True,
            )
            try:
                process.wait(timeout_s)
                return True
            except subprocess.TimeoutExpired:
                return False
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    @staticmethod
    def _bubblewrap(filter_descriptor: int) -> list[str]:
        return [
            shutil.which("bwrap") or "bwrap",
            "--unshare-all",
            "--die-with-parent",
            "--new-session",
            *_system_mounts(),
            "--dir",
            "/dev",
            "--dev-bind",
            "/dev/null",
            "/dev/null",
            "--ro-bind",
            "/dev/urandom",
            "/dev/urandom",
            "--size",
            str(DISK_BYTES),
            "--tmpfs",
            "/tmp",
            "--remount-ro",
            "/",  # the root is a tmpfs without a size limit
            "--chdir",
            "/tmp",
            "--seccomp",
            str(filter_descriptor),
        ]


def _head(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(500).decode("utf-8", "replace").strip()
