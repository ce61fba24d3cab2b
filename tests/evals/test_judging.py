"""The judge that the parameters name, and the one that is never taken."""

import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from evals import judging
from evals.judges import EndpointJudge, LocalJudge
from pipelines.core import artifacts
from pipelines.core.config import Params, load_params
from pipelines.core.errors import BadInput
from tests.evals.conftest import Workspace


def load(folder: Path) -> AbstractContextManager[Any]:
    return nullcontext(f"engine of {folder}")


def params_with(**judge: Any) -> Params:
    params = load_params(Path("params.yaml"))
    return params.model_copy(update={"judge": params.judge.model_copy(update=judge)})


def test_without_an_endpoint_the_base_model_judges(workspace: Workspace) -> None:
    workspace(0.01)
    with judging.opened_judge(params_with(), load) as judge:
        assert isinstance(judge, LocalJudge)
        assert judge.name == "base model"


def test_an_endpoint_needs_the_models_name(workspace: Workspace) -> None:
    workspace(0.01)
    with (
        pytest.raises(BadInput, match=r"judge\.model"),
        judging.opened_judge(params_with(endpoint="http://x/v1"), load),
    ):
        pass
    with judging.opened_judge(params_with(endpoint="http://x/v1", model="m", repeats=3), load) as judge:
        assert isinstance(judge, EndpointJudge)
        assert judge.repeats == 3


def test_the_reward_model_of_the_run_is_never_a_judge_under_any_name(workspace: Workspace, tmp_path: Path) -> None:
    workspace(0.01)
    shutil.copytree(artifacts.REWARD_MODEL, tmp_path / "copy")
    for folder in (artifacts.REWARD_MODEL, tmp_path / "copy"):
        with pytest.raises(BadInput, match="this run's reward model"):
            judging.refuse_reward_model(folder)
    with (
        pytest.raises(BadInput, match="reward model"),
        judging.opened_judge(params_with(model=str(tmp_path / "copy")), load),
    ):
        pass
    weights = tmp_path / "copy" / judging.WEIGHTS
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(BadInput, match="has to read and answer"):
        judging.refuse_reward_model(tmp_path / "copy")
    judging.refuse_reward_model(artifacts.PRETRAIN)


def test_without_a_baseline_there_is_nothing_to_compare() -> None:
    assert judging.answer_pairs({"candidate": {"chat_quality": []}, "baseline": {}}) == []
