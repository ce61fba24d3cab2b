"""What is measured, who judges, and what the gate asks for."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.core.sections.base import NonNegative, Positive, PositiveFloat, Section, Share
from pipelines.core.sections.training import EngineName


class Evaluate(Section):
    baseline: Literal["sft", "champion"]
    champion_version: int | None  # pinned when the run's workspace is opened; None with baseline sft
    compare_base: bool  # measure the base model too; no rule looks at it
    engine: EngineName  # of answers; likelihoods are always computed by transformers
    batch_size: Positive
    dtype: Literal["float32", "bfloat16"]
    perplexity_tokens: Positive
    perplexity_stride: Positive
    mmlu_data: str
    mmlu_questions: Positive
    mmlu_shots: NonNegative
    humaneval_data: str
    humaneval_tasks: NonNegative
    humaneval_completions: Positive  # of each task
    humaneval_k: list[Positive]  # of pass@k, at most humaneval_completions
    humaneval_temperature: Annotated[float, Field(ge=0)]
    humaneval_max_new_tokens: Positive
    humaneval_timeout_s: PositiveFloat
    allow_unsafe_execution: bool
    judge_prompts: Positive
    judge_max_new_tokens: Positive
    safety_data: str
    safety_prompts: Positive  # harmful ones, and as many benign ones
    safety_max_new_tokens: Positive
    bias_data: str
    bias_prompts: NonNegative  # of every group; 0 leaves the task out, here and below
    hatecheck_data: str
    hatecheck_cases: NonNegative
    questions_data: str  # in the form of MT-bench
    questions: NonNegative
    references: NonNegative  # held-out demonstrations that answers are compared with
    bertscore_model: str | None  # the folder of an encoder; None leaves BERTScore out
    bertscore_layer: Positive
    custom_max_new_tokens: Positive  # of an answer to a case in evals/datasets/custom
    lm_eval_tasks: list[str]  # tasks, groups or tags of lm-evaluation-harness, or of files in evals/lm_eval_tasks
    lm_eval_data: dict[str, str]  # hub id of a data set -> the folder that holds a copy
    lm_eval_limit: Positive | None  # samples of each task
    lm_eval_chat_template: bool

    @property
    def data(self) -> tuple[str, ...]:
        """Every evaluation set that these parameters name: files and folders."""
        return (
            self.mmlu_data,
            self.humaneval_data,
            self.safety_data,
            self.bias_data,
            self.hatecheck_data,
            self.questions_data,
        )


class Judge(Section):
    """Who compares the candidate's answers with the baseline's: `evals/judging.py`."""

    endpoint: str | None  # an OpenAI-compatible base URL; None judges with a model on this machine
    model: str | None  # its name at the endpoint, or a folder that holds it; None is the base model
    repeats: Positive  # how often an endpoint is asked each question, with another seed each time
    temperature: Annotated[float, Field(ge=0)]
    label_pairs: NonNegative  # held-out preferences that the judge is checked on
    graded_prompts: NonNegative  # whose answers are also graded by Vicuna's four criteria, one by one
    concurrent: Positive  # requests to an endpoint at once
    attempts: Positive  # of a request, with growing pauses
    timeout_s: PositiveFloat
    price_prompt_tokens: Annotated[float, Field(ge=0)]  # for a million
    price_completion_tokens: Annotated[float, Field(ge=0)]  # for a million


class Rule(Section):
    """One line of the gate. `metric` is `<task>.<metric>` of the evaluation, `alignment.<key>` or `data.<key>`.

    A rule passes when the whole one-sided interval of its metric keeps the limit, refuses when all of it breaks the
    limit, and is inconclusive between; a number without samples (KL) is compared as it is.
    """

    name: str
    metric: str
    # A superiority must lie above 0 by its whole interval, at a level that Holm's method corrects for their number.
    kind: Literal["floor", "ceiling", "non_inferior_difference", "non_inferior_ratio", "superior_difference", "report"]
    better: Literal["higher", "lower"]
    bound: float | None  # of a floor or ceiling
    # How much worse than the baseline is allowed; of a ratio, the part above 1; of a superiority, the planned gain.
    margin: PositiveFloat | None
    # What n was planned with: the variance of one pair's difference (right/wrong scores: the share of discordant
    # pairs; a ratio: of the difference of logarithms).
    discordance: PositiveFloat | None
    reason: str  # why this limit


class Gate(Section):
    allow_simulated_labels: bool
    allowed_licenses: list[str]  # of sources, demonstrations and prompts, as they name them; any other refuses
    rules_name: str  # shown beside the verdict: "demo rules", "release rules"
    one_sided_alpha: Share
    bootstrap_samples: Positive
    require_sandbox: bool
    rules: list[Rule]
