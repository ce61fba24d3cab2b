"""Times the whole loop from a clean clone: `tiny`, `smol`, an unchanged second run, and the orchestration's share.

    make bench NAME=loop              both profiles
    PROFILES=tiny make bench NAME=loop

Set-up is left out: the environments are those of this checkout. Every run uses a state folder of its own.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
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


def overhead_per_stage(workspace: Path) -> float:
    """Seconds between the ends of two consecutive stages that came from the cache: Airflow and DVC together."""
    entries = [json.loads(path.read_text()) for path in (workspace / ".run" / "stages").glob("*.json")]
    entries.sort(key=lambda entry: entry["ended"])
    gaps = [
        after["ended"] - before["ended"]
        for before, after in zip(entries, entries[1:], strict=False)
        if before["cached"] and after["cached"]
    ]
    return statistics.mean(gaps)


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
        finally:
            subprocess.run(["make", "--no-print-directory", "down"], cwd=clone, env=environment, stdout=sys.stderr)
    return figures


def main() -> None:
    figures: dict[str, float | None] = dict.fromkeys(("tiny_s", "smol_s", "unchanged_s", "overhead_per_stage_s"))
    for profile in os.environ.get("PROFILES", "tiny,smol").split(","):
        measured = measure(profile)
        for name, value in measured.items():
            # The second run's figures are kept from the slower profile.
            figures[name] = round(max(value, figures[name] or 0.0), 2)
    limits = {"tiny_s": 300, "smol_s": 900, "unchanged_s": 60, "overhead_per_stage_s": 3}
    print(f"{'figure':<24}{'measured':>10}{'limit':>8}")
    for name, value in figures.items():
        print(f"{name:<24}{'–' if value is None else value:>10}{limits[name]:>8}")
    print(json.dumps({"name": "loop", "figures": figures}))


if __name__ == "__main__":
    main()
