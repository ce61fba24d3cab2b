"""Episodes: prompts with the responses that a policy sampled, as tensors, and how likely a model finds them.

Shapes: B episodes, L tokens of prompt and response padded on the right, T = L − 1 predicted positions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pipelines.model.engine import Generation, Sampling, TransformersEngine
from pipelines.model.logits import chosen_logprobs, head_weight, hidden_at
from pipelines.model.rewards import pad_right

ENTROPY_POSITIONS = 256  # each costs a pass over the vocabulary; the mean of so many is good to a few per cent


class Episodes(NamedTuple):
    """A batch of prompts with sampled responses."""

    ids: Tensor  # [B, L]
    attention: Tensor  # [B, L]
    response: Tensor  # [B, T] 1 where position t predicts a response token
    ended: list[bool]  # whether the response ended by itself
    lengths: list[int]  # response tokens

    def to(self, device: torch.device) -> "Episodes":
        """The same episodes with their tensors on `device`."""
        return self._replace(
            ids=self.ids.to(device), attention=self.attention.to(device), response=self.response.to(device)
        )

    def rows(self, indices: Sequence[int]) -> "Episodes":
        """The episodes at `indices`, without columns that only longer ones need."""
        chosen = list(indices)
        attention = self.attention[chosen]
        longest = int(attention.sum(dim=1).max())
        return Episodes(
            self.ids[chosen, :longest],
            attention[:, :longest],
            self.response[chosen, : longest - 1],
            [self.ended[row] for row in chosen],
            [self.lengths[row] for row in chosen],
        )


def response_tokens(generation: Generation, end_id: int) -> list[int]:
    """The response's ids with the end token that a stopped response ends in."""
    tokens = list(generation.token_ids)
    return [*tokens, end_id] if generation.finish_reason == "stop" else tokens


def collate(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], ended: list[bool], pad: int
) -> Episodes:
    """Prompts and responses as padded tensors."""
    ids, attention = pad_right([[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)], pad)
    mask = torch.zeros(ids.shape[0], ids.shape[1] - 1)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        mask[row, len(prompt) - 1 : len(prompt) - 1 + len(response)] = 1
    return Episodes(ids, attention, mask, ended, [len(response) for response in responses])


def roll_out(engine: TransformersEngine, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]) -> Episodes:
    """Sample one response for each prompt; a response without a token counts as ended."""
    end_id, pad_id = engine.tokenizer.eos_token_id, engine.tokenizer.pad_token_id
    generations = engine.generate(prompts, samplings)
    responses = [response_tokens(generation, end_id) for generation in generations]
    ended = [generation.finish_reason == "stop" for generation in generations]
    return collate(prompts, responses, ended, pad_id).to(engine.device)


def sequences(episodes: Episodes) -> list[list[int]]:
    """The unpadded ids of each episode: what scorers read. A response that the limit cut has no end token."""
    rows = zip(episodes.ids, episodes.attention, strict=True)
    return [ids[: int(attention.sum())].tolist() for ids, attention in rows]


def response_states(model: PreTrainedModel, episodes: Episodes) -> Tensor:
    """The hidden states [N, H] that predict the N response tokens, episode by episode."""
    where = torch.nn.functional.pad(episodes.response.bool(), (0, 1))  # nothing is predicted from the last token
    return hidden_at(model, episodes.ids, episodes.attention, where)


def logprobs_from(states: Tensor, model: PreTrainedModel, episodes: Episodes, temperature: float) -> Tensor:
    """Log-probabilities [B, T] (nats) of the response tokens at the sampling temperature, zero off the response.

    Args:
        states: [N, H], from `response_states` of the same model and episodes.
    """
    chosen = episodes.response.bool()
    found = chosen_logprobs(states, head_weight(model), episodes.ids[:, 1:][chosen], temperature)
    return torch.zeros_like(episodes.response).masked_scatter(chosen, found)


def logprobs_of(model: PreTrainedModel, episodes: Episodes, temperature: float) -> Tensor:
    """`logprobs_from` the model's own pass over the episodes."""
    return logprobs_from(response_states(model, episodes), model, episodes, temperature)


@torch.no_grad()
def sampled_entropy(states: Tensor, model: PreTrainedModel, temperature: float) -> float:
    """Mean entropy (nats a token) of the next-token distributions at up to ENTROPY_POSITIONS evenly spaced states."""
    some = states[:: -(-len(states) // ENTROPY_POSITIONS)]
    logprobs = ((some @ head_weight(model).T).float() / temperature).log_softmax(dim=-1)
    return float(-(logprobs.exp() * logprobs).sum(dim=-1).mean())


@torch.no_grad()
def divergence(
    policy: PreTrainedModel, ref_policy: PreTrainedModel, episodes: Episodes, temperature: float, batch_size: int
) -> list[float]:
    """KL of `policy` from `ref_policy` along each episode (nats per response), `batch_size` at a time.

    The divergence of the two next-token distributions, summed over the response: as unbiased as the log-ratio of the
    sampled tokens when `policy` sampled them, far less noisy, and never negative.
    """
    found: list[float] = []
    for start in range(0, len(episodes.ids), batch_size):
        part = episodes.rows(range(start, min(start + batch_size, len(episodes.ids))))
        now, ref = (
            ((response_states(model, part) @ head_weight(model).T).float() / temperature).log_softmax(dim=-1)
            for model in (policy, ref_policy)
        )
        by_token = (now.exp() * (now - ref)).sum(dim=-1)
        found += torch.zeros_like(part.response).masked_scatter(part.response.bool(), by_token).sum(dim=1).tolist()
    return found
