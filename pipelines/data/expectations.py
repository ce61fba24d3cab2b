"""The contracts of the data sets as Great Expectations suites, and the report of a validation.

A suite is a list of rules over a table with one row a record. What a rule looks at is a column, computed here in plain
Python where it needs more than a value of the record: `pii` (kinds of personal data left), `role_problem`, and so on.
"""

import gc
import os
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, write_json
from pipelines.core.records import Conversation, Document, Preference, content_id
from pipelines.core.sections.data import PrepareCorpus
from pipelines.data.pii import find_pii
from pipelines.data.steps import Filter

EXAMPLES = 5  # shown of the records that break a rule
SAME_LANGUAGE = 0.99  # of the documents; later steps may take the words that told
_EXCERPT = 80  # characters of an example's value
# Addresses that RFC 2606 reserves for examples, and the telephone numbers 555-0100 to 555-0199 that fiction may use.
_NOBODYS = re.compile(
    r"@(?:[\w-]+\.)*(?:example(?:\.(?:com|net|org))?|test|invalid|localhost)$|\b555[-. ]?01\d\d$", re.IGNORECASE
)


class Rule(NamedTuple):
    """One expectation: `kind` is its name in Great Expectations in snake case, `says` what it means for this data."""

    says: str
    kind: str
    arguments: dict[str, Any]


class Broken(NamedTuple):
    """A rule that does not hold: how many records break it (None: it is about the whole table), and some of them."""

    rule: str
    records: int | None
    examples: list[str]

    def __str__(self) -> str:
        counted = "" if self.records is None else f": {self.records} records"
        shown = f", for example {'; '.join(self.examples)}" if self.examples else ""
        return f"{self.rule}{counted}{shown}"


class Table(NamedTuple):
    """A data set as Great Expectations sees it: `id` and other columns, and the rules for them."""

    name: str
    rows: list[Row]
    rules: list[Rule]


def each(column: str, says: str, kind: str, **arguments: Any) -> Rule:
    """A rule about every value of `column`."""
    return Rule(says, f"expect_column_values_to_{kind}", {"column": column, **arguments})


def at_least(count: int, what: str) -> Rule:
    """A rule about how many records there are."""
    return Rule(f"at least {count} {what}", "expect_table_row_count_to_be_between", {"min_value": count})


def _columns(names: Sequence[str]) -> Rule:
    return Rule(f"the columns are {', '.join(names)}", "expect_table_columns_to_match_set", {"column_set": list(names)})


def _none_left(column: str, says: str) -> Rule:
    """`column` names what is wrong with a record, and is empty where nothing is."""
    return each(column, says, "be_in_set", value_set=[""])


