"""Seeding: the same seed gives the same draws from every generator."""

import random

import numpy as np
import torch

from pipelines.training.seeding import seed_everything


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(1).item()


def test_the_same_seed_gives_the_same_draws() -> None:
    seed_everything(3)
    first = draws()
    seed_everything(3)
    assert draws() == first
    seed_everything(4)
    assert all(new != old for new, old in zip(draws(), first, strict=True))
