"""Which model is meant: a directory, a name of the zoo, or what is taken where nobody says. Loads no torch."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from iqakit.errors import StorageError, UnknownNameError
from iqakit.pipeline.graph_path import Say
from iqakit.pipeline.zoo import pull_to_use
from iqakit.pipeline.zoo_local import bundled_models, find_local, local_models

DEFAULT_MODEL = "default"
LOCAL_MODEL = Path("iqakit_model")


def find_model(model: str | os.PathLike[str] | None, say: Say | None = None) -> tuple[str, Path]:
    """Which model is meant: its name and directory.

    A directory wins over a name. A name is that of a pulled, a bundled or a package's model, else of one in the zoos of
    ``IQAKIT_ZOO``, which is pulled. None: ``$IQAKIT_MODEL``, else ``./iqakit_model``, else the bundled default model.

    Args:
        model: What was asked for.
        say: Takes a line about a model that is pulled; None: the log ``iqakit``.

    Raises:
        UnknownNameError: There is neither a directory nor a model of that name.
        OfflineError: It would have to be pulled and cannot be.
        StorageError: There is no such directory, or a pulled model is not what its index says.
    """
    asked: str | os.PathLike[str] | None = model or os.environ.get("IQAKIT_MODEL") or None
    bundled = bundled_models()
    if asked is None and not (LOCAL_MODEL / "model.json").exists() and DEFAULT_MODEL in bundled:
        return DEFAULT_MODEL, bundled[DEFAULT_MODEL]
    text = os.fspath(LOCAL_MODEL if asked is None else asked)
    path = Path(text).expanduser()
    if not path.is_dir() and not any(mark in text for mark in ("/", "\\")):
        found = find_local(text) or (None if path.exists() else pull_to_use(text, say or logging.getLogger("iqakit").info))
        if found is not None:
            return found.name, found.directory
    if path.exists():
        return path.resolve().name or "model", path
    told = "" if model or asked is None else "IQAKIT_MODEL names it; "
    if any(mark in text for mark in ("/", "\\")):
        raise StorageError(f"there is no model directory {text}; {told}make one with iqakit fit --model {text}")
    known = {local.name for local in local_models()}
    hint = f"({told}a model can also be a directory that iqakit fit made; iqakit zoo list shows what can be pulled)"
    raise UnknownNameError.of("model", text, known, hint=hint)
