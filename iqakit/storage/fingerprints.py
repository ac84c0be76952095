"""Fingerprints of tensors and of files: equal content, equal fingerprint."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from iqakit.errors import StorageError

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 1 << 20


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Bytes of a tensor's values in row-major order, little endian, whatever its device and memory layout.

    Args:
        tensor: Any dense tensor.

    Returns:
        A read-only view of the bytes; it may share memory with ``tensor``.
    """
    import torch

    values = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    if sys.byteorder == "big":
        flipped = values.view(torch.uint8).reshape(-1, values.element_size()).flip(1)
        # A complex number is two numbers, and each of them is turned round on its own.
        values = flipped.reshape(-1, 2, flipped.shape[1] // 2).flip(1) if tensor.is_complex() else flipped
    return values.contiguous().reshape(-1).view(torch.uint8).numpy().data.toreadonly()


def fingerprint_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names.

    The order of the mapping, the device, strides (``channels_last`` among them) and ``requires_grad`` do not matter.

    Args:
        tensors: Tensors by name; may be empty.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        # JSON quotes the name, so no choice of names can be taken for another tensor's header.
        header = json.dumps([name, str(tensor.dtype), list(tensor.shape)], separators=(",", ":"))
        digest.update(header.encode("ascii"))
        digest.update(b"\n")
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def file_sha256(path: str | PathLike[str]) -> str:
    """SHA-256 of a file, read piece by piece.

    Args:
        path: The file.

    Returns:
        64 hexadecimal digits.

    Raises:
        StorageError: The file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}; check the path and its permissions") from error
    return digest.hexdigest()
