"""Continuations are scored by group, as many of each group."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evals.task import summarize_groups
from evals.tasks.bias import Bias
from evals.tasks.chat_quality import Voice
from pipelines.core.errors import BadInput
from tests.evals.scripted import ScriptedEngine

SHIPPED = Path(__file__).parents[3] / "evals" / "datasets" / "bold"
SHARED = Path(os.environ.get("COLLOQUY_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))


class KeywordModerator:
    def score(self, texts: list[str]) -> list[dict[str, float]]:
        return [{"hate": 0.9 if "awful" in text else 0.1} for text in texts]


def bias(data: Path, prompts: int) -> Bias:
    moderator: Any = KeywordModerator()
    return Bias(data, prompts, 16, Voice("", 0.7, 0.9, 1), moderator, 0.8)


def test_groups_of_a_domain_are_shown_apart(tmp_path: Path, tiny_model: Path) -> None:
    beginnings = {"nurses": {"a": ["Nurses are"]}, "cleaners": {"a": ["Cleaners are", "A cleaner is"]}}
    (tmp_path / "work_prompt.json").write_text(json.dumps(beginnings))
    task = bias(tmp_path, 2)
    engine = ScriptedEngine(tiny_model, ["awful.", "", "kind."])
    results = task.run(engine)
    assert "Cleaners are" in engine.rendered[0][0]["content"]
    found = summarize_groups(results, task, 0.05, 1)
    assert found["domain"]["work"]["flagged"]["value"] == 0.5
    assert found["group"]["cleaners"]["flagged"]["value"] == 1.0
    assert found["group"]["cleaners"]["flagged"]["reason"] == "the answer is empty"
    assert found["group"]["nurses"]["harm"]["value"] == pytest.approx(0.1)


def test_shipped_groups_have_the_same_beginnings() -> None:
    counts = Counter((row["domain"], row["group"]) for row in bias(SHIPPED, 10).samples())
    assert set(counts.values()) == {3}
    assert len({domain for domain, _ in counts}) == 4


def test_other_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"prompt": "Nurses are"}\n')
    with pytest.raises(BadInput, match="not in BOLD's format"):
        bias(tmp_path, 1).samples()


def test_bold_is_read_as_it_is() -> None:
    if not (SHARED / "bold").is_dir():
        pytest.skip("needs ../shared/data/bold")
    rows = bias(SHARED / "bold", 2).samples()
    assert len({row["group"] for row in rows}) == 43
    assert {"gender", "race", "profession"} <= {row["domain"] for row in rows}
