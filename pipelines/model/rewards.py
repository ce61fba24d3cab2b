"""The reward model as a scorer: one number for a prompt with its response, and per-token values from the same trunk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from pipelines.core.errors import BadInput
from pipelines.model.attention import suit_device
from pipelines.model.batching import like_lengths
from pipelines.model.trunk import hidden_states


def pad_right(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """`sequences` as ids [B, L] and attention mask [B, L], padded on the right."""
    longest = max(len(sequence) for sequence in sequences)
    ids = torch.full((len(sequences), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(sequences), longest), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask[row, : len(sequence)] = 1
    return ids, mask


def token_values(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """The classifier's score at every position, [B, L] float32; ids and mask are [B, L], padded on the right."""
    values: Tensor = model.score(hidden_states(model, ids, mask)).squeeze(-1).float()
    return values


def rewards_at_end(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """The classifier's score at each sequence's last token, [B] float32; arguments as for `token_values`."""
    lengths = mask.sum(dim=1, keepdim=True)
    longest = int(lengths.max())
    return token_values(model, ids[:, :longest], mask[:, :longest]).gather(1, lengths - 1).squeeze(1)


class RewardScorer:
    """Scores token sequences with a reward model folder; higher is better, the unit is the model's own."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int = 32) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._batch_size = batch_size

    @classmethod
    def load(cls, folder: Path, dtype: str) -> Self:
        """Load the Hugging Face folder `folder`.

        Raises:
            BadInput: the folder holds no reward model.
        """
        if not (folder / "config.json").exists():
            raise BadInput(f"{folder} holds no reward model; run the stage reward_model first")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=getattr(torch, dtype), num_labels=1)
        return cls(suit_device(model.to(device).eval()), AutoTokenizer.from_pretrained(folder))

    def require_tokenizer(self, policy: PreTrainedTokenizerBase) -> None:
        """Check that the reward model reads the tokens that a policy writes.

        Raises:
            BadInput: their tokenizers differ.
        """
        if self.tokenizer.get_vocab() != policy.get_vocab():
            raise BadInput(
                f"the reward model ({len(self.tokenizer)} tokens) and the policy ({len(policy)} tokens) do not "
                "share a tokenizer; train the reward model from this run's SFT model"
            )

    @torch.no_grad()
    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """The reward of each sequence of token ids (prompt, response and its end token), at the last token."""
        scores = [0.0] * len(sequences)
        for rows in like_lengths([len(sequence) for sequence in sequences], self._batch_size):
            ids, mask = pad_right([sequences[row] for row in rows], self.tokenizer.pad_token_id)
            ids, mask = ids.to(self.model.device), mask.to(self.model.device)
            for row, value in zip(rows, rewards_at_end(self.model, ids, mask).tolist(), strict=True):
                scores[row] = value
        return scores
