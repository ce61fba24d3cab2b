"""The reward model and the methods of alignment."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.core.sections.base import Positive, PositiveFloat, Section, Share
from pipelines.core.sections.training import Lora, Supervised


class RewardModel(Section):
    epochs: PositiveFloat
    batch_pairs: Positive
    max_tokens: Positive
    learning_rate: PositiveFloat
    warmup_share: Share
    length_balance: Share  # 1: pairs with the longer answer chosen weigh as much in all as the others; 0: as labeled
    dtype: Literal["float32", "bfloat16"]


class Align(Section):
    method: Literal["ppo", "dpo", "grpo", "rloo", "best_of_n"]


class PretrainingMix(Section):
    """Next-token loss beside PPO's: on the corpus, which Ouyang et al. 2022 call PPO-ptx, or on the demonstrations."""

    data: Literal["corpus", "demonstrations"]
    coefficient: PositiveFloat  # of the mean loss per token
    sequences: Positive  # with each minibatch
    sequence_tokens: Positive


class HarmConstraint(Section):
    """Keeps the moderation model's mean score of the responses under a bound by a Lagrange multiplier."""

    max_score: Share  # the largest of a response's categories, averaged over the responses
    learning_rate: PositiveFloat  # of the multiplier, reward per unit of score and step


class Ppo(Section):
    steps: Positive
    episodes_per_step: Positive
    minibatch_episodes: Positive  # of one update
    microbatch_episodes: Positive  # of one pass through a model; fewer take less memory
    epochs: Positive
    max_new_tokens: Positive
    temperature: PositiveFloat
    learning_rate: PositiveFloat
    value_learning_rate: PositiveFloat
    kl_coefficient: Annotated[float, Field(ge=0)]
    kl_target: PositiveFloat | None  # nats per response; None keeps the coefficient fixed
    kl_stop: PositiveFloat  # nats per response, beyond which training stops
    entropy_stop: Annotated[float, Field(ge=0)]  # nats per token, under which training stops
    gamma: Share
    gae_lambda: Share
    clip_range: PositiveFloat
    value_clip_range: PositiveFloat
    value_coefficient: PositiveFloat
    max_grad_norm: PositiveFloat
    missing_eos_penalty: Annotated[float, Field(ge=0)]
    whiten_rewards: bool
    lora: Lora | None  # the policy as adapters on the SFT policy, which then needs no second copy as reference
    pretraining_mix: PretrainingMix | None
    harm_constraint: HarmConstraint | None
    dtype: Literal["float32", "bfloat16"]


class Dpo(Section):
    epochs: PositiveFloat
    batch_pairs: Positive
    max_tokens: Positive
    learning_rate: PositiveFloat
    beta: PositiveFloat
    max_new_tokens: Positive  # of the answers that the distance from SFT is measured on
    dtype: Literal["float32", "bfloat16"]


class GroupPolicyGradient(Section):
    """Policy gradients against the mean reward of a prompt's own responses, without a value model."""

    steps: Positive
    episodes_per_step: Positive
    responses_per_prompt: Annotated[int, Field(ge=2)]
    max_new_tokens: Positive
    temperature: PositiveFloat
    learning_rate: PositiveFloat
    beta: Annotated[float, Field(ge=0)]  # of the KL penalty
    max_grad_norm: PositiveFloat
    dtype: Literal["float32", "bfloat16"]

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.episodes_per_step % self.responses_per_prompt:
            raise ValueError(
                f"episodes_per_step {self.episodes_per_step} is no multiple of responses_per_prompt "
                f"{self.responses_per_prompt}"
            )
        return self


class BestOfN(Supervised):
    """Rejection sampling: fine-tuning on the response of each prompt that the reward model likes best."""

    completions: Annotated[int, Field(ge=2)]  # of each prompt
    temperature: PositiveFloat
    top_p: Share
    max_new_tokens: Positive
    batch_size: Positive
