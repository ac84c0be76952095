"""Rows of ``score`` on their way: counted, with a bar where somebody watches."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from iqakit.cli.images import expand_images, is_countable
from iqakit.cli.kept_rows import KeptRow
from iqakit.cli.output import BarProgress, Terminal
from iqakit.cli.score_file import ranking_score
from iqakit.errors import ConfigurationError


def found_images(images: Sequence[str]) -> Iterator[str]:
    """The paths, once it is sure that there is one."""
    paths = expand_images(images)
    first = next(paths, None)
    if first is None:
        named = "standard input" if list(images) == ["-"] else ", ".join(repr(image) for image in images)
        raise ConfigurationError(
            f"there is nothing to score: no image was found in {named}; "
            "name files, directories or patterns, or - for one path a line on standard input"
        )
    return chain([first], paths)


@dataclass
class Tally:
    """Counts over the rows, those of an earlier run included.

    Attributes:
        minimum: The score that ``--min`` asks for.
        scored: Images with a score.
        failed: Images without one.
        below: Images below ``minimum``.
    """

    minimum: float | None = None
    scored: int = 0
    failed: int = 0
    below: int = 0
    _fresh: int = 0
    _sum: float = 0.0
    _lowest: float = math.inf
    _highest: float = -math.inf
    _calibrated: int = 0
    _began: float = field(default_factory=time.perf_counter)

    def take_kept(self, row: KeptRow) -> None:
        """Count a row of an earlier run."""
        self.failed += row.failed
        self.scored += not row.failed
        if row.score is not None:
            self._take_score(row.score)

    def watch(self, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Count rows as they pass."""
        for row in rows:
            self._fresh += 1
            if row["status"] == "ok":
                self.scored += 1
                if row["score"] is not None or self.minimum is not None:
                    self._take_score(ranking_score(row))
            else:
                self.failed += 1
            yield row

    def _take_score(self, score: float) -> None:
        """Count one score."""
        self._calibrated += 1
        self._sum += score
        self._lowest, self._highest = min(self._lowest, score), max(self._highest, score)
        self.below += self.minimum is not None and score < self.minimum

    def summary(self) -> list[str]:
        """Lines that sum up the run."""
        seconds = time.perf_counter() - self._began
        text = f"{_images(self.scored)} scored"
        if self.failed:
            text += f", {self.failed} failed"
        if self._calibrated:
            text += f"; score {self._lowest:.1f} to {self._highest:.1f}, mean {self._sum / self._calibrated:.1f}"
        if self._fresh:
            text += f"; {seconds:.1f} s, {self._fresh / max(seconds, 1e-9):.1f} images/s"
        lines = [text]
        if self.below:
            lines.append(f"{_images(self.below)} below --min {self.minimum:g}")
        return lines


def _images(count: int) -> str:
    """A number of images in words."""
    return f"{count} image" + ("" if count == 1 else "s")


def with_bar(
    terminal: Terminal, rows: Iterator[Any], arguments: Sequence[str], done: int, to_stdout: bool
) -> Iterator[Any]:
    """The rows, with a bar on a terminal where they do not run over that same terminal.

    Args:
        terminal: Where the bar is drawn.
        rows: The rows.
        arguments: What the user named, to count the images.
        done: Images that need not be scored again.
        to_stdout: Whether rows are printed as they come.
    """
    if not terminal.draws or (to_stdout and sys.stdout.isatty()):
        yield from rows
        return
    with ExitStack() as stack:
        progress = stack.enter_context(terminal.progress())
        progress.start("scoring", 0)
        progress.advance(done)
        if isinstance(progress, BarProgress) and is_countable(arguments):
            stop = threading.Event()
            stack.callback(stop.set)
            threading.Thread(target=_count, args=(arguments, progress, stop), daemon=True).start()
        for row in rows:
            yield row
            progress.advance()


def _count(arguments: Sequence[str], progress: BarProgress, stop: threading.Event) -> None:
    """Count the images beside the scoring; once they are known, the bar shows the time that is left."""
    total = 0
    for _ in expand_images(arguments):
        if stop.is_set():
            return
        total += 1
    progress.set_total(total)
