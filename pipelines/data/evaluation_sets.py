"""Evaluation data as rows, in the forms it comes in: a file of JSONL, JSON, CSV or Parquet, or a folder of such files.

Four-choice questions come out alike from MMLU's own CSV files (no header, `<subject>_<split>.csv`), from the layout of
hubs (`<subject>/<split>-00000-of-00001.parquet`), and from JSONL that names subject and split in each row.
"""

import csv
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core.config import read_yaml
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, read_json, read_rows
from pipelines.data.archives import Archive, matching

FORMATS = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet", ".yaml")
LETTERS = "ABCD"
COLUMNS = ("question", *LETTERS, "answer")  # of a CSV file of questions without a header
SPLITS = ("dev", "test", "val", "validation", "train", "auxiliary_train")


class Place(NamedTuple):
    """What a file's path says of the questions in it; None where it says nothing."""

    subject: str | None
    split: str | None


def keep_files(archive: Archive, include: list[str], folder: Path, where: str) -> list[Path]:
    """Copy the data files of `archive` that fit `include` into `folder`, as they are.

    Raises:
        BadInput: there is none, or one would leave the folder.
    """
    members = [member for member in matching(archive, include) if member.path.endswith(FORMATS)]
    if not members:
        raise BadInput(f"{where}: no file fits include {include} and ends in {', '.join(FORMATS)}")
    files = []
    for member in members:
        file = folder / member.path
        if not file.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"{where} has a file that leaves its folder: {member.path!r}")
        file.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member.path) as packed, file.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
        files.append(file)
    return files


def data_files(path: Path) -> list[Path]:
    """`path` itself, or the data files below it in order; of a folder with all subjects together that one alone.

    Raises:
        BadInput: there is nothing, or nothing that can be read.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise BadInput(f"there is no evaluation data at {path}; put it there, or correct the parameter that names it")
    root = path / "all" if (path / "all").is_dir() else path
    found = sorted(file for file in root.rglob("*") if file.name.endswith(FORMATS))
    if not found:
        raise BadInput(f"{path} holds no evaluation data; readable are {', '.join(FORMATS)} files")
    return found


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        try:
            first = next(lines, [])
            headless = len(first) == len(COLUMNS) and first[-1].strip() in tuple(LETTERS)
            names = COLUMNS if headless else tuple(first)
            for cells in itertools.chain([first] if headless else [], lines):
                if len(cells) != len(names):
                    raise BadInput(f"{path}:{lines.line_num} has {len(cells)} cells, expected {len(names)}: {names}")
                yield dict(zip(names, cells, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise BadInput(f"{path}:{lines.line_num + 1} is not valid CSV ({error}); correct or remove it") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow.parquet import read_table

    try:
        yield from read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise BadInput(f"{path} is not valid Parquet ({error}); fetch it again") from error


def _listed(path: Path, value: Any) -> Iterator[Row]:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise BadInput(f"{path} must hold a list of objects")
    yield from value


def _beginnings(path: Path, groups: dict[str, Any]) -> Iterator[Row]:
    """The rows of a file in BOLD's format, {group: {entity: [beginnings of sentences]}}; its name says the domain."""
    for group, entities in groups.items():
        if not isinstance(entities, dict):
            raise BadInput(f"{path} must hold a list of objects, or beginnings as {{group: {{entity: [text]}}}}")
        for entity, texts in entities.items():
            for number, text in enumerate(texts):
                yield {
                    "id": f"{group}/{entity}/{number}",
                    "domain": path.stem.removesuffix("_prompt"),
                    "group": group,
                    "entity": entity,
                    "beginning": text,
                }


def read_file(path: Path) -> Iterator[Row]:
    """The rows of one file, as they are there.

    Raises:
        BadInput: a row can't be read; the message names the file and the line.
    """
    match path.suffix:
        case ".csv":
            yield from _csv_rows(path)
        case ".parquet":
            yield from _parquet_rows(path)
        case ".json":
            value = read_json(path)
            yield from _beginnings(path, value) if isinstance(value, dict) else _listed(path, value)
        case ".yaml":
            for row in _listed(path, read_yaml(path).get("cases")):
                yield row | {"id": f"{path.stem}/{row.get('id')}"}
        case _:
            yield from read_rows(path)


def place_of(path: Path) -> Place:
    """Subject and split of `<subject>_<split>.csv`, `<split>/<subject>.csv` or `<subject>/<split>-….parquet`."""
    stem = path.name.split(".")[0].split("-")[0]
    if stem in SPLITS:
        parent = path.parent.name
        return Place(None if parent == "all" else parent, stem)
    for split in sorted(SPLITS, key=len, reverse=True):
        if stem.endswith(f"_{split}"):
            return Place(stem.removesuffix(f"_{split}"), split)
    return Place(stem, path.parent.name) if path.parent.name in SPLITS else Place(None, None)


def _question(row: Row, where: str, place: Place, number: int) -> Row:
    """`row` as {id, subject, split, question, choices, answer}."""
    choices = list(row["choices"]) if "choices" in row else [row[letter] for letter in LETTERS]
    if len(choices) != len(LETTERS):
        raise BadInput(f"{where} has {len(choices)} choices, expected {len(LETTERS)}")
    answers = {name: index for index, letter in enumerate(LETTERS) for name in (letter, str(index))}
    answer = answers.get(str(row.get("answer")).strip())
    if answer is None:
        raise BadInput(f"{where}: the answer {row.get('answer')!r} is none of A to D or 0 to 3; correct the row")
    subject, split = row.get("subject") or place.subject, row.get("split") or place.split
    if not subject or not split:
        raise BadInput(f"{where} names no subject or no split, nor does its file: <subject>_<dev|test>.csv")
    name = row.get("id") or f"{subject}/{split}/{number}"
    return {
        "id": name,
        "subject": subject,
        "split": split,
        "question": row["question"],
        "choices": choices,
        "answer": answer,
    }


def is_question(row: Row) -> bool:
    """Whether `row` asks a question with four choices."""
    return "question" in row and ("choices" in row or all(letter in row for letter in LETTERS))


def evaluation_rows(path: Path) -> Iterator[Row]:
    """The rows of a file or folder, each with an id; four-choice questions in one form whatever their layout.

    Raises:
        BadInput: there is nothing, or a row can't be read.
    """
    for file in data_files(path):
        place = place_of(file)
        for number, row in enumerate(read_file(file)):
            where = f"{file}, row {number + 1}"
            if is_question(row):
                yield _question(row, where, place, number)
            else:
                yield row if "id" in row or "task_id" in row else row | {"id": f"{file.name}/{number}"}
