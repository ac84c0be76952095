"""``iqakit compare``: the same pictures twice, or two models on the same pictures."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from iqakit.cli.choices import DEVICE_HELP, MODEL_HELP, SCORING_WORKERS_HELP, Device, terminal_of
from iqakit.cli.images import expand_images
from iqakit.cli.output import Terminal, printable, to_json
from iqakit.cli.result_file import ResultFile, check_place
from iqakit.cli.score_formats import Format, format_of
from iqakit.cli.score_run import found_images
from iqakit.errors import ConfigurationError

if TYPE_CHECKING:
    from iqakit.pipeline.comparing import Comparison, Pair
    from iqakit.pipeline.model import QualityModel
    from iqakit.pipeline.rows import ScoreRow

COLUMNS = ("name", "status", "path_a", "path_b", "a", "b", "difference", "error")


class On(StrEnum):
    """What is compared."""

    SCORE = "score"
    RAW = "raw"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(compare)


def compare(
    context: typer.Context,
    sides: list[str] = typer.Argument(
        ...,
        metavar="A B | IMAGE...",
        help="Two directories, images or files of iqakit score -o; with two --model, images to score with both.",
    ),
    models: list[str] = typer.Option([], "--model", metavar="NAME|DIR", help=MODEL_HELP + " Twice: compare two models."),
    combiner: str | None = typer.Option(None, "--combiner", help="As for score."),
    task: str | None = typer.Option(None, "--task", help="The task that the images belong to, as for score."),
    on: On | None = typer.Option(
        None, "--on", help="Compare scores in points, or raw outputs; else scores where all have one.", show_default=False
    ),
    show: int = typer.Option(5, "--show", min=0, metavar="N", help="How many images that changed most the table names."),
    fail_below: float | None = typer.Option(
        None, "--fail-below", metavar="D", help="End with 1 if B is lower by more than D on average, and surely so (95 %)."
    ),
    bootstrap: int = typer.Option(1000, "--bootstrap", min=0, metavar="N", help="Resamples for the interval."),
    seed: int = typer.Option(0, "--seed", min=0, help="Seed of the resamples."),
    form: Format | None = typer.Option(
        None, "--format", help="How rows are written; else by the ending of -o, else a table.", show_default=False
    ),
    output: Path | None = typer.Option(None, "-o", "--output", metavar="FILE", help="Write the rows to this file."),
    device: Device = typer.Option(Device.AUTO, "--device", help=DEVICE_HELP),
    workers: int | None = typer.Option(None, "--workers", min=0, help=SCORING_WORKERS_HELP),
) -> None:
    """Compare two folders of the same pictures, or two models: mean difference, interval, significance.

    Exit code: 0 all compared; 1 some images failed or have no partner, or --fail-below was missed.
    """
    terminal = terminal_of(context)
    if fail_below is not None and not (math.isfinite(fail_below) and fail_below >= 0):
        raise ConfigurationError(f"--fail-below is a loss in points, 0 or more, not {fail_below:g}")
    if fail_below is not None and not bootstrap:
        raise ConfigurationError("--fail-below needs the interval; leave out --bootstrap 0")
    if len(models) > 2:
        raise ConfigurationError(f"--model can be given once or twice, not {len(models)} times")
    written = format_of(form, output)
    path = None if output is None or str(output) == "-" else output
    check_place(path)
    scored = _Scored(terminal, combiner, task, device.value, workers)
    rows = scored.by_two_models(models, sides) if len(models) == 2 else scored.two_sides(models, sides)

    from iqakit.pipeline.comparing import compare_rows

    found = compare_rows(**rows, on=None if on is None else on.value, bootstrap=bootstrap, seed=seed)
    if found.on == "raw" and on is None:
        terminal.say("not every image has a calibrated score, so raw outputs are compared")
    if rows.get("names_a") is None and found.model_a != found.model_b:
        terminal.say(f"the two sides were scored by different models: {found.model_a} and {found.model_b}")
    with ResultFile(path) as target:
        target.write(_text(found, written, show))
    _finish(terminal, found, written is not Format.TABLE or path is not None, fail_below)


class _Scored:
    """Both sides' rows, as ``compare_rows`` takes them."""

    def __init__(
        self, terminal: Terminal, combiner: str | None, task: str | None, device: str, workers: int | None
    ) -> None:
        self._terminal = terminal
        self._combiner, self._task, self._workers = combiner, task, workers
        self._device = device

    def by_two_models(self, models: Sequence[str], images: Sequence[str]) -> dict[str, Any]:
        """The same images, scored by each of two models."""
        paths = list(found_images(images))
        labels, rows = [], []
        for name in models:
            loaded = self._load(name)
            labels.append(loaded.name)
            rows.append(self._score(loaded, paths, loaded.name))
        if labels[0] == labels[1]:
            labels = list(models)
        return {
            "rows_a": rows[0],
            "rows_b": rows[1],
            "names_a": paths,
            "names_b": paths,
            "label_a": labels[0],
            "label_b": labels[1],
        }

    def two_sides(self, models: Sequence[str], sides: Sequence[str]) -> dict[str, Any]:
        """Two directories or images under one model, or two files of rows."""
        if len(sides) != 2:
            raise ConfigurationError(
                f"compare takes two sides, A and B, but {len(sides)} were given; to compare two models on the same "
                "images, give --model twice"
            )
        from iqakit.pipeline.comparing import names_below
        from iqakit.pipeline.score_files import is_score_file, read_score_file

        files = [is_score_file(side) for side in sides]
        labels = _labels(sides)
        if all(files):
            rows = [read_score_file(side) for side in sides]
            return {"rows_a": rows[0], "rows_b": rows[1], "label_a": labels[0], "label_b": labels[1]}
        if any(files):
            raise ConfigurationError(f"{sides[0]} and {sides[1]} are of two kinds; give two directories or two score files")
        paths = [_images_of(side) for side in sides]
        loaded = self._load(models[0] if models else None)
        both = [self._score(loaded, side, label) for side, label in zip(paths, labels, strict=True)]
        single = all(not Path(side).is_dir() for side in sides)
        names = (
            [[label] for label in labels[:1] * 2]
            if single
            else [names_below(found, side) for found, side in zip(paths, sides, strict=True)]
        )
        return {
            "rows_a": both[0],
            "rows_b": both[1],
            "names_a": names[0],
            "names_b": names[1],
            "label_a": labels[0],
            "label_b": labels[1],
        }

    def _load(self, name: str | None) -> QualityModel:
        from iqakit.pipeline.model import QualityModel

        loaded = QualityModel.load(name, device=self._device)
        tasks = ", ".join(loaded.tasks)
        self._terminal.say(f"model {loaded.version} in {loaded.directory}: {loaded.backbone_id}, tasks {tasks}")
        return loaded

    def _score(self, model: QualityModel, paths: Sequence[str], label: str) -> list[ScoreRow]:
        rows = []
        with self._terminal.progress() as progress:
            progress.start(f"scoring {label}", len(paths))
            for row in model.score_many(paths, combiner=self._combiner, task=self._task, workers=self._workers):
                rows.append(row)
                progress.advance()
        return rows


