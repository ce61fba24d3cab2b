"""Fits a reward model to the rankings: a classifier with one output on the SFT model's trunk.

In: artifacts/sft, the preference pairs. Out: artifacts/reward_model, a Hugging Face folder. Loss
−log σ(r(x, y_w) − r(x, y_l)), weighted so that every prompt counts alike (Ouyang et al. 2022, arXiv 2203.02155,
equation 1). The pairs of a prompt lie in one batch, where each of its answers is scored once (section 3.5 there).
Held-out accuracy comes with its Wilson interval; human agreement is its ceiling.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import Sampler
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from trl import RewardConfig, RewardTrainer

from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, read_rows
from pipelines.core.records import Preference
from pipelines.core.sections.alignment import RewardModel
from pipelines.core.stage import Stage, open_stage
from pipelines.model.attention import suit_device
from pipelines.model.checkpoints import save_model
from pipelines.model.rendering import render_answer
from pipelines.model.rewards import RewardScorer, pad_right, rewards_at_end
from pipelines.training.checkpointing import clear
from pipelines.training.optimizer import MasterAdamW
from pipelines.training.seeding import seed_everything
from pipelines.training.trainers import arguments_of, run_trainer

ANSWERS_AT_ONCE = 8  # in one forward pass: on a CPU more is no faster


class Pair(NamedTuple):
    """A preference as token ids, each answer as the model wrote it; `prompt` is the id of what both answer."""

    chosen: list[int]
    rejected: list[int]
    weight: float
    prompt: str


def read_pairs(path: Path, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[Pair]:
    """The pairs of `path`; one that is longer than `max_tokens` loses the start of its prompt, never its answer."""
    pairs = []
    for row in read_rows(path):
        one = Preference.from_row(row)
        chosen = render_answer(tokenizer, one.prompt.chat, one.chosen, one.chosen_stopped)
        rejected = render_answer(tokenizer, one.prompt.chat, one.rejected, one.rejected_stopped)
        pairs.append(Pair(chosen[-max_tokens:], rejected[-max_tokens:], one.weight, one.prompt.id))
    return pairs


def balance_lengths(pairs: Sequence[Pair], share: float) -> list[Pair]:
    """`pairs` reweighted so that length says less about which answer was chosen.

    With a `share` of 1 the pairs whose chosen answer is the longer weigh as much in all as those whose chosen answer
    is the shorter; with 0 the weights stay, and between them each side's factor is raised to `share`.
    """
    longer = sum(pair.weight for pair in pairs if len(pair.chosen) > len(pair.rejected))
    shorter = sum(pair.weight for pair in pairs if len(pair.chosen) < len(pair.rejected))
    if share == 0 or not longer or not shorter:
        return list(pairs)
    middle = (longer + shorter) / 2

    def factor(pair: Pair) -> float:
        if len(pair.chosen) == len(pair.rejected):
            return 1.0
        return float((middle / (longer if len(pair.chosen) > len(pair.rejected) else shorter)) ** share)

    return [pair._replace(weight=pair.weight * factor(pair)) for pair in pairs]


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `n` trials. Source: Wilson 1927."""
    if n == 0:
        return 0.0, 1.0
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return centre - half, centre + half


def weighted_loss(rewards: Tensor, weights: Tensor) -> Tensor:
    """−log σ(r_w − r_l) of B pairs, averaged by `weights` [B]; `rewards` [2·B] has the chosen ones first."""
    chosen, rejected = torch.chunk(rewards.float(), 2)
    return -(weights * torch.nn.functional.logsigmoid(chosen - rejected)).sum() / weights.sum()


class PromptsTogether(Sampler[int]):
    """The pairs of one prompt one after another; prompts in an order that depends on seed and epoch alone."""

    def __init__(self, prompts: Sequence[str], seed: int) -> None:
        self._pairs: dict[str, list[int]] = {}
        for index, prompt in enumerate(prompts):
            self._pairs.setdefault(prompt, []).append(index)
        self._count, self._seed, self._epoch = len(prompts), seed, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        prompts = list(self._pairs.values())
        for place in torch.randperm(len(prompts), generator=generator).tolist():
            yield from prompts[place]


class EachAnswerOnce:
    """Collates B pairs of U distinct answers, so that an answer in several pairs is scored once.

    Gives `input_ids` and `attention_mask` [U, L], the shorter answers first, `chosen` and `rejected` [B], which are
    rows of them, and `margin` [B], the weights.
    """

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        answers = sorted({tuple(row[side]) for row in rows for side in ("chosen_ids", "rejected_ids")})
        answers.sort(key=len)
        place = {answer: number for number, answer in enumerate(answers)}
        ids, mask = pad_right(answers, self._pad_id)
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "chosen": torch.tensor([place[tuple(row["chosen_ids"])] for row in rows]),
            "rejected": torch.tensor([place[tuple(row["rejected_ids"])] for row in rows]),
            "margin": torch.tensor([row["margin"] for row in rows]),
        }


