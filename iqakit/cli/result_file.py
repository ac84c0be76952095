"""Where rows go: standard output, or a file that a cut run leaves in a state from which it can go on."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from iqakit.errors import ConfigurationError, FileFormatError, MismatchError


class ResultFile:
    """A text stream for results, to be used with ``with``; every ``write`` reaches the file before it returns.

    A new file grows in place, so that whatever was scored is there if the run is cut. A file that exists already is not
    touched until the new rows are complete: they are written beside it (``scores.partial.jsonl``) and then take its
    place; if the run is cut, the rows so far stay there.

    Attributes:
        leftover: After a run that was cut: where the rows so far are, if that is not the file asked for.
    """

    def __init__(self, path: Path | None, *, append: bool = False) -> None:
        """Name the file; nothing is opened yet.

        Args:
            path: The file; None is standard output.
            append: Go on at the end of the file.
        """
        self._path = path
        self._append = append
        self._target: Path | None = path
        self._stream: TextIO | None = None
        self.leftover: Path | None = None

    def __enter__(self) -> ResultFile:
        if self._path is None:
            self._stream = sys.stdout
            return self
        if self._path.is_file() and not self._append:
            self._target = self._path.with_name(f"{self._path.stem}.partial{self._path.suffix}")
        assert self._target is not None
        # Bytes of a path that are no text come back as they were.
        self._stream = self._target.open(
            "a" if self._append else "w", encoding="utf-8", errors="surrogateescape", newline=""
        )
        return self

    def write(self, text: str) -> None:
        """Write some rows and hand them to the operating system."""
        if not text:
            return
        assert self._stream is not None, "used outside of `with`"
        if self._path is None and not _takes(self._stream, text):
            text = text.encode("utf-8", "backslashreplace").decode("utf-8")
            encoding = self._stream.encoding or "utf-8"
            text = text.encode(encoding, "backslashreplace").decode(encoding)
        self._stream.write(text)
        self._stream.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._path is None or self._stream is None or self._target is None:
            return
        if kind is not None:
            # The first error is the one to tell; that closing fails too, on a full disk, adds nothing.
            with contextlib.suppress(OSError):
                self._stream.close()
            if self._target != self._path:
                self.leftover = self._target
            return
        if self._target.is_file():
            os.fsync(self._stream.fileno())
        self._stream.close()
        if self._target != self._path:
            self._target.replace(self._path)


def _takes(stream: TextIO, text: str) -> bool:
    """Whether a stream can show a text as it is."""
    try:
        text.encode(stream.encoding or "utf-8", stream.errors or "strict")
    except UnicodeEncodeError:
        return False
    return True


@dataclass
class Kept:
    """What an earlier run left in a file.

    Attributes:
        paths: How often each path is there.
        failed: Rows of images that could not be scored.
        scores: Scores there are.
        has_heading: The file begins with the line of headings (CSV).
    """

    paths: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    scores: list[float] = field(default_factory=list)
    has_heading: bool = False

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(self.paths.values())

    def take(self, path: str) -> bool:
        """Whether an image is done already; each row there counts for one image of that path."""
        if self.paths[path] <= 0:
            return False
        self.paths[path] -= 1
        return True


def resume(path: Path, form: str, columns: Sequence[str], model: str) -> Kept:
    """Read what a cut run left, and drop its half-written last line.

    Args:
        path: The file; it need not be there.
        form: ``"jsonl"`` or ``"csv"``.
        columns: Headings that the CSV must have.
        model: The model that scores now; rows of another must not stand beside its own.

    Raises:
        ConfigurationError: The format cannot be continued.
        FileFormatError: The file is no such table.
        MismatchError: Its rows were scored by another model, or it has other columns.
    """
    if form not in ("jsonl", "csv"):
        raise ConfigurationError(f"--resume goes on with jsonl and csv only, not with {form}; add --format jsonl")
    if not path.exists():
        return Kept()
    kept = Kept()
    parse = _parse_line if form == "jsonl" else _csv_parser(kept, columns, path)
    good = 0
    with path.open("rb") as stream:
        size = path.stat().st_size
        for number, (end, record) in enumerate(_records(stream, form), start=1):
            try:
                row = parse(record.decode("utf-8", "surrogateescape"))
            except ValueError as error:
                if isinstance(error, MismatchError):
                    raise
                if end >= size:  # the last line: cut in the middle
                    break
                raise FileFormatError(f"{path}, row {number}, is no row of {form} scores: {error}") from None
            good = end
            if row is not None:
                _keep(kept, row, model, path)
    if good < size:
        os.truncate(path, good)
    return kept


def _keep(kept: Kept, row: dict[str, Any], model: str, path: Path) -> None:
    """Count one row of an earlier run."""
    if row.get("model") != model:
        raise MismatchError(f"{path} holds rows of model {row.get('model')}, but {model} scores now; give another -o")
    kept.paths[str(row["path"])] += 1
    if row.get("status") != "ok":
        kept.failed += 1
    elif row.get("score") not in (None, ""):
        kept.scores.append(float(row["score"]))


def _records(stream: Any, form: str) -> Iterator[tuple[int, bytes]]:
    """Records of a file with the offset at which each ends; a record of CSV may hold line breaks inside quotes."""
    offset, pending = 0, b""
    for line in stream:
        offset += len(line)
        pending += line
        whole = line.endswith(b"\n") and (form != "csv" or pending.count(b'"') % 2 == 0)
        if whole:
            yield offset, pending
            pending = b""
    if pending:
        yield offset, pending


def _parse_line(text: str) -> dict[str, Any]:
    """One row of JSON lines; ValueError where it is none, or not whole."""
    if not text.endswith("\n"):
        raise ValueError("the line is cut")
    row = json.loads(text)
    if not isinstance(row, dict) or "path" not in row or "status" not in row:
        raise ValueError("it has no path and status")
    return row


def _csv_parser(kept: Kept, columns: Sequence[str], path: Path) -> Callable[[str], dict[str, Any] | None]:
    """A parser of CSV records; the first must be the headings."""

    def parse(text: str) -> dict[str, Any] | None:
        if not text.endswith("\n"):
            raise ValueError("the line is cut")
        cells = next(csv.reader(io.StringIO(text, newline="")), [])
        if not kept.has_heading:
            if cells != list(columns):
                raise MismatchError(
                    f"{path} has the columns {', '.join(cells)}, but this model's rows have {', '.join(columns)}; "
                    "give another -o"
                )
            kept.has_heading = True
            return None
        if len(cells) != len(columns):
            raise ValueError(f"it has {len(cells)} cells, not {len(columns)}")
        return dict(zip(columns, cells, strict=True))

    return parse
