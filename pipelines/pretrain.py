"""Train the language model on token shards, from random weights or from the base model; 0 steps pass a base model on.

In: `artifacts/tokenize_corpus/`, `artifacts/train_tokenizer/`, and `artifacts/ingest/base_model/` unless scratch.
Out: `artifacts/pretrain/`, a Hugging Face folder with tokenizer and chat template; metrics: held-out perplexity and
bits per byte of exactly these weights.
"""

import functools
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from pipelines.core import artifacts
from pipelines.core.config import Params, load_params
from pipelines.core.errors import BadInput
from pipelines.core.sections.training import Pretrain
from pipelines.core.stage import Stage, open_stage
from pipelines.data.shards import ShardManifest, TokenStream, open_tokens, window_count
from pipelines.model import architecture
from pipelines.model.checkpoints import find_base_model, fit_to_tokenizer, load_base_model, save_model
from pipelines.training.checkpointing import Checkpoints, OptimizerCheckpoints, clear
from pipelines.training.compilation import keep_freed_memory, should_compile
from pipelines.training.distributed import (
    DeepSpeedOptimizer,
    Rank,
    RankCheckpoints,
    configuration,
    enter,
    launch,
    leave,
    this_rank,
    wants_launch,
)
from pipelines.training.next_token import Batches, HeldOut, LanguageModelLoss, StepResult, held_out_loss, train_step
from pipelines.training.optimizer import BETAS, MasterAdamW
from pipelines.training.progress import ProgressDisplay
from pipelines.training.schedules import cosine, wsd
from pipelines.training.seeding import seed_everything
from pipelines.training.throughput import flops_per_token, mfu, peak_flops

EVALUATIONS = 4  # over the run, the last on the weights that are saved
LOG_POINTS = 50  # over the run: each is a request to the tracking server


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


def schedule(params: Pretrain) -> Callable[[int], float]:
    """The learning rate as a function of the step."""
    if params.schedule == "wsd":
        factor = functools.partial(wsd, warmup_share=params.warmup_share, decay_share=params.decay_share)
    else:
        factor = functools.partial(cosine, warmup_share=params.warmup_share)
    return lambda step: params.learning_rate * factor(step, params.steps)


def deal(params: Pretrain, seed: int, tokens: int, rank: Rank) -> Batches:
    """How the corpus of `tokens` tokens is dealt out to steps, processes and micro-batches.

    Raises:
        BadInput: the corpus is shorter than one window, or a step can't be split evenly.
    """
    if not window_count(tokens, params.sequence_tokens):
        raise BadInput(
            f"the corpus has {tokens} tokens, one sequence takes {params.sequence_tokens}; add text or shorten it"
        )
    if params.batch_sequences % (params.accumulate * rank.ranks):
        raise BadInput(
            f"pretrain.batch_sequences {params.batch_sequences} can't be split into {params.accumulate} equal "
            f"micro-batches for each of {rank.ranks} processes; change pretrain.accumulate"
        )
    return Batches(params.sequence_tokens, params.batch_sequences, params.accumulate, seed, rank.rank, rank.ranks)


