import pytest

from pipelines.core.records import Message
from serving.conversation import fit, require_question, with_system
from serving.errors import ApiError


def render(chat: list[dict[str, str]]) -> list[int]:
    """One token per word, and one per message."""
    return [0] * sum(1 + len(turn["content"].split()) for turn in chat)


def turns(*contents: str) -> list[Message]:
    roles = ("user", "assistant")
    return [Message(roles[index % 2], content) for index, content in enumerate(contents)]  # type: ignore[arg-type]


SYSTEM = Message("system", "be kind")  # 3 tokens


def test_a_conversation_that_fits_is_kept_whole():
    fitted = fit([SYSTEM, *turns("one", "two", "three")], render, 20, 10)
    assert (len(fitted.prompt), fitted.room, fitted.dropped) == (9, 11, 0)


def test_the_oldest_turns_go_first_and_the_rest_starts_with_a_user_turn():
    fitted = fit([SYSTEM, *turns("one", "two", "three", "four", "five")], render, 14, 5)
    assert (len(fitted.prompt), fitted.dropped) == (9, 2)


def test_system_and_newest_turn_stay_even_when_the_answer_gets_less_room():
    fitted = fit([SYSTEM, *turns("one", "two", "w " * 10)], render, 16, 8)
    assert (len(fitted.prompt), fitted.room, fitted.dropped) == (14, 2, 2)


def test_a_newest_turn_beyond_the_context_is_refused_with_the_numbers():
    with pytest.raises(ApiError, match="14 tokens.*holds 14") as refused:
        fit([SYSTEM, *turns("w " * 10)], render, 14, 8)
    assert refused.value.code == "context_length_exceeded"


def test_the_callers_system_messages_replace_the_default():
    complete = with_system([Message("system", "A"), Message("user", "x"), Message("system", "B")], "default")
    assert complete == [Message("system", "A\n\nB"), Message("user", "x")]
    assert with_system([Message("user", "x")], "default")[0] == Message("system", "default")


@pytest.mark.parametrize("messages", [[], [Message("system", "x")], turns("x", "y")])
def test_a_conversation_must_end_with_a_user_turn(messages: list[Message]):
    with pytest.raises(ApiError, match="role 'user'"):
        require_question(messages)
