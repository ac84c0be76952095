"""``compare``: the same pictures twice, under one model or two, and what the paired differences say."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePath
from typing import Any, Literal

from torch import Generator

from iqakit.errors import ConfigurationError
from iqakit.pipeline.paired_statistics import PairedStatistics, paired_statistics
from iqakit.pipeline.rows import ScoreRow

Scale = Literal["score", "raw"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One picture on both sides.

    Attributes:
        name: What both sides have in common: the path below each side's directory.
        status: ``"ok"``; ``"error"``: it could not be scored on one side or both; ``"unpaired"``: only one side has it.
        path_a: Its path on the first side, or None.
        path_b: Its path on the second side, or None.
        a: Its score on the first side, or None.
        b: Its score on the second side, or None.
        difference: ``b - a``, or None.
        error: Why there is no difference, one line; None where there is one.
    """

    name: str
    status: Literal["ok", "error", "unpaired"]
    path_a: str | None
    path_b: str | None
    a: float | None = None
    b: float | None = None
    difference: float | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The pair as plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """Two sides of the same pictures.

    Attributes:
        label_a: What the first side is called.
        label_b: What the second side is called.
        model_a: Name and version of the model that scored the first side.
        model_b: The same of the second side.
        on: ``"score"`` (points) or ``"raw"``.
        pairs: All pictures, in the order of the first side; then those that only the second side has.
        statistics: Figures over the pairs that could be scored on both sides.
    """

    label_a: str
    label_b: str
    model_a: str
    model_b: str
    on: Scale
    pairs: tuple[Pair, ...]
    statistics: PairedStatistics

    @property
    def failed(self) -> tuple[Pair, ...]:
        """Pictures that could not be scored on one side or both."""
        return tuple(pair for pair in self.pairs if pair.status == "error")

    @property
    def unpaired(self) -> tuple[Pair, ...]:
        """Pictures that only one side has."""
        return tuple(pair for pair in self.pairs if pair.status == "unpaired")

    def most_changed(self, count: int) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
        """The pairs that fell most and those that rose most, the largest change first, at most ``count`` each."""
        ranked = sorted((pair for pair in self.pairs if pair.difference), key=lambda pair: pair.difference or 0.0)
        fell = [pair for pair in ranked[:count] if (pair.difference or 0.0) < 0]
        rose = [pair for pair in reversed(ranked[max(0, len(ranked) - count) :]) if (pair.difference or 0.0) > 0]
        return tuple(fell), tuple(rose)

    @property
    def verdict(self) -> str:
        """The result in a sentence; it speaks of a difference only where the 95 % interval of the mean leaves out 0."""
        found = self.statistics
        unit = "points" if self.on == "score" else "raw units"
        if found.mean is None:
            return f"{self.label_a} and {self.label_b} cannot be compared: no picture was scored on both sides"
        if found.low is None or found.high is None or found.low <= 0 <= found.high:
            known = found.low is not None and found.high is not None
            interval = f" (95 % {_signed(found.low or 0.0)} to {_signed(found.high or 0.0)})" if known else ""
            images = f"{found.n} image" + ("" if found.n == 1 else "s")
            return (
                f"no clear difference: {self.label_b} is {_signed(found.mean)} {unit} from {self.label_a} on average"
                f"{interval}, {images}"
            )
        word = "is better than" if self.model_a == self.model_b else "scores higher than"
        if found.mean > 0:
            who, count = f"{self.label_b} {word} {self.label_a}", found.higher
            size = f"{_plain(found.mean)} {unit} (95 % {_plain(found.low)} to {_plain(found.high)})"
        else:
            who, count = f"{self.label_a} {word} {self.label_b}", found.lower
            size = f"{_plain(-found.mean)} {unit} (95 % {_plain(-found.high)} to {_plain(-found.low)})"
        return f"{who} by {size}, in {count} of {found.n} images"

    def worse_by_more_than(self, limit: float) -> bool:
        """Whether the second side is lower than the first by more than ``limit``, with the whole 95 % interval."""
        return self.statistics.high is not None and self.statistics.high < -limit

    def to_json(self) -> dict[str, Any]:
        """``summary`` and ``rows`` as plain JSON."""
        summary = {
            "a": self.label_a,
            "b": self.label_b,
            "model_a": self.model_a,
            "model_b": self.model_b,
            "on": self.on,
            **asdict(self.statistics),
            "failed": len(self.failed),
            "unpaired": len(self.unpaired),
            "verdict": self.verdict,
        }
        return {"summary": summary, "rows": [pair.to_json() for pair in self.pairs]}


