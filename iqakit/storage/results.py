"""Results on disk: JSON for people and programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iqakit.storage.atomic import write_text_atomic
from iqakit.storage.canonical_json import readable_json


def write_json(path: Path | str, obj: Any) -> None:
    """Write readable, sorted JSON in one step.

    Args:
        path: The file; replaced if it is there.
        obj: Plain JSON.

    Raises:
        ConfigurationError: It is not plain JSON.
        StorageError: It could not be written; what was there before still is.
    """
    write_text_atomic(path, readable_json(obj, f"the content of {path}"), "results file")
