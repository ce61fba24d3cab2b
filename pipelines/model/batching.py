"""Rows of like lengths in one batch: padding is work for nothing."""

from collections.abc import Sequence

PADDING = 0.1  # of a group's positions
FEWEST = 4  # rows of a group, below which matrix products are too narrow to be worth it


def like_lengths(lengths: Sequence[int], most: int) -> list[list[int]]:
    """The indices of `lengths`, shortest first, in groups of at most `most` rows.

    A group ends where the next row would make more than PADDING of its positions padding, if it has FEWEST rows.
    """
    groups: list[list[int]] = []
    total = 0  # of the lengths in the last group
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        size = len(groups[-1]) + 1 if groups else 0
        wasted = 1 - (total + lengths[row]) / max(1, size * lengths[row])
        if not groups or size > most or (size > FEWEST and wasted > PADDING):
            groups.append([])
            total = 0
        groups[-1].append(row)
        total += lengths[row]
    return groups
