"""Text generation behind one Protocol: sampling, rollouts, evaluation and serving all go through it.

`TransformersEngine` is the plain reference: batched, sorted by length, stopped rows leave the batch. A request's tokens
depend on its own prompt, sampling and seed, not on what else is in the batch (up to the rounding of batched products).
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, DynamicCache, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from pipelines.model.checkpoints import load_model
from pipelines.model.rendering import render_prompt

LEAVE_SHARE = 0.25  # of the rows; copying the cache for fewer costs more than it saves
BLOCK = 256  # probabilities that are summed at once
ROOM = 64  # tokens that a cache makes room for at once


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw a response. Temperature 0 is greedy; `stop` ends a response before the first of its strings.

    Log-probabilities cost a pass over the vocabulary for each token, so they come only when asked for.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop: tuple[str, ...] = ()
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Generation:
    """A drawn response.

    `token_ids` are without the end token; `logprobs` (nats, at temperature 1) go with them, or are empty when the
    request did not ask for them.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int


class Engine(Protocol):
    """What every engine can do."""

    tokenizer: PreTrainedTokenizerBase

    def render(self, chat: Sequence[dict[str, str]]) -> list[int]:
        """The token ids of `chat` up to where the assistant answers; text can't forge roles or special tokens."""
        ...

    def generate(self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]) -> list[Generation]:
        """One response for each prompt, in order."""
        ...

    def stream(
        self, prompt: Sequence[int], sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Generator[str, None, Generation]:
        """The response as pieces of text while it is drawn; the generator returns the whole."""
        ...

    @property
    def model(self) -> PreTrainedModel:
        """The same weights as a transformers model: what likelihoods of given texts are computed with."""
        ...


class _Row:
    """One request while it is drawn."""

    def __init__(self, index: int, sampling: Sampling) -> None:
        self.index = index
        self.sampling = sampling
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.finish: Literal["stop", "length"] | None = None
        # One uniform number for each token: what is drawn never depends on the other rows.
        generator = torch.Generator().manual_seed(sampling.seed)
        self.uniforms = torch.rand(sampling.max_new_tokens, generator=generator, dtype=torch.float64).tolist()

    @property
    def wanted_logprobs(self) -> int:
        """How many log-probabilities go with the tokens so far."""
        return len(self.tokens) if self.sampling.logprobs else 0


def nucleus_floors(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """The least probability [B, 1] that is still in the nucleus of each row of `probabilities` [B, V] for `top_p` [B].

    The nucleus is the smallest set of likeliest tokens whose mass reaches top_p; ties at its edge are all inside.
    """
    if probabilities.device.type == "cpu":  # torch sorts one row in 3 ms on a CPU, NumPy in 0.1
        ordered = torch.from_numpy(np.sort(probabilities.numpy(), axis=-1)).flip(-1)
    else:
        ordered = probabilities.sort(dim=-1, descending=True).values
    inside = ordered.cumsum(dim=-1) - ordered < top_p[:, None]
    return ordered.gather(1, inside.sum(dim=-1, keepdim=True).clamp(min=1) - 1)


def argmax(scores: Tensor) -> list[int]:
    """The likeliest token of each row of `scores` [B, V]."""
    if scores.device.type == "cpu":  # NumPy's takes a twelfth of the time
        return [int(place) for place in scores.float().numpy().argmax(axis=-1)]
    return [int(place) for place in scores.argmax(dim=-1).tolist()]


def pick(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """The token [B] at which the running sum of each row of `probabilities` [B, V] passes `uniforms` [B] of its total.

    Summed in float64: first whole blocks, then inside the block that was hit, since a running sum over a whole
    vocabulary takes longer than its softmax.
    """
    missing = -probabilities.shape[-1] % BLOCK
    padded = torch.nn.functional.pad(probabilities, (0, missing)) if missing else probabilities
    blocks = padded.unflatten(-1, (-1, BLOCK))
    sums = blocks.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    wanted = uniforms[:, None] * sums[:, -1:]
    hit = torch.searchsorted(sums, wanted, right=True).clamp(max=sums.shape[-1] - 1)
    before = torch.where(hit > 0, sums.gather(1, (hit - 1).clamp(min=0)), 0)
    inside = before + blocks[torch.arange(len(blocks), device=blocks.device), hit[:, 0]].double().cumsum(dim=-1)
    place = torch.searchsorted(inside, wanted, right=True).clamp(max=BLOCK - 1)
    return (hit * BLOCK + place).squeeze(1).clamp(max=probabilities.shape[-1] - 1)


def draw(logits: Tensor, rows: Sequence[_Row]) -> list[int]:
    """One token for each row of `logits` [B, V], by the row's temperature, top-p and next uniform number."""
    warm = [position for position, row in enumerate(rows) if row.sampling.temperature > 0]
    cold = [position for position, row in enumerate(rows) if row.sampling.temperature == 0]
    drawn = [0] * len(rows)
    if cold:
        for position, token in zip(cold, argmax(logits[cold]), strict=True):
            drawn[position] = token
    if not warm:
        return drawn
    samplings = [rows[position].sampling for position in warm]
    scores = (logits[warm] if cold else logits).float()
    if any(sampling.temperature != 1 for sampling in samplings):
        scores = scores / torch.tensor([sampling.temperature for sampling in samplings], device=scores.device)[:, None]
    probabilities = torch.softmax(scores, dim=-1)
    if any(sampling.top_p < 1 for sampling in samplings):
        floors = nucleus_floors(probabilities, torch.tensor([s.top_p for s in samplings], device=logits.device))
        probabilities = probabilities.masked_fill(probabilities < floors, 0)
    # A finished row may still be in the batch; what is drawn for it is dropped.
    uniforms = [rows[at].uniforms[min(len(rows[at].tokens), rows[at].sampling.max_new_tokens - 1)] for at in warm]
    picks = pick(probabilities, torch.tensor(uniforms, dtype=torch.float64, device=logits.device))
    for position, token in zip(warm, picks.tolist(), strict=True):
        drawn[position] = token
    return drawn


def stop_at(text: str, stops: Sequence[str]) -> int | None:
    """Where the first of `stops` begins in `text`, or None."""
    found = [text.find(stop) for stop in stops if stop and stop in text]
    return min(found) if found else None


def fresh_text(text: str, shown: int, stops: Sequence[str], finished: bool) -> str:
    """What can be shown of `text` beyond its first `shown` characters.

    A broken character may still be completed, and a stop string may still be coming.
    """
    held = 0 if finished else max((len(stop) for stop in stops), default=1) - 1
    ready = text[: len(text) - held]
    return "" if ready.endswith("\ufffd") and not finished else ready[shown:]


def finish(
    tokenizer: PreTrainedTokenizerBase,
    token_ids: Sequence[int],
    logprobs: Sequence[float],
    ended: bool,
    sampling: Sampling,
    prompt_tokens: int,
) -> Generation:
    """The generation of drawn `token_ids` (without the end token), cut before the first stop string."""
    text: str = tokenizer.decode(list(token_ids), skip_special_tokens=True)
    cut = stop_at(text, sampling.stop)
    reason: Literal["stop", "length"] = "length" if cut is None and not ended else "stop"
    return Generation(text[:cut], tuple(token_ids), tuple(logprobs), reason, prompt_tokens)


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """`prompts` as ids [B, L] and attention mask [B, L], padded on the left."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        mask[row, longest - len(prompt) :] = 1
    return ids, mask


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, with room for the tokens to come: a step writes its column and copies no other."""

    keys: Tensor
    values: Tensor
    _rooms: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if self._rooms is None or end > self._rooms[0].shape[-2]:
            shape = (*key_states.shape[:-2], end + ROOM)
            rooms = (
                key_states.new_empty((*shape, key_states.shape[-1])),
                value_states.new_empty((*shape, value_states.shape[-1])),
            )
            if begin:
                rooms[0][..., :begin, :], rooms[1][..., :begin, :] = self.keys, self.values
            self._rooms = rooms
        keys, values = self._rooms
        keys[..., begin:end, :], values[..., begin:end, :] = key_states, value_states
        self.keys, self.values = keys[..., :end, :], values[..., :end, :]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        if self._rooms is None:
            return
        length = self.get_seq_length()
        self._rooms = (self._rooms[0][indices], self._rooms[1][indices])
        self.keys, self.values = self._rooms[0][..., :length, :], self._rooms[1][..., :length, :]


def roomy_cache(config: PreTrainedConfig) -> DynamicCache:
    """An empty cache for a model of `config`; layers that slide stay as transformers makes them."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


@contextmanager
def packed_weights(model: PreTrainedModel, rows: int) -> Iterator[None]:
    """Let the linear layers of `model` work on weights laid out for products with `rows` rows.

    On a CPU PyTorch lays bfloat16 weights out anew for every product; here it is done once, in the time of two steps
    and with a second copy of the weights for as long as this lasts. The products have the same bits either way.
    """
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    linears = [
        module for module in linears if module.weight.device.type == "cpu" and module.weight.dtype == torch.bfloat16
    ]
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        linears = []
    for module in linears:
        packed = torch.ops.mkldnn._reorder_linear_weight(module.weight.detach(), rows)
        module.__dict__["forward"] = partial(_packed_linear, weight=packed, bias=module.bias)
    try:
        yield
    finally:
        for module in linears:
            del module.__dict__["forward"]


def _packed_linear(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return product


class TransformersEngine:
    """Generation by plain transformers."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> None:
        """Draw from `model` where it lies, `batch_size` rows at once; who trains it samples from what was trained."""
        self.model = model
        self.tokenizer = tokenizer
        self.device = model.device
        self._batch_size = batch_size

    @classmethod
    def load(cls, folder: Path, dtype: str, batch_size: int) -> Self:
        """Load the Hugging Face folder `folder`, on a GPU where there is one.

        Raises:
            BadInput: the folder holds no model.
        """
        model = load_model(folder, dtype).to("cuda" if torch.cuda.is_available() else "cpu").eval()
        return cls(model, AutoTokenizer.from_pretrained(folder), batch_size)

    def render(self, chat: Sequence[dict[str, str]]) -> list[int]:
        return render_prompt(self.tokenizer, chat)

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]) -> list[Generation]:
        found: list[Generation | None] = [None] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        with packed_weights(self.model, min(len(prompts), self._batch_size)):
            for start in range(0, len(order), self._batch_size):
                rows = [_Row(index, samplings[index]) for index in order[start : start + self._batch_size]]
                for _ in self._draw([prompts[row.index] for row in rows], rows):
                    pass
                for row in rows:
                    found[row.index] = self._finished(row, len(prompts[row.index]))
        return [generation for generation in found if generation is not None]

    def stream(
        self, prompt: Sequence[int], sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Generator[str, None, Generation]:
        row = _Row(0, sampling)
        shown = 0
        for _ in self._draw([prompt], [row]):
            if cancelled():
                break
            if piece := fresh_text(self._text(row), shown, sampling.stop, row.finish is not None):
                yield piece
                shown += len(piece)
        result = self._finished(row, len(prompt))
        if len(result.text) > shown:
            yield result.text[shown:]
        return result

    def _draw(self, prompts: Sequence[Sequence[int]], rows: list[_Row]) -> Iterator[None]:
        """Draw tokens until every row has finished; yields after each step. Iterate under no-grad or as a stream."""
        # Rows with one prompt share its pass through the model.
        different = list(dict.fromkeys(tuple(prompt) for prompt in prompts))
        with torch.inference_mode():
            ids, mask = pad_left(different, self.tokenizer.pad_token_id)
            ids, mask = ids.to(self.device), mask.to(self.device)
            positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
            mask = mask.bool()
            cache = roomy_cache(self.model.config)
            logits = self._next_logits(ids, mask, positions, cache)
            if len(different) < len(rows):
                place = {prompt: index for index, prompt in enumerate(different)}
                of_row = torch.tensor([place[tuple(prompt)] for prompt in prompts], device=self.device)
                logits, mask, positions = logits[of_row], mask[of_row], positions[of_row]
                cache.batch_select_indices(of_row)
        active = list(rows)
        while True:
            with torch.inference_mode():
                tokens = draw(logits, active)
                chosen = torch.tensor(tokens, device=self.device)
                for row, token in zip(active, tokens, strict=True):
                    if row.finish is None:
                        self._append(row, token)
                asking = [position for position, row in enumerate(active) if len(row.logprobs) < row.wanted_logprobs]
                if asking:
                    found = logits[asking].float().log_softmax(dim=-1).gather(1, chosen[asking, None])
                    for position, logprob in zip(asking, found.squeeze(1).tolist(), strict=True):
                        active[position].logprobs.append(logprob)
            yield
            going = [position for position, row in enumerate(active) if row.finish is None]
            if not going:
                return
            with torch.inference_mode():
                if len(going) <= len(active) * (1 - LEAVE_SHARE):
                    kept = torch.tensor(going, dtype=torch.long, device=self.device)
                    active = [active[position] for position in going]
                    cache.batch_select_indices(kept)
                    mask, chosen, positions = mask[kept], chosen[kept], positions[kept]
                positions = positions[:, -1:] + 1
                mask = torch.cat([mask, mask.new_ones((len(active), 1))], dim=1)
                logits = self._next_logits(chosen[:, None], mask[:, None, None, :], positions, cache)

    def _next_logits(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """Logits [B, V] of the token that follows `ids` [B, L]; the cache grows by them.

        `mask` is [B, all tokens so far], or ready-made as [B, 1, 1, all tokens so far] for one token a row.
        """
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _append(self, row: _Row, token: int) -> None:
        if token == self.tokenizer.eos_token_id:
            row.finish = "stop"
            return
        row.tokens.append(token)
        if row.sampling.stop and stop_at(self._decoded(row), row.sampling.stop) is not None:
            row.finish = "stop"
        elif len(row.tokens) == row.sampling.max_new_tokens:
            row.finish = "length"

    def _decoded(self, row: _Row) -> str:
        text: str = self.tokenizer.decode(row.tokens, skip_special_tokens=True)
        return text

    def _text(self, row: _Row) -> str:
        text = self._decoded(row)
        end = stop_at(text, row.sampling.stop)
        return text if end is None else text[:end]

    def _finished(self, row: _Row, prompt_tokens: int) -> Generation:
        return finish(self.tokenizer, row.tokens, row.logprobs, row.finish == "stop", row.sampling, prompt_tokens)
