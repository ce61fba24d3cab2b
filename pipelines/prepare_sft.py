"""Splits demonstrations and prompts into what trains, what people rank, what PPO answers and what nobody trains on.

In: the files in prepare_sft.demonstrations and prepare_sft.prompts, and artifacts/pull_demonstrations, of which the
accepted answers take up to `prepare_sft.written_share` of the demonstrations. Out: artifacts/prepare_sft. The splits
never share a first user message. Every broken line is named, all of them at once; none is dropped in silence.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pipelines.core import artifacts
from pipelines.core.conversations import read_conversations
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_rows, write_rows
from pipelines.core.records import Conversation, WrittenAnswer
from pipelines.core.stage import open_stage


def first_question(one: Conversation) -> str:
    """The first user turn, as splits compare it."""
    return next(message.content for message in one.messages if message.role == "user").strip().lower()


def mixed(conversations: Sequence[Conversation], seed: int) -> list[Conversation]:
    """Shuffled, then dealt round over the categories, so that every prefix has them all in like shares."""
    rng = random.Random(seed)
    by_category: dict[str, list[Conversation]] = defaultdict(list)
    for one in sorted(conversations, key=lambda item: item.id):
        by_category[one.category].append(one)
    decks = []
    for _, members in sorted(by_category.items()):
        rng.shuffle(members)
        decks.append(members)
    return dealt(decks)


def dealt(decks: Sequence[Sequence[Conversation]]) -> list[Conversation]:
    """The decks dealt into one another, each in its order, so that every prefix has them in like shares."""
    placed = [
        ((place + 0.5) / len(deck), number, one) for number, deck in enumerate(decks) for place, one in enumerate(deck)
    ]
    return [one for _, _, one in sorted(placed, key=lambda item: item[:2])]


def accepted(answers: Sequence[WrittenAnswer]) -> list[Conversation]:
    """The answers that a second person accepted, as demonstrations; the first of each first question."""
    found: dict[str, Conversation] = {}
    for answer in answers:
        if answer.verdict == "accepted":
            found.setdefault(first_question(answer.prompt), answer.demonstration)
    return list(found.values())


def main() -> None:
    with open_stage("prepare_sft") as stage:
        params = stage.params.prepare_sft
        written = accepted([WrittenAnswer.from_row(row) for row in read_rows(artifacts.WRITTEN_ANSWERS)])
        written_questions = {first_question(one) for one in written}
        own = [
            one
            for one in mixed(read_conversations(Path(params.demonstrations), "assistant"), stage.params.seed)
            if first_question(one) not in written_questions
        ]
        asked = written_questions | {first_question(one) for one in own}
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
        from_people = mixed(written, stage.params.seed)[: round(params.written_share * params.max_demonstrations)]
        chosen = dealt([own[: params.max_demonstrations - len(from_people)], from_people])
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
                "written_demonstrations": float(len(from_people)),
                "held_out_demonstrations": float(held_out),
                "prompts": float(len(prompts)),
                "categories": float(len({one.category for one in chosen})),
            }
        )


if __name__ == "__main__":
    main()