def _images_of(side: str) -> list[str]:
    """Images of a directory, or the image itself."""
    paths = list(expand_images([side]))
    if not paths:
        raise ConfigurationError(f"there is nothing to compare: no image was found in {side!r}")
    if len(paths) > 1 and not Path(side).is_dir():
        raise ConfigurationError(
            f"{side!r} names {len(paths)} images; a side is a directory, one image or a file of scores"
        )
    return paths


def _labels(sides: Sequence[str]) -> tuple[str, str]:
    """What the sides are called: their last part, or the whole where that is the same."""
    short = [os.path.basename(os.path.normpath(side)) for side in sides]  # noqa: PTH119 - as typed
    return (short[0], short[1]) if short[0] != short[1] else (sides[0], sides[1])


def _finish(terminal: Terminal, found: Comparison, say_verdict: bool, fail_below: float | None) -> None:
    """Say what was left out, and end with 1 where something was or the limit was missed."""
    if say_verdict:
        terminal.say(found.verdict)
    for pairs, what in ((found.failed, "could not be scored"), (found.unpaired, "without a partner")):
        if pairs:
            images = f"{len(pairs)} image" + ("" if len(pairs) == 1 else "s")
            terminal.say(f"{images} {what}: listed, and not in the figures")
    missed = fail_below is not None and found.worse_by_more_than(fail_below)
    if missed:
        terminal.say(
            f"{found.label_b} is lower than {found.label_a} by more than --fail-below {fail_below:g}, and surely so"
        )
    if missed or found.failed or found.unpaired:
        raise typer.Exit(1)


