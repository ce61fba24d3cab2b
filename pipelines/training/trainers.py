"""What the stages that train with TRL share: arguments, the optimizer, checkpoints by time, and going on from one."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from pipelines.core import artifacts
from pipelines.core.jsonl import read_json, write_json
from pipelines.core.stage import Stage
from pipelines.training.callbacks import report_to
from pipelines.training.checkpointing import (
    COMPLETE,
    KEPT,
    Interval,
    identity_of,
    require_same,
    require_space,
    tensor_bytes,
)


def arguments_of(stage: Stage, batch: int, learning_rate: float, epochs: float) -> dict[str, Any]:
    """The arguments that every trainer of TRL is given here.

    The model's weights have the dtype that it computes in, so no autocast; see `MasterAdamW`.
    """
    return {
        "output_dir": str(artifacts.checkpoints_of(stage.name)),
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch,
        "learning_rate": learning_rate,
        "bf16": False,
        "fp16": False,
        "use_cpu": not torch.cuda.is_available(),
        "activation_checkpointing": False,
        "save_strategy": "no",  # `SavesByTime` says when
        "save_total_limit": KEPT,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "include_num_input_tokens_seen": "non_padding",
        "logging_nan_inf_filter": False,
        "seed": stage.params.seed,
    }


class LengthGrouped(Sampler[int]):
    """Like lengths in one batch, in an order that depends on seed and epoch alone, so that training can go on in it."""

    def __init__(self, lengths: list[int], batch: int, seed: int) -> None:
        self._lengths, self._batch, self._seed, self._epoch = lengths, batch, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        return iter(get_length_grouped_indices(self._lengths, self._batch, generator=generator))


class SavesByTime(TrainerCallback):
    """Asks for a checkpoint every so many seconds, while there is space for it, and marks it complete."""

    def __init__(self, seconds: float, identity: dict[str, Any]) -> None:
        self._interval = Interval(seconds)
        self._identity = identity

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self._interval.passed():
            folder = Path(args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            size = tensor_bytes([*kwargs["model"].parameters()]) + tensor_bytes(kwargs["optimizer"].state_dict())
            saved = complete_checkpoints(folder)
            kept = f"the last good checkpoint is {saved[-1]}" if saved else "there is no earlier checkpoint"
            require_space(folder, size, kept)
            control.should_save = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        path = Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE
        write_json(path, self._identity)


def complete_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder` that were written to the end, oldest first."""
    found = (path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}"))
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def run_trainer(trainer: Trainer, stage: Stage, inputs: Iterable[Path]) -> None:
    """Run `trainer` to its end, from its last checkpoint on where there is one, with its figures in MLflow.

    Raises:
        BadInput: the checkpoint belongs to another configuration, the disk is full, or the loss is not finite.
    """
    identity = identity_of(stage, inputs)
    folder = Path(trainer.args.output_dir)
    saved = complete_checkpoints(folder)
    for path in folder.glob("checkpoint-*"):
        if path not in saved:
            shutil.rmtree(path)  # a kill cut it off
    trainer.add_callback(SavesByTime(stage.params.resources.checkpoint_interval_s, identity))
    if saved:
        require_same(read_json(saved[-1] / COMPLETE), identity, saved[-1])
        print(f"goes on after step {saved[-1].name.rpartition('-')[2]}, from {saved[-1]}", flush=True)
    with closing(report_to(trainer, stage)):
        trainer.train(resume_from_checkpoint=str(saved[-1]) if saved else None)
