"""What rows of ``score`` can be written as, and what writes them."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from iqakit.cli.score_rows import FlatCells, JsonLines, JsonList, PeopleTable, RowFormat
from iqakit.errors import ConfigurationError

if TYPE_CHECKING:
    from iqakit.pipeline.model import QualityModel


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


_BY_SUFFIX = {
    ".json": Format.JSON,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".csv": Format.CSV,
    ".txt": Format.TABLE,
}


def format_of(form: Format | None, output: Path | None) -> Format:
    """The format asked for, else the one that the file's ending says."""
    if form is not None:
        return form
    if output is None or str(output) == "-":
        return Format.TABLE
    if output.suffix.lower() not in _BY_SUFFIX:
        raise ConfigurationError(f"the ending of {output} does not say a format; add --format table, json, jsonl or csv")
    return _BY_SUFFIX[output.suffix.lower()]


def check_resumable(path: Path | None, form: Format, top: str | None) -> None:
    """Only rows that were written one by one to a file can be gone on with."""
    if path is None:
        raise ConfigurationError("--resume goes on with a file; name it with -o FILE")
    if form not in (Format.JSONL, Format.CSV):
        raise ConfigurationError(f"--resume goes on with jsonl and csv only, not with {form.value}; add --format jsonl")
    if top is not None:
        raise ConfigurationError("--resume and --top cannot be combined: the best are known only when all are scored")


def row_format(form: Format, path: Path | None, model: QualityModel) -> RowFormat:
    """What writes the rows."""
    if form is Format.JSON:
        return JsonList()
    if form is Format.JSONL:
        return JsonLines()
    if form is Format.CSV:
        return FlatCells(model.tasks)
    if path is not None:
        return PeopleTable(None, colour=False)
    from rich.console import Console

    console = Console(file=sys.stdout)
    watched = console.is_terminal
    return PeopleTable(
        get_terminal_size().columns if watched else None,
        colour=watched and not console.no_color,
        unicode=(sys.stdout.encoding or "utf-8").lower().replace("-", "").startswith("utf"),
    )
