"""What a page says of rows, gathered while they stream by: counts and a few best rows in memory, all rows on disk."""

from __future__ import annotations

import heapq
import json
import math
import re
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from iqakit.errors import DataError
from iqakit.pipeline.rows import ScoreRow

TABLE_LIMIT: Final = 200_000
"""Rows that the page's table holds; what comes after counts in everything else."""
FAILED_LIMIT: Final = 100
"""Failed images that are listed with their reasons outside of the table."""
NOVEL_FROM: Final = 0.95
"""An image is called novel from this novelty on: of images like those learned from, 5 % lie there."""
NOTES_LIMIT: Final = 12
"""Reasons for keeping the source's score that are listed outside of the table, the most frequent ones."""
_BLOCK: Final = 1 << 20
_FIGURE: Final = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class Entry:
    """One scored image of a contact sheet.

    Attributes:
        path: As in the row.
        value: What the sheet's images are known by: score, or raw output where there is no score.
        std: Uncertainty in points, or None.
        novelty: 0-1, or None.
        warnings: Names.
        source: With test-time adaptation, the score without it; None where there is none or it was kept.
    """

    path: str
    value: float
    std: float | None
    novelty: float | None
    warnings: tuple[str, ...]
    source: float | None = None


@dataclass(slots=True)
class Adaptations:
    """What test-time adaptation did to the images that it was asked for.

    Attributes:
        count: Scored images that it was asked for.
        adapted: How many of them have the adapted score; the others have the source's.
        moved: How many of those have both scores.
        moves: Sum of adapted less source score over them.
        lowest: The least of these moves.
        highest: The largest.
        kept: Why others have the source's score, and how many; reasons that differ in figures alone count as one.
        notes: What is said of the images in the table, in the order first met.
    """

    count: int = 0
    adapted: int = 0
    moved: int = 0
    moves: float = 0.0
    lowest: float = math.inf
    highest: float = -math.inf
    kept: Counter[str] = field(default_factory=Counter)
    notes: dict[str, int] = field(default_factory=dict)
    _texts: dict[str, str] = field(default_factory=dict)

    def take(self, adapted: bool, move: float | None, note: str) -> None:
        """Count one image."""
        self.count += 1
        self.adapted += adapted
        if not adapted:
            kind = _FIGURE.sub("…", note)
            self.kept[kind] += 1
            if self._texts.setdefault(kind, note) != note:
                self._texts[kind] = kind  # the figures of each batch are in the table
        elif move is not None:
            self.moved += 1
            self.moves += move
            self.lowest, self.highest = min(self.lowest, move), max(self.highest, move)

    def reasons(self) -> list[tuple[str, int]]:
        """Why images have the source's score, and how many, the most frequent first."""
        return [(self._texts[kind], count) for kind, count in self.kept.most_common()]

    def number(self, note: str) -> int:
        """The number of a note."""
        return self.notes.setdefault(note, len(self.notes))


