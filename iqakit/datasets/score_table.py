"""A user's own table of scores: a CSV with ``image`` and ``mos`` or ``dmos``.

``docs/reference/data.md`` describes the format for users; every error here is one line that names the file, and the
line in it where there is one.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from iqakit.contracts.dataset import Sample, TaskFacts
from iqakit.datasets.image_table import pixels_of
from iqakit.datasets.splits import DEFAULT_RATIOS, SPLITS, split_by_content
from iqakit.datasets.table_rows import TableRow, read_rows
from iqakit.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from torch import Tensor

TABLE_NAME = "scores.csv"
"""The table's name in a directory given as data."""


@dataclass(slots=True)
class ScoreTable:
    """Images of a user's table, or of one split of it, in the table's order; follows the ``Dataset`` contract.

    Attributes:
        facts: What is known of the scores.
        samples: One an image; scores are oriented so that higher is better.
        files: One an image.
        warnings: What is worth telling the user, a line each: images left out, contents on two sides of a split.
        left_out: Names of the split's images that are not there.
    """

    facts: TaskFacts
    samples: tuple[Sample, ...]
    files: tuple[Path, ...]
    warnings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.samples)

    def sample(self, index: int) -> Sample:
        """Name, score and content of image ``index``; reads no pixel."""
        return self.samples[index]

    def path(self, index: int) -> Path:
        """The file of image ``index``."""
        return self.files[index]

    def image(self, index: int) -> Tensor:
        """Pixels of image ``index``: uint8 (3, H, W), RGB.

        Raises:
            ImageError: The image is missing or cannot be decoded.
        """
        return pixels_of(self.files[index], self.samples[index].name, self.facts.name)

    def subset(self, indices: Iterable[int]) -> ScoreTable:
        """The same table with only the images ``indices``, in that order."""
        chosen = list(indices)
        return replace(self, samples=tuple(self.samples[i] for i in chosen), files=tuple(self.files[i] for i in chosen))


def clean_name(text: str) -> str:
    """A task's name made of letters, digits, dash, dot and underscore, at most 64 long.

    Accents are dropped, anything else becomes a dash; dashes and dots at the ends go. Where nothing is left: ``"task"``.
    """
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_text).strip("-.")[:64].rstrip("-.") or "task"


def table_file(path: Path) -> Path:
    """The CSV that ``path`` means: itself, or ``scores.csv`` in it.

    Raises:
        DataError: There is no such file, or the directory holds none.
    """
    try:
        is_directory, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise DataError(f"table of scores {str(path)[:200]} cannot be read: {error.strerror}") from None
    if is_directory:
        table = path / TABLE_NAME
        if table.is_file():
            return table
        found = sorted(p.name for p in path.glob("*.csv"))
        hint = f"give one of its tables: {', '.join(found[:3])}" if found else "write one with columns image and mos"
        raise DataError(f"directory {path} holds no {TABLE_NAME}; {hint}")
    if not is_file:
        near = [p.name for p in path.parent.glob("*.csv")] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, near, n=1)
        raise DataError(
            f"there is no table of scores {path}" + (f"; did you mean {path.parent / close[0]}?" if close else "")
        )
    return path


def table_name(path: Path) -> str:
    """Name of the task in a table: the CSV's stem, or for a ``scores.csv`` its directory's name, cleaned."""
    full = path.resolve()
    if full.is_dir():
        return clean_name(full.name)
    return clean_name(full.parent.name if full.name.lower() == TABLE_NAME else full.stem)


