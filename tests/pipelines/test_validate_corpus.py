"""validate_corpus: a good corpus passes with a report; a spoiled one ends the run and names rule, count and example."""

from pathlib import Path

import pytest

from pipelines import validate_corpus
from pipelines.core import artifacts
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import read_json, write_rows
from pipelines.core.records import Document
from tests.pipelines.in_process import enter_workspace, exit_code
from tests.workspaces import ROOT


def document(number: int, more: str = "") -> Document:
    text = f"Document {number}: " + f"the harbour and the boats of year {number} lay quiet. " * 12 + more
    return Document(id=f"d{number}", text=text, source="mine", license="MIT")


def test_the_stage_passes_good_data_and_stops_at_personal_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter_workspace(tmp_path, monkeypatch, ["validate_corpus.min_documents=20"])
    Path("evals").symlink_to(ROOT / "evals")
    write_rows(artifacts.CORPUS_HELD_OUT, [document(100).to_row()])
    write_rows(artifacts.CORPUS_TRAIN, [document(number).to_row() for number in range(30)])
    assert exit_code(validate_corpus.main) == 0
    assert read_json(artifacts.metrics_of("validate_corpus"))["corpus_records"] == 31
    assert (artifacts.VALIDATE_CORPUS / "report.html").exists()

    spoiled = [document(number, "Ask a@b.example." if number == 7 else "").to_row() for number in range(30)]
    write_rows(artifacts.CORPUS_TRAIN, spoiled)
    assert exit_code(validate_corpus.main) == ExitCode.BAD_INPUT
    assert "no personal data is left: 1 records, for example d7 (pii 'email')" in capsys.readouterr().err
