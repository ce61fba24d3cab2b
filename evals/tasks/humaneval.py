"""HumanEval: the model completes a Python function, and the task's tests run against it in the sandbox.

A chat model is asked as a chat model: the request holds the beginning of the function, and the answer begins with it,
so that what is generated is the rest alone. Where no sandbox works every sample is unscored, with the reason.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.metrics import Score, pass_at_k
from evals.sandbox import Sandbox
from evals.task import SampleResult
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, read_rows
from pipelines.model.engine import Sampling

# A line that begins in the first column ends the function.
STOP = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\n@", "\n```", "\n>>>", "\nassert", "\nimport ", "\nfrom ")


def prompt_ids(engine: Any, row: Row) -> list[int]:
    """The request and the beginning of the answer. No line break at the end: models begin their own line."""
    code = f"```python\n{row['prompt'].rstrip()}"
    request = engine.render([{"role": "user", "content": f"Complete this Python function.\n{code}\n```"}])
    return [*request, *engine.tokenizer(code, add_special_tokens=False)["input_ids"]]


def program(row: Row, completion: str) -> str:
    """Prompt, completion and tests as one program that ends silently when the completion is right."""
    return f"{row['prompt']}{completion}\n\n{row['test']}\n\ncheck({row['entry_point']})\n"


@dataclass(frozen=True, slots=True)
class HumanEval:
    """The first `tasks` tasks of `data`, one greedy completion each."""

    data: Path
    tasks: int
    max_new_tokens: int
    timeout_s: float
    sandbox: Sandbox
    seed: int
    name: str = "humaneval"
    metrics: tuple[str, ...] = ("pass_at_1",)
    groups: tuple[str, ...] = ()

    def run(self, engine: Any) -> list[SampleResult]:
        rows = list(read_rows(self.data))[: self.tasks]
        if self.tasks and not rows:
            raise BadInput(f"{self.data} has no tasks")
        sampling = Sampling(self.max_new_tokens, temperature=0.0, top_p=1.0, seed=self.seed, stop=STOP)
        generated = engine.generate([prompt_ids(engine, row) for row in rows], [sampling] * len(rows))
        completions = [generation.text for generation in generated]
        if reason := self.sandbox.unscored:
            return [
                SampleResult(row["task_id"], row["prompt"], completion, {}, f"not run: {reason}")
                for row, completion in zip(rows, completions, strict=True)
            ]
        programs = [program(row, completion) for row, completion in zip(rows, completions, strict=True)]
        return [
            SampleResult(
                row["task_id"],
                row["prompt"],
                completion,
                {"pass_at_1": Score(pass_at_k(1, int(ended.passed), 1))},
                detail={"ended": ended.reason},
            )
            for row, completion, ended in zip(
                rows, completions, self.sandbox.run(programs, self.timeout_s), strict=True
            )
        ]
