"""Groups of like lengths: everything once, little padding, no group too large."""

import random

from pipelines.model.batching import FEWEST, PADDING, like_lengths


def test_every_row_is_in_one_group_and_groups_are_small_enough() -> None:
    lengths = [random.Random(0).randint(1, 300) for _ in range(100)]
    groups = like_lengths(lengths, 8)
    assert sorted(row for group in groups for row in group) == list(range(100))
    assert all(len(group) <= 8 for group in groups)
    assert [lengths[row] for group in groups for row in group] == sorted(lengths)


def test_no_group_has_much_padding_unless_it_is_small() -> None:
    drawn = random.Random(1)
    lengths = [drawn.choice([20, 21, 60, 200]) + drawn.randint(0, 3) for _ in range(64)]
    for group in like_lengths(lengths, 64):
        longest = max(lengths[row] for row in group)
        assert len(group) <= FEWEST or sum(lengths[row] for row in group) >= (1 - PADDING) * len(group) * longest


def test_equal_lengths_fill_groups() -> None:
    assert [len(group) for group in like_lengths([7] * 20, 8)] == [8, 8, 4]
    assert like_lengths([], 8) == []
