"""Records survive the way to disk and back; unknown keys are refused by name."""

import pytest

from pipelines.core.errors import BadInput
from pipelines.core.records import (
    Annotation,
    Completion,
    Conversation,
    Document,
    LabelTask,
    Message,
    Preference,
    content_id,
)

PROMPT = Conversation("p1", (Message("user", "Why is the sky blue?"),), "explanation", "colloquy", "CC-BY-4.0")
RECORDS = [
    Document("d1", "text", "source", "MIT", {"path": "a.txt"}),
    PROMPT,
    LabelTask("t1", PROMPT, (Completion("m0", "Scattering.", 0.7, "stop"), Completion("m1", "Air.", 1.0, "length"))),
    Annotation(
        "t1", 3, "labeler-1", True, (("m1",), ("m0", "m2")), ("m0", "m1", "m2"), (), {"m0": ("harmful",)}, "", 9.5, "g1"
    ),
    Preference("x", PROMPT, "Scattering.", "Air.", 0.5, False),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_equal(record: Document) -> None:
    assert type(record).from_row(record.to_row()) == record


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(BadInput, match="colour"):
        Document.from_row({"id": "1", "text": "t", "source": "s", "license": "MIT", "colour": "red"})


def test_a_content_id_depends_on_content_only() -> None:
    assert content_id({"a": 1, "b": 2}) == content_id({"b": 2, "a": 1})
    assert content_id({"a": 1}) != content_id({"a": 2})
