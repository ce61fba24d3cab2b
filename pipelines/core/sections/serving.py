"""The assistant that people chat with, its release, and the machine it all runs on."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.core.sections.base import NonNegative, Positive, PositiveFloat, Section, Share


class Access(Section):
    """Who may chat, and how much; beyond a limit comes 429 with Retry-After."""

    visitors: bool  # may people without an account chat, and programs without a key?
    requests_per_minute: Positive  # of one user or key
    address_requests_per_minute: Positive  # of everybody behind one address
    sign_ins_per_hour: Positive  # tries to register or log in, from one address and for one e-mail address
    tokens_per_day: Positive | None  # of one user, question and answer together


class Chat(Section):
    """How the bento answers: `serving/`."""

    dtype: Literal["float32", "bfloat16"]
    system_prompt: str
    max_new_tokens: Positive
    temperature: Annotated[float, Field(ge=0)]
    top_p: Share
    context_tokens: Positive
    max_concurrent: Positive
    queue: NonNegative
    moderation_threshold: Share
    access: Access
    smoke_question: str
    smoke_expects: str | None  # the answer must contain this; None asks only for an answer


class CanaryStage(Section):
    share: Annotated[float, Field(gt=0, lt=1)]  # of new conversations
    conversations: NonNegative  # that the candidate has before the next stage; the last one stays to the verdict


class MaxRatio(Section):
    """How often an event may come in the candidate's conversations, as a multiple of how often in the champion's."""

    thumbs_down: PositiveFloat
    errors: PositiveFloat
    slow: PositiveFloat
    moderated: PositiveFloat
    short: PositiveFloat
    long: PositiveFloat


class Canary(Section):
    """When a candidate is rolled back or promoted: `serving/operations/canary.py`."""

    stages: Annotated[list[CanaryStage], Field(min_length=1)]
    rated_conversations: Positive  # of each arm, when the watch ends
    thumbs_level: Annotated[float, Field(gt=0, lt=1)]  # chance that an equal candidate is rolled back by its thumbs
    thumbs_drop: Annotated[float, Field(gt=0, lt=1)]  # of the share of thumbs up, ruled out by an early promotion
    early_promotion_level: Annotated[float, Field(gt=0, lt=1)]  # chance of one in spite of that drop
    guards_level: Annotated[float, Field(gt=0, lt=1)]  # chance of a false alarm of any guard rail
    max_ratio: MaxRatio
    rest_s: Annotated[float, Field(ge=0)]  # a conversation counts that nobody used for so long
    reference_days: Positive  # of the champion's conversations that say what is slow, short and long

    @model_validator(mode="after")
    def _growing(self) -> Self:
        shares = [stage.share for stage in self.stages]
        if shares != sorted(set(shares)):
            raise ValueError(f"the shares of the stages must grow, these do not: {shares}")
        return self


class ReleaseProcess(Section):
    """How a version that passed its gate gets to everybody."""

    rollout: Literal["direct", "canary"]  # at once, or by a share of new conversations that is watched
    approval: Literal["none", "required"]  # of a person, in Airflow, before `deploy`
    canary: Canary


class Workers(Section):
    """Where the data steps run; the result is the same everywhere."""

    executor: Literal["local", "ray", "slurm"]
    count: Positive  # tasks at once
    slurm_partition: str
    slurm_time: str  # HH:MM:SS for each task


class Resources(Section):
    """What the machine must have before a run starts; never a dependency of a stage."""

    min_free_disk_gib: PositiveFloat
    min_memory_gib: PositiveFloat
    require_gpu: bool
    threads: Positive | None  # of each stage; None takes all cores. The same count gives the same bytes
    workers: Workers  # of the data stages
    checkpoint_interval_s: Annotated[float, Field(ge=0)]  # between two checkpoints of a trainer
