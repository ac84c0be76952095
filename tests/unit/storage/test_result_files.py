from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iqakit.errors import ConfigurationError, FileFormatError, StorageError
from iqakit.storage.results import JsonlWriter, write_json


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_for_people(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_json(path, {"b": [1, 0.5], "a": "x"})
    assert path.read_text() == '{\n "a": "x",\n "b": [\n  1,\n  0.5\n ]\n}\n'
    with pytest.raises(ConfigurationError, match=r"the content of .*r.json\['a'\] cannot be written as JSON: nan"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text())["a"] == "x"


def test_each_row_is_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with JsonlWriter(path) as writer:
        writer.write({"path": "b.jpg", "score": 1.5, "a": None})
        assert path.read_text() == '{"path": "b.jpg", "score": 1.5, "a": null}\n'
        writer.write({"path": "ü.jpg"})
        assert writer.done == {"b.jpg", "ü.jpg"}
    assert [row["path"] for row in rows_in(path)] == ["b.jpg", "ü.jpg"]
    with JsonlWriter(path) as writer:
        assert writer.done == set()
    assert path.read_bytes() == b""


def test_going_on_after_a_cut_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"path": f"{index}.jpg", "score": index / 3} for index in range(3)]
    with JsonlWriter(path) as writer:
        for row in rows:
            writer.write(row)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        with JsonlWriter(path, resume=True) as writer:
            assert len(writer.done) == whole[:length].count(b"\n")
            for row in rows:
                if row["path"] not in writer.done:
                    writer.write(row)
        assert path.read_bytes() == whole


def test_resuming_what_is_not_there_starts_anew(tmp_path: Path) -> None:
    with JsonlWriter(tmp_path / "new.jsonl", resume=True) as writer:
        writer.write({"path": "a"})
    assert rows_in(tmp_path / "new.jsonl") == [{"path": "a"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"path": "a"}\nhello\n', r"^line 2 of .* is not valid JSON"),
        ('{"score": 1}\n', r"^line 1 of .* is not a row of scores; give another -o, or leave out --resume$"),
        ("[]\n", "line 1 of .* is not a row of scores"),
    ],
)
def test_a_file_of_something_else_is_not_touched(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=message), JsonlWriter(path, resume=True):
        pass
    assert path.read_text() == text


def test_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with JsonlWriter(path) as writer:
        for row, message in (
            ({"score": 1}, "a row for .* has no path; give every row the path of its image"),
            ({"path": "a", "score": float("nan")}, "the row of 'a' cannot be written as JSON"),
            ({"path": "a", "score": {1}}, "the row of 'a' cannot be written as JSON"),
        ):
            with pytest.raises(ConfigurationError, match=message):
                writer.write(row)
    assert path.read_bytes() == b""
    with pytest.raises(ConfigurationError, match="the writer is not open; use it in a with block"):
        writer.write({"path": "a"})


def test_a_full_disk_and_a_bad_place(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with JsonlWriter("/dev/full") as writer:
        with pytest.raises(StorageError) as caught:
            writer.write({"path": "a"})
        assert writer.done == set()
    assert str(caught.value) == (
        "could not write rows to /dev/full: No space left on device; free some space or write elsewhere"
    )
    with (
        pytest.raises(StorageError, match="No such file or directory; create the directory first"),
        JsonlWriter(tmp_path / "a" / "b"),
    ):
        pass
