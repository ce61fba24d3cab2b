"""From prompts to people's preferences."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.core.sections.base import Positive, PositiveFloat, Section, Share
from pipelines.core.sections.training import EngineName


class SampleCompletions(Section):
    completions: Annotated[int, Field(ge=4, le=6)]
    temperatures: list[float]  # cycled over the completions of a prompt
    top_p: Share
    max_new_tokens: Positive
    engine: EngineName
    batch_size: Positive
    dtype: Literal["float32", "bfloat16"]
    ask_first: Literal["any", "least_sure", "most_different"]  # least_sure: an earlier round's reward model


class PreviousRound(Section):
    """The round that this one goes on from: a run whose workspace is still there."""

    run: str | None  # its run id; None: this is the first round
    lock_sha256: str | None  # of its dvc.lock, pinned when the workspace of this run is opened
    challenger: str | None  # another run, from whose policy half of the responses are sampled
    challenger_sha256: str | None  # of that run's dvc.lock, pinned likewise


class PullFeedback(Section):
    """Which rated answers of the product people look at, instead of the prompts of prepare_sft."""

    snapshot: str | None  # its name, as feedback_export says it; None: none
    sha256: str | None  # of its answers, pinned when the workspace of this run is opened


class FeedbackExport(Section):
    """Which answers of the product may be looked at: `serving/operations/feedback_export.py`."""

    consent: Literal["shared", "terms"]  # whose: of accounts that share their conversations; of everybody, by the terms
    days: Positive  # answers that were rated or flagged in these days
    retention_days: Positive  # the texts of older snapshots are removed
    max_answers: Positive
    license: str  # of what people wrote to the product
    pii_types: list[str]  # as in prepare_corpus
    near_duplicate_similarity: Share


class RewardLabels(Section):
    """An earlier round's reward model in place of people, with `label_source: reward_model`."""

    min_accuracy: Share  # the lower bound of its held-out accuracy: its gate
    check_share: Annotated[float, Field(gt=0, le=1)]  # of the tasks go to people all the same, who don't know
    min_agreement: Share  # with people on these tasks
    max_pairs_share: Share  # of the pairs that train


class SimulatedLabelers(Section):
    """Users that rank by a documented rule plus noise: `labeling/simulated.py`."""

    count: Positive
    noise: Share  # share of neighbouring pairs that a labeler swaps


class Labeling(Section):
    labelers: Literal["simulated", "human"]
    overlap_share: Share  # of the tasks go to `overlap_labelers` people, the others to one
    overlap_labelers: Positive
    deadline_hours: PositiveFloat
    min_complete_share: Share  # of the annotations asked for; enough at the deadline
    simulated: SimulatedLabelers


class PreparePreferences(Section):
    min_lead_time_s: Annotated[float, Field(ge=0)]  # an untouched order submitted faster than this is unlabeled
    min_agreement: Share  # pairwise, over tasks with several labelers
    held_out_share: Share
    max_pairs_per_prompt: Positive


class ValidatePreferences(Section):
    min_pairs: Positive
