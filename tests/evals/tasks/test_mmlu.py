"""The benchmark's prompt, its letters as tokens, and a score for every question asked."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from evals.tasks.mmlu import Mmlu, balanced, letter_tokens, prompt_text, question_text
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_rows
from pipelines.model.engine import TransformersEngine
from pipelines.model.tokenizer import train_bpe

DATASETS = Path(__file__).parents[3] / "evals" / "datasets"
QUESTION = {"id": "x", "subject": "high_school_biology", "split": "test", "question": "Which?", "answer": 2}
QUESTION["choices"] = ["w", "x", "y", "z"]


def test_the_mmlu_prompt_is_the_benchmarks() -> None:
    shot = QUESTION | {"question": "Shot?", "answer": 0}
    assert prompt_text(QUESTION, [shot]) == (
        "The following are multiple choice questions (with answers) about high school biology.\n\n"
        "Shot?\nA. w\nB. x\nC. y\nD. z\nAnswer: A\n\n"
        "Which?\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    )
    assert question_text(QUESTION).endswith("Answer:")


def test_questions_are_taken_in_turn_from_every_subject() -> None:
    rows = [{"subject": subject, "n": number} for subject in "ab" for number in range(3)]
    assert [(row["subject"], row["n"]) for row in balanced(rows, 3)] == [("a", 0), ("b", 0), ("a", 1)]


def test_letters_are_told_apart_by_one_token(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    shared, letters = letter_tokens(tokenizer)
    assert [tokenizer.decode([*shared, letter]) for letter in letters] == [" A", " B", " C", " D"]


def test_mmlu_scores_every_question_in_the_order_asked(tiny_model: Path) -> None:
    engine = TransformersEngine.load(tiny_model, "float32", 8)
    results = Mmlu(DATASETS / "knowledge.jsonl", questions=22, shots=1, batch_size=8).run(engine)
    rows = {row["id"]: row for row in read_rows(DATASETS / "knowledge.jsonl")}
    assert len({result.id for result in results}) == 22
    for result in results:
        right = "ABCD"[rows[result.id]["answer"]] == result.response
        assert result.scores["accuracy"].value == float(right)


def test_mmlu_without_enough_examples_says_so(tiny_model: Path) -> None:
    engine = TransformersEngine.load(tiny_model, "float32", 8)
    with pytest.raises(BadInput, match="has 5 dev questions, mmlu_shots asks for 6"):
        Mmlu(DATASETS / "knowledge.jsonl", questions=11, shots=6, batch_size=8).run(engine)


def test_letters_that_are_cut_unlike_each_other_fall_back_to_a_space_and_a_letter() -> None:
    tokenizer = train_bpe(["An Apple And All Ants Are At"] * 20, vocabulary=300)
    assert len(tokenizer(" A")["input_ids"]) != len(tokenizer(" B")["input_ids"])
    shared, letters = letter_tokens(tokenizer)
    assert [tokenizer.decode([*shared, letter]) for letter in letters] == [" A", " B", " C", " D"]


def test_results_say_subject_and_category(tiny_model: Path) -> None:
    engine = TransformersEngine.load(tiny_model, "float32", 8)
    task = Mmlu(DATASETS / "knowledge.jsonl", questions=11, shots=0, batch_size=8)
    categories = {result.detail["subject"]: result.detail["category"] for result in task.run(engine)}
    assert {subject: categories[subject] for subject in ("physics", "history", "economics", "health")} == {
        "physics": "stem",
        "history": "humanities",
        "economics": "social sciences",
        "health": "other",
    }
    assert task.groups == ("category", "subject")
