"""Custom evals as tasks: the cases of one YAML file, answered as the assistant is served, each passed or not.

A case for the judge is left open while the model answers and is decided later, against its reference answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from evals.custom import Case, CustomEval, passes
from evals.judge import POINTS, Answer, Judge, Pair, compare
from evals.metrics import Score
from evals.task import SampleResult
from evals.tasks.chat_quality import Voice, answer
from pipelines.model.engine import Generation

OPEN = "the judge has not been asked"


def _result(case: Case, generation: Generation) -> SampleResult:
    detail = {
        "scorer": case.scorer,
        "expected": case.expected,
        "negate": case.negate,
        "finish_reason": generation.finish_reason,
    }
    prompt = case.chat[-1]["content"]
    if not generation.text.strip():
        return SampleResult(case.id, prompt, generation.text, {"passed": Score(0.0)}, detail=detail)
    if case.scorer == "judge":
        return SampleResult(case.id, prompt, generation.text, {}, OPEN, detail)
    passed = Score(float(passes(case, generation.text)))
    return SampleResult(case.id, prompt, generation.text, {"passed": passed}, detail=detail)


def decide(results: Sequence[SampleResult], judge: Judge) -> list[SampleResult]:
    """`results` with the open ones decided: 1 when `judge` prefers the answer to the reference, 0.5 for a tie."""
    pairs = [
        Pair(
            result.id,
            result.prompt,
            Answer(result.response, result.detail["finish_reason"] == "stop"),
            Answer("".join(result.detail["expected"])),
            "custom",
        )
        for result in results
        if result.unscored == OPEN
    ]
    outcomes = {judgement.pair.id: judgement for judgement in compare(judge, pairs)}
    decided = []
    for result in results:
        if judgement := outcomes.get(result.id):
            if judgement.outcome is None:
                result = replace(result, unscored=judgement.unscored)
            else:
                result = replace(result, scores={"passed": Score(POINTS[judgement.outcome])}, unscored=None)
        decided.append(result)
    return decided


@dataclass(frozen=True, slots=True)
class Custom:
    """All cases of `eval`."""

    eval: CustomEval
    max_new_tokens: int
    voice: Voice
    metrics: tuple[str, ...] = ("passed",)
    groups: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"custom_{self.eval.name}"

    def run(self, engine: Any) -> list[SampleResult]:
        cases = self.eval.cases
        generations = answer(engine, [case.chat for case in cases], self.max_new_tokens, self.voice)
        return [_result(case, generation) for case, generation in zip(cases, generations, strict=True)]
