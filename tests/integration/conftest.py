"""One tiny loop per session: a clone, its own state folder and ports, `make demo PROFILE=tiny`."""

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.config import read_yaml
from pipelines.core.workspace import folder

ROOT = Path(__file__).parents[2]
PORTS = ["AIRFLOW", "MLFLOW", "LABEL_STUDIO", "CHAT", "MONGODB", "REDIS"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Finished:
    """One `make demo` that ended."""

    run_id: str
    exit_code: int
    output: str
    workspace: Path
    seconds: float

    @property
    def summary(self) -> dict[str, Any]:
        text = (self.workspace / ".run" / "summary.json").read_text()
        found: dict[str, Any] = json.loads(text)
        return found

    @property
    def lock(self) -> dict[str, Any]:
        stages: dict[str, Any] = read_yaml(self.workspace / "dvc.lock")["stages"]
        return stages

    @property
    def cached(self) -> dict[str, bool]:
        return {entry["stage"]: entry["cached"] for entry in self.summary["stages"]}


@dataclass
class Loop:
    """A clone with a stack of its own."""

    clone: Path
    home: Path
    environment: dict[str, str]
    first: Finished = field(init=False)

    def make(self, *words: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "--no-print-directory", *words],
            cwd=self.clone,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def run(self, module: str, *words: str) -> str:
        """What `python -m module` prints, with the addresses of this stack."""
        python = str(Path(self.environment["COLLOQUY_ENVS"], "project", "bin", "python"))
        done = subprocess.run(
            [python, "-m", "deploy.local.stack", "run", module, *words],
            cwd=self.clone,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, run_id: str, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["make", "--no-print-directory", "demo", "PROFILE=tiny", f"RUN_ID={run_id}", *words],
            cwd=self.clone,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, run_id: str, demo: subprocess.Popen[str], timeout: float = 1500) -> Finished:
        started = time.monotonic()
        output, _ = demo.communicate(timeout=timeout)
        seconds = time.monotonic() - started
        print(output)
        return Finished(run_id, demo.returncode, output, folder(self.home, run_id), seconds)

    def demo(self, run_id: str, *words: str) -> Finished:
        return self.finish(run_id, self.start(run_id, *words))

    @property
    def addresses(self) -> dict[str, str]:
        ports = {name: self.environment[f"COLLOQUY_{name}_PORT"] for name in PORTS}
        return {name.lower(): f"http://127.0.0.1:{port}" for name, port in ports.items()}

    def pid_of(self, pattern: str) -> int:
        """The pid of this loop's own process whose command line matches `pattern`."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                variables = (entry / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if re.search(pattern, command) and f"COLLOQUY_HOME={self.home}" in variables:
                return int(entry.name)
        raise LookupError(pattern)


@pytest.fixture(scope="session")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    place = tmp_path_factory.mktemp("loop")
    clone = place / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    environment = os.environ | {
        "COLLOQUY_HOME": str(place / "home"),
        "COLLOQUY_ENVS": os.environ.get("COLLOQUY_ENVS", str(ROOT / ".envs")),
        **{f"COLLOQUY_{name}_PORT": str(free_port()) for name in PORTS},
    }
    for name in ("PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        environment.pop(name, None)
    loop = Loop(clone, place / "home", environment)
    try:
        loop.first = loop.demo("first")
        assert loop.first.exit_code == 0, loop.first.output[-4000:]
        yield loop
    finally:
        loop.make("down")
