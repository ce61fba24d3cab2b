"""The supervisor over fake services, with real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local import processes, stack, supervisor
from deploy.local.settings import DEFAULT_PORTS, ROOT, Settings


def eventually(look: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def start_supervisor(settings: Settings) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.deploy.fake_stack"],
        cwd=ROOT,
        env=os.environ | {"COLLOQUY_HOME": str(settings.home), processes.MARK: ""},
    )


def note(settings: Settings, service: str) -> dict:
    return supervisor.read_state(settings).get("services", {}).get(service, {"status": "", "pid": None})


def status_is(settings: Settings, service: str, status: str) -> Callable[[], bool]:
    return lambda: note(settings, service)["status"] == status


def running(settings: Settings) -> set[int]:
    return processes.belonging(processes.mark(settings.home))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "home", tmp_path / "envs", dict(DEFAULT_PORTS))


@pytest.fixture
def supervised(settings: Settings) -> Iterator[subprocess.Popen]:
    process = start_supervisor(settings)
    try:
        eventually(status_is(settings, "sleeper", "healthy"))
        eventually(status_is(settings, "stubborn", "healthy"))
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=30)
        supervisor.end_leftovers(settings)


def test_a_killed_service_is_back_within_two_seconds(settings: Settings, supervised: subprocess.Popen):
    before = note(settings, "sleeper")["pid"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: note(settings, "sleeper")["pid"] not in (None, before), seconds=2)
    assert note(settings, "sleeper")["restarts"] == 1


def test_what_a_killed_service_left_is_ended_before_it_starts_again(settings: Settings, supervised: subprocess.Popen):
    before = running(settings)
    os.kill(note(settings, "stubborn")["pid"], signal.SIGKILL)
    eventually(lambda: note(settings, "stubborn").get("restarts") == 1)
    eventually(status_is(settings, "stubborn", "healthy"))
    eventually(lambda: len(running(settings)) == len(before))


def test_a_service_that_ends_at_once_is_started_ever_more_slowly(settings: Settings, supervised: subprocess.Popen):
    eventually(lambda: note(settings, "crasher").get("restarts", 0) >= 2)
    time.sleep(2)
    assert note(settings, "crasher")["restarts"] <= 3


def test_a_release_starts_its_service_and_a_new_one_leaves_it_running(settings: Settings, supervised: subprocess.Popen):
    assert note(settings, "released")["status"] == "waiting"
    (settings.home / "release.json").write_text("1")
    eventually(status_is(settings, "released", "healthy"))
    first = note(settings, "released")["pid"]
    (settings.home / "release.json").write_text("2")
    time.sleep(1)
    assert note(settings, "released")["pid"] == first


def test_what_failed_is_named_and_tried_again_on_demand(settings: Settings, supervised: subprocess.Popen):
    eventually(status_is(settings, "unprepared", "failed"))
    assert note(settings, "unprepared")["problem"] == "not prepared"
    (settings.home / "prepared").touch()
    supervised.send_signal(signal.SIGHUP)
    eventually(status_is(settings, "unprepared", "healthy"))


def test_a_service_whose_follow_up_fails_keeps_running_until_it_succeeds(settings: Settings, supervised):
    eventually(lambda: note(settings, "unsettled").get("problem") == "not settled")
    assert note(settings, "unsettled")["status"] == "starting"
    pid = note(settings, "unsettled")["pid"]
    (settings.home / "settled").touch()
    eventually(status_is(settings, "unsettled", "healthy"))
    assert note(settings, "unsettled")["pid"] == pid


def test_down_leaves_no_process_behind(settings: Settings, supervised: subprocess.Popen):
    assert len(running(settings)) >= 3
    assert stack.stop(settings)
    supervised.wait(timeout=10)
    assert running(settings) == set()
    assert not stack.stop(settings)


def test_a_second_supervisor_of_the_same_home_refuses(settings: Settings, supervised: subprocess.Popen):
    second = start_supervisor(settings)
    assert second.wait(timeout=20) != 0
    assert supervised.poll() is None


def test_what_a_killed_supervisor_left_is_ended_by_the_next(settings: Settings, supervised: subprocess.Popen):
    orphans = running(settings)
    supervised.kill()
    supervised.wait()
    assert running(settings) == orphans
    following = start_supervisor(settings)
    try:
        eventually(lambda: not (running(settings) & orphans))
        eventually(status_is(settings, "stubborn", "healthy"))
    finally:
        following.terminate()
        following.wait(timeout=30)
