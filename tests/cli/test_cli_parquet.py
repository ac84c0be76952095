"""``score -o rows.parquet``, read back with pyarrow."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqakit.errors import ConfigurationError, StorageError
from iqakit.storage import parquet_rows
from iqakit.storage.parquet_rows import ParquetRows


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    """A row read from Parquet as JSON lines have it."""
    plain = {name: value for name, value in row.items() if name != "error" or value is not None}
    return plain | {name: row[name] or {} for name in ("task_scores", "weights")}


def some_row(index: int, **more: Any) -> dict[str, Any]:
    return {
        "path": f"{index}.jpg",
        "status": "ok",
        "score": 50.0 + index,
        "raw": 0.1 * index,
        "std": 4.0,
        "novelty": None,
        "task_scores": {"a": 0.5, "b": index / 7},
        "weights": {"a": 0.25, "b": 0.75},
        "width": 4,
        "height": 3,
        "warnings": ["grey", "flat"],
        "model": "m@1",
        **more,
    }


def test_rows_are_those_of_json_lines(run, pictures: Path, model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    arguments = ["score", pictures, broken, "missing.png", "--model", model]
    assert run(*arguments, "-o", "rows.jsonl").code == 1
    assert run(*arguments, "-o", "rows.parquet").code == 1
    table = pq.read_table("rows.parquet")
    expected = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert [as_json(row) for row in table.to_pylist()] == expected
    assert table.schema.names == ["path", "status", "error", *list(expected[0])[2:]]
    assert table.schema.field("task_scores").type == pa.struct([("blur", pa.float64())])
    assert table.schema.field("score").type == pa.float64()
    assert table["task_scores"].null_count == 2
    assert sorted(path.name for path in Path().glob("*rows*")) == [".rows.jsonl.resume", "rows.jsonl", "rows.parquet"]
    assert run(*arguments, "--format", "parquet", "-o", "rows.pq").code == 1
    assert pq.read_table("rows.pq").equals(table)


def test_the_best_of_them(run, pictures: Path, model: Path) -> None:
    assert run("score", pictures, "--model", model, "--top", "3", "-o", "best.parquet").code == 0
    scores = pq.read_table("best.parquet")["score"].to_pylist()
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


def test_what_it_cannot_do_is_one_line(run, pictures: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("-q", "score", pictures, "--model", model, "--format", "parquet")
    assert (done.code, done.err) == (
        2,
        "error: --format parquet is not for standard output; name a file with -o FILE.parquet\n",
    )
    done = run("-q", "score", pictures, "--model", model, "-o", "rows.parquet", "--resume")
    assert done.code == 2
    assert done.err == "error: --resume goes on with jsonl and csv only, not with parquet; add --format jsonl\n"
    real = builtins.__import__

    def without_pyarrow(name: str, *more: Any) -> Any:
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    done = run("-q", "score", pictures, "--model", model, "-o", "rows.parquet")
    assert done.code == 2
    assert done.err == 'error: writing Parquet needs pyarrow; install it with: pip install "iqakit[parquet]"\n'
    assert list(Path().glob("*rows*")) == []


def test_row_groups_are_written_as_rows_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "GROUP", 4)
    path, partial = tmp_path / "rows.parquet", tmp_path / "rows.partial.parquet"
    path.write_text("what was there")
    sizes = []
    with ParquetRows(path, partial, ["a", "b"]) as target:
        for index in range(10):
            target.write(some_row(index))
            sizes.append(partial.stat().st_size)
        assert path.read_text() == "what was there"
    assert sizes[2] == 0 < sizes[3] == sizes[6] < sizes[7]
    assert pq.ParquetFile(path).num_row_groups == 3
    assert [as_json(row) for row in pq.read_table(path).to_pylist()] == [some_row(index) for index in range(10)]
    assert not partial.exists()


def test_a_cut_run_leaves_what_can_be_read(run, pictures: Path, model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    images = [pictures / "00.png", pictures / "01.png", broken, pictures / "02.png"]
    done = run("score", *images, "--model", model, "-o", "rows.parquet", "--on-error", "fail")
    assert done.code == 2
    assert "the rows so far are in rows.partial.parquet; rows.parquet was not touched\n" in done.err
    assert pq.read_table("rows.partial.parquet").num_rows == 2
    assert not Path("rows.parquet").exists()
    assert run("score", broken, "--model", model, "-o", "none.parquet", "--on-error", "fail").code == 2
    assert list(Path().glob("none*")) == []


def test_no_rows_are_a_file_of_no_rows(tmp_path: Path) -> None:
    with ParquetRows(tmp_path / "r.parquet", tmp_path / "p", ["a"]):
        pass
    assert pq.read_table(tmp_path / "r.parquet").num_rows == 0


def test_fields_of_an_adapted_run_get_columns(tmp_path: Path) -> None:
    rows = [some_row(0), some_row(1, source_score=40.5, adapted=True), some_row(2, source_score=None, adapted=False)]
    with ParquetRows(tmp_path / "r.parquet", tmp_path / "p", ["a", "b"]) as target:
        for row in rows:
            target.write(row)
    table = pq.read_table(tmp_path / "r.parquet")
    assert table["source_score"].to_pylist() == [None, 40.5, None]
    assert table["adapted"].to_pylist() == [None, True, False]


def test_a_path_that_is_no_text_is_escaped(tmp_path: Path) -> None:
    with ParquetRows(tmp_path / "r.parquet", tmp_path / "p", ["a", "b"]) as target:
        target.write(some_row(0, path=b"caf\xe9.png".decode("utf-8", "surrogateescape")))
    assert pq.read_table(tmp_path / "r.parquet")["path"].to_pylist() == ["caf\\udce9.png"]


def test_a_disk_that_is_full_or_missing_is_one_line(tmp_path: Path, file_size_limit) -> None:
    path, partial = tmp_path / "rows.parquet", tmp_path / "p"
    with file_size_limit(3000), pytest.raises(StorageError, match=r"rows\.parquet: File too large; raise the limit"):
        many(path, partial)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError, match="No such file or directory; create the directory first"):
        many(tmp_path / "nowhere" / "rows.parquet", tmp_path / "nowhere" / "p")
    with pytest.raises(ConfigurationError, match="Parquet needs an ordinary file, which /dev/null is not"):
        many(Path("/dev/null"), partial)


def many(path: Path, partial: Path) -> None:
    with ParquetRows(path, partial, ["a", "b"]) as target:
        for index in range(2500):
            target.write(some_row(index, path=f"{index * 7919:x}" * 5))
