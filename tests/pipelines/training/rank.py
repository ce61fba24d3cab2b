"""One process of a training on several: writes the loss and gradient norm of every step of all CASES to OUT."""

import json
import os
from pathlib import Path

import numpy as np
import torch

from pipelines.core.config import Distributed
from pipelines.model.architecture import build
from pipelines.training.distributed import DeepSpeedOptimizer, configuration, enter, leave, this_rank
from pipelines.training.next_token import Batches, LanguageModelLoss, train_step
from pipelines.training.optimizer import BETAS, MasterAdamW
from tests.models import SIZES

STEPS, LENGTH, SEQUENCES, VOCABULARY = 12, 32, 8, 320
TOKENS = (np.arange(4000) % 40).astype(np.uint16)


def losses(dtype: str, accumulate: int, params: Distributed) -> list[list[float]]:
    """[loss, gradient norm] of each step."""
    rank = this_rank()
    torch.manual_seed(0)
    loss_of = LanguageModelLoss(build(SIZES, VOCABULARY), compile=False)
    batches = Batches(LENGTH, SEQUENCES, accumulate, 0, rank.rank, rank.ranks)
    optimizer: DeepSpeedOptimizer | MasterAdamW
    if rank.launched:
        sequences = SEQUENCES // accumulate // rank.ranks
        optimizer = DeepSpeedOptimizer(loss_of, 0.1, configuration(params, dtype, 0.5, sequences, accumulate))
        trained = optimizer.engine
    else:
        optimizer = MasterAdamW(loss_of.model, dtype, 1e-2, 0.1, BETAS)
        trained = loss_of
    device = torch.device("cpu")
    return [list(train_step(trained, optimizer, batches.of(TOKENS, step, device), 1e-2, 0.5)) for step in range(STEPS)]


if __name__ == "__main__":
    enter(this_rank())
    curves = [
        losses(case["dtype"], case["accumulate"], Distributed(**case["distributed"]))
        for case in json.loads(os.environ["CASES"])
    ]
    if this_rank().first:
        Path(os.environ["OUT"]).write_text(json.dumps(curves))
    leave()
