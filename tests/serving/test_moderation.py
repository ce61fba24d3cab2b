import asyncio
from pathlib import Path

import pytest

from pipelines.core.errors import BadInput
from serving.moderation import (
    POLICY_FILE,
    Blocked,
    Decision,
    Moderation,
    ModerationDown,
    StreamGuard,
    read_policy,
    windows_of,
)
from tests.serving.fakes import POLICY, WordClassifier


def guard_of(classifier: WordClassifier) -> StreamGuard:
    return Moderation(classifier, POLICY).guard()


async def feed(guard: StreamGuard, pieces: list[str]) -> list[str]:
    shown = [await guard.push(piece) for piece in pieces]
    return [*shown, await guard.finish()]


def test_a_clean_stream_arrives_whole_and_in_several_pieces():
    pieces = [f"w{index} " for index in range(100)]
    shown = asyncio.run(feed(guard_of(WordClassifier()), pieces))
    assert "".join(shown) == "".join(pieces)
    assert sum(bool(text) for text in shown) >= 3


def test_no_more_pieces_wait_than_the_policy_allows():
    async def most_waiting() -> int:
        guard, shown, most = guard_of(WordClassifier()), 0, 0
        for index in range(200):
            shown += (await guard.push(f"{index % 10}")).__len__()
            most = max(most, index + 1 - shown)
        return most

    assert asyncio.run(most_waiting()) < POLICY.hold_tokens + POLICY.check_tokens


@pytest.mark.parametrize("offset", range(0, 70, 5))
@pytest.mark.parametrize("split", [1, 2, 7])
def test_a_span_split_over_tokens_leaks_nothing(offset: int, split: int):
    span = ["hurtful"[start : start + split] for start in range(0, 7, split)]

    async def shown_before_the_block() -> str:
        guard, shown = guard_of(WordClassifier()), ""
        try:
            for piece in ["ok "] * offset + span + [" end"] * 40:
                shown += await guard.push(piece)
            shown += await guard.finish()
        except Blocked as stop:
            assert stop.decision.category == "hate"
            return shown
        raise AssertionError("the span was not found")

    shown = asyncio.run(shown_before_the_block())
    assert set(shown.split()) <= {"ok"}


@pytest.mark.parametrize(
    "disguised",
    [
        "hurt\u200bful",
        "hurtfսl",
        "h.u.r.t.f.u.l",
        "**hurt**ful",
        "`hurtful`",
        "hurtfu<i>l</i>",
        "ｈｕｒｔｆｕｌ",
    ],
)
def test_a_disguised_span_leaks_nothing(disguised: str):
    pieces = ["ok "] * 30 + [*disguised, "."] + [" end"] * 40

    async def shown_before_the_block() -> str:
        guard, shown = guard_of(WordClassifier()), ""
        with pytest.raises(Blocked):
            for piece in pieces:
                shown += await guard.push(piece)
        return shown

    assert set(asyncio.run(shown_before_the_block()).split()) <= {"ok"}


def test_an_answer_that_hides_its_words_is_stopped_before_twelve_letters_are_shown():
    moderation = Moderation(WordClassifier(), read_policy(POLICY_FILE, 0.5))

    async def shown_before_the_block() -> str:
        guard, shown = moderation.guard(), ""
        with pytest.raises(Blocked) as stop:
            for piece in ["Here it is: ", *"t h i s  i s  n o t  f o r  t h e  m o d e r a t o r"] + ["."] * 40:
                shown += await guard.push(piece)
        assert stop.value.decision.category == "disguise"
        return shown

    assert asyncio.run(shown_before_the_block()) in ("", "Here it is: ")


def test_windows_hold_the_newest_words_and_every_sentence():
    text = "One sentence stands here. Another one follows it! And this is the last of them"
    found = set(windows_of(text, [3, 100]))
    assert {text, "One sentence stands here.", "Another one follows it!", "And this is the last of them"} <= found
    assert {"last of them", "this is the", "follows it! And"} <= found
    assert list(windows_of("One", [3])) == ["One"]


def test_what_was_judged_clean_is_not_judged_again():
    classifier = WordClassifier()
    pieces = ["This is a sentence of some words. "] * 2 + [f"w{index} " for index in range(60)]
    asyncio.run(feed(guard_of(classifier), pieces))
    assert classifier.seen.count("This is a sentence of some words.") == 1


def test_a_span_at_the_very_end_is_found_when_the_stream_ends():
    with pytest.raises(Blocked):
        asyncio.run(feed(guard_of(WordClassifier()), ["so ", "hurt", "ful"]))


def test_a_failing_classifier_lets_nothing_through():
    classifier = WordClassifier()
    classifier.broken = True
    with pytest.raises(ModerationDown):
        asyncio.run(feed(guard_of(classifier), ["fine"] * 40))


def test_the_first_rule_of_the_file_wins_so_that_self_harm_gets_help():
    decision = POLICY.decide("input", {"hate": 0.9, "self_harm": 0.6})
    assert decision == Decision("input", "self_harm", 0.6, "Please talk to someone.")
    assert POLICY.decide("input", {"hate": 0.4, "self_harm": 0.1}) is None


def test_the_policy_that_ships_blocks_at_the_releases_threshold():
    policy = read_policy(POLICY_FILE, 0.7)
    assert policy.decide("input", {"harassment": 0.69}) is None
    blocked = policy.decide("input", {"self_harm": 0.7})
    assert blocked is not None and "988" in blocked.template
    assert (
        policy.decide("system", {"harassment": 1.0}) is None and policy.decide("system", {"violence": 1.0}) is not None
    )
    assert (
        policy.decide("output", {"violence": 0.74}) is None and policy.decide("output", {"violence": 0.76}) is not None
    )
    assert policy.hold_tokens + policy.check_tokens <= 32


def test_a_category_without_a_rule_is_refused_at_the_start():
    classifier = WordClassifier()
    classifier.categories = ("hate", "spam")
    with pytest.raises(BadInput, match="spam"):
        Moderation(classifier, POLICY)


@pytest.mark.parametrize(
    "text", ["categories: {}", "categories: {hate: {threshold: 1, blocks: [page], template: x}}\nstream: {}"]
)
def test_a_broken_policy_file_is_named(tmp_path: Path, text: str):
    path = tmp_path / "moderation.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"moderation\.yaml is not a moderation policy"):
        read_policy(path, 0.5)
