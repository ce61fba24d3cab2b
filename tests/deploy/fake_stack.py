"""A supervisor over small fake services, run as a process of its own: `python -m tests.deploy.fake_stack`."""

import sys
from pathlib import Path

from deploy.local import settings as local
from deploy.local.services import Service
from deploy.local.settings import SettingError, Settings
from deploy.local.supervisor import supervise

SLEEPER = [sys.executable, "-c", "import time; time.sleep(300)"]
# Ignores SIGTERM, and leaves a child in a session of its own.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
print("ready", flush=True)
time.sleep(300)
"""


def services(settings: Settings) -> list[Service]:
    def stubborn_is_ready(began: float) -> bool:
        return "ready" in (settings.logs / "stubborn.log").read_text()

    def prepare() -> None:
        if not (settings.home / "prepared").exists():
            raise SettingError("not prepared")

    def settle() -> None:
        if not (settings.home / "settled").exists():
            raise SettingError("not settled")

    def service(name: str, **options) -> Service:
        return Service(name, SLEEPER, {}, lambda began: True, **options)

    return [
        service("sleeper"),
        Service("stubborn", [sys.executable, "-c", STUBBORN], {}, stubborn_is_ready, stop_grace_s=0.5),
        Service("crasher", [sys.executable, "-c", "raise SystemExit(3)"], {}, lambda began: False),
        service("released", waits_for=settings.home / "release.json"),
        service("unprepared", before=prepare),
        service("unsettled", after=settle),
    ]


if __name__ == "__main__":
    here = local.load()
    Path(here.home).mkdir(parents=True, exist_ok=True)
    supervise(here, lambda: services(here))