class Sheet:
    """The entries of highest rank, at most ``size``; of equal ones the earlier."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[float, int, Entry]] = []

    def offer(self, rank: float, index: int, entry: Entry) -> None:
        """Take an entry if it is among the best so far."""
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, (rank, -index, entry))
        elif self._size:
            heapq.heappushpop(self._heap, (rank, -index, entry))

    def entries(self, count: int | None = None) -> list[Entry]:
        """The best, best first."""
        ordered = sorted(self._heap, key=lambda item: item[:2], reverse=True)
        return [entry for _, _, entry in ordered[:count]]


class RowCollection:
    """Rows as a page needs them. Use it in a ``with`` block: the rows lie in a nameless file that goes when it ends.

    Memory holds eight bytes an image (its score, for exact quantiles), the contact sheets and the counts.

    Attributes:
        count: Rows so far.
        failed: How many of them have no score.
        failures: Path and reason of the first ``FAILED_LIMIT`` of those.
        novel: Scored images with a novelty of ``NOVEL_FROM`` or more.
        with_novelty: Scored images whose novelty is known.
        warned: Images with at least one warning.
        warnings: How many images have each warning, in the order first met.
        tasks: Sum of each task's weight over the images that have weights, in the order first met.
        with_weights: How many images those are.
        models: The models that scored, in the order first met.
        scores: Calibrated scores of the images that have one.
        raws: Raw outputs of the images that have no calibrated score.
        adaptations: What test-time adaptation did, where it was asked for.
    """

    def __init__(self, directory: Path, *, sheet: int) -> None:
        """Name the place; nothing is opened yet.

        Args:
            directory: Where the rows may lie meanwhile.
            sheet: Images in each contact sheet.
        """
        self.count = self.failed = self.novel = self.with_novelty = self.warned = self.with_weights = 0
        self.failures: list[tuple[str, str]] = []
        self.warnings: Counter[str] = Counter()
        self.tasks: dict[str, float] = {}
        self.models: dict[str, None] = {}
        self.scores = array("d")
        self.raws = array("d")
        self.adaptations = Adaptations()
        self._directory = directory
        self._sheets = {name: Sheet(sheet) for name in ("best", "worst", "best raw", "worst raw", "novel")}
        self._warning_numbers: dict[str, int] = {}
        self._previous = ""

    def __enter__(self) -> Self:
        """Open the file that the rows lie in.

        Raises:
            OSError: The directory is missing or not ours to write to.
        """
        self._spool = tempfile.TemporaryFile(dir=self._directory)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Drop the rows."""
        self._spool.close()

    @property
    def calibrated(self) -> bool:
        """Whether images are known by their score; else by their raw output."""
        return bool(self.scores) or not self.raws

    @property
    def values(self) -> array[float]:
        """What images are known by."""
        return self.scores if self.calibrated else self.raws

    def add(self, row: ScoreRow | Mapping[str, Any]) -> None:
        """Take one row.

        Raises:
            DataError: It is no row of scores.
        """
        found = row.to_json() if isinstance(row, ScoreRow) else row
        path, status = found.get("path"), found.get("status")
        if not isinstance(path, str) or status not in ("ok", "error"):
            raise DataError(
                f"row {self.count + 1} for the report has no path and status; give rows as iqakit score writes them"
            )
        cells = self._failure(path, found) if status == "error" else self._success(path, found)
        if self.count < TABLE_LIMIT:
            self._write(path, cells)
        if isinstance(found.get("model"), str):
            self.models[found["model"]] = None
        self.count += 1

    def sheet(self, name: str, count: int | None = None) -> list[Entry]:
        """Entries of ``best``, ``worst`` or ``novel``, the most so first."""
        raw = "" if self.calibrated or name == "novel" else " raw"
        return self._sheets[name + raw].entries(count)

    def table(self) -> Iterator[str]:
        """The rows as the inside of a JSON list, piece by piece, safe inside a script element.

        A row is ``[shared, rest, score, std, novelty, width, height, warnings, weights]``, or ``[shared, rest, reason]``
        for an image that failed. Its path is the first ``shared`` UTF-16 units of the path before, and ``rest``.
        Warnings and weights are by the order of ``warnings`` and ``tasks``; a tenth cell holds the raw output where there
        is no score. With test-time adaptation a tenth is always there, null beside a score, and three follow: the score
        without it, whether the score is adapted (1 or 0), and the number of the note in ``adaptations.notes``.
        """
        self._spool.seek(0)
        while block := self._spool.read(_BLOCK):
            yield block.decode("ascii", "strict")

    def _failure(self, path: str, found: Mapping[str, Any]) -> list[Any]:
        reason = str(found.get("error") or "no reason is known")
        # The message usually begins with the path, which stands beside it.
        reason = reason.removeprefix(f"{path}: ").removeprefix(f"{path} ")
        self.failed += 1
        if len(self.failures) < FAILED_LIMIT:
            self.failures.append((path, reason))
        return [reason]

    def _success(self, path: str, found: Mapping[str, Any]) -> list[Any]:
        score, raw = _number(found.get("score"), 3), _number(found.get("raw"), 5)
        std, novelty = _number(found.get("std"), 2), _number(found.get("novelty"), 4)
        warnings = tuple(dict.fromkeys(str(name) for name in found.get("warnings") or ()))
        self._count(warnings, novelty, found.get("weights") or {})
        value = score if score is not None else raw
        adaptation = self._adaptation(score, found)
        if value is not None:
            source = adaptation[0] if adaptation and adaptation[1] else None
            entry = Entry(path, value, std, novelty, warnings, source)
            kind = "" if score is not None else " raw"
            (self.scores if score is not None else self.raws).append(value)
            self._sheets["best" + kind].offer(value, self.count, entry)
            self._sheets["worst" + kind].offer(-value, self.count, entry)
            if novelty is not None and novelty >= NOVEL_FROM:
                self._sheets["novel"].offer(novelty, self.count, entry)
        weights = found.get("weights") or {}
        cells = [
            *(score, std, novelty, found.get("width"), found.get("height")),
            [self._warning_numbers[name] for name in warnings],
            [_number(weights.get(task, 0.0), 3) for task in self.tasks],
        ]
        if adaptation:
            return [*cells, raw if score is None else None, *adaptation]
        return cells if score is not None else [*cells, raw]

    def _adaptation(self, score: float | None, found: Mapping[str, Any]) -> list[Any]:
        """Source score, whether the score is adapted, and number of the note; nothing where no adaptation was asked for."""
        if found.get("adapted") is None:
            return []
        adapted, note = bool(found["adapted"]), str(found.get("adaptation") or "no reason is known")
        source = _number(found.get("source_score"), 3)
        self.adaptations.take(adapted, None if score is None or source is None else score - source, note)
        return [source, int(adapted), self.adaptations.number(note) if self.count < TABLE_LIMIT else 0]

    def _count(self, warnings: tuple[str, ...], novelty: float | None, weights: Mapping[str, float]) -> None:
        self.warnings.update(warnings)
        for name in warnings:
            self._warning_numbers.setdefault(name, len(self._warning_numbers))
        self.warned += bool(warnings)
        self.with_novelty += novelty is not None
        self.novel += novelty is not None and novelty >= NOVEL_FROM
        self.with_weights += bool(weights)
        for task, weight in weights.items():
            self.tasks[task] = self.tasks.get(task, 0.0) + weight

    def _write(self, path: str, cells: list[Any]) -> None:
        common = _common(self._previous, path)
        shared = len(path[:common].encode("utf-16-le", "surrogatepass")) // 2  # as JavaScript counts
        text = safe_json([shared, path[common:], *cells])
        self._spool.write((",\n" if self.count else "").encode() + text.encode("ascii"))
        self._previous = path


def safe_json(value: Any) -> str:
    """Compact ASCII JSON that means the same inside a script element, whatever strings it holds."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common at the beginning."""
    differing = (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def _number(value: Any, digits: int) -> float | None:
    """A finite number, rounded; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return None
    rounded = round(float(value), digits)
    return rounded + 0.0  # no negative zero
