"""Contracts of the data sets: good data passes, and each spoiled record breaks the rule that is meant for it."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.config import load_params
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json
from pipelines.core.records import Conversation, Document, Message, Preference, Role
from pipelines.data.expectations import (
    Broken,
    Table,
    check,
    conversation_rows,
    corpus_table,
    demonstration_table,
    personal_data,
    preference_table,
    prompt_table,
    role_problem,
    validate,
)

ROOT = Path(__file__).parents[3]
PARAMS = load_params(ROOT / "params.yaml").prepare_corpus.model_copy(update={"min_words": 10, "max_words": 100})


def document(number: int, **changes: Any) -> Document:
    text = f"Document {number} tells of the harbour and of the boats in it, at some length."
    return replace(Document(id=f"d{number}", text=text, source="s", license="MIT"), **changes)


def corpus(train: list[Document], held_out: list[Document] | None = None, least: int = 2) -> Table:
    rest = [document(99)] if held_out is None else held_out
    return corpus_table(
        train,
        rest,
        PARAMS,
        least,
        language_of=lambda text: "de" if text.startswith("Der") else "en",
        decontaminated=lambda one: (False, "an item") if "ITEM" in one.text else True,
    )


def conversation(number: int, *roles: Role, **changes: Any) -> Conversation:
    messages = tuple(Message(role, f"turn {place} of {number}") for place, role in enumerate(roles))
    return replace(Conversation(f"c{number}", messages, "facts", "us", "MIT"), **changes)


def preference(number: int, **changes: Any) -> Preference:
    prompt = conversation(number, "user")
    return replace(Preference(f"p{number}", prompt, f"good {number}", f"bad {number}", 1.0, True), **changes)


def broken(table: Table) -> dict[str, Broken]:
    return {failure.rule: failure for failure in validate([table])[table.name]}


def demonstrations(conversations: Iterable[Conversation], tokens: int = 20) -> Table:
    rows = [row | {"tokens": tokens} for row in conversation_rows(conversations, "train", "assistant")]
    return demonstration_table(rows, min_conversations=2, max_tokens=100)


GOOD = [document(1), document(2)]


def test_good_data_passes() -> None:
    good = [conversation(1, "user", "assistant"), conversation(2, "system", "user", "assistant", "user", "assistant")]
    tables = [
        corpus(GOOD),
        demonstrations(good),
        prompt_table(conversation_rows([conversation(3, "user")], "labeling", "user")),
        preference_table([preference(1), preference(2)], [preference(3)], min_pairs=3),
    ]
    assert validate(tables) == {"corpus": [], "demonstrations": [], "prompts": [], "preferences": []}


@pytest.mark.parametrize(
    ("spoiled", "rule", "count"),
    [
        (document(3, id="d1"), "ids are unique", 2),
        (document(3, text=GOOD[0].text), "no text occurs twice", 2),
        (document(3, text="Too short."), "5 to 100 words", 1),
        (document(3, text="word " * 101), "5 to 100 words", 1),
        (document(3, text=GOOD[0].text + " Ask a@b.example."), "no personal data is left", 1),
        (document(3, license=""), "every document has a license", 1),
        (document(3, text="Der Hafen ist still, und die Boote liegen an der Mauer."), "99% are in en", 1),
        (document(3, text=f"{GOOD[0].text} With an ITEM in it."), "no evaluation text is left", 1),
    ],
)
def test_a_spoiled_document_breaks_its_rule_and_no_other(spoiled: Document, rule: str, count: int) -> None:
    found = broken(corpus([*GOOD, spoiled]))
    assert list(found) == [rule]
    assert found[rule].records == count
    assert any(f"{spoiled.id} (" in example for example in found[rule].examples)


def test_a_corpus_that_is_too_small_or_has_one_split_breaks_the_rule() -> None:
    assert "found 3" in broken(corpus(GOOD, least=50))["at least 50 documents"].examples
    assert list(broken(corpus(GOOD, held_out=[]))) == ["both splits have documents"]


def test_addresses_that_are_reserved_for_examples_are_nobodys() -> None:
    assert personal_data("a@example.org, b@mail.example.com, c@host.test, 10.0.0.1") == ""
    assert personal_data("a@example.org, b@myexample.org") == "email"
    assert personal_data("Phone: 555-0142") == ""
    assert personal_data("Phone: 555-4142") == "phone"


@pytest.mark.parametrize(
    ("roles", "problem"),
    [
        (("user", "assistant"), ""),
        (("system", "user", "assistant"), ""),
        (("user",), "the last turn is by user"),
        (("user", "user", "assistant"), "turn 2 is by user"),
        (("assistant", "user"), "turn 1 is by assistant"),
        (("user", "system", "assistant"), "turn 2 is by system"),
        (("system",), "no turns"),
        ((), "no turns"),
    ],
)
def test_roles_alternate(roles: tuple[Role, ...], problem: str) -> None:
    assert role_problem(conversation(1, *roles), "assistant") == problem


def test_a_spoiled_conversation_breaks_its_rule() -> None:
    good = [conversation(1, "user", "assistant"), conversation(2, "user", "assistant")]
    empty = replace(conversation(3), messages=(Message("user", "hello"), Message("assistant", " ")))
    assert list(broken(demonstrations([*good, conversation(3, "user", "user", "assistant")]))) == [
        "turns alternate and the last is by assistant"
    ]
    assert list(broken(demonstrations([*good, empty]))) == ["no turn is empty"]
    assert list(broken(demonstrations([*good, conversation(3, "user", "assistant", category=" ")]))) == [
        "every one has a category"
    ]
    contact = replace(
        conversation(3), messages=(Message("user", "who?"), Message("assistant", "jane@mail.co, 8.8.8.8"))
    )
    assert list(broken(demonstrations([*good, contact]))) == ["no personal data"]
    assert list(broken(demonstrations(good, tokens=101))) == ["2 to 100 tokens"]
    twice = conversation_rows(good, "labeling", "assistant") + conversation_rows(good[:1], "held_out", "assistant")
    assert "no text occurs twice, within or across splits" in broken(prompt_table(twice))


def test_a_spoiled_pair_breaks_its_rule() -> None:
    def found(*train: Preference) -> list[str]:
        return list(broken(preference_table(train, [preference(9)], min_pairs=2)))

    assert found(preference(1), preference(2, rejected="good 2 ")) == ["chosen and rejected differ"]
    assert found(preference(1), preference(2, weight=0.5)) == ["the weights of a prompt's pairs sum to 1"]
    assert found(preference(1), preference(9, id="p8")) == ["no prompt is in both splits"]
    assert found() == ["at least 2 pairs"]


def test_no_records_at_all_is_a_broken_rule() -> None:
    assert [str(failure) for failure in validate([preference_table([], [], 1)])["preferences"]] == [
        "it has records: 0 records"
    ]


def test_the_report_and_the_error_name_rule_count_and_example(tmp_path: Path) -> None:
    table = corpus([*GOOD, document(3, text="Call (212) 555-0143 <b>now</b> or never, if you can.")])
    with pytest.raises(BadInput, match=r"no personal data is left: 1 records, for example d3 \(pii 'phone'\)"):
        check("Corpus", [table], tmp_path)
    report = read_json(tmp_path / "report.json")
    assert [rule["rule"] for rule in report["corpus"]["rules"] if not rule["holds"]] == ["no personal data is left"]
    assert "d3 (pii &#x27;phone&#x27;)" in (tmp_path / "report.html").read_text()


def test_the_same_data_gives_the_same_report(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert check("Corpus", [corpus(GOOD)], tmp_path / name) == {"corpus_records": 3.0, "rules": 11.0}
    for file in ("report.json", "report.html"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
