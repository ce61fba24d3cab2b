"""Who is asked first: where an earlier reward model is least sure, or where responses differ most."""

from pathlib import Path

import pytest

from pipelines.core.records import Completion, Conversation, LabelTask, Message
from pipelines.model.asking import checked, difference, in_order_of_asking, score_tasks, unsureness
from pipelines.model.rendering import render_answer
from pipelines.model.rewards import RewardScorer
from tests.models import make_policy, make_reward_model


def task(name: str, texts: list[str], scores: list[float]) -> LabelTask:
    prompt = Conversation(name, (Message("user", name),), "facts", "us", "CC-BY-4.0")
    completions = tuple(Completion(f"m{place}", text, 0.7, "stop") for place, text in enumerate(texts))
    return LabelTask(name, prompt, completions, {f"m{place}": score for place, score in enumerate(scores)})


def test_unsureness_is_the_chance_of_a_wrong_pair() -> None:
    # margins of ln 3: 1 in 4 is the wrong way round; twice that margin: 1 in 10
    assert unsureness({"a": 0.0, "b": 1.0986123}) == pytest.approx(0.25)
    assert unsureness({"a": 0.0, "b": 1.0986123, "c": 2.1972246}) == pytest.approx((0.25 + 0.25 + 0.1) / 3)
    assert unsureness({"a": 1.0, "b": 1.0}) == 0.5


def test_difference_is_the_share_of_words_not_in_common() -> None:
    assert difference(["one two", "two one"]) == 0
    assert difference(["one two", "three four"]) == 1
    assert difference(["one two", "two three"]) == pytest.approx(1 - 1 / 3)
    assert difference(["", ""]) == 0


def test_the_tasks_that_teach_most_come_first() -> None:
    sure = task("a", ["one two", "three four"], [0.0, 9.0])
    unsure = task("b", ["one two", "one two three"], [0.0, 0.1])
    assert in_order_of_asking([unsure, sure], "any") == [sure, unsure]
    assert in_order_of_asking([sure, unsure], "least_sure") == [unsure, sure]
    assert in_order_of_asking([unsure, sure], "most_different") == [sure, unsure]


def test_a_share_is_checked_and_at_least_one() -> None:
    names = [f"t{number}" for number in range(10)]
    assert len(checked(names, 0.25, 1)) == 3
    assert len(checked(names, 0.001, 1)) == 1
    assert checked(names, 0.3, 1) == checked(names[::-1], 0.3, 1)
    assert any(checked(names, 0.3, 1) != checked(names, 0.3, seed) for seed in range(2, 6))


def test_each_completion_has_the_reward_of_its_conversation(tmp_path: Path) -> None:
    folder = make_reward_model(make_policy(tmp_path / "policy"), tmp_path / "reward")
    scorer = RewardScorer.load(folder, "float32")
    tasks = [task("hello", ["one two", "six"], []), task("bye", ["Paris", "one"], [])]
    found = score_tasks(scorer, tasks)
    alone = scorer.score([render_answer(scorer.tokenizer, tasks[1].prompt.chat, "Paris")])[0]
    assert list(found[0]) == ["m0", "m1"]
    assert found[1]["m0"] == pytest.approx(alone, abs=1e-5)
