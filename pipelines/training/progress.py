"""How far training is: a live bar on a terminal, a plain line every few seconds where there is none."""

import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

LINE_SECONDS = 10.0  # between two plain lines


def is_terminal(out: TextIO) -> bool:
    """Whether `out` can draw over what it has drawn."""
    return out.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class ProgressDisplay:
    """Shows each of `steps` steps with its figures, tokens/s and the time left; a context manager, which ends the bar.

    Rates are those since the first step, which may compile and warm up.
    """

    def __init__(
        self, name: str, steps: int, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._steps, self._clock = name, steps, clock
        self._out = out or sys.stdout
        self._since, self._before, self._tokens = clock(), -1, 0
        self._last_line, self._unsaid = -LINE_SECONDS, ""
        self.tokens_per_s = 0.0
        self._bar: Progress | None = None
        if is_terminal(self._out):
            # Without a thread of its own: it is drawn at each step.
            columns = BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("{task.fields[said]}")
            console = Console(file=self._out)
            self._bar = Progress(TextColumn(name), *columns, console=console, expand=True, auto_refresh=False)
            self._task = self._bar.add_task(name, total=steps, said="")
            self._bar.start()
            self._bar.refresh()

    def step(self, done: int, tokens: int, **figures: float) -> None:
        """Step number `done`, from 1 on, is done.

        Args:
            tokens: what this step read or wrote.
            figures: what it measured, in the order in which it is shown.
        """
        now = self._clock()
        first = self._before < 0
        self._before = done - 1 if first else self._before
        self._tokens += tokens
        elapsed = now - self._since
        self.tokens_per_s = self._tokens / max(elapsed, 1e-9)
        left = elapsed / (done - self._before) * (self._steps - done)
        shown = [f"{name} {figure:.4g}" for name, figure in figures.items()]
        said = ", ".join([*shown, f"{self.tokens_per_s:,.0f} tokens/s", f"{timedelta(seconds=round(left))} left"])
        self._show(done, said, now)
        if first:
            self._since, self._before, self._tokens = now, done, 0

    def _show(self, done: int, said: str, now: float) -> None:
        if self._bar:
            self._bar.update(self._task, completed=done, said=said, refresh=True)
            return
        self._unsaid = f"{self._name}: step {done}/{self._steps}, {said}"
        if now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            self._say()

    def _say(self) -> None:
        if self._unsaid:
            print(self._unsaid, file=self._out, flush=True)
        self._unsaid = ""

    def close(self) -> None:
        """Leave the last state to be seen."""
        if self._bar:
            self._bar.stop()
        self._say()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
