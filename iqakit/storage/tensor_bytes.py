"""Named tensors to safetensors bytes and back, deterministic one way and strict the other.

The header is checked here before the library sees it, so that a foreign, cut or hostile file gets one clear line and
never makes anything large be allocated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from iqakit.errors import ConfigurationError, FileFormatError
from iqakit.storage.canonical_json import canonical_json, parse_json

if TYPE_CHECKING:
    from torch import Tensor

METADATA_KEY = "iqakit"
MAX_HEADER_BYTES = 16 * 2**20
_MAX_ELEMENTS = 2**40
_DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def encode_tensors(tensors: Mapping[str, Tensor], document: Mapping[str, Any] | None, what: str) -> bytes:
    """Safetensors bytes; equal content gives equal bytes, whatever the order and the memory layout.

    Args:
        tensors: Tensors by name; they may share memory and live on any device.
        document: Plain JSON for the one metadata key; None: no metadata. (Several keys would come out in an order that
            differs from process to process.)
        what: What it is, for the error.

    Raises:
        ConfigurationError: A tensor has a type that is not stored, or ``document`` is not plain JSON.
    """
    import torch
    from safetensors.torch import save

    stored = {}
    for name in sorted(tensors):
        tensor = tensors[name]
        if tensor.layout != torch.strided or _dtype_name(tensor) not in _DTYPE_BYTES:
            raise ConfigurationError(
                f"{what} cannot be stored: tensor {name!r} is {tensor.dtype}, {tensor.layout}; use float32"
            )
        stored[name] = tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)
    metadata = None if document is None else {METADATA_KEY: canonical_json(document, what)}
    return save(stored, metadata)


def decode_tensors(data: bytes, what: str) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Tensors, on the CPU, and the document of the metadata key ``iqakit``; None where there is none.

    Args:
        data: A whole file.
        what: What it is, for the error, e.g. ``"adapter file a.safetensors"``.

    Raises:
        FileFormatError: It is cut short, is not safetensors, or its header does not fit its content.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    document = _checked_header(data, what)
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise FileFormatError(f"{what} is damaged ({error}); make or fetch it again") from error
    return {name: tensors[name] for name in sorted(tensors)}, document  # the library's order differs from run to run


def _checked_header(data: bytes, what: str) -> dict[str, Any] | None:
    size = int.from_bytes(data[:8], "little")
    looks_right = data[8:9] == b"{"
    if len(data) < 9 or (looks_right and size > len(data) - 8):
        raise FileFormatError(
            f"{what} is truncated: it ends within its header after {len(data)} bytes; make or fetch it again"
        )
    if not looks_right:
        raise FileFormatError(f"{what} is not a safetensors file; give one that iqakit wrote")
    if size > MAX_HEADER_BYTES:
        raise FileFormatError(
            f"{what} has a header of {size} bytes, more than the {MAX_HEADER_BYTES} allowed; make or fetch it again"
        )
    header: dict[str, Any] = parse_json(data[8 : 8 + size], f"the header of {what}")  # an object, as it opens with "{"
    metadata = header.pop("__metadata__", None)
    try:
        end = _end_of_tensors(header)
        document = _document(metadata, what)
    except _BadHeaderError as error:
        raise FileFormatError(f"{what} is damaged: {error}; make or fetch it again") from error
    held = len(data) - 8 - size
    if held < end:
        raise FileFormatError(f"{what} is truncated: it holds {held} of {end} bytes of tensors; make or fetch it again")
    if held > end:
        raise FileFormatError(f"{what} is damaged: {held - end} bytes at its end belong to nothing; make or fetch it again")
    return document


class _BadHeaderError(Exception):
    """Why a header cannot be right."""


def _end_of_tensors(header: dict[str, Any]) -> int:
    """Check every entry; returns how many bytes of tensors there must be."""
    spans = []
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise _BadHeaderError(f"the header's entry for {name[:80]!r} is malformed")
        shape, offsets, dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
        if not isinstance(dtype, str) or dtype not in _DTYPE_BYTES:
            raise _BadHeaderError(f"tensor {name[:80]!r} has the type {str(dtype)[:20]!r}, which is not stored here")
        if not _counts(shape) or len(shape) > 16 or not _counts(offsets) or len(offsets) != 2:
            raise _BadHeaderError(f"the header's shape or offsets of {name[:80]!r} are malformed")
        if math.prod(max(side, 1) for side in shape) >= _MAX_ELEMENTS:
            raise _BadHeaderError(f"tensor {name[:80]!r} claims an impossible size")
        if offsets[1] - offsets[0] != math.prod(shape) * _DTYPE_BYTES[dtype]:
            raise _BadHeaderError(f"the offsets of {name[:80]!r} do not fit its shape")
        spans.append((offsets[0], offsets[1]))
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise _BadHeaderError("its tensors overlap or leave gaps")
        end = stop
    return end


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**60 for item in value)


def _document(metadata: Any, what: str) -> dict[str, Any] | None:
    if metadata is None:
        return None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _BadHeaderError("its metadata is not text")
    if METADATA_KEY not in metadata:
        return None
    document = parse_json(metadata[METADATA_KEY], f"the iqakit record in {what}")
    if not isinstance(document, dict):
        raise _BadHeaderError("its iqakit record is not a JSON object")
    return document


def _dtype_name(tensor: Tensor) -> str:
    import torch

    names = {
        torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
        torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    }  # fmt: skip
    return names.get(tensor.dtype, "")
