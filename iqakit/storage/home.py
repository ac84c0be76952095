"""Where iqakit keeps what can be had again."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path


def cache_directory(environ: Mapping[str, str] | None = None) -> Path:
    """``$IQAKIT_HOME``, else the platform's cache of the user. It is not made just to ask.

    Args:
        environ: Environment variables; None: those of the process.
    """
    given = os.environ if environ is None else environ
    if given.get("IQAKIT_HOME"):
        return Path(given["IQAKIT_HOME"]).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "iqakit"
    if sys.platform == "win32":
        return Path(given.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "iqakit" / "Cache"
    return Path(given.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iqakit"
