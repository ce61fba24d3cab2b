"""Results survive the disk, unscored samples stay out of the mean, and samples spread over their file."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from evals.metrics import Score
from evals.task import SampleResult, evenly, read_results, summarize, summarize_groups, write_results


def result(name: str, score: float | None, reason: str | None = None) -> SampleResult:
    return SampleResult(name, "p", "r", {} if score is None else {"accuracy": Score(score)}, reason, {"k": 1})


def test_an_unscored_sample_is_not_wrong() -> None:
    results = [result("a", 1.0), result("b", None, "the judge was down"), result("c", 1.0)]
    found = summarize(results, ["accuracy"], 0.05, 1)["accuracy"]
    assert found["value"] == 1.0
    assert found["n"] == 2
    assert found["unscored"] == 1
    assert found["reason"] == "the judge was down"


def test_a_metric_that_nothing_has_says_why() -> None:
    found = summarize([result("a", None, "no sandbox")], ["accuracy"], 0.05, 1)["accuracy"]
    assert found["value"] is None
    assert found["reason"] == "no sandbox"


def test_results_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    results = [result("a", 1.0), result("b", None, "why")]
    write_results(tmp_path / "x.jsonl", results)
    assert read_results(tmp_path / "x.jsonl") == results


def test_evenly_reaches_from_the_first_to_the_last_part() -> None:
    rows = [{"n": number} for number in range(10)]
    assert [row["n"] for row in evenly(rows, 3)] == [0, 3, 6]
    assert evenly(rows, 20) == rows


def test_groups_are_summarized_apart() -> None:
    task: Any = SimpleNamespace(metrics=("accuracy",), groups=("k",))
    results = [result("a", 1.0), result("b", 0.0), replace(result("c", 0.0), detail={"k": "other"})]
    found = summarize_groups(results, task, 0.05, 1)["k"]
    assert {value: metrics["accuracy"]["value"] for value, metrics in found.items()} == {"1": 0.5, "other": 0.0}
    assert found["1"]["accuracy"]["n"] == 2