class Report:
    """What training says of itself: curves to the tracker, its progress to the terminal; silent without `progress`.

    Args:
        flops: those of one token.
    """

    def __init__(self, stage: Stage, flops: float, rank: Rank, progress: ProgressDisplay | None) -> None:
        self._stage = stage
        self._params = stage.params.pretrain
        self._flops = flops
        self._progress = progress
        peak = peak_flops(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
        self._peak = None if peak is None else peak * rank.ranks

    def step(self, done: int, result: StepResult, rate: float) -> None:
        """After `done` steps."""
        if self._progress is None:
            return
        self._progress.step(done, self._params.batch_sequences * self._params.sequence_tokens, loss=result.loss)
        steps, speed = self._params.steps, self._progress.tokens_per_s
        if done % max(1, steps // LOG_POINTS) == 0 or done == steps:
            numbers = {**result._asdict(), "learning_rate": rate, "tokens_per_s": speed}
            share = mfu(speed, self._flops, self._peak)
            self._stage.tracker.log_metrics(numbers if share is None else numbers | {"mfu": share}, done)

    def held_out(self, done: int, measured: HeldOut) -> None:
        self._stage.tracker.log_metrics(measured.metrics, done)


def start_optimizer(params: Pretrain, loss_of: LanguageModelLoss, rank: Rank) -> MasterAdamW | DeepSpeedOptimizer:
    """AdamW of one process, or DeepSpeed's of several."""
    if not rank.launched:
        return MasterAdamW(loss_of.model, params.dtype, params.learning_rate, params.weight_decay, BETAS)
    sequences = params.batch_sequences // params.accumulate // rank.ranks
    config = configuration(params.distributed, params.dtype, params.max_grad_norm, sequences, params.accumulate)
    return DeepSpeedOptimizer(loss_of, params.weight_decay, config)


def train(
    stage: Stage,
    loss_of: LanguageModelLoss,
    optimizer: MasterAdamW | DeepSpeedOptimizer,
    tokens: TokenStream,
    measure: Callable[[], HeldOut],
    report: Report,
    rank: Rank,
    checkpoints: OptimizerCheckpoints | RankCheckpoints,
) -> float:
    """Train up to `pretrain.steps`, from the last checkpoint on; returns the mean loss of the last tenth.

    What is read at a step is a function of its number, so weights and optimizer are all there is to go on from.

    Raises:
        BadInput: the loss or its gradient is no number any more.
    """
    params = stage.params.pretrain
    batches, rate_at, device = (
        deal(params, stage.params.seed, len(tokens), rank),
        schedule(params),
        loss_of.model.device,
    )
    done, losses = checkpoints.resume()
    trained = optimizer.engine if isinstance(optimizer, DeepSpeedOptimizer) else loss_of
    loss_of.train()
    for step in range(done, params.steps):
        result = train_step(trained, optimizer, batches.of(tokens, step, device), rate_at(step), params.max_grad_norm)
        if not result.finite:
            numbers = batches.windows(window_count(len(tokens), params.sequence_tokens), step)
            raise BadInput(
                f"pretrain: loss {result.loss}, gradient norm {result.grad_norm} at step {step} (windows {numbers}); "
                "lower pretrain.learning_rate or pretrain.max_grad_norm, or use dtype float32"
            )
        losses.append(result.loss)
        done = step + 1
        report.step(done, result, rate_at(step))
        if checkpoints.due():
            checkpoints.save(done, losses)
        if done % max(1, params.steps // EVALUATIONS) == 0 and done < params.steps:
            loss_of.eval()
            report.held_out(done, measure())
            loss_of.train()
    last = losses[-max(1, params.steps // 10) :]
    return sum(last) / len(last)


def main() -> None:
    rank = this_rank()
    if not rank.launched:
        with suppress(BadInput):  # open_stage says it better
            wanted = load_params(Path("params.yaml")).pretrain
            if wanted.steps and wants_launch(wanted.distributed):
                sys.exit(launch("pipelines.pretrain", wanted.distributed))
    else:
        enter(rank)
    with open_stage("pretrain") as stage:
        params = stage.params.pretrain
        wants_launch(params.distributed)
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

        # Step 1: the weights to start from. Training needs what rounding to `dtype` would lose.
        model = starting_model(stage.params, tokenizer, "float32" if params.steps else params.dtype)
        device = torch.device("cuda", rank.local) if torch.cuda.is_available() else torch.device("cpu")
        # Adding up in one order costs attention's backward dearly on a GPU; runs repeat to the bit on CPUs.
        torch.use_deterministic_algorithms(device.type == "cpu", warn_only=True)
        model.to(device)  # type: ignore[arg-type]
        trained_tokens = params.steps * params.batch_sequences * params.sequence_tokens
        flops = flops_per_token(model, params.sequence_tokens)
        compile = should_compile(params.compile, device.type, trained_tokens * flops)
        # ZeRO 3 fetches weights as modules run, which a compiled graph does not let it.
        loss_of = LanguageModelLoss(model, compile and params.steps > 0 and params.distributed.zero_stage < 3)
        measure = functools.partial(
            held_out_loss,
            loss_of,
            held_out,
            params.sequence_tokens,
            manifest.held_out.bytes / manifest.held_out.tokens,
            device,
        )
        metrics: dict[str, float] = {
            "passed_through": float(params.steps == 0),
            "steps": params.steps,
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "trained_tokens": trained_tokens,
        }

        # Step 2: train. The weights that are saved are those that were trained, in `dtype`.
        optimizer = None
        if params.steps:
            if device.type == "cpu":
                keep_freed_memory()
            optimizer = start_optimizer(params, loss_of, rank)
            saved = Checkpoints.of(stage, [artifacts.TOKENS_MANIFEST, artifacts.TRAIN_TOKENIZER])
            checkpoints: OptimizerCheckpoints | RankCheckpoints = (
                RankCheckpoints(saved, optimizer.engine, rank)
                if isinstance(optimizer, DeepSpeedOptimizer)
                else OptimizerCheckpoints(saved, optimizer)
            )
            progress = ProgressDisplay("pretrain", params.steps) if rank.first else None
            report = Report(stage, flops, rank, progress)
            with progress or nullcontext():
                metrics["train_loss"] = train(stage, loss_of, optimizer, tokens, measure, report, rank, checkpoints)
        else:
            print("pretrain: 0 steps, the base model passes through")

        # Step 3: measure and save.
        loss_of.eval()
        measured = measure()
        with optimizer.whole_weights() if isinstance(optimizer, DeepSpeedOptimizer) else nullcontext():
            if rank.first:
                print(f"pretrain: held-out perplexity {measured.metrics['held_out_perplexity']:.2f}")
                save_model(model if rank.launched else model.cpu(), tokenizer, stage.out)
                stage.write_metrics(metrics | measured.metrics | {"held_out_tokens": measured.tokens})
                clear(stage)
    if rank.launched:
        leave()


if __name__ == "__main__":
    main()
