"""HumanEval: the model completes a Python function, and the task's tests run against it in the sandbox.

A chat model is asked as a chat model: the request holds the beginning of the function, and the answer begins with it,
so that what is generated is the rest alone. Several completions a task give pass@k by the unbiased estimator. Where no
sandbox works every sample is unscored, with the reason.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.metrics import Score, pass_at_k
from evals.sandbox import Sandbox
from evals.task import SampleResult
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row
from pipelines.data.evaluation_sets import evaluation_rows
from pipelines.model.engine import Sampling

FIELDS = ("task_id", "prompt", "entry_point", "test")

# A line that begins in the first column ends the function.
STOP = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\n@", "\n```", "\n>>>", "\nassert", "\nimport ", "\nfrom ")


def prompt_ids(engine: Any, row: Row) -> list[int]:
    """The request and the beginning of the answer. No line break at the end: models begin their own line."""
    begun = row["prompt"].rstrip()
    # Not in a block of its own: a model that copies the request would close it after the last line given.
    asked = f"Write the body of this Python function. Answer with code only.\n\n{begun}"
    request = engine.render([{"role": "user", "content": asked}])
    return [*request, *engine.tokenizer(f"```python\n{begun}", add_special_tokens=False)["input_ids"]]


def program(row: Row, completion: str) -> str:
    """Prompt, completion and tests as one program that ends silently when the completion is right."""
    return f"{row['prompt']}{completion}\n\n{row['test']}\n\ncheck({row['entry_point']})\n"


@dataclass(frozen=True, slots=True)
class HumanEval:
    """The first `tasks` tasks of `data`, `completions` of each; pass@k for each of `ks`."""

    data: Path
    tasks: int
    completions: int
    ks: tuple[int, ...]
    temperature: float
    max_new_tokens: int
    timeout_s: float
    sandbox: Sandbox
    seed: int
    name: str = "humaneval"
    groups: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(f"pass_at_{k}" for k in self.ks)

    def samples(self) -> list[Row]:
        """The tasks.

        Raises:
            BadInput: there are none, one lacks a field, or more passes are asked for than completions.
        """
        if not self.ks or not 1 <= min(self.ks) <= max(self.ks) <= self.completions:
            raise BadInput(
                f"evaluate.humaneval_k {list(self.ks)} must be from 1 to evaluate.humaneval_completions "
                f"({self.completions})"
            )
        if self.completions > 1 and self.temperature == 0:
            raise BadInput(
                f"evaluate.humaneval_temperature 0 draws {self.completions} equal completions; raise it, to 0.8 for "
                "example, or set evaluate.humaneval_completions to 1"
            )
        rows = list(evaluation_rows(self.data))[: self.tasks]
        if not rows:
            raise BadInput(f"{self.data} has no tasks")
        for row in rows:
            if missing := [field for field in FIELDS if not row.get(field)]:
                raise BadInput(f"{self.data}: the task {row.get('task_id')} has no {missing}; each needs {FIELDS}")
        return rows

    def run(self, engine: Any) -> list[SampleResult]:
        rows = self.samples()
        asked = [row for row in rows for _ in range(self.completions)]
        samplings = [
            Sampling(self.max_new_tokens, self.temperature, 1.0, self.seed + number, STOP)
            for number in range(len(asked))
        ]
        ids = {row["task_id"]: prompt_ids(engine, row) for row in rows}
        generated = [one.text for one in engine.generate([ids[row["task_id"]] for row in asked], samplings)]
        of_task = [generated[start : start + self.completions] for start in range(0, len(asked), self.completions)]
        if reason := self.sandbox.unscored:
            return [
                SampleResult(row["task_id"], row["prompt"], texts[0], {}, f"not run: {reason}")
                for row, texts in zip(rows, of_task, strict=True)
            ]
        programs = [program(row, text) for row, text in zip(asked, generated, strict=True)]
        ended = self.sandbox.run(programs, self.timeout_s)
        results = []
        for number, (row, texts) in enumerate(zip(rows, of_task, strict=True)):
            runs = ended[number * self.completions : (number + 1) * self.completions]
            passed = sum(run.passed for run in runs)
            scores = {f"pass_at_{k}": Score(pass_at_k(self.completions, passed, k)) for k in self.ks}
            detail: dict[str, Any] = {"ended": runs[0].reason}
            if self.completions > 1:
                detail |= {"passed": passed, "all_ended": [run.reason for run in runs], "completions": texts}
            results.append(SampleResult(row["task_id"], row["prompt"], texts[0], scores, detail=detail))
        return results
