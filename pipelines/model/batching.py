"""Rows of like lengths in one batch: what is padded is padded little."""

from collections.abc import Sequence


def like_lengths(lengths: Sequence[int], most: int) -> list[list[int]]:
    """The indices of `lengths`, shortest first, in groups of at most `most` rows."""
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    return [order[start : start + most] for start in range(0, len(order), most)]
