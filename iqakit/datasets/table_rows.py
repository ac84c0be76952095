"""Rows of a table of scores, read and checked.

Every error is one line that names the file, and the line in it where there is one; the header is line 1.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iqakit.contracts.dataset import Sample
from iqakit.datasets.image_table import inside, is_there
from iqakit.errors import DataError

_COLUMNS = ("image", "mos", "dmos", "std", "content", "split")
_SYNONYMS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table of scores, checked.

    Attributes:
        line: Its line in the file, the header being line 1.
        sample: Name, score (higher is better), deviation and content.
        file: The image's file, whether or not it is there.
        split: ``"train"``, ``"val"`` or ``"test"``; None where the table has no such column.
        turned_at: For a table of DMOS the point that they were turned at, max + min over the table: score = ``turned_at``
            - DMOS. None for a table of MOS.
    """

    line: int
    sample: Sample
    file: Path
    split: str | None
    turned_at: float | None

    def is_there(self) -> bool:
        """Whether the image's file is there."""
        return is_there(self.file)

    @property
    def content(self) -> str:
        """The content's id; an image without one is its own."""
        return self.sample.content or self.sample.name


def read_rows(file: Path) -> list[TableRow]:
    """Read and check every row of a table of scores.

    Raises:
        DataError: The table is not what it must be.
    """
    lines, header, comma = _parse(file)
    columns = _find_columns(file, header)
    score_column = "dmos" if "dmos" in columns else "mos"

    def cells(column: str) -> list[str]:
        at = columns[column]
        return [cells[at].strip() if at < len(cells) else "" for _, cells in lines]

    numbers = [number for number, _ in lines]
    scores = _numbers(file, score_column, numbers, cells(score_column), comma)
    stds: Sequence[float | None] = [None] * len(lines)
    if "std" in columns:
        stds = _deviations(file, numbers, cells("std"), comma)
    splits = _split_column(file, numbers, cells("split")) if "split" in columns else [None] * len(lines)
    contents = cells("content") if "content" in columns else [""] * len(lines)
    if len(lines) < 2:
        raise DataError(f"{file} has one row of scores; a task needs at least two images with different scores")
    if min(scores) == max(scores):
        raise DataError(f"all {len(scores)} scores of {file} are {scores[0]:g}; there is no order to learn or to check")
    turned_at = max(scores) + min(scores) if score_column == "dmos" else None
    if turned_at is not None:
        scores = [turned_at - score for score in scores]
    rows = []
    first: dict[Path, int] = {}
    for number, name, score, std, content, part in zip(
        numbers, cells("image"), scores, stds, contents, splits, strict=True
    ):
        image = _locate(file, number, name)
        key = image.absolute()
        if key in first:
            raise DataError(f"{file}, line {number}: image {name!r} comes twice, first in line {first[key]}; keep one row")
        first[key] = number
        rows.append(TableRow(number, Sample(name, score, std, content or None), image, part, turned_at))
    return rows


