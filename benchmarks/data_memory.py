"""Peak memory of `prepare_corpus` (all of its processes together) on 100 MB and on 1 GB of text.

make bench NAME=data_memory
SIZES_MB=100 make bench NAME=data_memory
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.corpora import write_workspace

LIMIT_MIB = 2048
LOOK_S = 0.2


def private_mib(process: psutil.Process) -> float:
    """Memory of a process and its children (MiB), shared pages counted once."""
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 2**20


def peak_mib(size: int) -> tuple[float, float]:
    """Peak memory (MiB) and seconds of the stage on `size` bytes."""
    with tempfile.TemporaryDirectory(prefix="colloquy-memory-") as place:
        workspace = write_workspace(Path(place), size, ["prepare_corpus.max_quarantined_share=1.0"])
        variables = os.environ | {"PYTHONPATH": str(workspace)}
        variables.pop("MLFLOW_TRACKING_URI", None)
        started = time.monotonic()
        stage = subprocess.Popen([sys.executable, "-m", "pipelines.prepare_corpus"], cwd=workspace, env=variables)
        peak, process = 0.0, psutil.Process(stage.pid)
        while stage.poll() is None:
            peak = max(peak, private_mib(process))
            time.sleep(LOOK_S)
        assert stage.returncode == 0
        return peak, time.monotonic() - started


def main() -> None:
    figures: dict[str, float | None] = {"peak_mib_100mb": None, "peak_mib_1gb": None}
    print(f"{'text':>8}{'peak MiB':>12}{'limit':>8}{'seconds':>10}")
    for megabytes in map(int, os.environ.get("SIZES_MB", "100,1000").split(",")):
        peak, seconds = peak_mib(megabytes * 1_000_000)
        figures["peak_mib_1gb" if megabytes >= 1000 else "peak_mib_100mb"] = round(peak)
        print(f"{megabytes:>5} MB{peak:>12.0f}{LIMIT_MIB:>8}{seconds:>10.0f}", flush=True)
    print(json.dumps({"name": "data_memory", "figures": figures}))


if __name__ == "__main__":
    main()