def corpus_table(
    train: Iterable[Document],
    held_out: Iterable[Document],
    params: PrepareCorpus,
    min_documents: int,
    language_of: Callable[[str], str],
    decontaminated: Filter,
) -> Table:
    """The corpus: both splits in one table, so that ids and texts are unique across them.

    Texts are told apart by their hash: the table of a large corpus has to fit into memory.

    Args:
        language_of: the ISO 639-1 code of a text.
        decontaminated: drops a document that has evaluation text.
    """
    rows = [
        {
            "id": document.id,
            "split": split,
            "source": document.source,
            "license": document.license,
            "text": content_id(document.text),
            "words": len(document.text.split()),
            "language": language_of(document.text),
            "evaluation": "" if (verdict := decontaminated(document)) is True else verdict[1],
            "pii": ", ".join(sorted({finding.kind for finding in find_pii(document.text)})),
        }
        for split, documents in (("train", train), ("held_out", held_out))
        for document in documents
    ]
    # Redaction comes after the word count and may take a few words with it.
    fewest = max(1, params.min_words // 2)
    rules = [
        _columns(("id", "split", "source", "license", "text", "words", "language", "evaluation", "pii")),
        at_least(min_documents, "documents"),
        each("id", "ids are unique", "be_unique"),
        each("text", "no text occurs twice", "be_unique"),
        each("license", "every document has a license", "match_regex", regex=r"\S"),
        each("source", "every document has a source", "match_regex", regex=r"\S"),
        each(
            "words",
            f"{fewest} to {params.max_words} words",
            "be_between",
            min_value=fewest,
            max_value=params.max_words,
        ),
        each(
            "language",
            f"{SAME_LANGUAGE:.0%} are in {params.language}",
            "be_in_set",
            value_set=[params.language],
            mostly=SAME_LANGUAGE,
        ),
        _none_left("evaluation", "no evaluation text is left"),
        _none_left("pii", "no personal data is left"),
        Rule(
            "both splits have documents",
            "expect_column_distinct_values_to_equal_set",
            {"column": "split", "value_set": ["train", "held_out"]},
        ),
    ]
    return Table("corpus", rows, rules)


def personal_data(text: str) -> str:
    """The kinds of personal data in a written conversation; what is reserved for examples and IPs are nobody's."""
    findings = [finding for finding in find_pii(text) if finding.kind != "ip"]
    return ", ".join(sorted({f.kind for f in findings if not _NOBODYS.search(text[f.start : f.end])}))


def role_problem(conversation: Conversation, last_role: str) -> str:
    """What is wrong with the order of the turns: one system turn at most, first; then user and assistant in turn."""
    roles = [message.role for message in conversation.messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns:
        return "no turns"
    for number, role in enumerate(turns):
        if role != ("user", "assistant")[number % 2]:
            return f"turn {number + 1} is by {role}"
    return "" if turns[-1] == last_role else f"the last turn is by {turns[-1]}"


def conversation_rows(conversations: Iterable[Conversation], split: str, last_role: str) -> list[Row]:
    """Conversations as rows of a table."""
    rows = []
    for conversation in conversations:
        text = "\n".join(f"{message.role}: {message.content}" for message in conversation.messages)
        rows.append(
            {
                "id": conversation.id,
                "split": split,
                "category": conversation.category,
                "license": conversation.license,
                "text": text,
                "pii": personal_data(text),
                "role_problem": role_problem(conversation, last_role),
                "empty_turns": sum(not message.content.strip() for message in conversation.messages),
            }
        )
    return rows


def _conversation_rules(what: str, minimum: int, last_role: str, extra: Sequence[str] = ()) -> list[Rule]:
    return [
        _columns(("id", "split", "category", "license", "text", "pii", "role_problem", "empty_turns", *extra)),
        at_least(minimum, what),
        each("id", "ids are unique, within and across splits", "be_unique"),
        each("text", "no text occurs twice, within or across splits", "be_unique"),
        each("category", "every one has a category", "match_regex", regex=r"\S"),
        each("license", "every one has a license", "match_regex", regex=r"\S"),
        _none_left("role_problem", f"turns alternate and the last is by {last_role}"),
        each("empty_turns", "no turn is empty", "be_between", max_value=0),
        _none_left("pii", "no personal data"),
    ]


def demonstration_table(rows: list[Row], min_conversations: int, max_tokens: int) -> Table:
    """Demonstrations: rows of `conversation_rows` with `tokens`."""
    rules = _conversation_rules("demonstrations", min_conversations, "assistant", ("tokens",))
    rules.append(each("tokens", f"2 to {max_tokens} tokens", "be_between", min_value=2, max_value=max_tokens))
    return Table("demonstrations", rows, rules)


def prompt_table(rows: list[Row]) -> Table:
    """Prompts of all uses: none is in two of them."""
    return Table("prompts", rows, _conversation_rules("prompts", 1, "user"))


def preference_table(train: Iterable[Preference], held_out: Iterable[Preference], min_pairs: int) -> Table:
    """Pairs of both splits; a prompt is in one of them alone."""
    pairs = [(split, pair) for split, all_of in (("train", train), ("held_out", held_out)) for pair in all_of]
    splits: dict[str, set[str]] = {}
    weights: dict[tuple[str, str], float] = {}
    for split, pair in pairs:
        splits.setdefault(pair.prompt.id, set()).add(split)
        weights[split, pair.prompt.id] = weights.get((split, pair.prompt.id), 0.0) + pair.weight
    rows = [
        {
            "id": pair.id,
            "split": split,
            "prompt": pair.prompt.id,
            "role_problem": role_problem(pair.prompt, "user"),
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "difference": "" if pair.chosen.strip() != pair.rejected.strip() else "chosen equals rejected",
            "weight": pair.weight,
            "prompt_weight": weights[split, pair.prompt.id],
            "leak": "" if len(splits[pair.prompt.id]) == 1 else "prompt in both splits",
        }
        for split, pair in pairs
    ]
    names = tuple(rows[0]) if rows else ()
    rules = [
        _columns(names),
        at_least(min_pairs, "pairs"),
        each("id", "ids are unique", "be_unique"),
        _none_left("role_problem", "turns of the prompt alternate and the last is by user"),
        _none_left("difference", "chosen and rejected differ"),
        each("weight", "weights are above 0 and at most 1", "be_between", min_value=0, strict_min=True, max_value=1),
        each(
            "prompt_weight",
            "the weights of a prompt's pairs sum to 1",
            "be_between",
            min_value=1 - 1e-6,
            max_value=1 + 1e-6,
        ),
        _none_left("leak", "no prompt is in both splits"),
    ]
    return Table("preferences", rows, rules)


def _great_expectations() -> Any:
    """Import Great Expectations, with nothing sent home, and without the garbage collector.

    It has some 3,000 modules; the collector would look through them again and again, an eighth of the time.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    gc.disable()
    try:
        import great_expectations
    finally:
        gc.enable()
    return great_expectations


def _broken(rule: Rule, result: Any, rows: list[Row]) -> Broken:
    found = result.result
    places = found.get("partial_unexpected_index_list") or []
    column = rule.arguments.get("column", "")
    examples = [
        f"{rows[place]['id']} ({column} {str(rows[place][column])[:_EXCERPT]!r})" for place in places[:EXAMPLES]
    ]
    if not examples and "observed_value" in found:
        examples = [f"found {found['observed_value']}"]
    if result.exception_info.get("raised_exception"):
        examples = [str(result.exception_info.get("exception_message"))]
    return Broken(rule.says, found.get("unexpected_count"), examples)


def validate(tables: Sequence[Table]) -> dict[str, list[Broken]]:
    """Check each table against its rules; gives the broken rules of each by its name."""
    empty = {table.name: [Broken("it has records", 0, [])] for table in tables if not table.rows}
    filled = [table for table in tables if table.rows]
    if not filled:
        return empty
    gx = _great_expectations()
    import pandas

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = gx.data_context.types.base.ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("tables")
    broken = {}
    for table in filled:
        batches = source.add_dataframe_asset(table.name).add_batch_definition_whole_dataframe(table.name)
        batch = batches.get_batch({"dataframe": pandas.DataFrame(table.rows)})
        suite = gx.ExpectationSuite(table.name)
        for rule in table.rules:
            title = "".join(word.title() for word in rule.kind.split("_"))
            suite.add_expectation(getattr(gx.expectations, title)(**rule.arguments))
        outcome = batch.validate(suite, result_format="SUMMARY")
        by_rule = {_key(result.expectation_config): result for result in outcome.results}
        results = [(rule, by_rule[_key_of(rule)]) for rule in table.rules]
        broken[table.name] = [_broken(rule, result, table.rows) for rule, result in results if not result.success]
    return empty | broken


def _key_of(rule: Rule) -> tuple[str, str]:
    return rule.kind, str(rule.arguments.get("column", ""))


def _key(config: Any) -> tuple[str, str]:
    return config.type, str(config.kwargs.get("column", ""))


def report(tables: Sequence[Table], broken: dict[str, list[Broken]]) -> Row:
    """What was checked and how it ended, as one JSON value without times."""
    return {
        table.name: {
            "records": len(table.rows),
            "rules": [
                {
                    "rule": rule.says,
                    "expectation": rule.kind,
                    "holds": all(failure.rule != rule.says for failure in broken[table.name]) and bool(table.rows),
                }
                for rule in table.rules
            ],
            "broken": [failure._asdict() for failure in broken[table.name]],
        }
        for table in tables
    }


def report_html(title: str, checked: Row) -> str:
    """The report as a page that needs nothing from elsewhere."""
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>'
        "body{font:15px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "td,th{text-align:left;padding:.2rem .8rem;border-bottom:1px solid #ddd}.no{color:#a00000;font-weight:bold}"
        f"</style></head><body><h1>{escape(title)}</h1>"
    ]
    for name, table in checked.items():
        parts.append(f"<h2>{escape(name)}: {table['records']} records</h2><table><tr><th>rule</th><th>holds</th></tr>")
        for rule in table["rules"]:
            mark = "<td>yes</td>" if rule["holds"] else '<td class="no">no</td>'
            parts.append(f"<tr><td>{escape(rule['rule'])}</td>{mark}</tr>")
        parts.append("</table>")
        for failure in table["broken"]:
            examples = "".join(f"<li>{escape(example)}</li>" for example in failure["examples"])
            parts.append(f'<p class="no">{escape(failure["rule"])}: {failure["records"]}</p><ul>{examples}</ul>')
    return "\n".join((*parts, "</body></html>", ""))


def check(title: str, tables: Sequence[Table], folder: Path) -> dict[str, float]:
    """Validate, write `report.json` and `report.html` into `folder`, and give the metrics of the stage.

    Raises:
        BadInput: a rule is broken; the message names each with count and examples.
    """
    broken = validate(tables)
    checked = report(tables, broken)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(report_html(title, checked), encoding="utf-8")
    write_json(folder / "report.json", checked)
    failures = [f"{name}: {failure}" for name, found in broken.items() for failure in found]
    if failures:
        listed = "".join(f"\n  {failure}" for failure in failures)
        raise BadInput(f"{title}: {len(failures)} rules are broken ({folder / 'report.html'} has all):{listed}")
    metrics = {f"{table.name}_records": float(len(table.rows)) for table in tables}
    return metrics | {"rules": float(sum(len(table.rules) for table in tables))}
