"""What a run knows of the images behind its rows: kept in a file beside theirs, so that rows hold nothing but results.

The record of ``rows.jsonl`` is ``.rows.jsonl.resume``. Its first line is canonical JSON: the settings that made the scores.
Every other line stands for one row: a digest of the row's bytes and a digest of the image's size and modification time,
16 hexadecimal digits each. A line is written just before its row; one whose row never came does no harm, and rows may be
moved, edited or deleted by hand, as they are found by what they are and not by where they stand.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqakit.errors import FileFormatError, StorageError
from iqakit.storage.atomic import read_file_bytes, write_bytes_atomic, write_error
from iqakit.storage.canonical_json import canonical_json, parse_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = "iqakit-resume"
FORMAT_VERSION = 1
ABSENT = 0
"""Facts of what is no file that can be looked at."""

_LINE = 34
_WHAT = "record of a run"


def digest(data: bytes) -> int:
    """A number of 64 bits for some bytes; never ``ABSENT``."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big") or 1


def image_facts(path: str) -> int:
    """A digest of a file's size and modification time, in nanoseconds; ``ABSENT`` where there is none.

    Args:
        path: The file, as it was named.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path a name costs seconds a million
    except (OSError, ValueError):
        return ABSENT
    return digest(b"%d %d" % (found.st_size, found.st_mtime_ns))


def unchanged_since(path: str, moment: int) -> bool:
    """Whether a file is there and was not modified after a moment, in nanoseconds since 1970."""
    try:
        return os.stat(path).st_mtime_ns <= moment  # noqa: PTH116
    except (OSError, ValueError):
        return False


def record_path(rows: Path) -> Path:
    """Where the record of a file of rows lies."""
    return rows.with_name(f".{rows.name}.resume")


class KnownRows:
    """The facts behind rows, found by the rows' bytes; 16 bytes a row.

    Args:
        lines: (N, 2), uint64: digest of the row, digest of the image's facts.
    """

    def __init__(self, lines: NDArray[np.uint64]) -> None:
        order = lines[:, 0].argsort(kind="stable")
        self._rows = lines[order, 0]
        self._facts = lines[order, 1]

    def facts(self, row: bytes) -> int | None:
        """What is known of the image of a row, from the last line that tells of it; None: nothing."""
        wanted = self._rows.dtype.type(digest(row))
        place = int(self._rows.searchsorted(wanted, side="right")) - 1
        if place < 0 or self._rows[place] != wanted:
            return None
        return int(self._facts[place])


class RunRecord:
    """The record of one file of rows, to be opened with ``begin`` or ``go_on``.

    Attributes:
        path: The record's own file.
    """

    def __init__(self, rows: Path) -> None:
        """Name the file of rows; nothing is opened yet."""
        self.path = record_path(rows)
        self._rows = rows
        self._descriptor: int | None = None

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Start a new record, in place of one that is there.

        Args:
            settings: What decides the scores, plain JSON.

        Raises:
            StorageError: It cannot be written, or another run is writing to it.
        """
        if self.path.exists():
            self._open()  # fails where another run holds it
            self.close()
        head = canonical_json({"format": FORMAT, "format_version": FORMAT_VERSION, "settings": dict(settings)}, _WHAT)
        write_bytes_atomic(self.path, head.encode("ascii") + b"\n", _WHAT)
        self._open()

    def go_on(self) -> tuple[dict[str, Any], KnownRows] | None:
        """Open the record that is there; None where there is none.

        Returns:
            Its settings, and the facts behind the rows.

        Raises:
            StorageError: It cannot be read or written, or another run is writing to it.
            FileFormatError: It is no record of a run.
        """
        if not self.path.exists():
            return None
        # Only a run that goes on needs it; listing commands should not wait for its import.
        import numpy as np

        self._open()
        head, _, body = read_file_bytes(self.path, _WHAT).partition(b"\n")
        advice = f"delete {self.path} to go on by paths alone"
        try:
            content = parse_json(head, _WHAT)
            whole = len(body) // _LINE * _LINE
            numbers = np.frombuffer(bytes.fromhex(body[:whole].decode("ascii")), ">u8").astype(np.uint64)
            if content["format"] != FORMAT or content["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format {content['format']} {content['format_version']}")
            settings, lines = dict(content["settings"]), numbers.reshape(whole // _LINE, 2)
        except (ValueError, TypeError, KeyError) as error:
            raise FileFormatError(f"{self.path} is no {_WHAT} that this iqakit can read; {advice}") from error
        self._cut(len(head) + 1 + whole)
        return settings, KnownRows(lines)

    def note(self, row: bytes, facts: int) -> None:
        """Write down what is known of the image of a row, before the row is written.

        Raises:
            StorageError: It cannot be written.
        """
        assert self._descriptor is not None, "the record is not open"
        try:
            write_whole(self._descriptor, b"%016x %016x\n" % (digest(row), facts))
        except OSError as error:
            raise write_error(self.path, _WHAT, error) from error

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> None:
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0))
            lock(self._descriptor)
        except BlockingIOError:
            self.close()
            raise StorageError(
                f"another iqakit is writing rows to {self._rows} right now; wait until it is done or give another -o"
            ) from None
        except OSError as error:
            raise write_error(self.path, _WHAT, error) from error

    def _cut(self, size: int) -> None:
        """Drop a half-written last line, so that the next one stands on its own."""
        assert self._descriptor is not None
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, size)


def write_whole(descriptor: int, data: bytes) -> None:
    """Hand bytes to the system, with no buffer of our own that could be lost.

    Raises:
        OSError: They could not be written, or not all of them.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def lock(descriptor: int) -> None:
    """Hold a file until it is closed, however the process ends; nothing where there are no such locks.

    Raises:
        BlockingIOError: Somebody else holds it.
    """
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return
