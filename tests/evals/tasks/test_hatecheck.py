"""Posts are judged by the assistant and by the moderation model, each with its misses and false alarms."""

import os
from pathlib import Path
from typing import Any

import pytest

from evals.task import summarize, summarize_groups
from evals.tasks.hatecheck import HateCheck, verdict_scores
from pipelines.core.errors import BadInput
from pipelines.model.engine import TransformersEngine

SHIPPED = Path(__file__).parents[3] / "evals" / "datasets" / "hatecheck.csv"
SHARED = Path(os.environ.get("COLLOQUY_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))


class HatesAll:
    def score(self, texts: list[str]) -> list[dict[str, float]]:
        return [{"hate": 0.9, "spam": 0.1} for _ in texts]


def hatecheck(data: Path, cases: int) -> HateCheck:
    moderator: Any = HatesAll()
    return HateCheck(data, cases, moderator, 0.8, 8)


def test_a_verdict_counts_as_right_missed_or_false_alarm() -> None:
    values = {
        (said, hateful): {name: score.value for name, score in verdict_scores("x", said, hateful).items()}
        for said in (True, False)
        for hateful in (True, False)
    }
    assert values == {
        (True, True): {"x_accuracy": 1.0, "x_missed": 0.0},
        (False, True): {"x_accuracy": 0.0, "x_missed": 1.0},
        (True, False): {"x_accuracy": 0.0, "x_false_alarm": 1.0},
        (False, False): {"x_accuracy": 1.0, "x_false_alarm": 0.0},
    }


def test_both_are_asked_about_every_post(tiny_model: Path) -> None:
    task = hatecheck(SHIPPED, 1000)
    results = task.run(TransformersEngine.load(tiny_model, "float32", 8))
    found = summarize(results, task.metrics, 0.05, 1)
    assert (found["moderator_missed"]["value"], found["moderator_missed"]["n"]) == (0.0, 36)
    assert (found["moderator_false_alarm"]["value"], found["moderator_false_alarm"]["n"]) == (1.0, 29)
    assert found["assistant_accuracy"]["n"] == 65
    assert {result.response for result in results} <= {"Yes", "No"}
    by_target = summarize_groups(results, task, 0.05, 1)["target"]
    assert len(by_target) == 6


def test_a_label_that_is_unknown_is_named(tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_text("test_case,label_gold\nHello.,fine\n")
    with pytest.raises(BadInput, match="row posts.csv/0 needs test_case and label_gold .* found 'fine'"):
        hatecheck(tmp_path / "posts.csv", 5).samples()


def test_hatecheck_is_read_as_it_is() -> None:
    if not (SHARED / "hatecheck").is_dir():
        pytest.skip("needs ../shared/data/hatecheck")
    rows = hatecheck(SHARED / "hatecheck", 10_000).samples()
    assert len(rows) == 1929
    assert sum(row["label_gold"] == "hateful" for row in rows) == 1309
