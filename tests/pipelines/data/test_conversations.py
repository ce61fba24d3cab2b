"""The product's own conversations: consented ones become text, and no word of any other goes anywhere."""

import gzip
import json
from pathlib import Path

import pytest

from pipelines.core import artifacts
from pipelines.core.digests import folder_sha256
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import read_json, read_rows
from pipelines.core.sections.data import Source
from pipelines.data.conversations import MANIFEST, rendered, require_snapshot
from pipelines.ingest import check_sources
from tests.pipelines.test_ingest import describe
from tests.workspaces import make_workspace, run_stage

SECRET = "nobody may ever read this"


def row(number: int, consent: object, *texts: str) -> dict[str, object]:
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]
    system = {"role": "system", "content": "You are a helpful assistant."}
    return {
        "id": f"c{number}",
        "consent": consent,
        "messages": [system, *messages],
        "date": "2026-11-01",
        "user": "jane",
    }


def write_snapshot(folder: Path, *lines: object, manifest: object = None) -> Path:
    folder.mkdir(parents=True)
    written = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "conversations-0.jsonl").write_text("".join(f"{line}\n" for line in written[:2]))
    (folder / "conversations-1.jsonl.gz").write_bytes(gzip.compress("".join(f"{x}\n" for x in written[2:]).encode()))
    (folder / MANIFEST).write_text(json.dumps({"format": 1} if manifest is None else manifest))
    return folder


def source_of(folder: Path, **changes: object) -> dict[str, object]:
    return {
        "name": "chats",
        "use": "corpus",
        "origin": f"conversations:{folder}",
        "sha256": folder_sha256(folder) if folder.is_dir() else "0" * 64,
        "license": "LicenseRef-User-Consent",
        "include": [],
        "columns": {},
        "weight": 1.0,
    } | changes


def labelled(folder: Path) -> dict[str, object]:
    path = folder / "labelled.csv"
    path.write_text("bad,text\n1,go away\n0,welcome\n")
    return describe(path, "labelled", "moderation", columns={"text": "text", "harassment": "bad"})


def test_only_consented_conversations_become_documents_and_all_others_are_counted(tmp_path: Path) -> None:
    snapshot = write_snapshot(
        tmp_path / "snapshot",
        row(1, True, "Which tide is it?", "It is low tide."),
        row(2, False, SECRET, "ok"),
        row(3, None, SECRET, "ok"),
        {key: value for key, value in row(4, True, SECRET).items() if key != "consent"},
        row(5, "true", SECRET, "ok"),
        row(6, True, "Thank you.", "", "And now?"),
        row(7, True) | {"messages": [{"role": "stranger", "content": SECRET}]},
        "{broken",
    )
    given = [source_of(snapshot), labelled(tmp_path)]
    overrides = [f"ingest.sources={json.dumps(given)}", "ingest.gpt2_tokenizer=null"]
    workspace = make_workspace(tmp_path / "run", overrides)
    done = run_stage(workspace, "pipelines.ingest")
    assert done.returncode == 0, done.stderr

    documents = list(read_rows(workspace / artifacts.INGEST_CORPUS / "chats-00000.jsonl.gz"))
    assert [document["text"] for document in documents] == [
        "User: Which tide is it?\n\nAssistant: It is low tide.",
        "User: Thank you.\n\nUser: And now?",
    ]
    assert {document["license"] for document in documents} == {"LicenseRef-User-Consent"}
    assert documents[0]["metadata"] == {
        "conversation": "c1",
        "date": "2026-11-01",
        "format": "conversation",
        "line": 1,
        "path": "conversations-0.jsonl",
    }
    entry = read_json(workspace / artifacts.INGEST_MANIFEST)["sources"][0]
    assert (entry["rows"], entry["quarantined"], entry["passed_over"]) == (2, 5, {"without consent": 1})
    reasons = [bad["reason"] for bad in read_rows(workspace / artifacts.INGEST_QUARANTINED)]
    assert sum("no mark of consent" in reason for reason in reasons) == 3
    for file in (workspace / artifacts.INGEST).rglob("*"):
        if file.is_file():
            content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
            assert SECRET.encode() not in content, file


def test_a_snapshot_that_is_not_there_ends_the_stage_with_a_remedy(tmp_path: Path) -> None:
    given = [source_of(tmp_path / "none"), labelled(tmp_path)]
    overrides = [f"ingest.sources={json.dumps(given)}", "ingest.gpt2_tokenizer=null"]
    workspace = make_workspace(tmp_path / "run", overrides)
    done = run_stage(workspace, "pipelines.ingest")
    assert done.returncode == ExitCode.BAD_INPUT
    assert "source chats" in done.stderr and "there is no snapshot folder" in done.stderr and "dvc pull" in done.stderr


def test_another_snapshot_than_pinned_is_refused(tmp_path: Path) -> None:
    snapshot = write_snapshot(tmp_path / "snapshot", row(1, True, "a", "b"))
    pinned = folder_sha256(snapshot)
    require_snapshot(snapshot, pinned, "source chats")
    (snapshot / "conversations-0.jsonl").write_text(json.dumps(row(2, True, "c", "d")))
    with pytest.raises(BadInput, match=f"source chats.*the parameters pin {pinned}"):
        require_snapshot(snapshot, pinned, "source chats")


@pytest.mark.parametrize("manifest", [{}, {"format": 2}, [1]])
def test_a_folder_that_is_no_snapshot_of_this_format_is_refused(tmp_path: Path, manifest: object) -> None:
    snapshot = write_snapshot(tmp_path / "snapshot", row(1, True, "a", "b"), manifest=manifest)
    with pytest.raises(BadInput, match="must say format 1"):
        require_snapshot(snapshot, folder_sha256(snapshot), "source chats")
    (snapshot / MANIFEST).unlink()
    with pytest.raises(BadInput, match="missing or no JSON"):
        require_snapshot(snapshot, folder_sha256(snapshot), "source chats")


def test_a_snapshot_is_pinned_and_a_corpus(tmp_path: Path) -> None:
    snapshot = write_snapshot(tmp_path / "snapshot", row(1, True, "a", "b"))

    def check(**changes: object) -> None:
        check_sources([Source.model_validate(one) for one in (source_of(snapshot, **changes), labelled(tmp_path))])

    check()
    with pytest.raises(BadInput, match="has no sha256"):
        check(sha256=None)
    with pytest.raises(BadInput, match="must have use: corpus"):
        check(use="moderation")
    with pytest.raises(BadInput, match=r"columns: \{\}"):
        check(columns={"text": "messages"})


def test_turns_are_rendered_without_the_operators() -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": " Hello. "}]
    assert rendered(turns) == "User: Hello."
    assert rendered([]) == ""
    for wrong in (None, "text", [1], [{"role": "user"}], [{"content": "x"}], [{"role": "user", "content": 1}]):
        assert rendered(wrong) is None
