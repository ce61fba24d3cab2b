"""Two runs at once with different parameters: both end right, and neither sees the other's files."""

import pytest

from pipelines.core.config import load_params

from .conftest import Loop

pytestmark = pytest.mark.loop


def test_two_runs_at_once_are_both_right(loop: Loop) -> None:
    settings = {"left": 0.07, "right": 0.08}
    demos = {name: loop.start(name, f"SET=ppo.kl_coefficient={value}") for name, value in settings.items()}
    finished = {name: loop.finish(name, demo) for name, demo in demos.items()}
    for name, result in finished.items():
        assert result.summary["failures"] == [], name
        assert load_params(result.workspace / "params.yaml").ppo.kl_coefficient == settings[name]
    left, right = finished["left"].lock, finished["right"].lock
    differing = {stage for stage in left if left[stage]["outs"] != right[stage]["outs"]}
    assert differing - {"pull_annotations"} == {"ppo", "evaluate", "gate"}
    assert finished["left"].summary["model_version"] != finished["right"].summary["model_version"]
