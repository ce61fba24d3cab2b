"""params.yaml + profile + overrides become one frozen `Params`, of the sections in `core/sections`.

No field has a default: DVC can't see a default hidden in Python. Unknown keys and wrong types fail, and the
error lists what would be valid.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipelines.core.errors import BadInput
from pipelines.core.sections.alignment import Align, BestOfN, Dpo, GroupPolicyGradient, Ppo, RewardModel
from pipelines.core.sections.base import NonNegative, Section
from pipelines.core.sections.data import (
    Ingest,
    PrepareCorpus,
    TokenizeCorpus,
    TrainModeration,
    TrainTokenizer,
    ValidateCorpus,
)
from pipelines.core.sections.evaluation import Evaluate, Gate, Judge
from pipelines.core.sections.labeling import (
    FeedbackExport,
    Labeling,
    PreparePreferences,
    PreviousRound,
    PullFeedback,
    RewardLabels,
    SampleCompletions,
    ValidatePreferences,
)
from pipelines.core.sections.serving import Chat, ReleaseProcess, Resources
from pipelines.core.sections.sources import BaseModelSource
from pipelines.core.sections.training import PrepareSft, Pretrain, PullDemonstrations, Sft, ValidateSft


class Params(Section):
    profile: str
    seed: NonNegative
    resources: Resources
    base_model: BaseModelSource
    ingest: Ingest
    train_moderation: TrainModeration
    prepare_corpus: PrepareCorpus
    validate_corpus: ValidateCorpus
    train_tokenizer: TrainTokenizer
    tokenize_corpus: TokenizeCorpus
    pretrain: Pretrain
    pull_demonstrations: PullDemonstrations
    prepare_sft: PrepareSft
    validate_sft: ValidateSft
    sft: Sft
    previous_round: PreviousRound
    pull_feedback: PullFeedback
    label_source: Literal["people", "reward_model"]
    reward_labels: RewardLabels
    sample_completions: SampleCompletions
    labeling: Labeling
    prepare_preferences: PreparePreferences
    validate_preferences: ValidatePreferences
    reward_model: RewardModel
    align: Align
    ppo: Ppo
    dpo: Dpo
    grpo: GroupPolicyGradient
    rloo: GroupPolicyGradient
    best_of_n: BestOfN
    evaluate: Evaluate
    judge: Judge
    gate: Gate
    chat: Chat
    feedback_export: FeedbackExport
    release: ReleaseProcess

    def section(self, name: str) -> dict[str, Any]:
        """The parameters of one stage as plain values; empty for a command without a section."""
        value = getattr(self, name, None)
        return value.model_dump() if isinstance(value, Section) else {}


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping (YAML 1.2, so 1e-4 is a number and `no` a word)."""
    try:
        value = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist") from error
    except YAMLError as error:
        raise BadInput(f"{path} is not valid YAML: {error}") from error
    if not isinstance(value, dict):
        raise BadInput(f"{path} must hold a mapping")
    return value


def merge(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """`base` with `overlay` laid over it; a mapping of another `kind` replaces instead of mixing."""
    merged = dict(base)
    for key, value in overlay.items():
        old = base.get(key)
        mixes = (
            isinstance(old, dict) and isinstance(value, dict) and old.get("kind") == value.get("kind", old.get("kind"))
        )
        merged[key] = merge(old, value) if mixes and isinstance(old, dict) else value
    return merged


def valid_names(params: dict[str, Any], prefix: str = "") -> list[str]:
    """Every dotted parameter name of `params`."""
    names: list[str] = []
    for key, value in params.items():
        names += valid_names(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return names


def apply_override(params: dict[str, Any], override: str) -> dict[str, Any]:
    """Lay one `section.key=value` over `params`; the value is YAML."""
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise BadInput(f"override {override!r} is not of the form section.key=value, for example ppo.steps=8")
    at: Any = params
    for depth, key in enumerate(keys):
        if not isinstance(at, dict) or key not in at:
            near = (
                valid_names(params[keys[0]], f"{keys[0]}.")
                if depth and isinstance(params[keys[0]], dict)
                else list(params)
            )
            raise BadInput(
                f"override {override!r}: there is no parameter {'.'.join(keys[: depth + 1])!r}; valid: {near}"
            )
        at = at[key]
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise BadInput(f"override {override!r}: the value is not valid YAML ({error})") from error
    overlay: Any = value
    for key in reversed(keys):
        overlay = {key: overlay}
    return merge(params, overlay)


def parse(values: dict[str, Any], origin: str) -> Params:
    """Check `values` against the schema; `origin` is named in the error."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"])
            lines.append(f"  {where}: {problem['msg']} (got {problem['input']!r})")
        raise BadInput(f"{origin} does not fit the parameters:\n" + "\n".join(lines)) from error


def profile_names(root: Path) -> list[str]:
    """The profiles that `root` has."""
    return sorted(path.stem for path in (root / "profiles").glob("*.yaml"))


def read_profile(root: Path, name: str, over: tuple[str, ...] = ()) -> dict[str, Any]:
    """A profile, laid over the one that its `base` names; `over` are the profiles that lie over it.

    Raises:
        BadInput: no such profile, or a profile that is its own base.
    """
    if name in over:
        raise BadInput(f"profiles/{over[-1]}.yaml: base {name!r} goes in a circle: {' -> '.join((*over, name))}")
    if name not in profile_names(root):
        given = f"profiles/{over[-1]}.yaml: unknown base" if over else "unknown profile"
        raise BadInput(f"{given} {name!r}; valid: {profile_names(root)}")
    values = read_yaml(root / "profiles" / f"{name}.yaml")
    base = values.pop("base", None)
    return values if base is None else merge(read_profile(root, base, (*over, name)), values)


def resolve(root: Path, profile: str, overrides: list[str]) -> dict[str, Any]:
    """params.yaml of `root` + profile + overrides, checked, as plain values.

    Raises:
        BadInput: unknown profile, parameter or type; the valid ones are listed.
    """
    values = merge(read_yaml(root / "params.yaml"), read_profile(root, profile))
    for override in overrides:
        values = apply_override(values, override)
    parse(values, f"params.yaml with profile {profile!r} and overrides {overrides}")
    return values


def load_params(path: Path) -> Params:
    """Read a resolved params.yaml."""
    return parse(read_yaml(path), str(path))
