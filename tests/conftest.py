"""Fixtures that several packages' tests share."""

from tests.label_studio import label_studio

__all__ = ["label_studio"]
