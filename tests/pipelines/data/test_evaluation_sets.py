"""Evaluation data comes out alike from each of its layouts, and bad data is named."""

import json
import zipfile
from pathlib import Path

import pyarrow
import pytest
from pyarrow.parquet import write_table

from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, write_rows
from pipelines.data.archives import open_archive
from pipelines.data.decontamination import evaluation_files, evaluation_texts
from pipelines.data.evaluation_sets import data_files, evaluation_rows, keep_files

CSV = '"Which planet, of these, is the largest?",Mars,Venus,Jupiter,Earth,C\nWhat is 2 + 2?,1,2,3,4,D\n'
ROWS: list[Row] = [
    {
        "question": "Which planet, of these, is the largest?",
        "choices": ["Mars", "Venus", "Jupiter", "Earth"],
        "answer": 2,
    },
    {"question": "What is 2 + 2?", "choices": ["1", "2", "3", "4"], "answer": 3},
]


def expected(split: str) -> list[Row]:
    return [
        row | {"id": f"school/{split}/{number}", "subject": "school", "split": split} for number, row in enumerate(ROWS)
    ]


def test_csv_files_without_a_header_in_folders_by_split(tmp_path: Path) -> None:
    for split in ("dev", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / f"school_{split}.csv").write_text(CSV)
    assert list(evaluation_rows(tmp_path)) == expected("dev") + expected("test")


def test_csv_files_named_by_subject_in_folders_by_split(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "school.csv").write_text(CSV)
    assert list(evaluation_rows(tmp_path)) == expected("dev")


def test_csv_with_a_header(tmp_path: Path) -> None:
    (tmp_path / "school_test.csv").write_text(f"question,A,B,C,D,answer\n{CSV}")
    assert list(evaluation_rows(tmp_path)) == expected("test")


def test_the_layout_of_hubs(tmp_path: Path) -> None:
    (tmp_path / "school").mkdir()
    for split in ("dev", "test"):
        write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "school" / f"{split}-00000-of-00001.parquet")
    assert list(evaluation_rows(tmp_path)) == expected("dev") + expected("test")


def test_of_a_folder_with_all_subjects_together_that_one_alone_is_read(tmp_path: Path) -> None:
    for folder in ("all", "school"):
        (tmp_path / folder).mkdir()
        rows = [row | {"subject": "school"} for row in ROWS]
        write_table(pyarrow.Table.from_pylist(rows), tmp_path / folder / "test-00000-of-00001.parquet")
    assert list(evaluation_rows(tmp_path)) == expected("test")


def test_rows_of_other_forms_keep_their_fields_and_have_an_id(tmp_path: Path) -> None:
    write_rows(tmp_path / "programs.jsonl.gz", [{"task_id": "a", "prompt": "def f():"}])
    (tmp_path / "requests.csv").write_text("prompt,label\nHow do I kill a process?,safe\n")
    (tmp_path / "case.yaml").write_text("name: x\ncases:\n  - id: one\n    prompt: Why?\n")
    assert list(evaluation_rows(tmp_path)) == [
        {"id": "case/one", "prompt": "Why?"},
        {"prompt": "def f():", "task_id": "a"},
        {"id": "requests.csv/0", "label": "safe", "prompt": "How do I kill a process?"},
    ]


def test_beginnings_in_bolds_format(tmp_path: Path) -> None:
    (tmp_path / "gender_prompt.json").write_text(json.dumps({"actors": {"Ann_Lee": ["Ann Lee is an actor who "]}}))
    assert list(evaluation_rows(tmp_path)) == [
        {
            "id": "actors/Ann_Lee/0",
            "domain": "gender",
            "group": "actors",
            "entity": "Ann_Lee",
            "beginning": "Ann Lee is an actor who ",
        }
    ]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("school_test.csv", "question,A,B,C,D,answer\nWhy?,a,b,c,d,E\n", r"row 1: the answer 'E' is none of A to D"),
        ("school_test.csv", "Why?,a,b,c,d,A\nWhy?,a,b,c,d\n", r"school_test.csv:2 has 5 cells, expected 6"),
        ("school_test.csv", 'Why?,a,b,c,d,A\nWhy?,"a,b,c,d\n', "is not valid CSV"),
        ("school.csv", "Why?,a,b,c,d,A\n", "names no subject or no split"),
        ("test.parquet", "no parquet", "is not valid Parquet"),
        ("test.jsonl", "{", "test.jsonl:1 is not valid JSON"),
        ("test.json", '{"group": []}', "must hold a list of objects"),
    ],
)
def test_bad_data_names_the_place_and_what_was_expected(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=says):
        list(evaluation_rows(tmp_path / name))


def test_missing_data_says_which_path(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no evaluation data at .*nowhere"):
        data_files(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no evaluation data"):
        data_files(tmp_path / "empty")


def test_files_are_kept_only_inside_their_folder(tmp_path: Path) -> None:
    packed = tmp_path / "x.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../out.jsonl", "{}")
    with open_archive(packed, "x") as archive:
        with pytest.raises(BadInput, match=r"x: no file fits include \['\*\.csv'\]"):
            keep_files(archive, ["*.csv"], tmp_path / "kept", "x")
        with pytest.raises(BadInput, match="leaves its folder: '../out.jsonl'"):
            keep_files(archive, [], tmp_path / "kept", "x")


def test_decontamination_looks_for_the_questions_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mmlu" / "test").mkdir(parents=True)
    (tmp_path / "mmlu" / "test" / "school_test.csv").write_text(CSV)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "more.json").write_text(json.dumps([{"prompt": "Tell me about the moon."}]))
    texts = list(evaluation_texts(evaluation_files(tmp_path / "own", str(tmp_path / "mmlu"))))
    assert ROWS[0]["question"] in texts
    assert "Tell me about the moon." in texts
