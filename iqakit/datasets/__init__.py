"""Data sets: a user's own tables, the public sets, splits, checks, and tasks made on purpose.

This module only registers the public sets; it loads neither torch nor Pillow.
"""

from __future__ import annotations

from collections.abc import Iterable

from iqakit.contracts.entries import DatasetEntry
from iqakit.hookspecs import hookimpl


@hookimpl
def iqakit_datasets() -> Iterable[DatasetEntry]:
    """The public sets that iqakit can read."""
    from iqakit.datasets.public import PUBLIC_SETS

    return PUBLIC_SETS
