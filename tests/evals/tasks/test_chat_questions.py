"""Second turns follow the model's own first answer; files of MT-bench and Vicuna-80 are read as they are."""

import os
from pathlib import Path

import pytest

from evals.tasks.chat_quality import Voice
from evals.tasks.chat_questions import ChatQuestions
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import write_rows
from pipelines.model.engine import Generation, Sampling
from tests.evals.scripted import ScriptedEngine

SHIPPED = Path(__file__).parents[3] / "evals" / "datasets" / "chat_questions.jsonl"
SHARED = Path(os.environ.get("COLLOQUY_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
VOICE = Voice("", 0.7, 0.9, 1)


class TurnByTurn(ScriptedEngine):
    """Gives the next of its answers to each prompt."""

    def generate(self, prompts: list[list[int]], samplings: list[Sampling]) -> list[Generation]:
        now, self._answers = self._answers[: len(prompts)], self._answers[len(prompts) :]
        return [Generation(text, (1, 2), (), self._finish, 1) for text in now]


def test_the_second_turn_follows_the_first_answer(tmp_path: Path, tiny_model: Path) -> None:
    rows = [
        {"question_id": 1, "category": "a", "turns": ["One?", "And two?"]},
        {"question_id": 2, "category": "b", "turns": ["Three?"]},
    ]
    write_rows(tmp_path / "q.jsonl", rows)
    engine = TurnByTurn(tiny_model, ["First.", "Third.", ""])
    first, second = ChatQuestions(tmp_path / "q.jsonl", 9, 16, VOICE).run(engine)
    assert [turn["content"] for turn in engine.rendered[2]] == ["One?", "First.", "And two?"]
    assert (first.id, first.prompt, first.detail["answers"]) == ("question/1", "One?\n\nAnd two?", ["First.", ""])
    assert first.scores["not_empty"].value == 0.0
    assert first.scores["tokens"].value == 4.0
    assert (second.response, second.scores["not_empty"].value) == ("Third.", 1.0)


def test_shipped_questions_have_two_turns_in_every_category() -> None:
    rows = ChatQuestions(SHIPPED, 100, 16, VOICE).samples()
    assert len(rows) == 24
    assert len({row["category"] for row in rows}) == 8
    assert all(len(row["turns"]) == 2 for row in rows)


def test_a_row_that_is_no_question_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "q.jsonl", [{"question_id": 4, "category": "a", "turns": []}])
    with pytest.raises(BadInput, match=r"has no \['turns'\]"):
        ChatQuestions(tmp_path / "q.jsonl", 9, 16, VOICE).samples()


@pytest.mark.parametrize("name", ["mt_bench", "vicuna_bench"])
def test_public_questions_are_read_as_they_are(name: str) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"needs ../shared/data/{name}")
    assert len(ChatQuestions(SHARED / name / "question.jsonl", 100, 16, VOICE).samples()) == 80