def _parse(file: Path) -> tuple[list[tuple[int, list[str]]], list[str], bool]:
    """Rows with their line numbers, the header in lower case, and whether numbers may have a decimal comma."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"table of scores {file} cannot be read: {error.strerror}") from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{file} is UTF-16 text, which Excel calls Unicode; save the table as CSV UTF-8")
    if b"\0" in data:
        raise DataError(f"{file} is not a table of scores: it is binary; give a CSV with columns image and mos")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text (byte {error.start}); save the table as CSV UTF-8") from None
    if not text.strip():
        raise DataError(f"{file} is empty; a table of scores has a header with image and mos, and a row an image")
    delimiter = _delimiter(text)
    lines: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        lines.extend((reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells))
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: not a row of a CSV: {error}") from None
    header = [cell.strip().lower() for cell in lines[0][1]]
    for number, cells in lines[1:]:
        if any(cell.strip() for cell in cells[len(header) :]):
            raise DataError(
                f"{file}, line {number}: {len(cells)} cells under {len(header)} columns; "
                f"put names with {delimiter!r} in quotes"
            )
    if len(lines) == 1 and "image" in header:
        raise DataError(f"{file} has a header and no rows; add one row an image")
    return lines[1:], header, delimiter == ";"


def _delimiter(text: str) -> str:
    """Comma, semicolon or tab: the one under which the header names most known columns, then most columns."""
    header = next(line for line in text.splitlines() if line.strip())

    def columns(delimiter: str) -> tuple[int, int]:
        cells = [cell.strip().strip('"').strip().lower() for cell in header.split(delimiter)]
        return sum(cell in _COLUMNS for cell in cells), len(cells)

    return max(",;\t", key=columns)


def _find_columns(file: Path, header: list[str]) -> dict[str, int]:
    columns: dict[str, int] = {}
    for at, name in enumerate(header):
        if name in _COLUMNS:
            if name in columns:
                raise DataError(f"{file} has two columns named {name!r}; keep one")
            columns[name] = at
    if "mos" in columns and "dmos" in columns:
        raise DataError(f"{file} has both mos and dmos; keep one: mos if higher is better, dmos if higher is worse")
    for wanted, meant in ((("image",), "image"), (("mos", "dmos"), "mos or dmos")):
        if not any(name in columns for name in wanted):
            found = ", ".join(repr(name) for name in header[:12] if name) or "none"
            near = sorted({n for w in wanted for n in difflib.get_close_matches(w, header, n=1, cutoff=0.6)})
            hint = f"; is it {near[0]!r}? rename it" if near else ""
            shown = found if len(found) <= 200 else found[:200] + "..."
            raise DataError(f"{file} has no column {meant}; found {shown}{hint}")
    return columns


def _number(text: str, comma: bool) -> float | None:
    if comma and text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None  # Python reads 1_0 as 10


def _numbers(file: Path, column: str, lines: Sequence[int], texts: Sequence[str], comma: bool) -> list[float]:
    values = [_number(text, comma) for text in texts]
    bad = [i for i, value in enumerate(values) if value is None]
    if bad:
        more = f"; {len(bad)} such rows in all" if len(bad) > 1 else ""
        raise DataError(
            f"{file}, line {lines[bad[0]]}: {column} must be a finite number, but it is {_short(texts[bad[0]])}{more}"
        )
    return [value for value in values if value is not None]


def _deviations(file: Path, lines: Sequence[int], texts: Sequence[str], comma: bool) -> list[float | None]:
    values = [_number(text, comma) if text else None for text in texts]
    bad = [i for i, (v, text) in enumerate(zip(values, texts, strict=True)) if (v is None and text) or (v or 0) < 0]
    if bad:
        more = f"; {len(bad)} such rows in all" if len(bad) > 1 else ""
        raise DataError(
            f"{file}, line {lines[bad[0]]}: std must be a number of 0 or more, or left blank, "
            f"but it is {_short(texts[bad[0]])}{more}"
        )
    return values


def _split_column(file: Path, lines: Sequence[int], texts: Sequence[str]) -> list[str | None]:
    values = [_SYNONYMS.get(text.lower()) for text in texts]
    bad = [i for i, value in enumerate(values) if value is None]
    if bad:
        more = f"; {len(bad)} such rows in all" if len(bad) > 1 else ""
        raise DataError(
            f"{file}, line {lines[bad[0]]}: split must be train, val or test, but it is {_short(texts[bad[0]])}{more}"
        )
    return list(values)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")


def _locate(file: Path, line: int, name: str) -> Path:
    if not name:
        raise DataError(
            f"{file}, line {line}: the cell under image is empty; write the image's name there, or take the row out"
        )
    if "\0" not in name and Path(name).is_absolute():
        return Path(name)
    try:
        return file.parent / inside(name)
    except DataError:
        raise DataError(
            f"{file}, line {line}: image {_short(name)} is not a path below the table's directory; "
            "use a relative path without '..', or an absolute one"
        ) from None