def compare_rows(
    rows_a: Iterable[ScoreRow],
    rows_b: Iterable[ScoreRow],
    *,
    names_a: Sequence[str] | None = None,
    names_b: Sequence[str] | None = None,
    label_a: str = "A",
    label_b: str = "B",
    on: Scale | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare two lists of rows.

    Pictures are paired by name; those left over, by name without its ending where that is unambiguous on both sides
    (``a.png`` and ``a.jpg``).

    Args:
        rows_a: Rows of the first side.
        rows_b: Rows of the second side.
        names_a: The rows' names; else their paths below the directory that all of them have in common.
        names_b: The same for the second side. Where neither is given and both sides have a path in common, the paths
            themselves are the names.
        label_a: What the first side is called.
        label_b: What the second side is called.
        on: ``"score"`` or ``"raw"``; None: score, or raw where a row has no calibrated score.
        bootstrap: Resamples for the interval; 0: no interval.
        seed: Seed of the resamples.

    Raises:
        ConfigurationError: A side is empty, or scores are asked for and a row has none.
    """
    first, second = tuple(rows_a), tuple(rows_b)
    for label, rows in ((label_a, first), (label_b, second)):
        if not rows:
            raise ConfigurationError(f"there is nothing to compare: {label} holds no image")
    scale = _scale(on, first, second)
    if names_a is None and names_b is None and {row.path for row in first} & {row.path for row in second}:
        names_a, names_b = [row.path for row in first], [row.path for row in second]
    pairs = _paired(
        _named(names_a or names_below([row.path for row in first]), first),
        _named(names_b or names_below([row.path for row in second]), second),
        scale,
        (label_a, label_b),
    )
    scored = [(pair.a, pair.b) for pair in pairs if pair.a is not None and pair.b is not None and pair.status == "ok"]
    figures = paired_statistics(
        [a for a, _ in scored], [b for _, b in scored], generator=Generator().manual_seed(seed), bootstrap=bootstrap
    )
    return Comparison(label_a, label_b, _model_of(first), _model_of(second), scale, tuple(pairs), figures)


def names_below(paths: Sequence[str], directory: str | os.PathLike[str] | None = None) -> list[str]:
    """Names of files relative to a directory, with ``/`` between parts.

    Args:
        paths: The files.
        directory: The directory; None: the deepest one that all of them are in.
    """
    folders = [os.path.dirname(path) for path in paths]  # noqa: PTH120 - texts, of any system, nothing on disk
    if directory is not None:
        root = os.fspath(directory)
    elif len({os.path.isabs(folder) for folder in folders}) == 1:  # noqa: PTH117
        root = os.path.commonpath(folders) if any(folders) and all(folders) else ""
    else:
        root = ""
    return [PurePath(os.path.relpath(path, root) if root else path).as_posix() for path in paths]


def _scale(on: Scale | None, *sides: Sequence[ScoreRow]) -> Scale:
    lacking = next((row.path for rows in sides for row in rows if row.status == "ok" and row.score is None), None)
    if on == "score" and lacking is not None:
        raise ConfigurationError(f"{lacking} has no calibrated score; compare raw outputs with --on raw")
    return on or ("score" if lacking is None else "raw")


def _named(names: Sequence[str], rows: Sequence[ScoreRow]) -> list[tuple[str, ScoreRow]]:
    return list(zip(names, rows, strict=True))


def _paired(
    first: Sequence[tuple[str, ScoreRow]], second: Sequence[tuple[str, ScoreRow]], on: Scale, labels: tuple[str, str]
) -> list[Pair]:
    """All pictures of both sides."""
    partner: dict[int, int] = {}
    for key in (lambda name: name, _without_ending):
        left_a = _unambiguous((key(name), i) for i, (name, _) in enumerate(first) if i not in partner)
        taken = set(partner.values())
        left_b = _unambiguous((key(name), j) for j, (name, _) in enumerate(second) if j not in taken)
        partner |= {i: left_b[name] for name, i in left_a.items() if name in left_b}
    pairs = [
        _pair(name, row, second[partner[i]][1], on) if i in partner else _alone(name, row, None, labels[1])
        for i, (name, row) in enumerate(first)
    ]
    taken = set(partner.values())
    return pairs + [_alone(name, None, row, labels[0]) for j, (name, row) in enumerate(second) if j not in taken]


def _without_ending(name: str) -> str:
    return PurePath(name).with_suffix("").as_posix() if PurePath(name).name else name


def _unambiguous(named: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Names that occur once."""
    found: dict[str, list[int]] = {}
    for name, index in named:
        found.setdefault(name, []).append(index)
    return {name: indices[0] for name, indices in found.items() if len(indices) == 1}


def _pair(name: str, a: ScoreRow, b: ScoreRow, on: Scale) -> Pair:
    pair = Pair(name, "ok", a.path, b.path, _value(a, on), _value(b, on))
    if pair.a is None or pair.b is None:
        errors = [row.error or f"{row.path} has no {on}" for row in (a, b) if _value(row, on) is None]
        return replace(pair, status="error", error="; ".join(dict.fromkeys(errors)))
    return replace(pair, difference=pair.b - pair.a)


def _alone(name: str, a: ScoreRow | None, b: ScoreRow | None, other: str) -> Pair:
    return Pair(
        name,
        "unpaired",
        a.path if a else None,
        b.path if b else None,
        error=f"{other} has no image of that name, or either side has several",
    )


def _value(row: ScoreRow, on: Scale) -> float | None:
    return None if row.status != "ok" else row.score if on == "score" else row.raw


def _model_of(rows: Sequence[ScoreRow]) -> str:
    return ", ".join(dict.fromkeys(row.model for row in rows if row.model))


def _plain(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 0.95 else f"{value:.2g}"


def _signed(value: float) -> str:
    return f"{value:+.1f}" if abs(value) >= 0.95 else f"{value:+.2g}"
