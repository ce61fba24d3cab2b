"""What a person decides on the labeling page, and Label Studio's result format for it, both ways.

The names of the controls are those of `labeling/label_config.xml`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any

from pipelines.core.records import Annotation, content_id

RESPONSE_MARKS = {"untruthful": "untruthful", "harmful_response": "harmful", "off_topic": "off_topic"}
"""Control of the page -> the flag of a response."""

AS_SHOWN = "as_shown"  # the flag by which a labeler confirms the shown order without dragging
CANNOT_JUDGE = "cannot_judge"  # the flag of a labeler who leaves the task to others
SKIPPED = "skipped"  # the flag of an annotation that was submitted by Label Studio's Skip


@dataclass(frozen=True, slots=True)
class Judgement:
    """One labeler's decision; completion ids in `ranking`, best group first, a group is a tie."""

    ranking: tuple[tuple[str, ...], ...]
    flags: tuple[str, ...] = ()
    response_flags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    comment: str = ""


def letters(shown_order: Sequence[str]) -> dict[str, str]:
    """The letter that the page gives each response: A for the first shown."""
    return dict(zip(shown_order, ascii_uppercase, strict=False))


def _item(control: str, target: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    item = {"from_name": control, "to_name": target, "type": kind, "value": value}
    return item | {"id": content_id(item)[:10]}


def _choices(control: str, chosen: Iterable[str]) -> dict[str, Any]:
    return _item(control, "conversation", "choices", {"choices": list(chosen)})


def to_result(judgement: Judgement, shown_order: Sequence[str]) -> list[dict[str, Any]]:
    """`judgement` as the page submits it."""
    letter = letters(shown_order)
    order = [name for group in judgement.ranking for name in group]
    tied = [letter[name] for group in judgement.ranking for name in group[1:]]
    result = [_item("rank", "responses", "ranker", {"ranker": {"rank": order}})]
    if tied:
        result.append(_choices("tied", sorted(tied)))
    for control, flag in RESPONSE_MARKS.items():
        if marked := sorted(letter[name] for name, flags in judgement.response_flags.items() if flag in flags):
            result.append(_choices(control, marked))
    if judgement.flags:
        result.append(_choices("flags", judgement.flags))
    if judgement.comment:
        result.append(_item("comment", "conversation", "textarea", {"text": [judgement.comment]}))
    return result


def _grouped(order: Sequence[str], tied: set[str]) -> tuple[tuple[str, ...], ...]:
    groups: list[list[str]] = []
    for name in order:
        if groups and name in tied:
            groups[-1].append(name)
        else:
            groups.append([name])
    return tuple(tuple(group) for group in groups)


def from_result(result: Iterable[dict[str, Any]], shown_order: Sequence[str]) -> Judgement:
    """What `result` says of the responses in `shown_order`.

    An order that names a response twice, or one that was not shown, is no order: its ranking is empty. One that
    leaves responses out is a partial ranking. No order at all is the shown one where the labeler ticked that.
    """
    values = {item["from_name"]: item["value"] for item in result if "from_name" in item and "value" in item}
    name_of = {letter: name for name, letter in letters(shown_order).items()}

    def chosen(control: str) -> list[str]:
        return list(values.get(control, {}).get("choices", []))

    order = values.get("rank", {}).get("ranker", {}).get("rank", [])
    if not order and AS_SHOWN in chosen("flags"):
        order = list(shown_order)
    sound = len(set(order)) == len(order) and set(order) <= set(shown_order)
    tied = {name_of[letter] for letter in chosen("tied") if letter in name_of}
    marks: dict[str, list[str]] = {}
    for control, flag in RESPONSE_MARKS.items():
        for letter in chosen(control):
            if letter in name_of:
                marks.setdefault(name_of[letter], []).append(flag)
    return Judgement(
        ranking=_grouped(order, tied) if sound else (),
        flags=tuple(sorted(chosen("flags"))),
        response_flags={name: tuple(sorted(flags)) for name, flags in sorted(marks.items())},
        comment="\n".join(values.get("comment", {}).get("text", [])).strip(),
    )


def untouched(annotation: Annotation) -> bool:
    """Whether the order is the shown one, and nobody said that it is right or can't be judged.

    Label Studio stores the shown order for a mere click on Submit.
    """
    kept = tuple((name,) for name in annotation.shown_order) == annotation.ranking
    return kept and not {AS_SHOWN, CANNOT_JUDGE} & set(annotation.flags)


def unlabeled_reason(annotation: Annotation, min_lead_time_s: float) -> str | None:
    """Why `annotation` does not count as a label, or None when it does.

    "Cannot judge" is a judgement: nobody is asked again, though its order trains nothing.
    """
    if SKIPPED in annotation.flags:
        return "skipped"
    if not annotation.ranking:
        return "no valid order"
    if annotation.lead_time_s < min_lead_time_s and untouched(annotation):
        return "untouched"
    return None
