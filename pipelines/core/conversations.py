"""Files of conversations that people hand in: JSON Lines, checked line by line."""

import json
from pathlib import Path
from typing import Any, get_args

from pipelines.core.errors import BadInput
from pipelines.core.records import Conversation, Message, Role, content_id

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
        raise BadInput(f"there is no file of conversations {str(path)!r}")
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
