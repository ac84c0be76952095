"""A lock on a directory, so that two fits never add to one model at once."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from iqakit.errors import StorageError
from iqakit.storage.atomic import write_error

LOCK_NAME = ".iqakit.lock"


@contextlib.contextmanager
def locked_directory(directory: Path | str) -> Iterator[Path]:
    """Hold the lock of ``directory``, which is made if it is missing.

    The system lets go of the lock when the process ends, however it ends, so a lock never stays behind. Where there are
    no such locks (Windows, some network disks) this does nothing.

    Yields:
        The directory.

    Raises:
        StorageError: Another process, or this one, already holds it, or the directory cannot be made or written to.
    """
    place = Path(directory)
    try:
        place.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(place / LOCK_NAME)
    except FileExistsError as error:
        raise StorageError(f"{place} is a file, and a model is a directory; choose another --model") from error
    except BlockingIOError as error:
        raise StorageError(
            f"another iqakit is adding to {place} right now; wait until it is done or choose another --model"
        ) from error
    except OSError as error:
        raise write_error(place, "to model directory", error) from error
    try:
        yield place
    finally:
        if descriptor is not None:
            # Removed while still held: whoever waits for this file sees that it is gone and makes a new one.
            with contextlib.suppress(OSError):
                (place / LOCK_NAME).unlink()
            os.close(descriptor)


def _acquire(path: Path) -> int | None:
    try:
        import fcntl
    except ImportError:
        return None
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                raise
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # removed by its last holder between the two calls; try again
