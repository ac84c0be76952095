"""``iqakit score``: how good images look, one row an image."""

from __future__ import annotations

import heapq
import math
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

import typer

from iqakit.cli.choices import (
    DEVICE_HELP,
    MODEL_HELP,
    SET_HELP,
    WORKERS_HELP,
    Device,
    parse_batch_size,
    parse_top,
    terminal_of,
)
from iqakit.cli.images import expand_images, is_countable
from iqakit.cli.output import BarProgress, Terminal
from iqakit.cli.result_file import Kept, ResultFile, resume
from iqakit.cli.score_rows import FlatCells, JsonLines, JsonList, PeopleTable, RowFormat
from iqakit.errors import ConfigurationError

if TYPE_CHECKING:
    from iqakit.pipeline.model import QualityModel


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


_BY_SUFFIX = {
    ".json": Format.JSON,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".csv": Format.CSV,
    ".txt": Format.TABLE,
}


class OnError(StrEnum):
    """What an image that cannot be read does."""

    SKIP = "skip"
    FAIL = "fail"


class Runtime(StrEnum):
    """What runs the network."""

    AUTO = "auto"
    TORCH = "torch"


class TestTime(StrEnum):
    """Adaptation to the images at hand."""

    NONE = "none"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("score")(score)


def score(
    context: typer.Context,
    images: list[str] = typer.Argument(
        ..., metavar="IMAGE...", help="Files, directories, patterns, or - for one path a line on standard input."
    ),
    model: str | None = typer.Option(None, "--model", metavar="NAME|DIR", help=MODEL_HELP),
    combiner: str | None = typer.Option(
        None,
        "--combiner",
        help="What makes one score of the tasks': kmeans (the default), oracle, average, last or a plugin's.",
    ),
    task: str | None = typer.Option(None, "--task", help="The task that the images belong to; then oracle is the default."),
    tta: TestTime = typer.Option(TestTime.NONE, "--tta", help="Adaptation to the images at hand."),
    settings: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help=SET_HELP + " They go to the combiner."),
    form: Format | None = typer.Option(
        None, "--format", help="How rows are written; else by the ending of -o, else a table.", show_default=False
    ),
    output: Path | None = typer.Option(None, "-o", "--output", metavar="FILE", help="Write the rows to this file."),
    resuming: bool = typer.Option(False, "--resume", help="Go on with a cut run: images in the file are skipped."),
    on_error: OnError = typer.Option(
        OnError.SKIP, "--on-error", help="An image that cannot be read gives an error row, or ends the run."
    ),
    minimum: float | None = typer.Option(None, "--min", metavar="S", help="End with 1 if any image scores below this."),
    top: str | None = typer.Option(None, "--top", metavar="N|P%", help="Only the best N or P percent, best first."),
    runtime: Runtime = typer.Option(Runtime.AUTO, "--runtime", help="What runs the network."),
    device: Device = typer.Option(Device.AUTO, "--device", help=DEVICE_HELP),
    batch_size: str = typer.Option("auto", "--batch-size", metavar="auto|N", help="Images that run together on a GPU."),
    workers: int = typer.Option(2, "--workers", min=0, help=WORKERS_HELP),
) -> None:
    """Score images: 0-100, higher is better.

    Every image gives one row, also one that cannot be read. Exit code: 0 all scored; 1 some failed or scored below
    --min; 2 nothing could be done.
    """
    from iqakit.plugins.settings import parse_assignments

    terminal = terminal_of(context)
    count, share = parse_top(top)
    size = parse_batch_size(batch_size)
    if minimum is not None and not math.isfinite(minimum):
        raise ConfigurationError(f"--min is a score, 0-100, not {minimum}")
    written = _format(form, output)
    path = None if output is None or str(output) == "-" else output
    if resuming:
        _check_resumable(path, written, top)
    assigned = parse_assignments(settings)
    paths = _found(images)

    from iqakit.pipeline.model import QualityModel

    loaded = QualityModel.load(model, device=device.value)
    terminal.say(f"model {loaded.version} in {loaded.directory}: {loaded.backbone_id}, tasks {', '.join(loaded.tasks)}")
    tally = Tally(minimum)
    kept = Kept()
    if resuming and path is not None:
        columns = FlatCells(loaded.tasks).columns
        kept = resume(path, written.value, columns, loaded.version)
        tally.take_kept(kept)
        if kept.rows:
            terminal.say(f"{kept.rows} images are in {path} already")
    rows = loaded.score_many(
        (image for image in paths if not kept.take(image)),
        combiner=combiner,
        task=task,
        settings=assigned,
        workers=workers,
        batch_size=size,
        on_error=on_error.value,
    )
    counted = tally.watch(
        row.to_json() for row in _with_bar(terminal, rows, images, kept.rows, path is None and top is None)
    )
    target = ResultFile(path, append=resuming)
    try:
        with target:
            _write(target, _row_format(written, path, loaded), counted, count, share, heading=not kept.has_heading)
    except BaseException:  # whatever ended the run, people should know where their rows are
        if target.leftover is not None:
            terminal.say(f"the rows so far are in {target.leftover}; {path} was not touched")
        elif path is not None and written in (Format.JSONL, Format.CSV) and top is None:
            terminal.say(f"the rows so far are in {path}; the same command with --resume goes on")
        raise
    for line in tally.summary():
        terminal.say(line)
    if tally.failed or tally.below:
        raise typer.Exit(1)


