"""Files that ``iqakit score -o`` wrote, read back as rows."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from iqakit.errors import FileFormatError
from iqakit.pipeline.rows import ScoreRow
from iqakit.storage.atomic import read_file_bytes
from iqakit.storage.canonical_json import parse_json

SCORE_FILE_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv")


def is_score_file(path: str | os.PathLike[str]) -> bool:
    """Whether a path is, by its ending, a file of rows and not an image."""
    return Path(path).suffix.lower() in SCORE_FILE_SUFFIXES


def read_score_file(path: str | os.PathLike[str]) -> list[ScoreRow]:
    """Rows of a file that ``iqakit score`` wrote as jsonl, json or csv.

    Each task's own scores and weights are left out; all else is as it was written.

    Raises:
        StorageError: The file cannot be read.
        FileFormatError: It holds no rows of scores; the message names the row.
    """
    file = Path(path)
    data = read_file_bytes(file, "file of scores")
    suffix = file.suffix.lower()
    if suffix == ".csv":
        records: Iterator[tuple[str, object]] = _csv_records(file, data)
    elif suffix == ".json":
        content = parse_json(data, f"file of scores {file}")
        if not isinstance(content, list):
            raise FileFormatError(f"{file} is no list of rows; give a file that iqakit score -o wrote")
        records = ((f"row {number}", row) for number, row in enumerate(content, start=1))
    else:
        lines = enumerate(data.splitlines(), start=1)
        records = ((f"line {n}", parse_json(line, f"line {n} of {file}")) for n, line in lines if line.strip())
    return [_row(file, place, record) for place, record in records]


def _csv_records(file: Path, data: bytes) -> Iterator[tuple[str, object]]:
    reader = csv.DictReader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline=""))
    try:
        for number, record in enumerate(reader, start=1):
            yield f"row {number}", {key: value for key, value in record.items() if value not in ("", None)}
    except csv.Error as error:
        raise FileFormatError(
            f"{file} is no CSV that can be read: {error}; give a file that iqakit score -o wrote"
        ) from error


def _row(file: Path, place: str, record: object) -> ScoreRow:
    if not isinstance(record, Mapping) or not isinstance(record.get("path"), str) or "status" not in record:
        raise FileFormatError(
            f"{place} of {file} is no row of scores: it has no path and status; give a file of iqakit score"
        )
    if record["status"] not in ("ok", "error"):
        raise FileFormatError(f"{place} of {file} has the status {record['status']!r}; it must be ok or error")

    def number(name: str) -> float | None:
        return _number(file, place, name, record.get(name))

    return ScoreRow(
        path=record["path"],
        status=record["status"],
        model=str(record.get("model") or ""),
        error=None if record["status"] == "ok" else str(record.get("error") or "it could not be scored"),
        score=number("score"),
        raw=number("raw"),
        std=number("std"),
        novelty=number("novelty"),
    )


def _number(file: Path, place: str, name: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise FileFormatError(f"{place} of {file}: {name} must be a number, but it is {value!r}")
    return number
