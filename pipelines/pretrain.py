"""Train the language model on token shards, from random weights or from the base model; 0 steps pass a base model on.

In: `artifacts/tokenize_corpus/`, `artifacts/train_tokenizer/`, and `artifacts/ingest/base_model/` unless scratch.
Out: `artifacts/pretrain/`, a Hugging Face folder with tokenizer and chat template; metrics: held-out perplexity and
bits per byte of exactly these weights.
"""

import math
import shutil
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from pipelines.core import artifacts
from pipelines.core.config import Params, Pretrain
from pipelines.core.errors import BadInput
from pipelines.core.stage import Stage, open_stage
from pipelines.data.shards import ShardManifest, Tokens, batch_windows, open_tokens, window, window_count
from pipelines.model import architecture
from pipelines.model.checkpoints import cast_weights, find_base_model, fit_to_tokenizer, load_base_model, save_model
from pipelines.training.schedules import cosine
from pipelines.training.seeding import seed_everything

HELD_OUT_TOKENS = 4096  # some ± 4 % of perplexity, and seconds for a model of 135M on two cores; evaluate looks closer
EVALUATIONS = 4  # over the run, the last on the weights that are saved
LOG_POINTS = 50  # over the run: each is a request to the tracking server
PROGRESS_LINES = 10


class StepResult(NamedTuple):
    """What one optimizer step measured."""

    loss: float  # nats per token, before the step
    grad_norm: float  # before clipping


class HeldOut(NamedTuple):
    """Loss on text that was not trained on."""

    loss: float  # nats per token
    bits_per_byte: float
    tokens: int

    @property
    def metrics(self) -> dict[str, float]:
        return {
            "held_out_loss": self.loss,
            "held_out_perplexity": math.exp(min(self.loss, 700.0)),
            "held_out_bits_per_byte": self.bits_per_byte,
        }


def starting_model(params: Params, tokenizer: PreTrainedTokenizerBase, dtype: str) -> PreTrainedModel:
    """The weights that training starts from.

    Raises:
        BadInput: nothing to train and nothing to pass on, or a sequence longer than the model's context.
    """
    pretrain = params.pretrain
    if params.base_model.kind != "scratch":
        model = load_base_model(find_base_model(artifacts.INGEST_BASE_MODEL), dtype)
    elif pretrain.steps:
        model = architecture.build(pretrain.architecture, len(tokenizer))
    else:
        raise BadInput("pretrain.steps is 0 and base_model is scratch, so there is no model; set steps or a base model")
    context = model.config.max_position_embeddings
    if pretrain.sequence_tokens > context:
        raise BadInput(f"pretrain.sequence_tokens is {pretrain.sequence_tokens}, the model's context is {context}")
    fit_to_tokenizer(model, tokenizer)
    return model


