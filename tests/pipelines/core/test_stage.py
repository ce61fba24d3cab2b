"""What a stage runs inside: its peak of memory is known, and memory that ran out is said with the knob to turn."""

from pathlib import Path

import pytest

from pipelines.core import artifacts
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import read_json
from pipelines.core.stage import KNOBS, open_stage, peak_memory_mib
from tests.pipelines.in_process import enter_workspace, exit_code


class OutOfMemoryError(RuntimeError):
    """As torch calls it on a GPU."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 TiB"),
        OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
    ids=["numpy", "gpu", "cpu"],
)
def test_memory_that_ran_out_names_the_knob(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_workspace(tmp_path, monkeypatch)

    def main() -> None:
        with open_stage("ppo"):
            raise error

    assert exit_code(main) == ExitCode.BAD_INPUT
    said = read_json(artifacts.FAILURES / "ppo.json")["error"]
    assert "ppo.microbatch_episodes" in said
    assert str(error) in said


def test_other_errors_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_workspace(tmp_path, monkeypatch)
    with pytest.raises(RuntimeError, match="mat1 and mat2"), open_stage("ppo"):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_the_peak_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter_workspace(tmp_path, monkeypatch)
    before = peak_memory_mib()
    with open_stage("sft"):
        held = bytearray(200 << 20)
        held[::4096] = b"x" * len(held[::4096])
    assert peak_memory_mib() >= max(before, 200)
    assert "peak memory" in capsys.readouterr().out


def test_every_knob_is_a_parameter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.core.config import load_params

    enter_workspace(tmp_path, monkeypatch)
    params = load_params(Path("params.yaml"))
    for stage, said in KNOBS.items():
        for word in said.replace(",", " ").split():
            if "." in word:
                section, _, key = word.partition(".")
                assert section == stage
                assert key in params.section(stage), word
