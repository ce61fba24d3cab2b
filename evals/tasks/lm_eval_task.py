"""lm-evaluation-harness as a task: any of its benchmarks by name, on the model that is loaded already.

The harness brings data set, prompt and scorer; samples and means are in this project's form. Task files of one's own
lie in `evals/lm_eval_tasks`; a data set of a hub is read from a folder where `evaluate.lm_eval_data` names one.
"""

import difflib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any, Self

from evals.metrics import Score
from evals.task import SampleResult
from pipelines.core.errors import BadInput

PARAMETER = "evaluate.lm_eval_tasks"
# Log-likelihood and size of a text, in the order in which the harness gives them, as our weighted scores.
ROLLING: dict[str, Callable[[float], float]] = {
    "word_perplexity": lambda nll: nll,
    "byte_perplexity": lambda nll: nll,
    "bits_per_byte": lambda nll: nll / log(2),
}
# Files of a folder become the split that their names mean to `datasets`; a task asks by its hub's own name.
OTHER_NAMES = {"train": ("training",), "validation": ("dev", "val", "valid"), "test": ("testing", "eval")}


@contextmanager
def _data_from(folders: Mapping[str, str]) -> Iterator[None]:
    """While the harness loads its tasks, data sets of a hub that `folders` names are read from there."""
    import datasets

    original = datasets.load_dataset

    def load(path: str, name: str | None = None, **kwargs: Any) -> Any:
        if path not in folders:
            return original(path, name, **kwargs)
        folder = Path(folders[path])
        if not folder.is_dir():
            raise BadInput(f"evaluate.lm_eval_data: there is no folder {folder} for {path!r}")
        found = original(str(folder / name if name and (folder / name).is_dir() else folder))
        for split, others in OTHER_NAMES.items():
            found |= {other: found[split] for other in others if split in found}
        return found

    datasets.load_dataset = load
    try:
        yield
    finally:
        datasets.load_dataset = original


def _metric_name(metric: str, filter_name: str) -> str:
    """A metric under one way of reading the answer; the harness calls the plain way none."""
    return metric if filter_name == "none" else f"{metric},{filter_name}"


def _score(metric: str, value: Any) -> Score | None:
    """A sample's score; None where the harness has none of a sample alone."""
    if metric in ROLLING and isinstance(value, tuple) and value[1]:
        return Score(ROLLING[metric](-value[0] / value[1]), float(value[1]))
    return Score(float(value)) if isinstance(value, bool | int | float) else None


def _response(sample: Mapping[str, Any]) -> str:
    """What was generated, or the likeliest of the choices."""
    answers = sample["filtered_resps"]
    if all(isinstance(answer, list | tuple) for answer in answers):
        best = max(range(len(answers)), key=lambda place: answers[place][0])
        return str(sample["arguments"][best][-1]).strip()
    return str(answers[0])


def to_results(task: str, samples: Sequence[Mapping[str, Any]]) -> list[SampleResult]:
    """The harness's samples of `task` in our form; its ways of reading an answer become metrics of one sample."""
    by_document: dict[int, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_document.setdefault(sample["doc_id"], []).append(sample)
    results = []
    for number, readings in sorted(by_document.items()):
        scores, missing = {}, []
        for reading in readings:
            for metric in reading["metrics"]:
                name = _metric_name(metric, reading["filter"])
                if score := _score(metric, reading[metric]):
                    scores[name] = score
                else:
                    missing.append(name)
        first = readings[0]
        reason = f"{', '.join(missing)}: not of a sample alone, but of the whole corpus" if missing else None
        results.append(
            SampleResult(
                f"{task}/{number}",
                str(first["arguments"][0][0]),
                _response(first),
                scores,
                reason,
                {"task": task, "target": str(first["target"]), "unscored_metrics": missing},
            )
        )
    return results


@dataclass(frozen=True, slots=True)
class LmEvalTask:
    """One task, group or tag of the harness, with at most `limit` samples of each of its tasks."""

    name: str
    tasks: Any  # what lm_eval.tasks.TaskManager.load gave
    limit: int | None
    chat_template: bool
    batch_size: int
    seed: int
    metrics: tuple[str, ...] = ()  # whichever the samples have
    groups: tuple[str, ...] = ("task",)

    @classmethod
    def load(
        cls,
        name: str,
        own_tasks: Path,
        data: Mapping[str, str],
        limit: int | None,
        chat_template: bool,
        batch_size: int,
        seed: int,
    ) -> Self:
        """Find the task and its data.

        Raises:
            BadInput: no such task, or data or a package that it needs is not at hand.
        """
        import datasets
        import httpx
        from lm_eval.tasks import TaskManager

        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        manager = TaskManager(include_path=str(own_tasks) if own_tasks.is_dir() else None)
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks)
            raise BadInput(f"{PARAMETER}: lm-evaluation-harness has no task {name!r}; names like it: {near or 'none'}")
        try:
            with _data_from(data):
                tasks = manager.load([name])
        except ModuleNotFoundError as error:
            raise BadInput(f"{PARAMETER}: {name} needs a package that is not installed: {error}") from error
        except (OSError, ValueError, httpx.HTTPError, datasets.exceptions.DatasetsError) as error:
            raise BadInput(
                f"{PARAMETER}: {name} can't be loaded: {type(error).__name__}: {error}. Where no hub can be reached, "
                "put a copy of its data set in a folder and name it in evaluate.lm_eval_data"
            ) from error
        if unsafe := [task for task, found in tasks["tasks"].items() if getattr(found, "UNSAFE_CODE", False)]:
            raise BadInput(f"{PARAMETER}: {unsafe} run model-written code outside a sandbox; evaluate.humaneval_* does")
        return cls(f"lm_eval_{name}", tasks, limit, chat_template, batch_size, seed)

    def run(self, engine: Any) -> list[SampleResult]:
        from lm_eval.evaluator import evaluate

        from evals.harness_model import EngineModel

        for task in self.tasks["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=self.seed)
        found = evaluate(
            EngineModel(engine, self.batch_size, self.seed),
            self.tasks,
            limit=self.limit,
            bootstrap_iters=0,
            apply_chat_template=self.chat_template,
        )
        return [result for task, samples in found["samples"].items() for result in to_results(task, samples)]
