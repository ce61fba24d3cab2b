"""What sections are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """One part of params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
