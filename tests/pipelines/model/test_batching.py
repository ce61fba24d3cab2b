"""Groups of like lengths: everything once, in order of length, no group too large."""

import random

from pipelines.model.batching import like_lengths


def test_every_row_is_in_one_group_and_groups_are_small_enough() -> None:
    lengths = [random.Random(0).randint(1, 300) for _ in range(100)]
    groups = like_lengths(lengths, 8)
    assert sorted(row for group in groups for row in group) == list(range(100))
    assert [len(group) for group in groups] == [8] * 12 + [4]
    assert [lengths[row] for group in groups for row in group] == sorted(lengths)


def test_equal_lengths_keep_their_order() -> None:
    assert like_lengths([7] * 5, 3) == [[0, 1, 2], [3, 4]]
    assert like_lengths([], 8) == []
