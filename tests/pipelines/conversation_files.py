"""Files of conversations as people write them."""

import json
from pathlib import Path

KEYS = {"category": "facts", "source": "us", "license": "CC-BY-4.0"}


def turns(*contents: str, system: bool = False) -> list[dict[str, str]]:
    roles = ["system"] * system + ["user", "assistant"] * len(contents)
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row(*contents: str, **more: object) -> str:
    return json.dumps({"messages": turns(*contents)} | KEYS | more)
