"""A check of a MATLAB file's structure before scipy reads it.

scipy's reader trusts the sizes written in a file: a few changed bytes can end the process instead of raising. So the
file is walked first, and every size is compared with what is there. Format: MATLAB's published "MAT-File Format",
level 5. Only what score files hold is let through: numbers, text and cells.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator

_COMPRESSED, _MATRIX = 15, 14
_WIDTHS = {
    1: 1,
    2: 1,
    3: 2,
    4: 2,
    5: 4,
    6: 4,
    7: 4,
    9: 8,
    12: 8,
    13: 8,
    16: 1,
    17: 2,
    18: 4,
}  # bytes of one value, by data type
_CELL, _CHAR, _NUMBERS = 1, 4, range(6, 16)
_HEADER = 128
_MOST = 1 << 28  # bytes that one variable may unpack to; score tables have a few hundred thousand at most
_DEPTH = 8  # cells in cells


class StructureError(ValueError):
    """Sizes or kinds in the file contradict each other."""


def check(data: bytes, wanted: Collection[str]) -> None:
    """Check a level 5 file; others (level 4, HDF5, foreign) are left to scipy to name.

    Args:
        data: The file's bytes.
        wanted: Names of the variables to be read; what others hold is only checked where it is numbers, text or cells.

    Raises:
        StructureError: The file is damaged, or a variable wanted is neither numbers nor text nor cells of these.
    """
    if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
        return
    order = "<" if data[126:128] == b"IM" else ">"
    if struct.unpack_from(f"{order}H", data, 124)[0] >> 8 != 1:
        return
    for kind, body in _elements(data[_HEADER:], order):
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            try:
                body = unpacker.decompress(body, _MOST)
            except zlib.error as error:
                raise StructureError(f"a variable cannot be unpacked ({error})") from None
            if not unpacker.eof:
                raise StructureError("a variable is cut short or far too large")
            inner = list(_elements(body, order))
            if len(inner) != 1:
                raise StructureError("a packed variable does not hold one array")
            kind, body = inner[0]
        if kind != _MATRIX:
            raise StructureError(f"there is data of kind {kind} where an array should be")
        name, other = _head(body, order)
        if name in wanted or not other:
            _matrix(body, order, _DEPTH)


def _head(data: bytes, order: str) -> tuple[str, bool]:
    """Name of a variable, and whether it is of a kind that score files do not have (a structure, an object, ...)."""
    kinds, found = [], []
    for kind, body in _elements(data, order):
        kinds.append(kind)
        found.append(body)
        if len(found) == 3:
            break
    if kinds[:1] != [6] or len(found) < 3 or len(found[0]) != 8:
        return "", False  # the full check says what is wrong
    number = struct.unpack(f"{order}I", found[0][:4])[0] & 0xFF
    return found[2].decode("latin-1"), number not in (_CELL, _CHAR, *_NUMBERS)


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        if position + 8 > len(data):
            raise StructureError("it ends in the middle of a tag")
        kind, size = struct.unpack_from(f"{order}II", data, position)
        start = position + 8
        if kind >> 16:  # a small element keeps its size, kind and up to four bytes in one tag
            kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
            if size > 4:
                raise StructureError("a small element is too large")
            position += 8
        else:
            position = start + size
            if kind != _COMPRESSED:  # all others are filled up to eight bytes
                position += -size % 8
        if start + size > len(data):
            raise StructureError("it ends in the middle of an array")
        yield kind, data[start : start + size]


def _matrix(data: bytes, order: str, depth: int) -> None:
    parts = list(_elements(data, order))
    if not parts:
        return  # an empty cell
    if len(parts) < 3 or parts[0][0] != 6 or parts[1][0] not in (5, 6) or parts[2][0] not in (1, 2, 16):
        raise StructureError("an array lacks its size or its name")
    flags, sizes = parts[0][1], parts[1][1]
    if len(flags) != 8 or len(sizes) < 8 or len(sizes) % 4:
        raise StructureError("an array lacks its size")
    word = struct.unpack(f"{order}I", flags[:4])[0]
    dimensions = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    if min(dimensions) < 0:
        raise StructureError("an array has a negative size")
    count, kind, values = math.prod(dimensions), word & 0xFF, parts[3:]
    if kind == _CELL:
        if depth == 0 or len(values) != count or any(sort != _MATRIX for sort, _ in values):
            raise StructureError("a cell array does not hold as many cells as it says")
        for _, body in values:
            _matrix(body, order, depth - 1)
    elif kind == _CHAR or kind in _NUMBERS:
        if len(values) != (2 if word & 0x800 else 1):
            raise StructureError("an array does not hold its values")
        for sort, body in values:
            if sort not in _WIDTHS:
                raise StructureError(f"an array holds values of unknown kind {sort}")
            # text in UTF-8 may have more bytes than characters
            if len(body) != count * _WIDTHS[sort] and not (kind == _CHAR and sort == 16):
                raise StructureError("an array does not hold as many values as it says")
    else:
        raise StructureError(f"it holds an array of class {kind}, which is neither numbers nor text nor cells")
