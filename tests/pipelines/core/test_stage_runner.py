"""The stage runner against real processes: what a killed try leaves behind never outlives the next one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.core import stage_runner

ROOT = Path(__file__).parents[3]
RUNNER = [sys.executable, "-m", "pipelines.core.stage_runner"]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pipelines").symlink_to(ROOT / "pipelines")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_module(workspace: Path, name: str, text: str) -> None:
    (workspace / f"{name}.py").write_text(text)


def start(workspace: Path, task: str, module: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*RUNNER, "run", task, module], cwd=workspace, env=os.environ | {"PYTHONPATH": str(workspace)}, text=True
    )


def eventually(holds: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return holds()


def alive(pid: int) -> bool:
    return stage_runner.started_at(pid) is not None


SLEEPER = """
import os, subprocess, sys, time
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path("pids.tmp").write_text(f"{os.getpid()} {child.pid}")
Path("pids.tmp").rename("pids")
time.sleep(600)
"""


def pids_of(workspace: Path) -> list[int]:
    assert eventually((workspace / "pids").exists)
    return [int(word) for word in (workspace / "pids").read_text().split()]


def test_the_exit_code_of_a_command_is_passed_on(workspace: Path) -> None:
    write_module(workspace, "ends", "import sys; sys.exit(75)")
    assert start(workspace, "ends", "ends").wait() == 75
    assert json.loads((workspace / ".run/stages/ends.json").read_text())["exit_code"] == 75


def test_a_failure_that_names_bad_input_is_not_for_retrying(workspace: Path) -> None:
    write_module(
        workspace,
        "refuses",
        "import sys; from pathlib import Path; p = Path('.run/failures'); p.mkdir(parents=True);"
        "(p / 'refuses.json').write_text('{}'); sys.exit(255)",
    )
    assert start(workspace, "refuses", "refuses").wait() == 65


def test_ending_the_runner_ends_the_whole_group(workspace: Path) -> None:
    write_module(workspace, "sleeper", SLEEPER)
    runner = start(workspace, "sleeper", "sleeper")
    pids = pids_of(workspace)
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(timeout=20) != 0
    assert eventually(lambda: not any(alive(pid) for pid in pids))


def test_the_runner_ends_with_the_process_that_started_it(workspace: Path) -> None:
    write_module(workspace, "sleeper", SLEEPER)
    starter = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.run({[*RUNNER, 'run', 'sleeper', 'sleeper']!r})"],
        cwd=workspace,
        env=os.environ | {"PYTHONPATH": str(workspace)},
    )
    pids = pids_of(workspace)
    starter.kill()
    starter.wait()
    assert eventually(lambda: not any(alive(pid) for pid in pids))


def test_a_retry_ends_what_a_killed_runner_left(workspace: Path) -> None:
    write_module(workspace, "sleeper", SLEEPER)
    runner = start(workspace, "sleeper", "sleeper")
    pids = pids_of(workspace)
    runner.kill()
    runner.wait()
    assert alive(pids[1]), "the grandchild must survive the kill, or this test shows nothing"
    write_module(workspace, "sleeper", "print('done')")
    assert start(workspace, "sleeper", "sleeper").wait() == 0
    assert not any(alive(pid) for pid in pids)


def test_a_killed_child_leaves_no_orphans(workspace: Path) -> None:
    write_module(workspace, "sleeper", SLEEPER)
    runner = start(workspace, "sleeper", "sleeper")
    pids = pids_of(workspace)
    os.kill(pids[0], signal.SIGKILL)
    assert runner.wait(timeout=20) == 1
    assert not any(alive(pid) for pid in pids)


def test_path_locks_of_dead_processes_are_cleared_and_live_ones_stay(workspace: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    stage_runner.DVC_PATHS_LOCK.parent.mkdir(parents=True)
    live = {"pid": os.getpid(), "cmd": "dvc repro a"}
    stage_runner.DVC_PATHS_LOCK.write_text(
        json.dumps(
            {"a": {"write": {"pid": dead.pid, "cmd": "x"}}, "b": {"read": [{"pid": dead.pid, "cmd": "x"}, live]}}
        )
    )
    stage_runner.clear_dead_locks()
    assert json.loads(stage_runner.DVC_PATHS_LOCK.read_text()) == {"b": {"read": [live]}}


@pytest.fixture
def dvc_workspace(workspace: Path) -> Path:
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "config", "core.analytics", "false"]):
        subprocess.run(command, cwd=workspace, env=stage_runner.environment(workspace), check=True)
    (workspace / "params.yaml").write_text("x: 1\n")
    (workspace / "dvc.yaml").write_text(
        "stages:\n  slow:\n    cmd: python -m slow\n    params: [x]\n    outs: [out.txt]\n"
    )
    write_module(workspace, "slow", SLEEPER)
    return workspace


def repro(workspace: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(workspace)}
    return subprocess.Popen([*RUNNER, "repro", "slow"], cwd=workspace, env=environment, text=True)


@pytest.mark.parametrize("victim", ["runner", "dvc", "stage"])
def test_a_stage_goes_on_after_a_kill(dvc_workspace: Path, victim: str) -> None:
    runner = repro(dvc_workspace)
    pids = pids_of(dvc_workspace)
    dvc = json.loads((dvc_workspace / ".run/running/slow.json").read_text())["group"]
    os.kill({"runner": runner.pid, "dvc": dvc, "stage": pids[0]}[victim], signal.SIGKILL)
    assert runner.wait(timeout=30) != 0
    write_module(dvc_workspace, "slow", "open('out.txt', 'w').write('done')")
    assert repro(dvc_workspace).wait() == 0
    assert (dvc_workspace / "out.txt").read_text() == "done"
    assert not any(alive(pid) for pid in pids)


def test_a_stage_with_nothing_to_do_is_noted_as_cached(dvc_workspace: Path) -> None:
    write_module(dvc_workspace, "slow", "open('out.txt', 'w').write('done')")
    assert repro(dvc_workspace).wait() == 0
    assert not json.loads((dvc_workspace / ".run/stages/slow.json").read_text())["cached"]
    assert repro(dvc_workspace).wait() == 0
    assert json.loads((dvc_workspace / ".run/stages/slow.json").read_text())["cached"]
