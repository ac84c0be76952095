"""JSON with one spelling for each content, and a strict reader.

Keys are sorted, there are no spaces, and every character beyond ASCII is escaped: the text has the same bytes in any
encoding, and even a file name that is no valid Unicode survives. Floats are written as ``repr`` writes them, so they come
back exactly. NaN and infinity, which JSON does not have, are refused both ways.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from iqakit.errors import ConfigurationError, FileFormatError


def canonical_json(obj: Any, what: str = "the value") -> str:
    """The one JSON text of ``obj``.

    Args:
        obj: Plain JSON: None, bool, int, finite float, str, lists and tuples, and mappings with str keys. A tuple is
            written as a list.
        what: What it is, for the error.

    Raises:
        ConfigurationError: It is not plain JSON.
    """
    return json.dumps(_checked(obj, what), sort_keys=True, separators=(",", ":"), allow_nan=False)


def readable_json(obj: Any, what: str = "the value") -> str:
    """The JSON text of ``obj`` for people: sorted, one entry a line, ending in a line end.

    Raises:
        ConfigurationError: It is not plain JSON.
    """
    return json.dumps(_checked(obj, what), sort_keys=True, indent=1, allow_nan=False) + "\n"


def parse_json(text: str | bytes, what: str) -> Any:
    """Read JSON strictly.

    Args:
        text: The JSON text; bytes must be UTF-8.
        what: What it is, for the error, e.g. ``"model.json of my-model"``.

    Raises:
        FileFormatError: It is not JSON, names a key twice, or has a number that is not finite.
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=_no_twins, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise FileFormatError(
            f"{what} is not valid JSON ({reason}); it is damaged or was edited, make or fetch it again"
        ) from error


def _checked(obj: Any, what: str) -> Any:
    try:
        plain = _plain(obj, what)
        json.dumps(plain)
    except ConfigurationError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{what} cannot be written as JSON: it is nested too deeply or too large a number"
        ) from error
    return plain


def _plain(obj: Any, where: str) -> Any:
    """``obj`` as dicts, lists and scalars; json alone would turn the key 1 into "1" without a word."""
    if obj is None or isinstance(obj, (bool, int, str)):
        return obj
    if isinstance(obj, float):
        if not math.isfinite(obj):
            raise ConfigurationError(f"{where} cannot be written as JSON: {obj} is not a finite number")
        return obj
    if isinstance(obj, Mapping):
        for key in obj:
            if not isinstance(key, str):
                raise ConfigurationError(f"{where} cannot be written as JSON: the key {key!r} is not text")
        return {str(key): _plain(value, f"{where}[{key!r}]") for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [_plain(value, f"{where}[{index}]") for index, value in enumerate(obj)]
    raise ConfigurationError(
        f"{where} cannot be written as JSON: it is a {type(obj).__name__}; use text, numbers, lists and mappings"
    )


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} stands twice")
        result[key] = value
    return result


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value
