"""Times the whole loop from a clean clone: `tiny`, `smol`, an unchanged second run, the orchestration's share, and how
soon a run goes on after its stage, Label Studio or the scheduler was killed.

    make bench NAME=loop              both profiles
    PROFILES=tiny make bench NAME=loop

Set-up is left out: the environments are those of this checkout. Every run uses a state folder of its own.
"""

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KILLED = (r"python -m pipelines\.pretrain", r"label-studio start", r"airflow scheduler")
SERVICES = ["AIRFLOW", "MLFLOW", "LABEL_STUDIO", "CHAT", "MONGODB", "REDIS"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment_of(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "PYTHONPATH")}
    ports = {f"COLLOQUY_{name}_PORT": str(free_port()) for name in SERVICES}
    environments = os.environ.get("COLLOQUY_ENVS", str(ROOT / ".envs"))
    return kept | ports | {"COLLOQUY_HOME": str(home), "COLLOQUY_ENVS": environments}


def demo(clone: Path, environment: dict[str, str], profile: str, run_id: str) -> float:
    """Seconds that `make demo` took; its exit code must be 0."""
    started = time.monotonic()
    subprocess.run(
        ["make", "--no-print-directory", "demo", f"PROFILE={profile}", f"RUN_ID={run_id}"],
        cwd=clone,
        env=environment,
        stdout=sys.stderr,
        check=True,
    )
    return time.monotonic() - started


def stages_of(workspace: Path) -> list[dict[str, Any]]:
    """The records of a run's stages, by the time that they ended."""
    entries = [json.loads(path.read_text()) for path in (workspace / ".run" / "stages").glob("*.json")]
    return sorted(entries, key=lambda entry: entry["ended"])


def overhead_per_stage(workspace: Path) -> float:
    """Seconds between the ends of two consecutive stages that came from the cache: Airflow and DVC together."""
    entries = stages_of(workspace)
    gaps = [
        after["ended"] - before["ended"]
        for before, after in zip(entries, entries[1:], strict=False)
        if before["cached"] and after["cached"]
    ]
    return statistics.mean(gaps)


def pid_of(pattern: str, home: Path) -> int | None:
    """The pid of a process of the stack in `home` whose command line matches `pattern`."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            variables = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if re.search(pattern, command) and f"COLLOQUY_HOME={home}" in variables:
            return int(entry.name)
    return None


def recovery(clone: Path, home: Path, environment: dict[str, str]) -> float:
    """The longest time (s) from a SIGKILL to the next start of a stage, less what the running stage still took."""
    command = ["make", "--no-print-directory", "demo", "PROFILE=tiny", "RUN_ID=killed", "SET=seed=4321"]
    run = subprocess.Popen(command, cwd=clone, env=environment, stdout=sys.stderr)
    killed = []
    for pattern in KILLED:
        while (pid := pid_of(pattern, home)) is None:
            time.sleep(0.2)
            assert run.poll() is None, f"the run ended before {pattern} could be killed"
        os.kill(pid, signal.SIGKILL)
        killed.append(time.time())
        time.sleep(5)
    assert run.wait() == 0
    spans = [(entry["ended"] - entry["seconds"], entry["ended"]) for entry in stages_of(home / "workspaces" / "killed")]
    lost = []
    for kill in killed:
        free = max([ended for started, ended in spans if started < kill < ended], default=kill)
        lost.append(min(started for started, _ in spans if started > free) - free)
    return max(lost)


def measure(profile: str) -> dict[str, float]:
    """Figures of one profile, on a stack of its own that is stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="colloquy-loop-") as place:
        clone, home = Path(place, "clone"), Path(place, "home")
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        environment = environment_of(home)
        try:
            figures = {f"{profile}_s": demo(clone, environment, profile, "first")}
            figures["unchanged_s"] = demo(clone, environment, profile, "unchanged")
            figures["overhead_per_stage_s"] = overhead_per_stage(home / "workspaces" / "unchanged")
            if profile == "tiny":
                figures["recovery_s"] = recovery(clone, home, environment)
        finally:
            subprocess.run(["make", "--no-print-directory", "down"], cwd=clone, env=environment, stdout=sys.stderr)
    return figures


def main() -> None:
    figures: dict[str, float | None] = dict.fromkeys(
        ("tiny_s", "smol_s", "unchanged_s", "overhead_per_stage_s", "recovery_s")
    )
    for profile in os.environ.get("PROFILES", "tiny,smol").split(","):
        measured = measure(profile)
        for name, value in measured.items():
            # The second run's figures are kept from the slower profile.
            figures[name] = round(max(value, figures[name] or 0.0), 2)
    limits = {"tiny_s": 300, "smol_s": 900, "unchanged_s": 60, "overhead_per_stage_s": 3, "recovery_s": 60}
    print(f"{'figure':<24}{'measured':>10}{'limit':>8}")
    for name, value in figures.items():
        print(f"{name:<24}{'–' if value is None else value:>10}{limits[name]:>8}")
    print(json.dumps({"name": "loop", "figures": figures}))


if __name__ == "__main__":
    main()
