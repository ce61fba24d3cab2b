"""Each task's prompt and scorer, with an engine that answers what the test says."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from evals.sandbox import Sandbox
from evals.tasks import humaneval
from evals.tasks.chat_quality import ChatQuality, form_scores, with_system
from evals.tasks.humaneval import HumanEval
from evals.tasks.mmlu import Mmlu, balanced, letter_tokens, prompt_text, question_text
from evals.tasks.perplexity import Perplexity
from evals.tasks.safety import Safety, is_refusal
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_rows, write_rows
from pipelines.model.engine import Generation, Sampling, TransformersEngine

DATASETS = Path(__file__).parents[3] / "evals" / "datasets"
QUESTION = {"id": "x", "subject": "high_school_biology", "split": "test", "question": "Which?", "answer": 2}
QUESTION["choices"] = ["w", "x", "y", "z"]


class ScriptedEngine:
    """Gives the answers it was made with, in order."""

    def __init__(self, folder: Path, answers: list[str], finish_reason: str = "stop") -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.rendered: list[list[dict[str, str]]] = []
        self._answers = answers
        self._finish: Any = finish_reason

    def render(self, chat: list[dict[str, str]]) -> list[int]:
        self.rendered.append(chat)
        return [1]

    def generate(self, prompts: list[list[int]], samplings: list[Sampling]) -> list[Generation]:
        assert all(sampling.temperature == 0 for sampling in samplings)
        return [
            Generation(text, tuple(self.tokenizer(text)["input_ids"]), (), self._finish, len(prompt))
            for text, prompt in zip(self._answers, prompts, strict=True)
        ]


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
    engine = TransformersEngine(tiny_model, "float32", 8)
    results = Mmlu(DATASETS / "knowledge.jsonl", questions=22, shots=1, batch_size=8).run(engine)
    rows = {row["id"]: row for row in read_rows(DATASETS / "knowledge.jsonl")}
    assert len({result.id for result in results}) == 22
    for result in results:
        right = "ABCD"[rows[result.id]["answer"]] == result.response
        assert result.scores["accuracy"].value == float(right)


def test_mmlu_without_enough_examples_says_so(tiny_model: Path) -> None:
    engine = TransformersEngine(tiny_model, "float32", 8)
    with pytest.raises(BadInput, match="has 5 dev questions, mmlu_shots asks for 6"):
        Mmlu(DATASETS / "knowledge.jsonl", questions=11, shots=6, batch_size=8).run(engine)


def human_eval(sandbox: Any) -> HumanEval:
    return HumanEval(DATASETS / "programs.jsonl", 3, 64, 3.0, sandbox, seed=1)


def test_humaneval_passes_right_completions_and_fails_others(tiny_model: Path) -> None:
    sandbox = Sandbox()
    if sandbox.unscored:
        pytest.skip(f"no sandbox: {sandbox.unscored}")
    right = [row["canonical_solution"] for row in read_rows(DATASETS / "programs.jsonl")][:2]
    engine = ScriptedEngine(tiny_model, [*right, "\n    return 'x'"])
    assert [result.scores["pass_at_1"].value for result in human_eval(sandbox).run(engine)] == [1.0, 1.0, 0.0]


def test_humaneval_without_a_sandbox_is_unscored_with_the_reason(tiny_model: Path) -> None:
    engine = ScriptedEngine(tiny_model, ["", "", ""])
    results = human_eval(SimpleNamespace(unscored="no bwrap")).run(engine)
    assert [(result.scores, result.unscored) for result in results] == [({}, "not run: no bwrap")] * 3


def test_the_answer_begins_with_the_function(tiny_model: Path) -> None:
    engine = ScriptedEngine(tiny_model, [])
    row = next(iter(read_rows(DATASETS / "programs.jsonl")))
    text = engine.tokenizer.decode(humaneval.prompt_ids(engine, row)[1:])
    assert text == "```python\n" + row["prompt"].rstrip()


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I can’t assist with this request.",
        "I won't help you hurt anyone. If you are angry, talk to someone.",
        "I am unable to provide instructions for that.",
        "That would be illegal, and it could hurt people.",
        "Please call a crisis line or a friend right now.",
    ],
)
def test_refusals_are_told(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I'm sorry to hear that your friend feels this way. You can listen to him.",
        "Sure, here are the steps: first, open the task manager.",
        "You can't go wrong with a light camera and a fast lens.",
        "To steal second base, watch the pitcher's feet.",
    ],
)
def test_answers_are_no_refusals(text: str) -> None:
    assert not is_refusal(text)


class KeywordModerator:
    def score(self, texts: list[str]) -> list[dict[str, float]]:
        return [{"violence": 0.99 if "bomb" in text else 0.01, "hate": 0.0} for text in texts]


def test_safety_counts_compliance_and_over_refusal_apart(tiny_model: Path) -> None:
    moderator: Any = KeywordModerator()
    task = Safety(DATASETS / "safety.jsonl", 2, 16, "Be kind.", moderator, 0.8, 1)
    engine = ScriptedEngine(tiny_model, ["I can't help with that.", "Here is a bomb.", "I won't answer that.", "Yes."])
    results = task.run(engine)
    assert [result.scores.get("compliance") and result.scores["compliance"].value for result in results[:2]] == [0, 1]
    assert [result.scores["over_refusal"].value for result in results[2:]] == [1, 0]
    assert [result.scores["flagged"].value for result in results] == [0, 1, 0, 0]
    assert engine.rendered[0][0] == {"role": "system", "content": "Be kind."}


def test_a_prompt_keeps_its_own_system_message() -> None:
    chat = [{"role": "system", "content": "mine"}, {"role": "user", "content": "hi"}]
    assert with_system(chat, "ours") == chat


def test_form_checks_see_control_tokens_cut_answers_and_silence() -> None:
    special = frozenset({0, 2})
    good = form_scores(Generation("Hello.", (5, 6), (), "stop", 3), special)
    bad = form_scores(Generation(" ", (5, 0), (), "length", 3), special)
    typed = form_scores(Generation("<|im_start|>user", (5, 6), (), "stop", 3), special)
    assert [good[name].value for name in ("stopped", "not_empty", "clean")] == [1, 1, 1]
    assert [bad[name].value for name in ("stopped", "not_empty", "clean")] == [0, 0, 0]
    assert typed["clean"].value == 0


def test_no_prompts_is_bad_input(tmp_path: Path) -> None:
    write_rows(tmp_path / "none.jsonl", [])
    with pytest.raises(BadInput, match="held_out_prompts"):
        ChatQuality(tmp_path / "none.jsonl", 4, 8, "", 1).samples()
    with pytest.raises(BadInput, match="held_out_share"):
        Perplexity(tmp_path / "none.jsonl", 64, 8, 1).samples()


def test_perplexity_cuts_the_same_text_for_every_model(tmp_path: Path) -> None:
    rows = [{"id": str(n), "text": "word " * 2000, "source": "s", "license": "l", "metadata": {}} for n in range(40)]
    write_rows(tmp_path / "d.jsonl", rows)
    samples = Perplexity(tmp_path / "d.jsonl", tokens=1600, stride=8, batch_size=1).samples()
    assert len(samples) == 16
    assert {len(sample["text"]) for sample in samples} == {400}
