"""``iqakit eval``: how well scores agree with people's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from iqakit.cli.choices import DEVICE_HELP, JSON_HELP, MODEL_HELP, WORKERS_HELP, Device, terminal_of
from iqakit.cli.output import print_json, print_table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("eval")(evaluate)


def evaluate(
    context: typer.Context,
    data: list[str] = typer.Argument(
        ..., metavar="DATA...", help="CSVs, directories holding scores.csv, or NAME:PATH for a public set."
    ),
    model: str | None = typer.Option(None, "--model", metavar="NAME|DIR", help=MODEL_HELP),
    combiners: list[str] = typer.Option(
        [], "--combiner", help="A combiner to evaluate; may be given again. Without any: kmeans."
    ),
    split: str = typer.Option("test", "--split", help="train, val, test or all."),
    on: str = typer.Option(
        "score", "--on", metavar="score|raw", help="Compare the score in points, or the weighted sum of raw head outputs."
    ),
    bootstrap: int = typer.Option(1000, "--bootstrap", min=0, metavar="N", help="Resamples for the confidence interval."),
    seed: int | None = typer.Option(
        None, "--seed", min=0, help="Seed of the split and of the resamples; else the seed the task was learned with."
    ),
    device: Device = typer.Option(Device.AUTO, "--device", help=DEVICE_HELP),
    workers: int = typer.Option(2, "--workers", min=0, help=WORKERS_HELP),
    as_json: bool = typer.Option(False, "--json", help=JSON_HELP),
) -> None:
    """Compare scores with human scores: SRCC with its 95 % interval, KRCC, PLCC, RMSE.

    Exit code: 1 if some images could not be scored; they are counted, not dropped in silence.
    """
    terminal = terminal_of(context)
    from iqakit.pipeline.evaluating import evaluate_sources
    from iqakit.pipeline.model import QualityModel

    loaded = QualityModel.load(model, device=device.value)
    terminal.say(f"model {loaded.version} in {loaded.directory}: {loaded.backbone_id}, tasks {', '.join(loaded.tasks)}")
    with terminal.progress() as progress:
        rows = evaluate_sources(
            loaded,
            data,
            combiners=list(dict.fromkeys(combiners)) or ["kmeans"],
            split=split,
            on=on,
            bootstrap=bootstrap,
            workers=workers,
            seed=seed,
            progress=progress,
        )
    if as_json:
        print_json(rows)
    else:
        _print_rows(rows)
    # Every combiner of a task sees the same images.
    failed = sum({row["task"]: int(row["failed"]) for row in rows}.values())
    if failed:
        terminal.say(f"{failed} images could not be scored; they are not in the figures")
        raise typer.Exit(1)


def _print_rows(rows: list[Mapping[str, Any]] | list[dict[str, Any]]) -> None:
    """The figures, for people."""
    figures = ("n", "failed", "SRCC", "95 % interval", "KRCC", "PLCC", "RMSE")

    def shown(value: float | None, digits: int = 3) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    print_table(
        ("task", "combiner", *figures),
        [
            (
                str(row["task"]),
                str(row["combiner"]),
                str(row["n"]),
                str(row["failed"]),
                shown(row["srcc"]),
                f"{shown(row['srcc_low'])} to {shown(row['srcc_high'])}",
                shown(row["krcc"]),
                shown(row["plcc"]),
                shown(row["rmse"], 2),
            )
            for row in rows
        ],
        right=figures,
    )
