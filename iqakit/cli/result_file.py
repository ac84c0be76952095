"""Where rows go: standard output, or a file that a cut run leaves in a state from which it can go on."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path
from types import TracebackType
from typing import TextIO

from iqakit.storage.atomic import write_error
from iqakit.storage.run_record import RunRecord, record_path, write_whole


def partial_path(path: Path) -> Path:
    """Where rows grow that are to take the place of a file that is there."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def growing_path(path: Path, *, resuming: bool) -> Path:
    """The file to which rows are added as they come: the one asked for, or one beside it.

    Args:
        path: The file asked for.
        resuming: Go on with what a cut run left, which is beside it if a whole file is to be replaced.
    """
    partial = partial_path(path)
    if not resuming:
        return partial if path.is_file() else path
    with contextlib.suppress(FileNotFoundError):
        left = partial.stat().st_mtime_ns
        # An older one was left behind by some run before the one that wrote the file itself.
        if not path.exists() or left >= path.stat().st_mtime_ns:
            return partial
    return path


class ResultFile:
    """A stream for results, to be used with ``with``; every ``write`` reaches the file before it returns.

    A new file grows in place, so that whatever was scored is there if the run is cut. A file that exists already is not
    touched until the new rows are complete: they are written beside it (``scores.partial.jsonl``) and then take its
    place; if the run is cut, the rows so far stay there. What one ``write`` brings is in the file whole or not at all,
    unless the process is killed in the middle of it.

    Attributes:
        leftover: After a run that was cut: the file that holds the rows so far; None: there are none.
        size: Bytes written and there before; 0 for standard output.
    """

    def __init__(self, path: Path | None, *, append: bool = False) -> None:
        """Name the file; nothing is opened yet.

        Args:
            path: The file; None is standard output.
            append: Go on with what a cut run left.
        """
        self._path = path
        self._append = append
        self._target = None if path is None else growing_path(path, resuming=append)
        self._descriptor: int | None = None
        self._regular = False
        self._written = False
        self._created = False
        self.leftover: Path | None = None
        self.size = 0

    def __enter__(self) -> ResultFile:
        if self._target is None:
            return self
        self._created = not os.path.lexists(self._target)
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)
        try:
            self._descriptor = os.open(self._target, flags | (os.O_APPEND if self._append else os.O_TRUNC), 0o666)
            facts = os.fstat(self._descriptor)
        except OSError as error:
            raise write_error(self._target, "rows to", error) from error
        self._regular = stat.S_ISREG(facts.st_mode)
        self.size = facts.st_size if self._regular else 0
        self._written = self.size > 0
        return self

    def write(self, text: str) -> None:
        """Write some rows and hand them to the operating system.

        Raises:
            StorageError: They could not be written; what was written before is there.
        """
        if not text:
            return
        if self._target is None:
            _write_standard_output(sys.stdout, text)
            return
        assert self._descriptor is not None, "used outside of `with`"
        data = row_bytes(text)
        before = self.size
        try:
            write_whole(self._descriptor, data)
            self.size = before + len(data)
        except OSError as error:
            raise write_error(self._target, "rows to", error) from error
        except BaseException:
            # Interrupted half-way: what is written after this, such as the end of a list, must follow a whole row.
            self._go_back(before)
            raise
        self._written = True

    def _go_back(self, size: int) -> None:
        """Forget what was written beyond ``size``, where that can be done."""
        self.size = size
        if self._regular and self._descriptor is not None:
            os.ftruncate(self._descriptor, size)
            os.lseek(self._descriptor, size, os.SEEK_SET)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._descriptor is None or self._target is None or self._path is None:
            return
        if kind is not None:
            # The first error is the one to tell; that closing fails too, on a full disk, adds nothing.
            with contextlib.suppress(OSError):
                if self._regular:
                    os.ftruncate(self._descriptor, self.size)
                os.close(self._descriptor)
            self._descriptor = None
            self._leave()
            return
        try:
            if self._regular:
                os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
            if self._target != self._path:
                take_place(self._target, self._path)
        except OSError as failure:
            raise write_error(self._path, "rows to", failure) from failure

    def _leave(self) -> None:
        """After a cut run: keep what was written; of a file that this run made and wrote nothing to, leave nothing."""
        assert self._target is not None
        if self._written:
            self.leftover = self._target if self._regular else None
        elif self._created or self._target != self._path:
            for path in (self._target, record_path(self._target)):
                with contextlib.suppress(OSError):
                    path.unlink()


def take_place(new: Path, old: Path) -> None:
    """Put a complete file of rows, with the record of its run, in the place of another.

    Raises:
        OSError: It could not be done.
    """
    # In this order, a record never stands beside rows that it does not speak of.
    record_path(old).unlink(missing_ok=True)
    new.replace(old)
    with contextlib.suppress(FileNotFoundError):
        record_path(new).replace(record_path(old))


def check_place(path: Path | None, what: str = "rows to") -> None:
    """Say before the work begins that a file cannot be made for want of its directory.

    Args:
        path: The file; None is standard output.
        what: What is to be written, as ``write_error`` says it.

    Raises:
        StorageError: There is no such directory.
    """
    if path is not None and not path.parent.is_dir():
        code = errno.ENOTDIR if path.parent.exists() else errno.ENOENT
        raise write_error(path, what, OSError(code, os.strerror(code)))


def begin_record(path: Path | None, settings: dict[str, object]) -> RunRecord | None:
    """A new record for the rows that will grow; None where rows go to no ordinary file.

    Args:
        path: The file asked for; None is standard output.
        settings: What decides the scores.
    """
    if path is None or (path.exists() and not path.is_file()):
        return None
    record = RunRecord(growing_path(path, resuming=False))
    record.begin(settings)
    return record


def row_bytes(text: str) -> bytes:
    """A row as it stands in a file: bytes of a path that are no text come back as they were."""
    return text.encode("utf-8", "surrogateescape")


def _write_standard_output(stream: TextIO, text: str) -> None:
    """Write at once; what the stream cannot show is escaped."""
    if not _takes(stream, text):
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
        encoding = stream.encoding or "utf-8"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    stream.write(text)
    stream.flush()


def _takes(stream: TextIO, text: str) -> bool:
    """Whether a stream can show a text as it is."""
    try:
        text.encode(stream.encoding or "utf-8", stream.errors or "strict")
    except UnicodeEncodeError:
        return False
    return True
