"""Samples 4–6 responses for each labeling prompt at different temperatures: the batch that people rank.

In: the policy of the round before, or artifacts/sft in the first; the challenger's policy, where the round names one:
then every other response is its; PROMPTS_LABELING, the labeling screen and guidelines. Rated answers of the product are
taken in place of the first of these prompts, and what was shown is one of the responses. Out: the batch, in the order
in which people are asked, and its manifest; the batch id is the hash of prompts, responses and label config, so that
the same batch is never asked twice. The reward model of the round before scores each response; with
`label_source: reward_model` people are only asked about a share, to check it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pipelines.core import artifacts
from pipelines.core.config import Params
from pipelines.core.digests import file_sha256
from pipelines.core.errors import BadInput
from pipelines.core.feedback import RatedAnswer
from pipelines.core.jsonl import read_rows, write_json, write_rows
from pipelines.core.records import Completion, Conversation, LabelTask, content_id
from pipelines.core.rounds import EarlierRound
from pipelines.core.sections.labeling import RewardLabels, SampleCompletions
from pipelines.core.stage import open_stage
from pipelines.model.asking import checked, in_order_of_asking, score_tasks
from pipelines.model.engine import Engine, Generation, Sampling
from pipelines.model.engine_choice import load_engine
from pipelines.model.rewards import RewardScorer

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


def sample(
    engines: Sequence[Engine],
    prompts: Sequence[Conversation],
    params: SampleCompletions,
    seed: int,
    shown: Sequence[Draw] = (),
) -> list[list[Draw]]:
    """Responses of each prompt, by the engines in turn; one that repeats another of its prompt is drawn again, hotter.

    `shown` are the first response of the first prompts.
    """
    found = {(row, 0): draw for row, draw in enumerate(shown)}
    places = [(row, place) for row in range(len(prompts)) for place in range(params.completions)]
    wanted = [at for at in places if at not in found]
    for attempt in range(TRIES):
        for turn, engine in enumerate(engines):
            mine = [at for at in wanted if at[1] % len(engines) == turn]
            if not mine:
                continue
            samplings = [
                Sampling(
                    params.max_new_tokens,
                    round(params.temperatures[place % len(params.temperatures)] + HOTTER * attempt, 6),
                    params.top_p,
                    seed_of(seed, prompts[row].id, place, attempt),
                )
                for row, place in mine
            ]
            drawn = engine.generate([engine.render(prompts[row].chat) for row, _ in mine], samplings)
            for at, generation, sampling in zip(mine, drawn, samplings, strict=True):
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


def as_shown(answer: RatedAnswer) -> Draw:
    """The answer that somebody rated, as a response among the others."""
    return Draw(Generation(answer.answer, (), (), "stop", 0), answer.temperature)


def policies(earlier: EarlierRound) -> list[Path]:
    """What responses are sampled from."""
    policy = artifacts.SFT if earlier.run is None else artifacts.PREVIOUS_POLICY
    return [policy, artifacts.PREVIOUS_CHALLENGER] if artifacts.PREVIOUS_CHALLENGER.exists() else [policy]


def label_task(prompt: Conversation, draws: Sequence[Draw]) -> LabelTask:
    """A prompt with its responses, named m0, m1, …"""
    completions = tuple(
        Completion(f"m{place}", draw.generation.text.strip(), draw.temperature, draw.generation.finish_reason)
        for place, draw in enumerate(draws)
    )
    return LabelTask(content_id([prompt.chat, [completion.text for completion in completions]]), prompt, completions)


def require_gate(earlier: EarlierRound, params: RewardLabels) -> None:
    """Check that the reward model of the round before may label in place of people.

    Raises:
        BadInput: there is none, it is not accurate enough, or people did not agree with it.
    """
    refused = "label_source: reward_model is refused"
    if earlier.run is None:
        raise BadInput(f"{refused}: there is no earlier round; set previous_round.run, or let people label")
    accuracy = earlier.reward_model["held_out_accuracy_low"]
    if accuracy < params.min_accuracy:
        raise BadInput(
            f"{refused}: the held-out accuracy of run {earlier.run}'s reward model is at least {accuracy:.3f} only, "
            f"under reward_labels.min_accuracy={params.min_accuracy:g}; let people label another round"
        )
    agreement = earlier.preferences.get("reward_model_agreement")
    if agreement is not None and agreement < params.min_agreement:
        raise BadInput(
            f"{refused}: in run {earlier.run} people agreed with the reward model on {agreement:.1%} of the pairs, "
            f"under reward_labels.min_agreement={params.min_agreement:g}; let people label another round"
        )


def arrange(tasks: Sequence[LabelTask], earlier: EarlierRound, params: Params) -> list[LabelTask]:
    """`tasks` with the scores of the round before, in the order of asking, less the ones that nobody is asked."""
    ask_first = params.sample_completions.ask_first
    if earlier.run is not None:
        scorer = RewardScorer.load(artifacts.PREVIOUS_REWARD_MODEL, params.sample_completions.dtype)
        scores = score_tasks(scorer, tasks)
        tasks = [replace(task, scores=given) for task, given in zip(tasks, scores, strict=True)]
    elif ask_first == "least_sure":
        raise BadInput(
            "sample_completions.ask_first=least_sure needs the reward model of an earlier round: set "
            "previous_round.run, or take most_different"
        )
    if params.label_source == "reward_model":
        people = checked([task.id for task in tasks], params.reward_labels.check_share, params.seed)
        tasks = [replace(task, asked=task.id in people) for task in tasks]
    return in_order_of_asking(tasks, ask_first)


def main() -> None:
    with open_stage("sample_completions") as stage:
        params = stage.params.sample_completions
        earlier = EarlierRound.read()
        if stage.params.label_source == "reward_model":
            require_gate(earlier, stage.params.reward_labels)
        own = [Conversation.from_row(row) for row in read_rows(artifacts.PROMPTS_LABELING)]
        rated = [RatedAnswer.from_row(row) for row in read_rows(artifacts.FEEDBACK)]
        prompts = [answer.prompt for answer in rated] + own[: max(0, len(own) - len(rated))]
        engines = [load_engine(policy, params.dtype, params.batch_size, params.engine) for policy in policies(earlier)]
        sampled = sample(engines, prompts, params, stage.params.seed, [as_shown(answer) for answer in rated])
        tasks = [label_task(prompt, draws) for prompt, draws in zip(prompts, sampled, strict=True)]
        batch = arrange(tasks, earlier, stage.params)
        write_rows(artifacts.LABEL_BATCH, (task.to_row() for task in batch))
        config = file_sha256(LABEL_CONFIG)
        manifest = {
            "batch_id": content_id([sorted(task.id for task in batch), config]),
            "tasks": len(batch),
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
                "tasks_asked": float(sum(task.asked for task in batch)),
                "tokens": float(sum(len(generation.token_ids) for generation in drawn_all)),
                "ended_share": sum(generation.finish_reason == "stop" for generation in drawn_all) / len(drawn_all),
            }
        )


if __name__ == "__main__":
    main()
