"""One seed for every generator that training draws from."""

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators, and refuse kernels whose results vary from run to run."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # That would also write to all memory before its first use, which finds reads of nothing and costs every step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
