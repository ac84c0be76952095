"""Results on disk: JSON for people and programs, and rows one a line that an interrupted run can go on from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from iqakit.errors import ConfigurationError, FileFormatError, StorageError
from iqakit.storage.atomic import read_file_bytes, write_error, write_text_atomic
from iqakit.storage.canonical_json import parse_json, readable_json


def write_json(path: Path | str, obj: Any) -> None:
    """Write readable, sorted JSON in one step.

    Args:
        path: The file; replaced if it is there.
        obj: Plain JSON.

    Raises:
        ConfigurationError: It is not plain JSON.
        StorageError: It could not be written; what was there before still is.
    """
    write_text_atomic(path, readable_json(obj, f"the content of {path}"), "results file")


class JsonlWriter:
    """Writes rows to a JSON-lines file as they come, so that what is done is kept whatever happens next.

    Use it in a ``with`` block. Each row is on its way to the disk before ``write`` returns.

    Attributes:
        path: The file.
        done: The ``path`` of every row that the file holds.
    """

    def __init__(self, path: Path | str, resume: bool = False) -> None:
        """Say where to write; nothing is opened yet.

        Args:
            path: The file.
            resume: Keep the rows that are there, less a last line that was cut off; otherwise start anew.
        """
        self.path = Path(path)
        self.done: set[str] = set()
        self._resume = resume
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Open the file.

        Raises:
            StorageError: It cannot be written.
            FileFormatError: A line that is not the last is no row; then nothing is changed.
        """
        keep = self._read_rows() if self._resume else 0
        try:
            flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)
            descriptor = os.open(self.path, flags, 0o666)
            try:
                if self.path.is_file():  # a pipe or a terminal cannot be cut
                    os.ftruncate(descriptor, keep)
                    os.lseek(descriptor, keep, os.SEEK_SET)
            except OSError:
                os.close(descriptor)
                raise
        except OSError as error:
            raise write_error(self.path, "rows to", error) from error
        self._descriptor = descriptor
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row.

        Args:
            row: Plain JSON with a ``path``; its order of keys is kept.

        Raises:
            ConfigurationError: It is not plain JSON, has no ``path``, or the writer is not open.
            StorageError: It could not be written; the rows before it are kept.
        """
        if self._descriptor is None:
            raise ConfigurationError(
                f"rows for {self.path} cannot be written: the writer is not open; use it in a with block"
            )
        if not isinstance(row.get("path"), str):
            raise ConfigurationError(f"a row for {self.path} has no path; give every row the path of its image")
        try:
            line = json.dumps(dict(row), allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"the row of {row['path']!r} cannot be written as JSON: {error}") from error
        rest = memoryview(line.encode("ascii"))
        try:
            # Straight to the system, with no buffer of our own that could be lost or written twice.
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise write_error(self.path, "rows to", error) from error
        self.done.add(row["path"])

    def _read_rows(self) -> int:
        """Note the rows that are there; returns up to which byte they are whole."""
        try:
            if not self.path.exists() or self.path.stat().st_size == 0:
                return 0
        except OSError as error:
            raise StorageError(f"could not read rows of {self.path}: {error.strerror}; check its permissions") from error
        data = read_file_bytes(self.path, "file of rows")
        end = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:end].splitlines(), start=1):
            row = parse_json(line, f"line {number} of {self.path}")
            if not isinstance(row, dict) or not isinstance(row.get("path"), str):
                raise FileFormatError(
                    f"line {number} of {self.path} is not a row of scores; give another -o, or leave out --resume"
                )
            self.done.add(row["path"])
        return end
