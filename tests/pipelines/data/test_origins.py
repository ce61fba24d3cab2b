"""Origins: the four forms, and what is refused because it could change behind a pin."""

from pathlib import Path

import pytest

from pipelines.core.errors import BadInput
from pipelines.data.origins import ConversationsOrigin, FileOrigin, HubOrigin, PackageOrigin, WebOrigin, parse_origin

COMMIT = "4fa12cab4f5f53670b05125fb9d2873af587d231"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pypi:django==6.1.3", PackageOrigin("django", "6.1.3")),
        ("https://example.org/a.jsonl", WebOrigin("https://example.org/a.jsonl")),
        ("file:data/mine.jsonl", FileOrigin(Path("data/mine.jsonl"))),
        ("file:///srv/mine.jsonl", FileOrigin(Path("/srv/mine.jsonl"))),
        ("conversations:data/snapshot-7", ConversationsOrigin(Path("data/snapshot-7"))),
        (f"hub:HuggingFaceFW/fineweb-edu@{COMMIT}", HubOrigin("HuggingFaceFW/fineweb-edu", COMMIT)),
    ],
)
def test_each_form_is_read(text: str, expected: object) -> None:
    assert parse_origin(text) == expected


@pytest.mark.parametrize(
    "text", ["pypi:django", "pypi:django>=6", "ftp://example.org/a", "file:", "conversations:", "hub:a/b", "django"]
)
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_origin(text)


def test_a_branch_is_no_pin() -> None:
    with pytest.raises(BadInput, match="commit of 40 hex digits"):
        parse_origin("hub:a/b@main")