def _format(form: Format | None, output: Path | None) -> Format:
    """The format asked for, else the one that the file's ending says."""
    if form is not None:
        return form
    if output is None or str(output) == "-":
        return Format.TABLE
    by_suffix = {
        ".json": Format.JSON,
        ".jsonl": Format.JSONL,
        ".ndjson": Format.JSONL,
        ".csv": Format.CSV,
        ".txt": Format.TABLE,
    }
    if output.suffix.lower() not in by_suffix:
        raise ConfigurationError(f"the ending of {output} does not say a format; add --format table, json, jsonl or csv")
    return by_suffix[output.suffix.lower()]


def _check_resumable(path: Path | None, form: Format, top: str | None) -> None:
    """Only rows that were written one by one to a file can be gone on with."""
    if path is None:
        raise ConfigurationError("--resume goes on with a file; name it with -o FILE")
    if form not in (Format.JSONL, Format.CSV):
        raise ConfigurationError(f"--resume goes on with jsonl and csv only, not with {form.value}; add --format jsonl")
    if top is not None:
        raise ConfigurationError("--resume and --top cannot be combined: the best are known only when all are scored")


def _found(images: Sequence[str]) -> Iterator[str]:
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


def _row_format(form: Format, path: Path | None, model: QualityModel) -> RowFormat:
    """What writes the rows."""
    if form is Format.JSON:
        return JsonList()
    if form is Format.JSONL:
        return JsonLines()
    if form is Format.CSV:
        return FlatCells(model.tasks)
    if path is not None:
        return PeopleTable(None, colour=False)
    from rich.console import Console

    console = Console(file=sys.stdout)
    watched = console.is_terminal
    return PeopleTable(
        get_terminal_size().columns if watched else None,
        colour=watched and not console.no_color,
        unicode=(sys.stdout.encoding or "utf-8").lower().replace("-", "").startswith("utf"),
    )


def _write(
    target: ResultFile,
    form: RowFormat,
    rows: Iterator[dict[str, Any]],
    count: int | None,
    share: float | None,
    *,
    heading: bool,
) -> None:
    """Write the rows as they come, or the best of them once all are known."""
    ordered = rows if count is None and share is None else iter(best(rows, count, share))
    if heading:
        target.write(form.begin())
    for row in ordered:
        target.write(form.row(row))
    target.write(form.end())


def best(rows: Iterator[dict[str, Any]], count: int | None, share: float | None) -> list[dict[str, Any]]:
    """The best rows, best first; of equal ones the earlier first. Error rows are not among them.

    Args:
        rows: All rows.
        count: How many, at most.
        share: Or which share of the scored ones (0-1), rounded up.

    Raises:
        ConfigurationError: A row has no calibrated score to go by.
    """
    ranked = ((_ranking_score(row), -index, row) for index, row in enumerate(rows) if row["status"] == "ok")
    if share is not None:
        everything = sorted(ranked, key=lambda item: item[:2], reverse=True)
        # The small step back keeps 10% of 30 at 3, whatever floating point makes of it.
        return [row for _, _, row in everything[: max(1, math.ceil(share * len(everything) - 1e-9))]]
    return [row for _, _, row in heapq.nlargest(count or 0, ranked, key=lambda item: item[:2])]


def _ranking_score(row: dict[str, Any]) -> float:
    """The score to go by."""
    if row.get("score") is None:
        raise ConfigurationError(f"{row['path']} has no calibrated score; --top and --min cannot be used with this model")
    return float(row["score"])


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

    def take_kept(self, kept: Kept) -> None:
        """Count the rows of an earlier run."""
        self.failed += kept.failed
        self.scored += kept.rows - kept.failed
        for score in kept.scores:
            self._take_score(score)

    def watch(self, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Count rows as they pass."""
        for row in rows:
            self._fresh += 1
            if row["status"] == "ok":
                self.scored += 1
                if row["score"] is not None or self.minimum is not None:
                    self._take_score(_ranking_score(row))
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


def _with_bar(
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
