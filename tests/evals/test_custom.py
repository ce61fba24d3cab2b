"""Custom evals: what is wrong in a file is named with its remedy, and each scorer passes what it should."""

from pathlib import Path

import pytest

from evals.custom import Case, load_custom_eval, load_custom_evals, passes
from pipelines.core.errors import BadInput

SHIPPED = Path(__file__).parents[2] / "evals" / "datasets" / "custom"


def case(**fields: object) -> Case:
    return Case.model_validate({"id": "a", "prompt": "Say it.", "scorer": "contains", "expected": "yes"} | fields)


def test_one_eval_is_shipped_for_each_category() -> None:
    evals = {found.name: found for found in load_custom_evals(SHIPPED)}
    assert set(evals) == {"over_refusal", "secrets", "steerability", "hallucination", "reasoning", "support_desk"}
    assert {case.scorer for found in evals.values() for case in found.cases} == {
        "exact",
        "contains",
        "regex",
        "json_schema",
        "judge",
    }


@pytest.mark.parametrize(
    ("fields", "right", "wrong"),
    [
        ({"scorer": "exact", "expected": ["Vera", "Vera Smith"]}, " vera  smith.", "It is Vera."),
        ({"scorer": "contains", "expected": ["10:15"]}, "At 10:15, of course", "At 10:25"),
        ({"scorer": "contains", "expected": "58213", "negate": True}, "I can't tell you.", "It is 58213."),
        ({"scorer": "regex", "expected": r"\b21\b"}, "There are 21 apples.", "There are 210 apples."),
        (
            {"scorer": "json_schema", "expected": {"type": "object", "required": ["topic"]}},
            'Sure {here}:\n```json\n{"topic": "refund"}\n```',
            '{"subject": "refund"}',
        ),
        ({"scorer": "json_schema", "expected": {"type": "array"}}, "[1, 2]", "none"),
    ],
)
def test_scorers_pass_right_answers_and_no_others(fields: dict, right: str, wrong: str) -> None:
    assert passes(case(**fields), right)
    assert not passes(case(**fields), wrong)


def test_an_empty_answer_never_passes() -> None:
    assert not passes(case(negate=True), "  ")


def test_the_system_message_of_a_case_goes_first() -> None:
    turns = [{"role": "user", "content": "Hi"}]
    assert case(prompt=None, messages=turns, system="Be brief.").chat == [
        {"role": "system", "content": "Be brief."},
        *turns,
    ]


CASE = "  - {id: one, prompt: Why?, expected: yes, scorer: contains}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cases:\n" + CASE, "`measures` is missing"),
        ("measures: m\n", "`cases` must be a list"),
        ("measures: m\ncase: []\n", r"unknown keys \['case'\]"),
        ("measures: m\ncases:\n" + CASE + CASE, "case one: the id is taken"),
        ("measures: m\ncases:\n  - text\n", "case 1: holds a str"),
        ("measures: m\ncases:\n  - {prompt: Why?, expected: x, scorer: exact}\n", "case 1: id: Field required"),
        ("measures: m\ncases:\n  - {id: a, prompt: Why?, expected: x}\n", "case a: scorer: Field required"),
        ("measures: m\nscorer: like\ncases:\n  - {id: a, prompt: Why?, expected: x}\n", "case a: scorer: .*'exact'"),
        ("measures: m\nscorer: exact\ncases:\n  - {id: a, expected: x}\n", "case a: .*either `prompt` or `messages`"),
        ("measures: m\nscorer: exact\ncases:\n  - {id: a, prompt: ' ', expected: x}\n", "`prompt` is empty"),
        ("measures: m\nscorer: exact\ncases:\n  - {id: a, prompt: Why?, expected: []}\n", "list of texts"),
        ("measures: m\nscorer: regex\ncases:\n  - {id: a, prompt: Why?, expected: '('}\n", r"pattern '\('"),
        ("measures: m\nscorer: json_schema\ncases:\n  - {id: a, prompt: Why?, expected: x}\n", "must be a schema"),
        (
            "measures: m\nscorer: json_schema\ncases:\n  - {id: a, prompt: Why?, expected: {type: thing}}\n",
            "no JSON schema: 'thing'",
        ),
        (
            "measures: m\nscorer: judge\ncases:\n  - {id: a, prompt: Why?, expected: x, negate: true}\n",
            "one reference answer",
        ),
        (
            "measures: m\nscorer: exact\ncases:\n  - {id: a, messages: [{role: assistant, content: x}], expected: x}\n",
            "end with a turn of the user",
        ),
        ("measures: [", "is not valid YAML"),
    ],
)
def test_a_broken_file_is_named_with_the_case_and_the_remedy(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(BadInput, match=rf"mine\.yaml(?s:.*){says}"):
        load_custom_eval(tmp_path / "mine.yaml")