def mean_loss(model: Any, ids: Tensor) -> Tensor:
    """Next-token cross-entropy of `ids` [batch, length + 1] in nats per token."""
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: Any, tokens: Tokens, length: int, bytes_per_token: float, device: torch.device) -> HeldOut:
    """The loss over the first windows of `tokens`, up to HELD_OUT_TOKENS."""
    windows = min(window_count(len(tokens), length), max(1, HELD_OUT_TOKENS // length))
    losses = []
    for start in range(0, windows, 8):
        part = [window(tokens, index, length) for index in range(start, min(start + 8, windows))]
        losses += [mean_loss(model, torch.from_numpy(np.stack(part)).to(device)).item()] * len(part)
    loss = sum(losses) / len(losses)
    return HeldOut(loss, loss / math.log(2) / bytes_per_token, windows * length)


def adamw(model: PreTrainedModel, params: Pretrain) -> torch.optim.AdamW:
    """AdamW; norms and biases are not decayed."""
    matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
    vectors = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [{"params": matrices, "weight_decay": params.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=params.learning_rate, betas=(0.9, 0.95), fused=True)


def train_step(model: Any, optimizer: torch.optim.Optimizer, ids: Tensor, rate: float, params: Pretrain) -> StepResult:
    """One step on `ids` [batch, length + 1] at learning rate `rate`; a loss that is no number changes nothing."""
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=params.dtype == "bfloat16"):
        loss = mean_loss(model, ids)
    if not torch.isfinite(loss):
        return StepResult(loss.item(), math.nan)
    loss.backward()
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    grad_norm = torch.nn.utils.clip_grad_norm_(weights, params.max_grad_norm)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepResult(loss.item(), float(grad_norm))


def _compiled(model: PreTrainedModel) -> Any:
    if not any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++")):
        raise BadInput("pretrain.compile needs a C++ compiler and there is none; install g++ or set it to false")
    return torch.compile(model)


def train(stage: Stage, model: PreTrainedModel, tokens: Tokens, held_out: Tokens, bytes_per_token: float) -> float:
    """Train `model` in place for `pretrain.steps` steps; returns the mean loss of the last tenth.

    Raises:
        BadInput: the corpus is shorter than one window, or the loss is no number any more.
    """
    params, seed = stage.params.pretrain, stage.params.seed
    length, steps = params.sequence_tokens, params.steps
    windows = window_count(len(tokens), length)
    if not windows:
        raise BadInput(f"the corpus has {len(tokens)} tokens, one sequence takes {length}; add text or shorten it")
    device = model.device
    optimizer = adamw(model, params)
    forward = _compiled(model) if params.compile else model
    model.train()
    losses: list[float] = []
    started = time.monotonic()
    for step in range(steps):
        numbers = batch_windows(windows, step, params.batch_sequences, seed)
        ids = torch.from_numpy(np.stack([window(tokens, int(number), length) for number in numbers])).to(device)
        rate = params.learning_rate * cosine(step, steps, params.warmup_share)
        result = train_step(forward, optimizer, ids, rate, params)
        if not math.isfinite(result.loss) or not math.isfinite(result.grad_norm):
            raise BadInput(
                f"pretrain: loss {result.loss}, gradient norm {result.grad_norm} at step {step} (windows "
                f"{numbers.tolist()}); lower pretrain.learning_rate or pretrain.max_grad_norm, or use dtype float32"
            )
        losses.append(result.loss)
        done = step + 1
        speed = done * params.batch_sequences * length / (time.monotonic() - started)
        if done % max(1, steps // LOG_POINTS) == 0 or done == steps:
            stage.tracker.log_metrics(
                {"loss": result.loss, "grad_norm": result.grad_norm, "learning_rate": rate, "tokens_per_s": speed}, done
            )
        if done % max(1, steps // PROGRESS_LINES) == 0 or done == steps:
            left = (time.monotonic() - started) / done * (steps - done)
            print(f"pretrain: step {done}/{steps}, loss {result.loss:.3f}, {speed:,.0f} tokens/s, {left:.0f} s left")
        if done % max(1, steps // EVALUATIONS) == 0 and done < steps:
            model.eval()
            measured = held_out_loss(model, held_out, length, bytes_per_token, device)
            stage.tracker.log_metrics(measured.metrics, done)
            model.train()
    return sum(losses[-max(1, steps // 10) :]) / max(1, steps // 10)


def main() -> None:
    with open_stage("pretrain") as stage:
        params = stage.params.pretrain
        seed_everything(stage.params.seed)
        tokenizer = AutoTokenizer.from_pretrained(artifacts.TRAIN_TOKENIZER, local_files_only=True)
        manifest = ShardManifest.read(artifacts.TOKENS_MANIFEST)
        tokens = open_tokens(artifacts.TOKENIZE_CORPUS, manifest.train, manifest.dtype)
        held_out = open_tokens(artifacts.TOKENIZE_CORPUS, manifest.held_out, manifest.dtype)
        if not window_count(len(held_out), params.sequence_tokens):
            raise BadInput(
                f"the held-out text has {len(held_out)} tokens, fewer than pretrain.sequence_tokens "
                f"({params.sequence_tokens}) + 1; raise prepare_corpus.held_out_share"
            )
        bytes_per_token = manifest.held_out.bytes / manifest.held_out.tokens

        # Training keeps full-precision weights and computes in `dtype`; only what is saved is rounded.
        model = starting_model(stage.params, tokenizer, "float32" if params.steps else params.dtype)
        model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # type: ignore[arg-type]
        metrics: dict[str, float] = {
            "passed_through": float(params.steps == 0),
            "steps": params.steps,
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "trained_tokens": params.steps * params.batch_sequences * params.sequence_tokens,
        }
        if params.steps:
            metrics["train_loss"] = train(stage, model, tokens, held_out, bytes_per_token)
        else:
            print("pretrain: 0 steps, the base model passes through")
        cast_weights(model, params.dtype)
        model.eval()
        measured = held_out_loss(model, held_out, params.sequence_tokens, bytes_per_token, model.device)
        print(f"pretrain: held-out perplexity {measured.metrics['held_out_perplexity']:.2f}")
        save_model(model.cpu(), tokenizer, stage.out)
        stage.write_metrics(metrics | measured.metrics | {"held_out_tokens": measured.tokens})


if __name__ == "__main__":
    main()
