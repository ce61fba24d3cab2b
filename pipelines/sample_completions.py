"""Samples 4–6 responses for each labeling prompt at different temperatures: the batch that people rank.

In: artifacts/sft, PROMPTS_LABELING, the labeling screen and guidelines. Out: the batch and its manifest; the batch id
is the hash of prompts, responses and label config, so that the same batch is never asked twice.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines.core import artifacts
from pipelines.core.config import SampleCompletions
from pipelines.core.digests import file_sha256
from pipelines.core.jsonl import read_rows, write_json, write_rows
from pipelines.core.records import Completion, Conversation, LabelTask, content_id
from pipelines.core.stage import open_stage
from pipelines.model.engine import Engine, Generation, Sampling
from pipelines.model.engine_choice import load_engine

LABEL_CONFIG = Path("labeling/label_config.xml")
GUIDELINES = Path("labeling/guidelines.md")
TRIES = 3  # for a response that says the same as another of its prompt
HOTTER = 0.3  # temperature added with each try


def seed_of(seed: int, prompt_id: str, place: int, attempt: int) -> int:
    """A seed that depends on the request alone, not on its place in the batch."""
    return int(content_id([seed, prompt_id, place, attempt]), 16) % 2**31


class Draw(NamedTuple):
    """A response with the temperature that it was drawn at."""

    generation: Generation
    temperature: float


def sample(engine: Engine, prompts: Sequence[Conversation], params: SampleCompletions, seed: int) -> list[list[Draw]]:
    """Responses of each prompt; one that repeats another of its prompt is drawn again, hotter each time."""
    rendered = [engine.render(prompt.chat) for prompt in prompts]
    found: dict[tuple[int, int], Draw] = {}
    wanted = [(row, place) for row in range(len(prompts)) for place in range(params.completions)]
    for attempt in range(TRIES):
        samplings = [
            Sampling(
                params.max_new_tokens,
                round(params.temperatures[place % len(params.temperatures)] + HOTTER * attempt, 6),
                params.top_p,
                seed_of(seed, prompts[row].id, place, attempt),
            )
            for row, place in wanted
        ]
        drawn = engine.generate([rendered[row] for row, _ in wanted], samplings)
        for at, generation, sampling in zip(wanted, drawn, samplings, strict=True):
            found[at] = Draw(generation, sampling.temperature)
        seen: set[tuple[int, str]] = set()
        wanted = []
        for row, place in sorted(found):
            key = (row, found[row, place].generation.text.strip())
            if key in seen:
                wanted.append((row, place))
            seen.add(key)
        if not wanted:
            break
    return [[found[row, place] for place in range(params.completions)] for row in range(len(prompts))]


def label_task(prompt: Conversation, draws: Sequence[Draw]) -> LabelTask:
    """A prompt with its responses, named m0, m1, …"""
    completions = tuple(
        Completion(f"m{place}", draw.generation.text.strip(), draw.temperature, draw.generation.finish_reason)
        for place, draw in enumerate(draws)
    )
    return LabelTask(content_id([prompt.chat, [completion.text for completion in completions]]), prompt, completions)


def main() -> None:
    with open_stage("sample_completions") as stage:
        params = stage.params.sample_completions
        prompts = [Conversation.from_row(row) for row in read_rows(artifacts.PROMPTS_LABELING)]
        engine = load_engine(artifacts.SFT, params.dtype, params.batch_size, params.engine)
        sampled = sample(engine, prompts, params, stage.params.seed)
        tasks = [label_task(prompt, draws) for prompt, draws in zip(prompts, sampled, strict=True)]
        rows = [task.to_row() for task in sorted(tasks, key=lambda task: task.id)]
        write_rows(artifacts.LABEL_BATCH, rows)
        config = file_sha256(LABEL_CONFIG)
        manifest = {
            "batch_id": content_id([rows, config]),
            "tasks": len(rows),
            "completions": params.completions,
            "label_config_sha": config,
            "guideline_version": file_sha256(GUIDELINES)[:12],
        }
        write_json(artifacts.LABEL_BATCH_MANIFEST, manifest)
        stage.tracker.log_artifact(artifacts.LABEL_BATCH)
        drawn_all = [draw.generation for draws in sampled for draw in draws]
        stage.write_metrics(
            {
                "completions": float(len(drawn_all)),
                "tokens": float(sum(len(generation.token_ids) for generation in drawn_all)),
                "ended_share": sum(generation.finish_reason == "stop" for generation in drawn_all) / len(drawn_all),
            }
        )


if __name__ == "__main__":
    main()
