"""Small batches of prompts and responses to rank, and annotations of them."""

import hashlib
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML

from labeling.project import LABEL_CONFIG
from pipelines.core import artifacts
from pipelines.core.config import resolve
from pipelines.core.jsonl import write_json, write_rows
from pipelines.core.records import Annotation, Completion, Conversation, LabelTask, Message, content_id

ROOT = Path(__file__).parents[2]

AWKWARD = [
    "<b>bold</b> & <script>document.title='gone'</script>",
    "```python\nfor x in range(3):\n    print(x)\n```",
    "البحر أزرق وواسع، وفيه سمك كثير.",
    "",
    "naïve café 🐝 — “quotes”",
]


def task(name: str, texts: Sequence[str], question: str = "What is good about bees?") -> LabelTask:
    """One task; `name` makes its prompt different from the others'."""
    messages = (Message("user", f"{question} ({name})"),)
    completions = tuple(Completion(f"m{i}", text, 0.7, "stop") for i, text in enumerate(texts))
    prompt = Conversation(name, messages, "test", "test", "CC0-1.0")
    return LabelTask(content_id([prompt.chat, list(texts)]), prompt, completions)


def batch(count: int, responses: int = 4) -> list[LabelTask]:
    """`count` tasks whose responses differ in length and words."""
    phrases = ["Bees make honey.", "Flowers need them.", "They dance.", "good bees good", "Ask a keeper"]
    rng = random.Random(count)
    return [
        task(f"p{i}", [" ".join(rng.choices(phrases, k=1 + number)) for number in range(responses)])
        for i in range(count)
    ]


def write_batch(root: Path, tasks: Sequence[LabelTask]) -> str:
    """Write `tasks` as sample_completions does; returns the batch id."""
    batch_id = content_id([task.id for task in tasks])
    write_rows(root / artifacts.LABEL_BATCH, (task.to_row() for task in tasks))
    sha = hashlib.sha256((root / LABEL_CONFIG).read_bytes()).hexdigest()
    manifest = {"batch_id": batch_id, "tasks": len(tasks), "label_config_sha": sha, "guideline_version": "1"}
    write_json(root / artifacts.LABEL_BATCH_MANIFEST, manifest)
    first = {"number": 1, "run": None, "simulated": False, "reward_model": {}, "preferences": {}}
    write_json(root / artifacts.PREVIOUS_ROUND_MANIFEST, first)
    return batch_id


def workspace(root: Path, tasks: Sequence[LabelTask], *overrides: str) -> Path:
    """A workspace with the code, resolved `tiny` parameters and a batch, as a run has it at push_tasks."""
    for package in ("labeling", "pipelines/core", "evals", "serving"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "pipelines" / "__init__.py").touch()
    yaml = YAML(typ="safe", pure=True)
    yaml.dump(resolve(ROOT, "tiny", list(overrides)), root / "params.yaml")
    write_batch(root, tasks)
    return root


def annotation(
    task_id: str,
    ranking: str,
    labeler: str = "ann",
    *,
    number: int = 1,
    shown: str = "m0 m1 m2 m3",
    flags: Sequence[str] = (),
    lead_time_s: float = 20.0,
    simulated: bool = False,
) -> Annotation:
    """An annotation; `ranking` is written as "m1 m0=m2 m3", best first, ties by =."""
    return Annotation(
        task_id=task_id,
        annotation_id=number,
        labeler=labeler,
        simulated=simulated,
        ranking=tuple(tuple(group.split("=")) for group in ranking.split()),
        shown_order=tuple(shown.split()),
        flags=tuple(flags),
        response_flags={},
        comment="",
        lead_time_s=lead_time_s,
        guideline_version="1",
    )
