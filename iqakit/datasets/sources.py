"""What a DATA argument means: a public set, a user's table, a directory with one, or the practice task."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from iqakit.contracts.dataset import Dataset
from iqakit.contracts.entries import DatasetEntry
from iqakit.datasets.score_table import open_score_table, table_file, table_name
from iqakit.datasets.splits import SPLITS
from iqakit.errors import DataError, UnknownNameError

PRACTICE_NAME = "practice"
"""The built-in task's name, as a task and as DATA."""


@dataclass(frozen=True, slots=True)
class TaskSource:
    """Where one task's images and scores come from.

    Attributes:
        name: The task's name: letters, digits, dash, dot, underscore; at most 64.
        description: What it is, for people.
        path: The table or the set's directory; None for the practice task.
        opener: ``opener(split, seed)`` reads one split.
        identifier: Gives what ``identity`` returns.
    """

    name: str
    description: str
    path: Path | None
    opener: Callable[[str, int], Dataset]
    identifier: Callable[[], str]

    def open(self, split: str, seed: int = 0) -> Dataset:
        """One split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.

        Raises:
            DataError: The data are not what they must be, or the split is empty.
            ConfigurationError: There is no split of that name.
        """
        return self.opener(split, seed)

    def open_splits(self, seed: int = 0) -> dict[str, Dataset]:
        """Train, val and test by name; a split without images is left out.

        Raises:
            DataError: The data are not what they must be.
        """
        self.opener("all", seed)  # what is wrong with the data as a whole must not pass for an empty split
        splits: dict[str, Dataset] = {}
        for split in SPLITS:
            with contextlib.suppress(DataError):
                splits[split] = self.opener(split, seed)
        return splits

    def identity(self) -> str:
        """SHA-256, in hexadecimal, of what the task is made of: the table's bytes, or a public set's names and scores.

        A checkpoint made from other data has another identity. Pixels are not read.

        Raises:
            DataError: The data cannot be read.
        """
        return self.identifier()


def open_source(text: str, catalog_lookup: Callable[[str], DatasetEntry]) -> TaskSource:
    """Turn a DATA argument into a source. Only checks that the file or directory is there; reads no score yet.

    A path that exists always wins, colon or not. Otherwise ``NAME:PATH`` is a public set in that directory, and
    ``practice`` the built-in task. A single letter before the colon, with a slash after it, is a Windows drive.

    Args:
        text: What the user typed: a CSV, a directory holding ``scores.csv``, or ``NAME:PATH``.
        catalog_lookup: Finds a public set by name; raises UnknownNameError where there is none.

    Raises:
        DataError: There is no such file or directory.
        UnknownNameError: No public set has that name.
    """
    if not text.strip():
        raise DataError("the data argument is empty; give a CSV, a directory holding scores.csv, or NAME:PATH")
    path = _expanded(text)
    if _exists(path):
        return _table_source(path)
    name, colon, rest = text.partition(":")
    if colon and re.fullmatch(r"[A-Za-z0-9._-]+", name) and not (len(name) == 1 and rest[:1] in ("\\", "/")):
        return _public_source(catalog_lookup(name), rest)
    if text == PRACTICE_NAME:
        return practice_source()
    if not colon:
        try:
            entry = catalog_lookup(text)
        except UnknownNameError:
            pass
        else:
            raise DataError(f"{text} is a public set, but its directory is missing; give {entry.name}:PATH")
    return _table_source(path)


def practice_source() -> TaskSource:
    """The built-in practice task, which needs no download."""

    def open_practice(split: str, seed: int) -> Dataset:
        from iqakit.datasets.practice import open_practice as opener  # loads torch, so only when it is used

        return opener(split, seed)

    def identity() -> str:
        from iqakit.datasets.practice import practice_identity

        return practice_identity()

    return TaskSource(PRACTICE_NAME, "built-in practice task: photos degraded on purpose", None, open_practice, identity)


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~name of a user that there is not
        return Path(text)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for the system, say
        return False


def _table_source(path: Path) -> TaskSource:
    file = table_file(path)
    name = table_name(file)
    return TaskSource(
        name,
        f"table of scores {file}",
        file,
        lambda split, seed: open_score_table(file, split, seed, name=name),
        lambda: _file_hash(file),
    )


def _file_hash(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"table of scores {file} cannot be read: {error.strerror}") from None


def _public_source(entry: DatasetEntry, rest: str) -> TaskSource:
    if not rest:
        raise DataError(f"{entry.name}: the directory is missing; give {entry.name}:PATH")
    root = _expanded(rest)
    if not _exists(root):
        raise DataError(f"{entry.name}: there is no directory {root}; give the one that the set was unpacked to")

    def identity() -> str:
        whole = entry.open(root, "all", 0)
        rows = [(s.name, repr(s.score), s.content) for s in map(whole.sample, range(len(whole)))]
        return hashlib.sha256(json.dumps([entry.name, rows]).encode()).hexdigest()

    return TaskSource(
        entry.name,
        f"{entry.facts.title or entry.name} in {root}",
        root,
        lambda split, seed: entry.open(root, split, seed),
        identity,
    )
