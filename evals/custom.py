"""Custom evals: one YAML file of cases, each with what is said to the assistant and how its answer is scored.

docs/CUSTOM_EVALS.md says how to write one. Scorers of text are here; the judge compares an answer with a reference.
"""

import json
import re
from pathlib import Path
from typing import Any, Literal, Self

from jsonschema import Draft202012Validator, SchemaError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipelines.core.config import read_yaml
from pipelines.core.errors import BadInput

Scorer = Literal["exact", "contains", "regex", "json_schema", "judge"]


class Message(BaseModel):
    """One turn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


class Case(BaseModel):
    """What is said, and what the answer is measured against."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1)
    system: str | None = None  # None: the system prompt the assistant is served with
    prompt: str | None = None  # one user turn, or
    messages: tuple[Message, ...] | None = None  # a conversation that ends with a user turn
    scorer: Scorer
    expected: str | list[str] | dict[str, Any]  # texts, patterns or a reference answer; a schema of json_schema
    negate: bool = False  # the case passes when the answer does not match

    @model_validator(mode="after")
    def _fits_its_scorer(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either `prompt` or `messages`")
        if self.prompt is not None and not self.prompt.strip():
            raise ValueError("`prompt` is empty; write what the user says")
        if self.messages is not None and (not self.messages or self.messages[-1].role != "user"):
            raise ValueError("`messages` must end with a turn of the user")
        if self.scorer == "json_schema":
            if not isinstance(self.expected, dict):
                raise ValueError("`expected` of json_schema must be a schema: a mapping such as {type: object}")
            try:
                Draft202012Validator.check_schema(self.expected)
            except SchemaError as error:
                raise ValueError(f"`expected` is no JSON schema: {error.message}") from error
            return self
        if isinstance(self.expected, dict) or not self.texts or not all(text.strip() for text in self.texts):
            raise ValueError(f"`expected` of {self.scorer} must be a text, or a list of texts, that is not empty")
        if self.scorer == "regex":
            for pattern in self.texts:
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"`expected` has the pattern {pattern!r}, which is no regex: {error}") from error
        if self.scorer == "judge" and (self.negate or len(self.texts) != 1):
            raise ValueError("a judge needs one reference answer in `expected`, and can't be negated")
        return self

    @property
    def texts(self) -> list[str]:
        """`expected` as a list, of every scorer but json_schema."""
        if isinstance(self.expected, dict):
            return []
        return [self.expected] if isinstance(self.expected, str) else self.expected

    @property
    def chat(self) -> list[dict[str, str]]:
        """The conversation up to where the assistant answers."""
        turns = [{"role": "user", "content": self.prompt}] if self.prompt is not None else []
        turns += [turn.model_dump() for turn in self.messages or ()]
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *turns]


class CustomEval(BaseModel):
    """One file. Its name is the eval's."""

    model_config = ConfigDict(frozen=True)

    name: str
    measures: str
    cases: tuple[Case, ...]


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, detail['loc'])) or 'the case'}: {detail['msg'].removeprefix('Value error, ')}"
        for detail in error.errors()
    )


def load_custom_eval(path: Path) -> CustomEval:
    """The eval in the YAML file `path`.

    Raises:
        BadInput: the message names file, case, field and what would be valid.
    """
    content = read_yaml(path)
    if unknown := set(content) - {"measures", "scorer", "cases"}:
        raise BadInput(f"{path}: unknown keys {sorted(unknown)}; a custom eval has measures, scorer and cases")
    if not isinstance(content.get("measures"), str):
        raise BadInput(f"{path}: `measures` is missing; say in one sentence what the eval measures")
    rows = content.get("cases")
    if not isinstance(rows, list) or not rows:
        raise BadInput(f"{path}: `cases` must be a list with at least one case; see docs/CUSTOM_EVALS.md")
    default = {"scorer": content["scorer"]} if "scorer" in content else {}
    cases: dict[str, Case] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise BadInput(f"{path}, case {number}: holds a {type(row).__name__}, expected id, prompt, expected …")
        where = f"{path}, case {row.get('id') or number}"
        try:
            case = Case.model_validate(default | row)
        except ValidationError as error:
            raise BadInput(f"{where}: {_problems(error)}; see docs/CUSTOM_EVALS.md") from error
        if case.id in cases:
            raise BadInput(f"{where}: the id is taken; give each case one of its own")
        cases[case.id] = case
    return CustomEval(name=path.stem, measures=content["measures"], cases=tuple(cases.values()))


def load_custom_evals(folder: Path) -> list[CustomEval]:
    """Every eval in `folder`, by name; none when there is no such folder."""
    return [load_custom_eval(path) for path in sorted(folder.glob("*.yaml"))]


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold().rstrip(".!")


def first_json(text: str) -> Any:
    """The first JSON object or list in `text`, which may have prose or a code fence around it.

    Raises:
        ValueError: there is none.
    """
    decoder = json.JSONDecoder()
    for found in re.finditer(r"[{\[]", text):
        try:
            return decoder.raw_decode(text, found.start())[0]
        except ValueError:
            continue
    raise ValueError("the answer holds no JSON")


def matches(case: Case, answer: str) -> bool:
    """Whether `answer` is what a case with a scorer of text expects, before `negate`.

    exact: equal to one of the texts, up to case, spacing and a full stop at the end. contains: has one of the texts,
    up to case and spacing. regex: one of the patterns is found. json_schema: the first JSON in it fits the schema.
    """
    match case.scorer:
        case "exact":
            return _plain(answer) in {_plain(text) for text in case.texts}
        case "contains":
            return any(_plain(text) in _plain(answer) for text in case.texts)
        case "regex":
            return any(re.search(pattern, answer) for pattern in case.texts)
        case "json_schema":
            assert isinstance(case.expected, dict)
            try:
                return Draft202012Validator(case.expected).is_valid(first_json(answer))
            except ValueError:
                return False
    raise AssertionError(f"a judge scores case {case.id}")


def passes(case: Case, answer: str) -> bool:
    """Whether a scorer of text passes `answer`. An empty answer never passes: it says nothing, refused or not."""
    return bool(answer.strip()) and matches(case, answer) != case.negate
