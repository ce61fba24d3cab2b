"""Tasks run on this machine, on Ray and through Slurm's commands; what fails is named with where to look."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipelines.core.errors import BadInput
from pipelines.core.sections.serving import Workers
from pipelines.data import workers
from pipelines.data.workers import run_tasks
from tests.slurm import install_slurm
from tests.workspaces import ROOT


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes import this file and the project, as they import a stage's code."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{Path(__file__).parent}", prepend=":")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workers:
    """Slurm's commands on PATH, and the setting that uses them."""
    install_slurm(tmp_path / "slurm", monkeypatch)
    monkeypatch.setattr(workers, "LOOK_S", (0.01,))
    return settings("slurm")


def settings(executor: str) -> Workers:
    return Workers.model_validate(
        {"executor": executor, "count": 2, "slurm_partition": "cpu", "slurm_time": "00:10:00"}
    )


def note(folder: Path, task: int) -> None:
    """A task that says that it ran, and how often."""
    with (folder / f"{task}.txt").open("a") as file:
        file.write("ran\n")


def note_but_fail(folder: Path, error: type[Exception], task: int) -> None:
    """As `note`, but task 1 fails while `folder`/mended is missing."""
    note(folder, task)
    if task == 1 and not (folder / "mended").exists():
        raise error("there is no mended")


def ran(folder: Path) -> dict[str, int]:
    return {path.name: len(path.read_text().split()) for path in sorted(folder.glob("*.txt"))}


def test_slurm_runs_every_task_once(slurm: Workers, tmp_path: Path) -> None:
    for _ in range(2):
        run_tasks(partial(note, tmp_path), 3, tmp_path / "place", slurm)
        assert ran(tmp_path) == {"0.txt": 1, "1.txt": 1, "2.txt": 1}


@pytest.mark.parametrize(("raised", "expected"), [(ValueError, RuntimeError), (BadInput, BadInput)])
def test_a_task_that_fails_on_slurm_is_named_and_only_it_runs_again(
    slurm: Workers, tmp_path: Path, raised: type[Exception], expected: type[Exception]
) -> None:
    work, place = partial(note_but_fail, tmp_path, raised), tmp_path / "place"
    with pytest.raises(expected, match=rf"1 tasks failed \(1\).*there is no mended.*{place}.*_1 FAILED"):
        run_tasks(work, 3, place, slurm)
    assert "there is no mended" in next(place.glob("slurm_logs/*_1.out")).read_text()
    (tmp_path / "mended").touch()
    run_tasks(work, 3, place, slurm)
    assert ran(tmp_path) == {"0.txt": 1, "1.txt": 2, "2.txt": 1}


def test_without_slurms_commands_the_error_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="sbatch and squeue"):
        run_tasks(partial(note, tmp_path), 3, tmp_path / "place", settings("slurm"))


def test_without_ray_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "find_spec", lambda _name: None)
    with pytest.raises(BadInput, match="uv pip install ray"):
        run_tasks(partial(note, tmp_path), 3, tmp_path / "place", settings("ray"))


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_ray_runs_every_task_once_and_names_what_fails(tmp_path: Path) -> None:
    work, place = partial(note_but_fail, tmp_path, ValueError), tmp_path / "place"
    with pytest.raises(RuntimeError, match=rf"1 tasks failed \(1\).*there is no mended.*{place}"):
        run_tasks(work, 3, place, settings("ray"))
    (tmp_path / "mended").touch()
    run_tasks(work, 3, place, settings("ray"))
    assert ran(tmp_path) == {"0.txt": 1, "1.txt": 2, "2.txt": 1}


def test_a_local_task_raises_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no mended"):
        run_tasks(partial(note_but_fail, tmp_path, ValueError), 3, tmp_path / "place", settings("local"))
