"""The models that are measured: opened one at a time, and the champion as one that may be missing."""

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from pipelines.core import artifacts, registry
from pipelines.core.config import Params
from pipelines.core.errors import BadInput
from pipelines.core.stage import ran_out_of_memory
from pipelines.model.engine import Engine
from pipelines.model.engine_choice import load_engine


@contextlib.contextmanager
def loaded(folder: Path, params: Params) -> Iterator[Engine]:
    """An engine for the model in `folder`, gone afterwards: two large models need not fit at once."""
    if not (folder / "config.json").exists():
        raise BadInput(f"{folder} holds no model (config.json is missing); run the stage that writes it first")
    evaluate = params.evaluate
    engine = load_engine(folder, evaluate.dtype, evaluate.batch_size, evaluate.engine)
    try:
        yield engine
    finally:
        del engine
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def short(error: Exception, folder: Path) -> str:
    """The first line of what `error` says, without the name that `folder` has this time."""
    lines = str(error).replace(str(folder), "its folder").splitlines()
    return lines[0] if lines else type(error).__name__


class ChampionMissing(Exception):
    """The champion to compare with can't be fetched or loaded: every comparison with it stays open."""


@contextlib.contextmanager
def baseline_engine(params: Params) -> Iterator[Engine]:
    """The model to compare with: the pinned champion, or else the model that alignment started from.

    Raises:
        ChampionMissing: it is a champion, and its files are gone or hold no model that works.
    """
    number = params.evaluate.champion_version
    with contextlib.ExitStack() as stack:
        if params.evaluate.baseline == "sft" or number is None:
            yield stack.enter_context(loaded(artifacts.SFT, params))
            return
        try:
            folder = registry.download(number, Path(stack.enter_context(TemporaryDirectory())))
        except BadInput as error:
            raise ChampionMissing(f"the champion, version {number}, is gone: {error}") from error
        try:
            engine = stack.enter_context(loaded(folder, params))
        except Exception as error:  # a broken folder makes libraries raise all kinds
            if ran_out_of_memory(error):
                raise
            raise ChampionMissing(f"the champion, version {number}, does not load: {short(error, folder)}") from error
        yield engine
