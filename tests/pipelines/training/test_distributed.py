"""Several processes: two ranks train as one process does, and what can't be started is said before it is tried."""

import json

import pytest
import torch

from pipelines.core.errors import BadInput
from pipelines.core.sections.training import Distributed
from pipelines.training.distributed import launch, this_rank, wants_launch
from tests.pipelines.training.rank import SAVED, STEPS, losses
from tests.workspaces import ROOT


def params(processes: int | None = None, zero_stage: int = 0, offload: str = "none") -> Distributed:
    return Distributed(processes=processes, hostfile=None, zero_stage=zero_stage, offload=offload)  # type: ignore[arg-type]


CASES = [(0, "float32", 1, 1e-4), (2, "float32", 1, 1e-4), (3, "float32", 2, 1e-4), (2, "bfloat16", 2, 2e-2)]


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> list[list[list[float]]]:
    """What two ranks measured in each of CASES; one launch for all, since starting takes longest."""
    if torch.cuda.is_available():
        pytest.skip("compares processes on a CPU, and DeepSpeed would take the GPU")
    out = tmp_path_factory.mktemp("ranks") / "out.json"
    cases = [
        {"dtype": dtype, "accumulate": accumulate, "distributed": params(2, stage).model_dump(), "resumed": False}
        for stage, dtype, accumulate, _ in CASES
    ]
    cases[-1]["resumed"] = True  # its curve comes after its own
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("CASES", json.dumps(cases)), ("OUT", str(out)), ("PYTHONPATH", str(ROOT))):
            patch.setenv(name, value)
        assert launch("tests.pipelines.training.rank", params(2)) == 0
    return json.loads(out.read_text())


@pytest.mark.parametrize("number", range(len(CASES)))
def test_two_ranks_give_the_curve_of_one_process(number: int, curves: list[list[list[float]]]) -> None:
    _, dtype, _, tolerance = CASES[number]
    alone = losses(dtype, 1, params())
    assert alone[-1][0] < 0.9 * alone[0][0]
    for (loss, norm), (expected_loss, expected_norm) in zip(curves[number], alone, strict=True):
        assert loss == pytest.approx(expected_loss, abs=tolerance)
        assert norm == pytest.approx(expected_norm, rel=max(1e-3, 5 * tolerance))


def test_ranks_go_on_from_their_checkpoint_to_the_same_curve(curves: list[list[list[float]]]) -> None:
    undisturbed, resumed = curves[-2:]
    assert len(resumed) == STEPS - SAVED
    assert resumed == undisturbed[SAVED:]


def test_one_process_on_a_cpu_needs_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert not wants_launch(params())
    assert not wants_launch(params(1, 2))
    assert wants_launch(params(2))
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert this_rank() == (0, 1, 0, False)


def test_gpus_are_all_used_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert wants_launch(params())
    assert not wants_launch(params(1))
    assert wants_launch(params(1, 1))
    with pytest.raises(BadInput, match="processes is 5, there are 4 GPUs"):
        wants_launch(params(5))


def test_an_offload_that_zero_does_not_know_is_refused() -> None:
    with pytest.raises(BadInput, match="offload weights needs zero_stage 3"):
        wants_launch(params(2, 2, "weights"))
