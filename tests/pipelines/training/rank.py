"""One process of a training on several: writes the loss and gradient norm of every step of all CASES to OUT."""

import json
import os
from pathlib import Path

import numpy as np
import torch

from pipelines.core.sections.training import Distributed
from pipelines.model.architecture import build
from pipelines.training.checkpointing import Checkpoints
from pipelines.training.distributed import DeepSpeedOptimizer, RankCheckpoints, configuration, enter, leave, this_rank
from pipelines.training.next_token import Batches, LanguageModelLoss, train_step
from pipelines.training.optimizer import BETAS, MasterAdamW
from tests.models import SIZES

STEPS, LENGTH, SEQUENCES, VOCABULARY = 12, 32, 8, 320
SAVED = 7  # the last step that is saved
TOKENS = (np.arange(4000) % 40).astype(np.uint16)


def losses(dtype: str, accumulate: int, params: Distributed, checkpoints: Path | None = None) -> list[list[float]]:
    """[loss, gradient norm] of each step; with `checkpoints` of the steps after the one that is saved there, if any."""
    rank = this_rank()
    torch.manual_seed(0)
    loss_of = LanguageModelLoss(build(SIZES, VOCABULARY), compile=False)
    batches = Batches(LENGTH, SEQUENCES, accumulate, 0, rank.rank, rank.ranks)
    optimizer: DeepSpeedOptimizer | MasterAdamW
    first, saved = 0, None
    if rank.launched:
        sequences = SEQUENCES // accumulate // rank.ranks
        optimizer = DeepSpeedOptimizer(loss_of, 0.1, configuration(params, dtype, 0.5, sequences, accumulate))
        trained = optimizer.engine
        if checkpoints:
            saved = RankCheckpoints(Checkpoints(checkpoints, {"case": dtype}, 0.0), trained, rank)
            first, _ = saved.resume()
    else:
        optimizer = MasterAdamW(loss_of.model, dtype, 1e-2, 0.1, BETAS)
        trained = loss_of
    device, found = torch.device("cpu"), []
    for step in range(first, STEPS):
        found.append(list(train_step(trained, optimizer, batches.of(TOKENS, step, device), 1e-2, 0.5)))
        if saved and step + 1 <= SAVED and saved.due():
            saved.save(step + 1, [])
    return found


if __name__ == "__main__":
    enter(this_rank())
    curves = []
    for number, case in enumerate(json.loads(os.environ["CASES"])):
        arguments = case["dtype"], case["accumulate"], Distributed(**case["distributed"])
        curves.append(losses(*arguments))
        if case["resumed"]:
            place = Path(os.environ["OUT"]).parent / f"checkpoints-{number}"
            for _ in range(2):  # the first run leaves checkpoints, the second begins after the last of them
                resumed = losses(*arguments, place)
            curves.append(resumed)
    if this_rank().first:
        Path(os.environ["OUT"]).write_text(json.dumps(curves))
    leave()
