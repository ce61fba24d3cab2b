"""A run whose stage, scheduler and Label Studio are killed ends as the undisturbed one did, byte for byte."""

import os
import signal
import time
from collections.abc import Callable

import httpx
import pytest

from .conftest import Loop

pytestmark = pytest.mark.loop


def eventually(holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if holds():
                return True
        except (LookupError, httpx.HTTPError):
            pass
        time.sleep(0.2)
    return False


def test_kills_change_nothing(loop: Loop) -> None:
    # Without the cache the run computes everything again, with the same parameters as the first one.
    cache = loop.home / "dvc-cache"
    aside = loop.home / "dvc-cache-of-first"
    cache.rename(aside)
    try:
        demo = loop.start("killed")
        killed: list[str] = []

        def kill(name: str, pattern: str) -> None:
            found: list[int] = []

            def there() -> bool:
                found.append(loop.pid_of(pattern))
                return True

            assert eventually(there, 240), f"{name} never ran"
            os.kill(found[-1], signal.SIGKILL)
            killed.append(name)

        kill("stage", r"python -m pipelines\.pretrain")
        kill("dvc", r"bin/dvc repro --single-item sft")
        kill("Label Studio", r"label-studio start")
        kill("scheduler", r"airflow scheduler")
        result = loop.finish("killed", demo)
    finally:
        for path in sorted(aside.rglob("*")):
            target = cache / path.relative_to(aside)
            if path.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
    assert result.exit_code == 0, result.output[-4000:]
    assert killed == ["stage", "dvc", "Label Studio", "scheduler"]
    assert eventually(lambda: httpx.get(f"{loop.addresses['label_studio']}/health").status_code == 200, 60)
    for stage, entry in loop.first.lock.items():
        outs = {out["path"]: out["md5"] for out in entry["outs"] if "/metrics/" not in out["path"]}
        assert outs == {
            out["path"]: out["md5"] for out in result.lock[stage]["outs"] if "/metrics/" not in out["path"]
        }, stage
    assert result.summary["model_version"] == loop.first.summary["model_version"]
