"""Hostile programs stay inside: each one that could do harm would pass, or leave a trace that the test looks for."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from evals import sandbox as sandbox_module
from evals.sandbox import Sandbox

SANDBOX = Sandbox()
needs_sandbox = pytest.mark.skipif(SANDBOX.unavailable is not None, reason=f"no sandbox: {SANDBOX.unavailable}")

# name -> program that ends by itself ("passed") only if it got what it wanted
HOSTILE = {
    "opens a connection": "import socket; socket.create_connection(('1.1.1.1', 53), timeout=1)",
    "talks to the host on loopback": "import socket; socket.create_connection(('127.0.0.1', {port}), timeout=1)",
    "opens a vsock": "import socket; socket.socket(40, socket.SOCK_STREAM)",
    "forks": "import os; os.fork()",
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "starts a shell": "import subprocess; subprocess.run(['/bin/sh', '-c', 'true'], check=True)",
    "takes all memory": "x = bytearray(4 * 1024 ** 3)",
    "takes all memory bit by bit": "x = []\nwhile True:\n    x.append(bytearray(10 ** 7))",
    "takes memory outside the address space": "import os; os.memfd_create('x')",
    "fills the disk with one file": "f = open('/tmp/x', 'wb')\nfor _ in range(64): f.write(bytes(2 ** 20))\nf.flush()",
    "fills the disk with many files": (
        "for i in range(64):\n    with open(f'/tmp/{{i}}', 'wb') as f: f.write(bytes(2 ** 20))"
    ),
    "fills the root": "open('/filled', 'wb')",
    "reads the password file": "open('/etc/passwd').read()",
    "reads the home": "open('{secret}').read()",
    "lists the workspace": "import os; os.listdir('{workspace}')",
    "finds the environment": "import os; assert 'COLLOQUY_TEST_SECRET' in os.environ",
    "reads another process's environment": "open('/proc/1/environ').read()",
    "writes outside": "open('{trace}', 'w').write('here')",
    "writes outside through a link": "import os; os.symlink('{trace}', '/tmp/l'); open('/tmp/l', 'w').write('here')",
    "deletes the interpreter": "import os, sys; os.unlink(sys.executable)",
    "kills the parent": "import os; os.kill(os.getppid(), 9); open('/proc/self/status')",
    "kills everything": "import os; os.kill({pid}, 9)",
    "mounts": ("import ctypes\nlibc = ctypes.CDLL(None)\nassert libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0"),
    "makes a namespace": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "traces": "import ctypes\nassert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0",
    "raises its limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))"
    ),
    "opens many files": "x = [open('/dev/null') for _ in range(1000)]",
    "becomes root again": "import os; os.setuid(0) if os.getuid() else os.setuid(1)",
    "floods its output": "import os\nwhile True:\n    os.write(3, b'x' * 10 ** 6)",
    "hangs": "while True: pass",
    "sleeps": "import time; time.sleep(60)",
    "ignores signals and hangs": (
        "import signal\nfor s in set(range(1, 32)) - {{9, 19}}: signal.signal(s, signal.SIG_IGN)\nwhile True: pass"
    ),
    "exits as if all were well": "import os; os._exit(0)",
    "raises SystemExit": "raise SystemExit(0)",
    "crashes": "import ctypes; ctypes.string_at(0)",
    "recurses without end": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): return f() + 1\nf()",
}


def sandboxes() -> set[int]:
    return {process.pid for process in psutil.process_iter(["name"]) if process.info["name"] == "bwrap"}


@needs_sandbox
def test_hostile_programs_are_contained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setenv("COLLOQUY_TEST_SECRET", "open sesame")
    secret, trace = tmp_path / "secret", tmp_path / "trace"
    secret.write_text("x")
    listener = socket.create_server(("127.0.0.1", 0))
    values = {
        "port": listener.getsockname()[1],
        "secret": secret,
        "workspace": Path.cwd(),
        "trace": trace,
        "pid": os.getpid(),
    }
    before = sandboxes()
    programs = {name: program.format(**values) for name, program in HOSTILE.items()}
    started = time.monotonic()
    ended = dict(zip(programs, SANDBOX.run(list(programs.values()), timeout_s=0.5), strict=True))
    assert not [name for name, execution in ended.items() if execution.passed]
    for name in ("hangs", "sleeps", "ignores signals and hangs"):
        assert ended[name].reason == "timed out"
    assert time.monotonic() - started < 30
    assert not trace.exists()
    assert secret.read_text() == "x"
    assert Path(sys.executable).resolve().exists()
    deadline = time.monotonic() + 5  # the kernel tears a killed PID namespace down a moment later
    while sandboxes() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sandboxes() <= before
    listener.close()


@needs_sandbox
def test_programs_that_behave_pass_and_wrong_ones_fail() -> None:
    programs = [
        "assert sum(range(4)) == 6",
        "assert 1 == 2, 'wrong'",
        "def f(:",
        "import math, re, collections, json, hashlib, random; open('/tmp/ok', 'w').write('x')",
        "import threading; t = threading.Thread(target=print); t.start(); t.join()",
    ]
    ended = SANDBOX.run(programs, timeout_s=2.0)
    assert [execution.passed for execution in ended] == [True, False, False, True, True]
    assert ended[1].reason == "AssertionError: wrong"
    assert ended[2].reason.startswith("SyntaxError")


@needs_sandbox
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_it_works_or_says_why_for_a_user_without_rights() -> None:
    """As nobody the interpreter may be out of reach; then the answer is a reason, not a crash and not a run."""
    code = (
        "import os; from evals.sandbox import Sandbox\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "s = Sandbox()\n"
        "print(s.unavailable or s.run(['x = 1'], 1.0)[0].reason)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "passed" or "bubblewrap" in done.stdout, done.stdout + done.stderr


def test_without_bubblewrap_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module.shutil, "which", lambda name: None)
    without = Sandbox()
    assert without.unscored == "bubblewrap (bwrap) is not installed"
    with pytest.raises(RuntimeError, match="refusing"):
        without.run(["x = 1"], 1.0)


def test_bubblewrap_that_does_not_work_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sandbox_module.shutil, "which", lambda name: str(broken))
    assert "No permissions to create new namespace" in (Sandbox().unscored or "")


def test_unsafe_execution_happens_only_when_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module.shutil, "which", lambda name: None)
    allowed = Sandbox(allow_unsafe=True)
    assert allowed.unscored is None
    assert allowed.unavailable
    assert [execution.passed for execution in allowed.run(["x = 1", "1 / 0"], 2.0)] == [True, False]


@needs_sandbox
def test_many_threads_may_use_one_sandbox() -> None:
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(SANDBOX.run(["x = 1"], 5.0)[0].passed)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4
