"""Splits that share no content, repeated splits, their file, and the published order of tasks.

Two images of one content (distorted copies of one picture, shots of one scene) must never stand on both sides of a
split: a model would be tested on what it has seen. So contents are split, and images follow their content.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iqakit.errors import ConfigurationError, DataError, UnknownNameError
from iqakit.storage.atomic import write_text_atomic

SPLITS: tuple[str, ...] = ("train", "val", "test")
"""The names of the three splits, in the order of ``ratios``."""

DEFAULT_RATIOS: tuple[float, float, float] = (0.7, 0.1, 0.2)
"""Shares of train, val and test."""


def split_by_content(
    contents: Sequence[str], seed: int = 0, ratios: tuple[float, float, float] = DEFAULT_RATIOS
) -> list[str]:
    """Assign every row to a split so that no content is in two.

    The sorted distinct contents are shuffled by a numpy generator of this seed, then cut. So the result depends on the
    set of contents and the seed alone: not on the order of rows, nor on how many rows a content has. The numbers of
    contents are as near to the ratios as whole numbers can be, and every split with a ratio above zero gets at least
    one, if there are enough: two contents go to train and val (choosing a model needs both), a single one to train.

    Args:
        contents: The content of each row. An image without one is its own content: give its name.
        seed: Seed of the shuffle, not negative.
        ratios: Shares of train, val and test; any scale, only their proportions count.

    Returns:
        ``"train"``, ``"val"`` or ``"test"`` for each row.

    Raises:
        ConfigurationError: A ratio is negative or not finite, train's is zero, or the seed is negative.
    """
    shares = _checked_shares(ratios)
    if seed < 0:
        raise ConfigurationError(f"the seed of a split must not be negative, but it is {seed}; give 0 or more")
    distinct = sorted(set(contents))
    order = np.random.default_rng(seed).permutation(len(distinct))
    sizes = _sizes(len(distinct), shares)
    split_of: dict[str, str] = {}
    start = 0
    for split, size in zip(SPLITS, sizes, strict=True):
        for position in order[start : start + size]:
            split_of[distinct[position]] = split
        start += size
    return [split_of[content] for content in contents]


def repeated_splits(
    contents: Sequence[str], repeats: int, seed: int = 0, ratios: tuple[float, float, float] = DEFAULT_RATIOS
) -> list[list[str]]:
    """Several independent splits of the same rows; number k is ``split_by_content`` with the seed ``seed + k``.

    Args:
        contents: The content of each row.
        repeats: How many splits, at least 1.
        seed: Seed of the first.
        ratios: Shares of train, val and test.

    Raises:
        ConfigurationError: ``repeats`` is below 1, or as in ``split_by_content``.
    """
    if repeats < 1:
        raise ConfigurationError(f"the number of repeated splits must be at least 1, but it is {repeats}")
    return [split_by_content(contents, seed + k, ratios) for k in range(repeats)]


def _checked_shares(ratios: Sequence[float]) -> tuple[float, float, float]:
    if len(ratios) != 3 or any(not math.isfinite(r) or r < 0 for r in ratios) or ratios[0] <= 0:
        shown = ", ".join(f"{r:g}" for r in ratios)
        raise ConfigurationError(
            f"split ratios must be three shares (train, val, test), none negative, train's above 0, but they are ({shown})"
        )
    total = sum(ratios)
    return (ratios[0] / total, ratios[1] / total, ratios[2] / total)


def _sizes(count: int, shares: tuple[float, float, float]) -> list[int]:
    """Numbers of contents a split: whole, at least one each where that is possible, and as near the shares as can be.

    One content at a time goes where most are still due, which makes the sum of squared differences smallest.
    """
    wanted = [i for i in range(3) if shares[i] > 0][:count]
    sizes = [1 if i in wanted else 0 for i in range(3)]
    for _ in range(count - len(wanted)):
        due = [round(share * count - size, 9) for share, size in zip(shares, sizes, strict=True)]  # ties go to train
        sizes[due.index(max(due))] += 1
    return sizes


@dataclass(frozen=True, slots=True)
class SplitTable:
    """What a file of splits holds.

    Attributes:
        names: Images, as in the file's first column.
        contents: Content of each image; an image without one is its own.
        splits: One list a repeat, each with ``"train"``, ``"val"`` or ``"test"`` for every image.
    """

    names: tuple[str, ...]
    contents: tuple[str, ...]
    splits: tuple[tuple[str, ...], ...]


def write_splits(path: Path, names: Sequence[str], contents: Sequence[str], splits: Sequence[Sequence[str]]) -> None:
    """Write splits as a CSV: ``image``, ``content``, ``split_0``, ``split_1``, ... one row an image.

    The file is plain UTF-8 CSV with a header and commas, so that others can repeat an experiment without iqakit.

    Args:
        path: The file to write.
        names: Images, distinct.
        contents: Content of each image.
        splits: One sequence a repeat, as ``repeated_splits`` gives them.

    Raises:
        ConfigurationError: The lengths differ, or there is no split.
        DataError: A name comes twice, a split has an unknown name, or a content is in two splits of one repeat.
        StorageError: The file could not be written; an older one is still there.
    """
    if not splits or len(contents) != len(names) or any(len(split) != len(names) for split in splits):
        raise ConfigurationError(
            f"splits to write must have one entry an image, but there are {len(names)} images, {len(contents)} contents "
            f"and splits of {', '.join(str(len(split)) for split in splits) or 'no'} entries"
        )
    table = SplitTable(tuple(names), tuple(contents), tuple(tuple(split) for split in splits))
    _check_table(table, path)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "content", *(f"split_{k}" for k in range(len(splits)))])
    writer.writerows(zip(names, contents, *splits, strict=True))
    write_text_atomic(path, text.getvalue(), "file of splits")


def read_splits(path: Path) -> SplitTable:
    """Read a file of splits.

    Raises:
        DataError: The file is missing, is no such table, names an image twice or an unknown split, or has one content
            on two sides of a split.
    """
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    except FileNotFoundError:
        raise DataError(f"there is no file of splits {path}; write one with `iqakit datasets split`") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a file of splits: {error}") from None
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    expected = [f"split_{k}" for k in range(max(len(header) - 2, 1))]
    if header != ["image", "content", *expected]:
        found = ", ".join(header) or "nothing"
        raise DataError(f"{path} must have the columns image, content, split_0, split_1, ..., but it has {found}")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise DataError(f"{path}, row {number}: there must be {len(header)} cells, but there are {len(row)}")
    body = rows[1:]
    table = SplitTable(
        tuple(row[0] for row in body),
        tuple(row[1] or row[0] for row in body),
        tuple(tuple(row[2 + k].strip() for row in body) for k in range(len(expected))),
    )
    _check_table(table, path)
    return table


def _check_table(table: SplitTable, path: Path) -> None:
    seen: set[str] = set()
    for name in table.names:
        if name in seen:
            raise DataError(f"splits of {path}: image {name!r} comes twice; each image must have one row")
        seen.add(name)
    for k, split in enumerate(table.splits):
        side: dict[str, str] = {}
        for name, content, part in zip(table.names, table.contents, split, strict=True):
            if part not in SPLITS:
                raise DataError(f"splits of {path}: split_{k} of {name!r} must be train, val or test, but it is {part!r}")
            if side.setdefault(content, part) != part:
                raise DataError(
                    f"splits of {path}: content {content!r} is in both {side[content]} and {part} of split_{k}; "
                    "splits must not share content"
                )


@dataclass(frozen=True, slots=True)
class Protocol:
    """A published order of tasks, and how each is split.

    Attributes:
        name: What users type.
        tasks: Names of public sets, in the order learned.
        ratios: Shares of train, val and test.
        by_content: Whether images of one reference picture stay together.
        source: Where it was published.
    """

    name: str
    tasks: tuple[str, ...]
    ratios: tuple[float, float, float]
    by_content: bool
    source: str


_TSN_SOURCE = (
    "Zhang, Ma, Zhai, Yang: Task-Specific Normalization for Continual Learning of Blind Image Quality Models, "
    "IEEE Transactions on Image Processing 33:1898-1910, 2024"
)

TSN_SIX = Protocol("tsn-six", ("live", "csiq", "bid", "clive", "koniq10k", "kadid10k"), DEFAULT_RATIOS, True, _TSN_SOURCE)
"""Six sets in the order of their publication, 70/10/20."""

TSN_SIX_REVERSE = Protocol("tsn-six-reverse", TSN_SIX.tasks[::-1], TSN_SIX.ratios, True, _TSN_SOURCE)
"""The same six the other way round."""

PROTOCOLS: Mapping[str, Protocol] = {TSN_SIX.name: TSN_SIX, TSN_SIX_REVERSE.name: TSN_SIX_REVERSE}


def protocol(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        UnknownNameError: There is none.
    """
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise UnknownNameError.of("protocol", name, PROTOCOLS) from None