class WeightedRewardTrainer(RewardTrainer):  # type: ignore[misc]
    """TRL's trainer with a weight for each pair, in the field for margins, and each answer scored once."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        assert not return_outputs
        rows = zip(*(inputs[name].split(ANSWERS_AT_ONCE) for name in ("input_ids", "attention_mask")), strict=True)
        scored = torch.cat([rewards_at_end(model, ids, mask) for ids, mask in rows])
        chosen, rejected = scored[inputs["chosen"]], scored[inputs["rejected"]]
        self._metrics["train"]["accuracy"].append(float((chosen > rejected).float().mean()))
        return weighted_loss(torch.cat([chosen, rejected]), inputs["margin"])

    def _get_train_sampler(self, train_dataset: Any = None) -> PromptsTogether:
        return PromptsTogether(self.train_dataset["prompt_id"], self.args.seed)


def load_classifier(folder: Path, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The policy in `folder` with a head of one output in place of its vocabulary, in float32.

    The head starts as Stiennon et al. 2020 (arXiv 2009.01325) start it: N(0, 1 / (hidden + 1)).
    """
    model, report = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, dtype=torch.float32, output_loading_info=True
    )
    # A trunk weight that is not found is made up at random, which only shows as a model that learns nothing.
    assert set(report["missing_keys"]) == {"score.weight"}, report["missing_keys"]
    torch.nn.init.normal_(model.score.weight, std=(model.config.hidden_size + 1) ** -0.5)
    model.config.pad_token_id = tokenizer.pad_token_id
    return model


def train(stage: Stage, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair]) -> RewardScorer:
    """Fit the classifier to the pairs."""
    params: RewardModel = stage.params.reward_model
    model = suit_device(load_classifier(artifacts.SFT, tokenizer).to("cuda" if torch.cuda.is_available() else "cpu"))
    rows = Dataset.from_list(
        [
            {"chosen_ids": one.chosen, "rejected_ids": one.rejected, "margin": one.weight, "prompt_id": one.prompt}
            for one in balance_lengths(pairs, params.length_balance)
        ]
    )
    arguments = RewardConfig(
        **arguments_of(stage, params.batch_pairs, params.learning_rate, params.epochs),
        lr_scheduler_type="cosine",
        warmup_steps=params.warmup_share,
        max_length=None,
    )
    trainer = WeightedRewardTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=EachAnswerOnce(tokenizer.pad_token_id),
        optimizers=(MasterAdamW(model, params.dtype, params.learning_rate), None),
    )
    run_trainer(trainer, stage, [artifacts.SFT, artifacts.PREFERENCES_TRAIN])
    return RewardScorer(model.eval(), tokenizer)


def calibration_error(margins: Sequence[float], bins: int = 10) -> float:
    """Expected calibration error of σ(margin) as the probability that people prefer the chosen answer, 0 to 1.

    Each pair counts both ways round, since which answer came first says nothing: p for the chosen, 1 − p for the other.
    Source: Guo et al. 2017 (arXiv 1706.04599), equation 5.
    """
    probabilities = 1 / (1 + np.exp(-np.array([*margins, *(-margin for margin in margins)])))
    preferred = np.repeat([1.0, 0.0], len(margins))
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    inside = [place == number for number in range(bins)]
    gaps = [abs(probabilities[rows].sum() - preferred[rows].sum()) for rows in inside if rows.any()]
    return float(sum(gaps) / len(probabilities))


def held_out_figures(scorer: RewardScorer, pairs: Sequence[Pair]) -> dict[str, float]:
    """Accuracy with its interval, and how far length alone explains the rewards."""
    chosen = scorer.score([pair.chosen for pair in pairs])
    rejected = scorer.score([pair.rejected for pair in pairs])
    right = sum(winner > loser for winner, loser in zip(chosen, rejected, strict=True)) / len(pairs)
    low, high = wilson(right, len(pairs))
    lengths = [len(pair.chosen) for pair in pairs] + [len(pair.rejected) for pair in pairs]
    rewards = np.array(chosen + rejected)
    flat = rewards.std() < 1e-9 or np.std(lengths) < 1e-9
    longer = sum(len(pair.chosen) > len(pair.rejected) for pair in pairs) / len(pairs)
    return {
        "held_out_accuracy": right,
        "held_out_accuracy_low": low,
        "held_out_accuracy_high": high,
        "held_out_pairs": float(len(pairs)),
        "calibration_error": calibration_error(
            [winner - loser for winner, loser in zip(chosen, rejected, strict=True)]
        ),
        "length_correlation": 0.0 if flat else float(np.corrcoef(rewards, lengths)[0, 1]),
        "longer_is_chosen": longer,
        "reward_mean": float(rewards.mean()),
        "reward_sd": float(rewards.std()),
    }


def main() -> None:
    with open_stage("reward_model") as stage:
        params = stage.params.reward_model
        seed_everything(stage.params.seed)
        tokenizer = AutoTokenizer.from_pretrained(artifacts.SFT)
        pairs = read_pairs(artifacts.PREFERENCES_TRAIN, tokenizer, params.max_tokens)
        held_out = read_pairs(artifacts.PREFERENCES_HELD_OUT, tokenizer, params.max_tokens)
        if not pairs or not held_out:
            raise BadInput(f"{len(pairs)} training and {len(held_out)} held-out pairs; label more prompts")
        scorer = train(stage, tokenizer, pairs)
        figures = held_out_figures(scorer, held_out)
        human = read_json(artifacts.AGREEMENT)["agreement"]["pairwise"]["value"]
        if human is not None:  # None: no task had two labelers
            figures["human_agreement"] = human
        if abs(figures["length_correlation"]) > 0.9:
            print("warning: length alone nearly predicts this reward; look at the rankings before you trust it")
        save_model(scorer.model, tokenizer, stage.out)
        tokens = sum(len(pair.chosen) + len(pair.rejected) for pair in pairs)
        stage.write_metrics(figures | {"train_pairs": float(len(pairs)), "train_tokens": float(tokens)})
        clear(stage)


if __name__ == "__main__":
    main()
