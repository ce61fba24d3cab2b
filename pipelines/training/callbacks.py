"""What the trainers of TRL report: their numbers to the stage's MLflow run, and a plain line of progress."""

import math
import time
from typing import Any

from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipelines.core.errors import BadInput
from pipelines.core.tracking import Tracker


class TrackerCallback(TrainerCallback):
    """Sends what a trainer logs to `tracker`, step by step, and stops on a loss that is not finite."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._started = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        numbers = {key: float(value) for key, value in (logs or {}).items() if isinstance(value, int | float)}
        self._tracker.log_metrics(numbers, step=state.global_step)
        if "loss" not in numbers:
            return
        if not math.isfinite(numbers["loss"]):
            raise BadInput(f"the loss is {numbers['loss']} at step {state.global_step}; lower the learning rate")
        elapsed = time.monotonic() - self._started
        left = elapsed / max(1, state.global_step) * (state.max_steps - state.global_step)
        place = f"step {state.global_step}/{state.max_steps}"
        print(f"{place}: loss {numbers['loss']:.4f}, {elapsed:.0f} s, {left:.0f} s left", flush=True)


def report_to(trainer: Trainer, tracker: Tracker) -> None:
    """Let `trainer` report to `tracker`, in place of its own printing."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(TrackerCallback(tracker))
