"""``iqakit continual``: learn streams of tasks and measure what is learned and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from iqakit.cli.choices import DEVICE_HELP, JSON_HELP, WORKERS_HELP, Device, terminal_of
from iqakit.cli.output import Terminal, print_json, print_table

if TYPE_CHECKING:
    from iqakit.pipeline.continual_record import ContinualReport, ContinualRun

_BEST = "*"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("continual")(continual)


def continual(
    context: typer.Context,
    data: list[str] = typer.Argument(
        ..., metavar="DATA DATA...", help="The tasks: CSVs, directories holding scores.csv, or NAME:PATH for a public set."
    ),
    output: Path = typer.Option(
        ..., "-o", "--output", metavar="DIR", help="Directory for summary.json, pictures, learned models and kept work."
    ),
    orders: list[str] = typer.Option(
        [],
        "--order",
        metavar="ORDER",
        help="given, reverse, random:SEED, or all tasks with commas between; may be given again. Without any: given.",
    ),
    adapters: list[str] = typer.Option(
        [], "--adapter", metavar="NAME", help="A method that learns; may be given again. Without any: tsn."
    ),
    combiners: list[str] = typer.Option(
        [], "--combiner", metavar="NAME", help="A combiner; may be given again. Without any: kmeans."
    ),
    backbone: str | None = typer.Option(
        None, "--backbone", metavar="NAME", help="A timm name or a plugin's family:name; else tf_efficientnet_lite0."
    ),
    weights: str | None = typer.Option(
        None, "--weights", metavar="pretrained|random:SEED|FILE", help="The backbone's weights; else pretrained."
    ),
    preset: str | None = typer.Option(
        None, "--preset", metavar="NAME", help="Named settings, for every method that has them."
    ),
    settings: list[str] = typer.Option(
        [],
        "--set",
        metavar="KEY=VALUE",
        help="A setting of every method that has it; ADAPTER:key=value for one method, COMBINER.key=value for a combiner. "
        "May be given again.",
    ),
    epochs: int | None = typer.Option(
        None, "--epochs", min=0, metavar="N", help="How long to train; else as each method says."
    ),
    seeds: list[int] = typer.Option(
        [], "--seed", min=0, metavar="N", help="Seed of all randomness; may be given again. Without any: 0."
    ),
    split: str = typer.Option("test", "--split", metavar="SPLIT", help="The images evaluated: test, val, train or all."),
    on: str = typer.Option(
        "raw",
        "--on",
        metavar="raw|score",
        help="Compare the weighted sum of raw head outputs, as the literature does, or the score in points.",
    ),
    bootstrap: int = typer.Option(1000, "--bootstrap", min=0, metavar="N", help="Resamples for the intervals; 0: none."),
    work: Path | None = typer.Option(
        None,
        "--work",
        metavar="DIR",
        help="Where learned models and passes are kept; else DIR/work. Several -o may share it.",
    ),
    pictures: bool = typer.Option(True, "--pictures/--no-pictures", help="Draw the matrices and curves."),
    device: Device = typer.Option(Device.AUTO, "--device", help=DEVICE_HELP),
    workers: int = typer.Option(2, "--workers", min=0, help=WORKERS_HELP),
    as_json: bool = typer.Option(False, "--json", help=JSON_HELP),
) -> None:
    """Learn tasks one after the other and evaluate all tasks so far after each.

    Adapters are learned once for all combiners and, where a method's tasks are independent, for all orders. The same
    command goes on after an interruption. Exit code: 1 if a method failed or images could not be read.
    """
    terminal = terminal_of(context)
    from iqakit.pipeline.continual import SUMMARY_NAME, run_continual

    with terminal.progress() as progress:
        report = run_continual(
            data,
            output=output,
            orders=orders or ["given"],
            adapters=adapters or ["tsn"],
            combiners=combiners or ["kmeans"],
            backbone=backbone,
            weights=weights,
            preset=preset,
            settings=settings,
            epochs=epochs,
            seeds=seeds or [0],
            split=split,
            on=on,
            bootstrap=bootstrap,
            device=device.value,
            workers=workers,
            work=work,
            progress=progress,
        )
    if pictures:
        _draw(report, terminal)
    if as_json:
        print_json(report.to_json())
    elif report.runs:
        _print_runs(report)
    terminal.say(f"figures in {output / SUMMARY_NAME}")
    unread = sum(task.failed for task in report.tasks)
    if unread:
        terminal.say(f"{unread} images could not be read; they are not in the figures")
    if report.failures or unread:
        raise typer.Exit(1)


def _draw(report: ContinualReport, terminal: Terminal) -> None:
    """Pictures, if the package that draws them is there; the figures come either way."""
    from iqakit.errors import MissingExtraError
    from iqakit.reporting.plots import draw_continual

    try:
        drawn = draw_continual(report)
    except MissingExtraError as error:
        terminal.say(str(error))
    else:
        terminal.detail(f"{len(drawn)} pictures in {report.directory}")


def _print_runs(report: ContinualReport) -> None:
    """The figures, for people; the best of each column is marked."""
    runs = report.runs
    several = len({run.seed for run in runs}) > 1
    figures = ("mSRCC", "mPI", "mSI", "mPSI", "seconds", "kB a task")
    values = [(run.msrcc, run.mpi, run.msi, run.mpsi, -run.seconds, -run.bytes_per_task / 1000) for run in runs]
    best = [max((value for value in column if value is not None), default=None) for column in zip(*values, strict=True)]
    # Where all are equal, none is best.
    best = [None if len(set(column)) == 1 else top for column, top in zip(zip(*values, strict=True), best, strict=True)]
    rows = []
    for run, numbers in zip(runs, values, strict=True):
        marks = [_BEST if top is not None and value == top else " " for value, top in zip(numbers, best, strict=True)]
        shown = [_figure(run.msrcc), _figure(run.mpi), _figure(run.msi), _figure(run.mpsi)]
        shown += [f"{run.seconds:.1f}", f"{run.bytes_per_task / 1000:.0f}"]
        cells = [f"{text}{mark}" for text, mark in zip(shown, marks, strict=True)]
        names = [run.adapter, run.combiner, run.order_name, *([str(run.seed)] if several else [])]
        rows.append((*names, cells[0], _interval(run), *cells[1:]))
    seed = ("seed",) if several else ()
    print_table(
        ("method", "combiner", "order", *seed, figures[0], "95 % interval", *figures[1:]), rows, right=(*seed, *figures)
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(run: ContinualRun) -> str:
    low, high = run.msrcc_interval
    return f"{_figure(low)} to {_figure(high)}"
