"""What a killed evaluation goes on from: the results of finished tasks, kept until the stage has all of them.

They lie outside the stage's output, which DVC empties before each try, and belong to one set of inputs: results of
other parameters, data, models or code are removed, never used.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

from evals.task import SampleResult, read_results, write_results
from pipelines.core.config import Params
from pipelines.core.digests import file_sha256
from pipelines.core.jsonl import encode


def identity_of(params: Params, inputs: Iterable[Path]) -> str:
    """A digest of the parameters and of every file of `inputs`, which are files and folders."""
    files = [file for path in inputs for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    digests = {str(file): file_sha256(file) for file in files if file.is_file() and file.suffix != ".pyc"}
    return hashlib.sha256(encode([params.model_dump(exclude={"resources"}), digests])).hexdigest()[:16]


class Progress:
    """Finished tasks of one evaluation under `folder`, by side and name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of(cls, folder: Path, identity: str) -> Self:
        """Those that belong to `identity`; others are removed."""
        for other in folder.glob("tasks-*"):
            if other.name != f"tasks-{identity}":
                shutil.rmtree(other)
        return cls(folder / f"tasks-{identity}")

    def results(self, side: str, task: str, run: Callable[[], list[SampleResult]]) -> list[SampleResult]:
        """The results that an earlier try finished, or those of `run`, which are kept.

        Both come from the file, so that a resumed evaluation and an undisturbed one see the same values.
        """
        path = self._folder / side / f"{task}.jsonl"
        if path.exists():
            print(f"evaluate: {task} of the {side} is done, from an earlier try", flush=True)
        else:
            write_results(path, run())
        return read_results(path)
