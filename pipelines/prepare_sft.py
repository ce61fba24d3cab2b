"""Splits demonstrations and prompts into what trains, what people rank, what PPO answers and what nobody trains on.

In: the files in prepare_sft.demonstrations and prepare_sft.prompts. Out: artifacts/prepare_sft. The splits never share
a first user message. Every broken line is named, all of them at once; none is dropped in silence.
"""

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import write_rows
from pipelines.core.records import Conversation, Message, Role, content_id
from pipelines.core.stage import open_stage

MOST_LINES_NAMED = 20


def conversation(row: Any, last_role: str) -> Conversation:
    """One row as a conversation that ends with a turn of `last_role`.

    Raises:
        ValueError: with what is wrong.
    """
    if not isinstance(row, dict):
        raise ValueError(f"holds a {type(row).__name__}, expected an object")
    if missing := {"messages", "category", "source", "license"} - set(row):
        raise ValueError(f"lacks {sorted(missing)}")
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages is not a list of turns")
    for message in messages:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise ValueError("a message needs exactly role and content")
        if message["role"] not in get_args(Role):
            raise ValueError(f"role {message['role']!r} is none of {get_args(Role)}")
        if not isinstance(message["content"], str) or not message["content"].strip():
            raise ValueError(f"a turn of {message['role']} is empty")
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    if turns != [("user", "assistant")[index % 2] for index in range(len(turns))]:
        raise ValueError(f"roles do not alternate from user: {roles}")
    if not turns or turns[-1] != last_role:
        raise ValueError(f"does not end with a turn of {last_role}: {roles}")
    turns_read = tuple(Message(message["role"], message["content"]) for message in messages)
    identity = row.get("id") or content_id(messages)
    return Conversation(identity, turns_read, str(row["category"]), str(row["source"]), str(row["license"]))


def read_conversations(path: Path, last_role: str) -> list[Conversation]:
    """Every conversation of a JSONL file, without exact repetitions.

    Raises:
        BadInput: lines are broken; each is named with its number and reason.
    """
    if not path.is_file():
        raise BadInput(f"there is no file {str(path)!r}; see prepare_sft in params.yaml")
    found: dict[str, Conversation] = {}
    line_of: dict[str, int] = {}
    broken: list[str] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            one = conversation(json.loads(line), last_role)
        except ValueError as error:  # of json as of conversation()
            broken.append(f"  line {number}: {error}")
            continue
        content = content_id(one.chat)
        if content in found:
            continue
        if one.id in line_of:
            broken.append(f"  line {number}: has the id {one.id!r} of line {line_of[one.id]}, with other content")
            continue
        found[content], line_of[one.id] = one, number
    if broken:
        more = len(broken) - MOST_LINES_NAMED
        rest = [f"  … and {more} more"] if more > 0 else []
        lines = "\n".join(broken[:MOST_LINES_NAMED] + rest)
        raise BadInput(f"{path} has {len(broken)} broken lines; correct or remove them:\n{lines}")
    return list(found.values())


def first_question(one: Conversation) -> str:
    """The first user turn, as splits compare it."""
    return next(message.content for message in one.messages if message.role == "user").strip().lower()


def mixed(conversations: Sequence[Conversation], seed: int) -> list[Conversation]:
    """Shuffled, then dealt round over the categories, so that every prefix has them all in like shares."""
    rng = random.Random(seed)
    by_category: dict[str, list[Conversation]] = defaultdict(list)
    for one in sorted(conversations, key=lambda item: item.id):
        by_category[one.category].append(one)
    placed: list[tuple[float, str, Conversation]] = []
    for category, members in sorted(by_category.items()):
        rng.shuffle(members)
        placed += [((place + 0.5) / len(members), category, one) for place, one in enumerate(members)]
    return [one for _, _, one in sorted(placed, key=lambda item: item[:2])]


def main() -> None:
    with open_stage("prepare_sft") as stage:
        params = stage.params.prepare_sft
        demonstrations = mixed(read_conversations(Path(params.demonstrations), "assistant"), stage.params.seed)
        asked = {first_question(one) for one in demonstrations}
        prompts = [
            one
            for one in mixed(read_conversations(Path(params.prompts), "user"), stage.params.seed)
            if first_question(one) not in asked
        ]
        sizes = [
            (artifacts.PROMPTS_HELD_OUT, params.held_out_prompts),
            (artifacts.PROMPTS_LABELING, params.labeling_prompts),
            (artifacts.PROMPTS_ALIGNMENT, params.alignment_prompts),
        ]
        if (needed := sum(size for _, size in sizes)) > len(prompts):
            raise BadInput(
                f"{params.prompts} has {len(prompts)} prompts that no demonstration asks, {needed} are needed "
                "(labeling_prompts + alignment_prompts + held_out_prompts); add prompts or lower one of these"
            )
        chosen = demonstrations[: params.max_demonstrations]
        held_out = max(1, round(len(chosen) * params.held_out_share))
        write_rows(artifacts.SFT_HELD_OUT, (one.to_row() for one in chosen[:held_out]))
        write_rows(artifacts.SFT_TRAIN, (one.to_row() for one in chosen[held_out:]))
        # Held-out prompts are the first, so that other sizes leave them as they are.
        start = 0
        for path, size in sizes:
            write_rows(path, (one.to_row() for one in prompts[start : start + size]))
            start += size
        stage.write_metrics(
            {
                "demonstrations": float(len(chosen)),
                "held_out_demonstrations": float(held_out),
                "prompts": float(len(prompts)),
                "categories": float(len({one.category for one in chosen})),
            }
        )


if __name__ == "__main__":
    main()