def _text(found: Comparison, form: Format, show: int) -> str:
    """The result as text."""
    if form is Format.JSON:
        return to_json(found.to_json(), indent=2) + "\n"
    if form is Format.JSONL:
        return "".join(to_json(pair.to_json()) + "\n" for pair in found.pairs)
    if form is Format.CSV:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for pair in found.pairs:
            cells = (pair.to_json()[column] for column in COLUMNS)
            writer.writerow("" if cell is None else repr(cell) if isinstance(cell, float) else cell for cell in cells)
        return stream.getvalue()
    return _for_people(found, show)


def _for_people(found: Comparison, show: int) -> str:
    """Verdict, figures, what changed most, and what was left out."""
    facts = found.statistics
    digits = 1 if found.on == "score" else 4
    lines = [f"{found.verdict}\n\n"]
    figures = {
        f"mean of {found.label_a}": _number(facts.mean_a, digits),
        f"mean of {found.label_b}": _number(facts.mean_b, digits),
        "mean difference": _number(facts.mean, digits, "+"),
        "95 % interval": "" if facts.low is None else f"{facts.low:+.{digits}f} to {facts.high:+.{digits}f}",
        "median difference": _number(facts.median, digits, "+"),
        "higher, lower, equal": f"{facts.higher}, {facts.lower}, {facts.equal} of {facts.n}",
        "Wilcoxon signed-rank": _p_value(facts.wilcoxon_p),
        "sign test": _p_value(facts.sign_p),
        "SRCC of the two": _number(facts.srcc, 3),
    }
    width = max(map(len, figures))
    lines += [f"{name.ljust(width)}  {value}\n" for name, value in figures.items() if value]
    fell, rose = found.most_changed(show)
    for title, pairs in ((f"lower in {found.label_b}", fell), (f"higher in {found.label_b}", rose)):
        if pairs:
            lines += [f"\nmost {title}\n", _changes(pairs, found, digits)]
    for title, pairs in (("could not be scored", found.failed), ("without a partner", found.unpaired)):
        if pairs:
            lines.append(f"\n{title}\n")
            lines += [f"  {_line(pair.name)}  {_line(pair.error or '')}\n" for pair in pairs]
    return "".join(lines)


def _changes(pairs: Sequence[Pair], found: Comparison, digits: int) -> str:
    """A small table of pairs; the numbers stand to the right."""
    rows = [("difference", _line(found.label_a), _line(found.label_b), "image")]
    rows += [
        (_number(pair.difference, digits, "+"), _number(pair.a, digits), _number(pair.b, digits), _line(pair.name))
        for pair in pairs
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "".join("  ".join((*map(str.rjust, row, widths), row[3])) + "\n" for row in rows)


def _line(text: str) -> str:
    return printable(text).replace("\n", "\\n")


def _number(value: float | None, digits: int, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.{digits}f}"


def _p_value(value: float | None) -> str:
    return "" if value is None else "p < 0.0001" if value < 1e-4 else f"p = {value:.4f}"
