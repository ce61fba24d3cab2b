"""The form of answers, and the prompts they answer."""

from pathlib import Path

import pytest

from evals.tasks.chat_quality import ChatQuality, Voice, answer, form_scores, with_system
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import write_rows
from pipelines.model.engine import Generation, Sampling


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
        ChatQuality(tmp_path / "none.jsonl", 4, 8, Voice("", 0.0, 1.0, 1)).samples()


def test_every_answer_has_a_seed_of_its_own_that_does_not_depend_on_the_model() -> None:
    asked: list[Sampling] = []

    class Engine:
        def render(self, chat: list[dict[str, str]]) -> list[int]:
            return [len(chat)]

        def generate(self, prompts: list[list[int]], samplings: list[Sampling]) -> list[Generation]:
            asked.extend(samplings)
            return []

    answer(Engine(), [[{"role": "user", "content": text}] for text in "abc"], 8, Voice("", 0.7, 0.9, 100))
    assert [sampling.seed for sampling in asked] == [100, 101, 102]
    assert {(sampling.temperature, sampling.top_p) for sampling in asked} == {(0.7, 0.9)}
