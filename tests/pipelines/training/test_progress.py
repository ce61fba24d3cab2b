"""Progress: a bar on a terminal, plain lines some seconds apart without one, and what each says."""

import io
from collections.abc import Callable

import pytest

from pipelines.training.progress import LINE_SECONDS, ProgressDisplay, is_terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that is `seconds` on each time it is asked, from 0 on."""
    times = iter(range(1000))
    return lambda: next(times) * seconds


def test_rates_are_those_since_the_first_step() -> None:
    out = io.StringIO()
    times = iter([0.0, 100.0, 110.0, 120.0])  # the first step warms up
    with ProgressDisplay("sft", 8, out, lambda: next(times)) as display:
        display.step(1, 500, loss=2.0)
        assert display.tokens_per_s == 5.0
        display.step(2, 500, loss=1.5)
        display.step(3, 1500, loss=1.23456)
        assert display.tokens_per_s == 100.0
    assert out.getvalue().splitlines() == [
        "sft: step 1/8, loss 2, 5 tokens/s, 0:11:40 left",
        "sft: step 2/8, loss 1.5, 50 tokens/s, 0:01:00 left",
        "sft: step 3/8, loss 1.235, 100 tokens/s, 0:00:50 left",
    ]


def test_a_run_that_goes_on_counts_its_own_steps_only() -> None:
    out = io.StringIO()
    with ProgressDisplay("ppo", 10, out, ticking(10.0)) as display:
        display.step(6, 100, reward=0.5)
    assert out.getvalue() == "ppo: step 6/10, reward 0.5, 10 tokens/s, 0:00:40 left\n"


def test_plain_lines_keep_their_distance_and_the_last_step_is_said() -> None:
    out = io.StringIO()
    with ProgressDisplay("pretrain", 25, out, ticking(LINE_SECONDS / 10)) as display:
        for step in range(1, 26):
            display.step(step, 10, loss=1.0)
    assert [line.split(",")[0] for line in out.getvalue().splitlines()] == [
        f"pretrain: step {step}/25" for step in (1, 11, 21, 25)
    ]


def test_a_training_that_fails_has_said_its_last_step() -> None:
    out = io.StringIO()
    with pytest.raises(ZeroDivisionError), ProgressDisplay("dpo", 9, out, ticking(1.0)) as display:
        display.step(1, 10, loss=1.0)
        display.step(2, 10, loss=9.0)
        raise ZeroDivisionError
    assert out.getvalue().splitlines()[-1].startswith("dpo: step 2/9, loss 9")


def test_a_terminal_has_a_bar_and_text_that_is_printed_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    with ProgressDisplay("grpo", 4, clock=ticking(1.0)) as display:
        display.step(1, 50, loss=0.5, reward=1.25)
        print("something else")
        display.step(2, 50, loss=0.25, reward=1.5)
    shown = out.getvalue()
    for part in ("grpo", "━", "2/4", "loss 0.25, reward 1.5, 50 tokens/s, 0:00:02 left", "something else"):
        assert part in shown
    assert "step 2/4" not in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back


@pytest.mark.parametrize("term", ["dumb", None])
def test_what_can_not_draw_is_no_terminal(term: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert is_terminal(Terminal())
    assert not is_terminal(io.StringIO())
    if term:
        monkeypatch.setenv("TERM", term)
    else:
        monkeypatch.delenv("TERM")
    assert not is_terminal(Terminal())
