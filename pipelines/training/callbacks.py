"""What the trainers of TRL report: their numbers to the stage's MLflow run, and how far they are."""

import math
from typing import Any

from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipelines.core.errors import BadInput
from pipelines.core.stage import Stage
from pipelines.training.progress import ProgressDisplay

SHOWN = ("loss", "reward", "kl")  # of what a trainer logs, beside its progress


class TrackerCallback(TrainerCallback):
    """Sends what a trainer of `stage` logs to its tracker, shows each step, and stops on a loss that is not finite."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._progress: ProgressDisplay | None = None
        self._tokens = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._progress = ProgressDisplay(self._stage.name, state.max_steps)
        self._tokens = state.num_input_tokens_seen

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        numbers = {key: float(value) for key, value in (logs or {}).items() if isinstance(value, int | float)}
        if "loss" in numbers and self._progress:
            if not math.isfinite(numbers["loss"]):
                raise BadInput(f"the loss is {numbers['loss']} at step {state.global_step}; lower the learning rate")
            shown = {name: numbers[name] for name in SHOWN if name in numbers}
            self._progress.step(state.global_step, state.num_input_tokens_seen - self._tokens, **shown)
            self._tokens = state.num_input_tokens_seen
            numbers["tokens_per_s"] = self._progress.tokens_per_s
        self._stage.tracker.log_metrics(numbers, step=state.global_step)

    def close(self) -> None:
        """Training has ended, well or not."""
        if self._progress:
            self._progress.close()


def report_to(trainer: Trainer, stage: Stage) -> TrackerCallback:
    """Let `trainer` report as `stage` does, in place of its own printing; close what is returned after training."""
    reporting = TrackerCallback(stage)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(reporting)
    return reporting