def open_score_table(
    path: Path,
    split: str,
    seed: int = 0,
    ratios: tuple[float, float, float] = DEFAULT_RATIOS,
    name: str | None = None,
) -> ScoreTable:
    """Read a table of scores and give one split of it.

    A ``split`` column decides where there is one; where it names no ``val`` rows, val is taken from the train rows by
    content, in the proportion of the ratios, so test stays what it was. Without the column, contents are split by
    ``ratios`` with ``seed``. If the train rows have only one content, val is taken from them by image, and a warning
    says so. Scores of a ``dmos`` column are turned over: ``max + min - dmos``, both over the whole table, so the numbers
    stay in their own range; ``facts.turned_at`` keeps max + min. Images that are not there are left out with a warning;
    membership of a split does not depend on them.

    Args:
        path: The CSV, or a directory that holds ``scores.csv``.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        seed: Seed of the split, where one is made.
        ratios: Shares of train, val and test, where a split is made.
        name: The task's name; None takes it from the path.

    Raises:
        ConfigurationError: The split's name is unknown.
        DataError: The table is not what it must be, all its images are missing, or the split has none.
    """
    if split not in (*SPLITS, "all"):
        raise ConfigurationError(f"there is no split {split!r}; there are train, val, test and all")
    file = table_file(path)
    rows = read_rows(file)
    parts, warnings = _assign(file, rows, seed, ratios)
    rows_of_split = [row for row, part in zip(rows, parts, strict=True) if split in ("all", part)]
    if not rows_of_split:
        counts = ", ".join(f"{parts.count(s)} {s}" for s in SPLITS)
        raise DataError(f"{file} has no images in split {split!r}, it has {counts}; use another split or change the table")
    present = [row for row in rows_of_split if row.is_there()]
    if not present:
        _refuse_missing(file, rows, rows_of_split, split)
    there = {row.line for row in present}
    gone = tuple(row.sample.name for row in rows_of_split if row.line not in there)
    if gone:
        warnings.append(
            f"{file}: {len(gone)} of {len(rows_of_split)} images ({split}) are not there and are left out, "
            f"first {', '.join(gone[:3])}"
        )
    title = name if name is not None else table_name(file)
    facts = TaskFacts(
        name=title,
        title=title,
        direction="mos" if rows[0].turned_at is None else "dmos",
        images=len(rows),
        splits="official" if rows[0].split is not None else "by content",
        turned_at=rows[0].turned_at,
    )
    return ScoreTable(facts, tuple(r.sample for r in present), tuple(r.file for r in present), tuple(warnings), gone)


def split_names(path: Path, seed: int = 0, ratios: tuple[float, float, float] = DEFAULT_RATIOS) -> list[str]:
    """The split of every row of a table, as ``open_score_table`` assigns it, in the table's order."""
    file = table_file(path)
    return _assign(file, read_rows(file), seed, ratios)[0]


def _assign(
    file: Path, rows: Sequence[TableRow], seed: int, ratios: tuple[float, float, float]
) -> tuple[list[str], list[str]]:
    """The split of every row, and warnings."""
    contents = [row.content for row in rows]
    given = [row.split for row in rows if row.split is not None]
    warnings: list[str] = []
    if given:
        parts = given
        side: dict[str, set[str]] = {}
        for content, part in zip(contents, parts, strict=True):
            side.setdefault(content, set()).add(part)
        shared = sorted(content for content, found in side.items() if len(found) > 1)
        if shared:
            warnings.append(
                f"{file}: contents in more than one split: {len(shared)}, first {', '.join(shared[:3])}; "
                "figures on such a split flatter"
            )
    else:
        parts = split_by_content(contents, seed, ratios)
    train = [i for i, part in enumerate(parts) if part == "train"]
    if "val" not in parts and train and ratios[1] > 0:
        parts = list(parts)
        keys = [contents[i] for i in train]
        if len(set(keys)) < 2 <= len(train):
            warnings.append(
                f"{file}: all train images have the content {keys[0]!r}; val is taken from them by image, so it flatters"
            )
            keys = [str(rows[i].file) for i in train]
        for i, part in zip(train, split_by_content(keys, seed, (ratios[0], ratios[1], 0.0)), strict=True):
            parts[i] = part
    return parts, warnings


def _refuse_missing(file: Path, rows: Sequence[TableRow], rows_of_split: Sequence[TableRow], split: str) -> None:
    first = ", ".join(str(row.file) for row in rows_of_split[:3])
    if any(row.is_there() for row in rows):
        raise DataError(f"none of the {len(rows_of_split)} images of split {split!r} of {file} are there, first {first}")
    raise DataError(
        f"none of the {len(rows)} images of {file} are there, first {first}; names count from the table's directory"
    )
