"""Fine-tunes a small BERT encoder with one output per category, on CPU, from a Hugging Face folder."""

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from pipelines.core.digests import file_sha256
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import write_json
from pipelines.core.sections.data import ModerationEncoder
from pipelines.data.labelled import Example
from pipelines.model.encoder_moderation import SCREEN, TOKENIZER, WEIGHTS, EncoderModerator
from pipelines.model.moderation import CONFIG, FORMAT
from pipelines.model.ngram_moderation import NGramModerator

WARMUP_SHARE = 0.06
WEIGHT_DECAY = 0.01
MAX_GRAD_NORM = 1.0
STEPS_BETWEEN_REPORTS = 20
BUCKET_BATCHES = 50  # batches of similar length are drawn from so many batches of random texts


class Labels(NamedTuple):
    """What is known of each category: `targets` and `known`, float32 [texts, categories] of 0 and 1."""

    targets: NDArray[np.float32]
    known: NDArray[np.float32]


def labels_of(examples: Sequence[Example], categories: Sequence[str]) -> Labels:
    """The labels as arrays. An inoffensive comment of a source is taken to be harmless altogether."""
    targets = np.array([[example.labels.get(category, 0) for category in categories] for example in examples])
    known = np.array(
        [
            [
                category in example.labels or example.origin != "source" or not any(example.labels.values())
                for category in categories
            ]
            for example in examples
        ]
    )
    return Labels(targets.astype(np.float32), known.astype(np.float32))


class EncoderClassifier(nn.Module):
    """Mean of the encoder's last hidden states, then one linear output per category."""

    def __init__(self, encoder: PreTrainedModel, categories: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.hidden_size, categories)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [batch, categories] of token ids [batch, tokens] with mask 1 for real tokens."""
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return self.head((hidden * weights).sum(1) / weights.sum(1))


def load_tokenizer(folder: Path, max_tokens: int) -> Tokenizer:
    """The fast tokenizer of a Hugging Face folder, cutting at `max_tokens`, without padding.

    Raises:
        BadInput: there is none.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise BadInput(f"{folder} has no tokenizer.json; name a model folder that has one")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    return tokenizer


def batches(lengths: NDArray[np.int64], size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Indices of texts, each once, in batches of similar length and random order."""
    order = rng.permutation(len(lengths))
    for start in range(0, len(order), size * BUCKET_BATCHES):
        bucket = order[start : start + size * BUCKET_BATCHES]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        parts = [bucket[at : at + size] for at in range(0, len(bucket), size)]
        yield from (parts[at] for at in rng.permutation(len(parts)))


def endless_batches(lengths: NDArray[np.int64], size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Epoch after epoch of `batches`."""
    while True:
        yield from batches(lengths, size, rng)


def padded(ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids [batch, longest] and their mask, padded with 0."""
    longest = max(len(row) for row in ids)
    tokens = torch.zeros(len(ids), longest, dtype=torch.long)
    mask = torch.zeros(len(ids), longest, dtype=torch.long)
    for at, row in enumerate(ids):
        tokens[at, : len(row)] = torch.tensor(row)
        mask[at, : len(row)] = 1
    return tokens, mask


def masked_loss(logits: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy, mean over what is known; all three are [batch, categories]."""
    losses = nn.functional.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def train_encoder(
    base: Path, examples: Sequence[Example], categories: Sequence[str], params: ModerationEncoder, seed: int
) -> EncoderClassifier:
    """Fine-tune the encoder in `base`, its word embeddings excepted, in bfloat16 over float32 weights.

    Raises:
        BadInput: `base` holds no encoder.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    encoder = load_encoder(base)
    model = EncoderClassifier(encoder, len(categories))
    encoder.embeddings.word_embeddings.weight.requires_grad = False  # most words are in few texts
    tokenizer = load_tokenizer(base, params.train_tokens)
    ids = [encoding.ids for encoding in tokenizer.encode_batch([example.text for example in examples])]
    lengths = np.array([len(row) for row in ids])
    targets, known = map(torch.from_numpy, labels_of(examples, categories))
    steps = max(1, round(params.epochs * len(ids) / params.batch_texts))
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, params.learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / max(1, WARMUP_SHARE * steps), 1 - step / steps)
    )
    model.train()
    started = time.monotonic()
    for step, batch in zip(range(1, steps + 1), endless_batches(lengths, params.batch_texts, rng), strict=False):
        tokens, mask = padded([ids[at] for at in batch])
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(tokens, mask)
        loss = masked_loss(logits, targets[batch], known[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % STEPS_BETWEEN_REPORTS == 0 or step == steps:
            speed = step * params.batch_texts / (time.monotonic() - started)
            print(f"train_moderation: step {step} of {steps}, loss {loss.item():.4f}, {speed:.0f} texts/s", flush=True)
    return model.eval()


def load_encoder(base: Path) -> PreTrainedModel:
    """The encoder of a Hugging Face folder in float32.

    Raises:
        BadInput: there is none that this project can run.
    """
    if not (base / "config.json").is_file():
        raise BadInput(f"{base} has no config.json; name an encoder in ingest.moderation_base")
    encoder = AutoModel.from_pretrained(base, add_pooling_layer=False, local_files_only=True, use_safetensors=True)
    if encoder.config.model_type != "bert":
        raise BadInput(f"{base} is a {encoder.config.model_type} model; ingest.moderation_base must be a BERT encoder")
    return encoder


def save_encoder(
    model: EncoderClassifier, screen: NGramModerator, base: Path, params: ModerationEncoder, folder: Path
) -> EncoderModerator:
    """Write the folder that `EncoderModerator` reads, weights in float16; returns it loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {name.removeprefix("encoder."): tensor for name, tensor in model.state_dict().items()}
    tensors = {name: tensor.to(torch.float16).contiguous() for name, tensor in named.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    screen.save(folder / SCREEN)
    shutil.copyfile(base / TOKENIZER, folder / TOKENIZER)
    config = {
        "format": FORMAT,
        "kind": "encoder",
        "categories": list(screen.categories),
        "heads": model.encoder.config.num_attention_heads,
        "epsilon": model.encoder.config.layer_norm_eps,
        "suspicious": params.suspicious,
        "window_characters": params.window_characters,
        "window_tokens": params.window_tokens,
        "version": f"{file_sha256(folder / WEIGHTS)[:12]}-{screen.version}",
    }
    write_json(folder / CONFIG, config)
    return EncoderModerator.load(folder)
