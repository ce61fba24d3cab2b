"""Takes the rated answers of an exported snapshot that people shall look at in this round.

In: the snapshot `pull_feedback.snapshot` in `$COLLOQUY_HOME/feedback`, as it was when this run was opened, and the
splits of prepare_sft. Out: its answers, less those to questions that the splits have, so that nothing that the model is
judged by is ever ranked. Without a snapshot the list is empty, and people rank responses to the prompts of prepare_sft.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipelines.core import artifacts, feedback
from pipelines.core.errors import BadInput
from pipelines.core.feedback import RatedAnswer
from pipelines.core.jsonl import read_rows, write_rows
from pipelines.core.records import Conversation
from pipelines.core.stage import open_stage

SPLITS = (
    artifacts.SFT_TRAIN,
    artifacts.SFT_HELD_OUT,
    artifacts.PROMPTS_LABELING,
    artifacts.PROMPTS_ALIGNMENT,
    artifacts.PROMPTS_HELD_OUT,
)


def read_snapshot(home: Path, name: str, sha256: str | None) -> list[RatedAnswer]:
    """The answers of a snapshot.

    Raises:
        BadInput: it is not there, or is another than when this run was opened.
    """
    if feedback.answers_sha256(home, name) != sha256:
        raise BadInput(f"pull_feedback.snapshot={name} has changed since this run was opened; start a new run")
    return [RatedAnswer.from_row(row) for row in read_rows(feedback.folder(home, name) / feedback.ANSWERS)]


def first_questions(conversations: Iterable[Conversation]) -> Iterator[str]:
    """The first user turn of each, as splits compare it."""
    for one in conversations:
        yield next(message.content for message in one.messages if message.role == "user").strip().lower()


def main() -> None:
    with open_stage("pull_feedback") as stage:
        params = stage.params.pull_feedback
        found: list[RatedAnswer] = []
        if params.snapshot is not None:
            found = read_snapshot(Path(os.environ["COLLOQUY_HOME"]), params.snapshot, params.sha256)
        known = {
            question
            for path in SPLITS
            for question in first_questions(Conversation.from_row(row) for row in read_rows(path))
        }
        asked = first_questions(answer.prompt for answer in found)
        new = [answer for answer, question in zip(found, asked, strict=True) if question not in known]
        write_rows(artifacts.FEEDBACK, (answer.to_row() for answer in new))
        print(f"{len(new)} of {len(found)} rated answers; the others ask what the splits of prepare_sft have")
        stage.write_metrics({"answers": float(len(new)), "known": float(len(found) - len(new))})


if __name__ == "__main__":
    main()
