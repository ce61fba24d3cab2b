"""A next-token loss beside PPO's, which keeps the policy a language model, or one that can do as it was shown.

Source: Ouyang et al. 2022 (arXiv 2203.02155), section 3.5, who mix in the pretraining data (PPO-ptx).
"""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_rows
from pipelines.core.sections.alignment import PretrainingMix
from pipelines.data.shards import ShardManifest, batch_windows, open_tokens, window, window_count
from pipelines.model.logits import chosen_logprobs, head_weight
from pipelines.model.rendering import Rendered, rendered_conversations


class Batch(NamedTuple):
    """`ids` [sequences, length]; `learned` [sequences, length − 1] says which of the tokens after the first count."""

    ids: Tensor
    learned: Tensor


class Mix(NamedTuple):
    """`coefficient` times the mean loss per token on `batch_of` the number of an update."""

    coefficient: float
    batch_of: Callable[[int], Batch]

    def loss(self, policy: PreTrainedModel, update: int) -> Tensor:
        """The weighted loss of `policy`, nats a token."""
        ids, learned = (part.to(policy.device) for part in self.batch_of(update))
        hidden = policy.base_model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        return -self.coefficient * chosen_logprobs(hidden[learned], head_weight(policy), ids[:, 1:][learned]).mean()


def corpus_windows(params: PretrainingMix, seed: int) -> Callable[[int], Batch]:
    """Windows of the corpus' token shards.

    Raises:
        BadInput: they hold not even one window.
    """
    manifest = ShardManifest.read(artifacts.TOKENS_MANIFEST)
    tokens = open_tokens(artifacts.TOKENIZE_CORPUS, manifest.train, manifest.dtype)
    length = params.sequence_tokens
    windows = window_count(len(tokens), length)
    if not windows:
        raise BadInput(f"the corpus has {len(tokens)} tokens, ppo.pretraining_mix.sequence_tokens is {length}")

    def batch_of(update: int) -> Batch:
        numbers = batch_windows(windows, update, params.sequences, seed)
        ids = torch.from_numpy(np.stack([window(tokens, int(number), length) for number in numbers]))
        return Batch(ids, torch.ones_like(ids[:, 1:], dtype=torch.bool))

    return batch_of


def padded(conversations: Sequence[Rendered]) -> Batch:
    """Conversations side by side, padded at their ends with a token that nothing learns."""
    ids, assistant = (
        torch.nn.utils.rnn.pad_sequence([torch.tensor(part) for part in parts], batch_first=True)
        for parts in zip(*conversations, strict=True)
    )
    return Batch(ids, assistant[:, 1:].bool())


def demonstrations(params: PretrainingMix, tokenizer: PreTrainedTokenizerBase, seed: int) -> Callable[[int], Batch]:
    """The conversations that SFT trained on, each pass in another order; assistant turns alone are learned.

    Raises:
        BadInput: there are fewer than one batch takes.
    """
    found = list(rendered_conversations(read_rows(artifacts.SFT_TRAIN), tokenizer, params.sequence_tokens))
    batches = len(found) // params.sequences
    if not batches:
        raise BadInput(f"there are {len(found)} demonstrations, ppo.pretraining_mix.sequences is {params.sequences}")

    def batch_of(update: int) -> Batch:
        epoch, number = divmod(update, batches)
        order = random.Random(f"{seed} {epoch}").sample(range(len(found)), len(found))
        return padded([found[index] for index in order[number * params.sequences :][: params.sequences]])

    return batch_of


def load_mix(params: PretrainingMix, tokenizer: PreTrainedTokenizerBase, seed: int) -> Mix:
    """What `ppo.pretraining_mix` names."""
    corpus = params.data == "corpus"
    batch_of = corpus_windows(params, seed) if corpus else demonstrations(params, tokenizer, seed)
    return Mix(params.coefficient, batch_of)
