"""Episodes: prompts with the responses that a policy sampled, as tensors, and how likely a model finds them.

Shapes: B episodes, L tokens of prompt and response padded on the right, T = L − 1 predicted positions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pipelines.model.engine import Generation, Sampling, TransformersEngine
from pipelines.model.logits import logits_at
from pipelines.model.rewards import pad_right


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


class Prediction(NamedTuple):
    """What a model thinks of the response tokens; `logits` are those of the N positions that predict them."""

    logprobs: Tensor  # [B, T] nats, zero off the response
    logits: Tensor  # [N, V] float32, over the sampling temperature


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


def finished_sequences(episodes: Episodes, end_id: int) -> list[list[int]]:
    """The unpadded ids of each episode, a cut response closed by the end token: what reward models are trained on."""
    sequences = []
    for ids, attention, ended in zip(episodes.ids, episodes.attention, episodes.ended, strict=True):
        tokens = ids[: int(attention.sum())].tolist()
        sequences.append(tokens if ended else [*tokens, end_id])
    return sequences


def predict(model: PreTrainedModel, episodes: Episodes, temperature: float, dtype: torch.dtype) -> Prediction:
    """Log-probabilities of the response tokens under `model` at the sampling temperature, computed in `dtype`."""
    chosen = episodes.response.bool()
    with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
        where = torch.nn.functional.pad(chosen, (0, 1))  # nothing is predicted from the last token
        logits = logits_at(model, episodes.ids, episodes.attention, where)
    logits = logits.float() / temperature
    targets = episodes.ids[:, 1:][chosen]
    found = logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(dim=-1)
    return Prediction(torch.zeros_like(episodes.response).masked_scatter(chosen, found), logits)


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy (nats) of the distributions `logits` [N, V]; a scalar."""
    logprobs = logits.log_softmax(dim=-1)
    return -(logprobs.exp() * logprobs).sum(dim=-1).mean()


@torch.no_grad()
def divergence(
    policy: PreTrainedModel,
    ref_policy: PreTrainedModel,
    episodes: Episodes,
    temperature: float,
    dtype: torch.dtype,
    batch_size: int,
) -> list[float]:
    """KL of `policy` from `ref_policy` along each episode (nats per response), `batch_size` at a time.

    The divergence of the two next-token distributions, summed over the response: as unbiased as the log-ratio of the
    sampled tokens when `policy` sampled them, far less noisy, and never negative.
    """
    found: list[float] = []
    for start in range(0, len(episodes.ids), batch_size):
        part = episodes.rows(range(start, min(start + batch_size, len(episodes.ids))))
        now, ref = (
            predict(model, part, temperature, dtype).logits.log_softmax(dim=-1) for model in (policy, ref_policy)
        )
        by_token = (now.exp() * (now - ref)).sum(dim=-1)
        found += torch.zeros_like(part.response).masked_scatter(part.response.bool(), by_token).sum(dim=1).tolist()
    return found
