"""Registers the command ``iqakit ray-score``. Importing this loads neither torch nor ray."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from iqakit.contracts import CommandEntry
from iqakit.hookspecs import hookimpl


def _load() -> Any:
    from iqakit_ray.command import app

    return app


@hookimpl
def iqakit_commands() -> Iterable[CommandEntry]:
    """The one command of this plugin."""
    return [CommandEntry("ray-score", "Score images on a Ray cluster: the rows of score, from many machines", _load)]
