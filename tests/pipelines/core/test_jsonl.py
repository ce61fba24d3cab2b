"""JSON Lines: bad lines are named, equal rows give equal bytes, a failed write leaves the old file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.core import jsonl
from pipelines.core.errors import BadInput


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_rows_come_back_as_written(tmp_path: Path, name: str) -> None:
    rows = [{"text": "a\nb", "n": 1}, {"text": "ü 日本", "n": None}]
    assert jsonl.write_rows(tmp_path / name, rows) == 2
    assert list(jsonl.read_rows(tmp_path / name)) == rows


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_equal_rows_give_equal_bytes(tmp_path: Path, name: str) -> None:
    jsonl.write_rows(tmp_path / f"first-{name}", [{"a": 1, "b": 2}])
    jsonl.write_rows(tmp_path / f"second-{name}", [{"b": 2, "a": 1}])
    assert (tmp_path / f"first-{name}").read_bytes() == (tmp_path / f"second-{name}").read_bytes()


@pytest.mark.parametrize(
    ("line", "reason"), [(b"{broken", "not valid JSON"), (b"[1]", "list"), (b"\xff\xfe{}", "JSON")]
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b"\n")
    with pytest.raises(BadInput, match=rf"rows\.jsonl:3 .*{reason}"):
        list(jsonl.read_rows(path))


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    jsonl.write_rows(path, [{"a": 1}])

    def rows() -> Iterator[jsonl.Row]:
        yield {"a": 2}
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        jsonl.write_rows(path, rows())
    assert list(jsonl.read_rows(path)) == [{"a": 1}]


def test_shards_hold_all_rows_in_order_and_begin_anew_at_their_size(tmp_path: Path) -> None:
    rows = [{"number": number, "text": "x" * 100} for number in range(10)]
    with jsonl.open_shards(tmp_path, "s", size=250) as write:
        for row in rows:
            write(row)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [f"s-{number:05d}.jsonl.gz" for number in range(4)]
    assert [row for file in files for row in jsonl.read_rows(file)] == rows


def test_a_shard_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), jsonl.open_shards(tmp_path, "s", size=1) as write:
        write({"a": 1})
        write({"a": 2})
        raise RuntimeError("the source broke")
    assert [file.name for file in sorted(tmp_path.glob("s-*"))] == ["s-00000.jsonl.gz"]
