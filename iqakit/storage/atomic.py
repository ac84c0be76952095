"""Files that are written whole or not at all, and read whole.

New content goes to a temporary file beside the old one, is forced to disk and then takes the old one's place in a single
step. Whatever fails on the way, the old content stays.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from iqakit.errors import FileFormatError, StorageError

_ADVICE = {
    errno.ENOSPC: "free some space or write elsewhere",
    errno.EDQUOT: "free some space or write elsewhere",
    errno.EFBIG: "raise the limit on file sizes or write elsewhere",
    errno.EACCES: "choose a place that you may write to",
    errno.EPERM: "choose a place that you may write to",
    errno.EROFS: "choose a place that you may write to",
    errno.ENOENT: "create the directory first",
    errno.ENOTDIR: "one part of the path is a file; choose another path",
    errno.EISDIR: "choose a file name, not a directory",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def write_error(path: Path, what: str, error: OSError) -> StorageError:
    """One line for a write that failed: what was being written, what happened, what to do."""
    reason = error.strerror or str(error) or type(error).__name__
    advice = _ADVICE.get(error.errno or 0, "check the disk or write elsewhere")
    return StorageError(f"could not write {what or 'the file'} {path}: {reason}; {advice}")


@contextlib.contextmanager
def atomic_file(path: Path | str, what: str = "") -> Iterator[BinaryIO]:
    """A binary file to write to, which becomes ``path`` only if the block ends without an error.

    Args:
        path: The file to make or replace; its directory must be there. A link is followed.
        what: What is being written, for the error, e.g. ``"adapter file"``.

    Yields:
        The temporary file, open for writing.

    Raises:
        StorageError: It could not be written. The old content is still there and nothing is left behind.
    """
    asked = Path(path)
    temporary: Path | None = None
    try:
        target = _ordinary_target(asked)
        candidate = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.tmp")
        # The usual permissions, less the umask: tempfile would keep the file from everyone else.
        descriptor = os.open(candidate, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        temporary = candidate
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
        temporary = None
        _sync_directory(target.parent)
    except StorageError:
        raise
    except OSError as error:
        raise write_error(asked, what, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def write_bytes_atomic(path: Path | str, data: bytes, what: str = "") -> None:
    """Make or replace ``path`` with ``data`` in one step.

    Raises:
        StorageError: It could not be written; the old content is still there.
    """
    with atomic_file(path, what) as stream:
        stream.write(data)


def write_text_atomic(path: Path | str, text: str, what: str = "") -> None:
    """Make or replace ``path`` with ``text``, in UTF-8 and with its line ends as they are.

    Raises:
        StorageError: It could not be written; the old content is still there.
    """
    write_bytes_atomic(path, text.encode("utf-8", errors="replace"), what)


def read_file_bytes(path: Path | str, what: str) -> bytes:
    """The content of an ordinary file.

    Args:
        path: The file.
        what: What it should be, for the error, e.g. ``"adapter file"``.

    Raises:
        StorageError: It is missing, is no ordinary file, or cannot be read.
        FileFormatError: It is empty.
    """
    source = Path(path)
    try:
        # Asked before opening: opening a named pipe would wait for ever.
        if not stat.S_ISREG(source.stat().st_mode):
            kind = "a directory" if source.is_dir() else "not an ordinary file"
            raise StorageError(f"{what} {source} is {kind}; give the path of the file itself")
        data = source.read_bytes()
    except FileNotFoundError as error:
        raise StorageError(f"{what} {source} does not exist; check the path") from error
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"could not read {what} {source}: {error.strerror or error}; check the path and its permissions"
        ) from error
    if not data:
        raise FileFormatError(f"{what} {source} is empty; it was not written to the end, make or fetch it again")
    return data


def _ordinary_target(path: Path) -> Path:
    """The file that ``path`` leads to; a device or a pipe must never be replaced by a file."""
    target = Path(os.path.realpath(path))  # unlike Path.resolve, it raises nothing for a link to itself
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if target.exists() and not target.is_file():
        raise StorageError(f"could not write {path}: it is not an ordinary file; choose another path")
    return target


def _sync_directory(directory: Path) -> None:
    """Force the new name to disk, where the system lets a directory be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
