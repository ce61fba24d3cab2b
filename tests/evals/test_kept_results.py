"""Finished tasks are not run again, those of other inputs never used."""

from pathlib import Path

import pytest

from evals.metrics import Score
from evals.progress import Progress, identity_of
from evals.task import SampleResult
from pipelines.core.config import parse, resolve

ROOT = Path(__file__).parents[2]
FOUND = [SampleResult("a", "q", "r", {"accuracy": Score(1 / 3, 0.1)}, detail={"pair": (1, 2)})]


def fails() -> list[SampleResult]:
    raise AssertionError("run again")


def test_what_is_done_is_read_and_equals_what_was_given_first(tmp_path: Path) -> None:
    progress = Progress.of(tmp_path, "one")
    first = progress.results("candidate", "mmlu", lambda: FOUND)
    assert first[0].scores == FOUND[0].scores
    assert Progress.of(tmp_path, "one").results("candidate", "mmlu", fails) == first
    with pytest.raises(AssertionError):
        progress.results("baseline", "mmlu", fails)


def test_results_of_other_inputs_are_removed(tmp_path: Path) -> None:
    Progress.of(tmp_path, "one").results("candidate", "mmlu", lambda: FOUND)
    with pytest.raises(AssertionError):
        Progress.of(tmp_path, "two").results("candidate", "mmlu", fails)
    assert not (tmp_path / "tasks-one").exists()


def test_the_identity_is_that_of_parameters_and_bytes(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_text("x")
    params = parse(resolve(ROOT, "tiny", []), "tiny")
    first = identity_of(params, [tmp_path])
    assert identity_of(params, [tmp_path]) == first
    assert identity_of(parse(resolve(ROOT, "tiny", ["resources.threads=2"]), "tiny"), [tmp_path]) == first
    assert identity_of(parse(resolve(ROOT, "tiny", ["seed=9"]), "tiny"), [tmp_path]) != first
    file.write_text("y")
    assert identity_of(params, [tmp_path]) != first
