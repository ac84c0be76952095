"""Reading named tensors from a safetensors file; the only tensor format that is ever opened."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load

from iqakit.errors import FileFormatError, StorageError

if TYPE_CHECKING:
    from torch import Tensor

PICKLE_SUFFIXES = frozenset({".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle", ".tar"})
_PICKLE_OR_ZIP = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def read_tensors(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    The file is read whole before it is parsed, so one that changes on disk afterwards does no harm.

    Args:
        path: The file.

    Returns:
        Tensors by name, on the CPU, with the dtypes that the file holds.

    Raises:
        StorageError: The file is missing or cannot be read.
        FileFormatError: The file is empty, truncated, a pickle, or not safetensors at all.
    """
    file = Path(path)
    if file.suffix.lower() in PICKLE_SUFFIXES and not file.is_dir():
        raise FileFormatError(_pickle_message(file))
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise StorageError(f"no tensor file at {file}; check the path") from error
    except IsADirectoryError as error:
        raise StorageError(f"{file} is a directory; give the path of a .safetensors file in it") from error
    except OSError as error:
        raise StorageError(f"cannot read {file}: {error.strerror or error}; check its permissions") from error
    if not content:
        raise FileFormatError(f"{file} is empty, not a safetensors file; fetch or write it again")
    if content.startswith(_PICKLE_OR_ZIP) and content[8:9] != b"{":
        raise FileFormatError(_pickle_message(file))
    try:
        return load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        # KeyError: a dtype that torch's reader does not know. ValueError: sizes that do not add up.
        detail = " ".join(str(error).split())
        raise FileFormatError(
            f"{file} is not a whole safetensors file ({len(content)} bytes: {detail}); fetch or write it again"
        ) from error


def _pickle_message(file: Path) -> str:
    return f"{file} is not safetensors but a pickled checkpoint; convert it to safetensors; pickles are never opened"
