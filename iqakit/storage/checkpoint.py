"""Where a fit method keeps its resumable state: one safetensors file, replaced in one step."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqakit.errors import FileFormatError, StorageError
from iqakit.storage.atomic import read_file_bytes, write_bytes_atomic, write_error
from iqakit.storage.canonical_json import canonical_json
from iqakit.storage.fingerprints import fingerprint_tensors
from iqakit.storage.tensor_bytes import decode_tensors, encode_tensors

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "iqakit-checkpoint"
FORMAT_VERSION = 1


class FileCheckpoint:
    """Resumable state of one fit, in ``checkpoint.safetensors``.

    A checkpoint can always be done without, so one that cannot be used is never an error: ``load`` gives None and
    ``problem`` says why.

    Attributes:
        path: The file.
        key: What the state belongs to, such as a hash of settings and data; state kept under another key is stale.
        problem: After ``load``: one line on why a file that is there cannot be gone on from; else None.
    """

    def __init__(self, directory: Path | str, key: str) -> None:
        self.path = Path(directory) / "checkpoint.safetensors"
        self.key = key
        self.problem: str | None = None

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the state kept. The directory is made if it is missing.

        Args:
            tensors: Tensors by name, of any type but complex.
            state: Plain JSON; tuples come back as lists.

        Raises:
            ConfigurationError: ``state`` is not plain JSON.
            StorageError: It could not be written; the state kept before still is.
        """
        document = {"format": FORMAT, "format_version": FORMAT_VERSION, "key": self.key, "state": dict(state)}
        document["checksum"] = _checksum(document, tensors)
        data = encode_tensors(tensors, document, "the checkpoint")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.path, "checkpoint", error) from error
        write_bytes_atomic(self.path, data, "checkpoint")

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The state kept, or None where there is none to go on from; ``problem`` then says why."""
        self.problem = None
        if not self.path.exists():
            return None
        what = f"checkpoint {self.path}"
        try:
            tensors, document = decode_tensors(read_file_bytes(self.path, "checkpoint"), what)
            if document is None or document.get("format") != FORMAT or not isinstance(document.get("state"), dict):
                raise FileFormatError(f"{what} was not written by iqakit; starting from the beginning")
            if document.get("format_version") != FORMAT_VERSION:
                raise FileFormatError(f"{what} was written by another iqakit version; starting from the beginning")
            if document.get("checksum") != _checksum(document, tensors):
                raise FileFormatError(f"{what} is damaged: its checksum is wrong; starting from the beginning")
        except StorageError as error:
            self.problem = str(error)
            return None
        if document["key"] != self.key:
            self.problem = f"{what} belongs to other settings or data; starting from the beginning"
            return None
        return tensors, document["state"]

    def clear(self) -> None:
        """Remove the state kept, and its directory if nothing else is in it.

        Raises:
            StorageError: The file is there and cannot be removed.
        """
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"could not remove checkpoint {self.path}: {error.strerror}; remove it by hand") from error
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()


def _checksum(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    record = canonical_json({key: value for key, value in document.items() if key != "checksum"}, "the checkpoint's state")
    return hashlib.sha256(f"{record}\n{fingerprint_tensors(tensors)}".encode()).hexdigest()
