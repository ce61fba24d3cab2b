"""The moderator that data cleaning, evals, alignment and serving share: one Protocol, and reading it from a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json

CONFIG = "config.json"
FORMAT = 2  # of the folder and of the features; a change of either needs a new number


class Moderator(Protocol):
    """Scores texts in every category that it was trained on."""

    @property
    def version(self) -> str: ...
    @property
    def categories(self) -> Sequence[str]: ...
    def score(self, texts: list[str]) -> list[dict[str, float]]:
        """The probability of each category for each text; the categories are independent of each other."""
        ...


def load_moderator(folder: Path) -> Moderator:
    """Read the model that train_moderation wrote to `folder`.

    Raises:
        BadInput: the folder is no moderation model, or one of another format.
    """
    config = read_json(folder / CONFIG)
    if config.get("format") != FORMAT:
        raise BadInput(
            f"{folder / CONFIG} has moderation format {config.get('format')!r}, this code reads {FORMAT}; "
            "train it again with train_moderation"
        )
    if config["kind"] == "encoder":
        from pipelines.model.encoder_moderation import EncoderModerator  # OpenVINO takes a moment to import

        return EncoderModerator.load(folder)
    from pipelines.model.ngram_moderation import NGramModerator

    return NGramModerator.load(folder)
