"""``iqakit fit``: learn tasks from human scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from iqakit.cli.choices import DEVICE_HELP, JSON_HELP, SET_HELP, WORKERS_HELP, Device, parse_scale, terminal_of
from iqakit.cli.output import print_json, print_table

if TYPE_CHECKING:
    from iqakit.pipeline.fit_report import FitReport


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fit")(fit)


def fit(
    context: typer.Context,
    data: list[str] | None = typer.Argument(
        None,
        metavar="DATA...",
        help="CSVs (image, and mos or dmos), directories holding scores.csv, or NAME:PATH for a public set. "
        "None: the built-in practice task.",
    ),
    backbone: str | None = typer.Option(
        None, "--backbone", help="A timm name or a plugin's family:name; else the model's own, else tf_efficientnet_lite0."
    ),
    adapter: str = typer.Option("tsn", "--adapter", help="The method that learns: tsn, linear or a plugin's."),
    task: str | None = typer.Option(None, "--task", help="The task's name; else it comes from DATA."),
    model: Path = typer.Option(
        Path("iqakit_model"),
        "--model",
        metavar="DIR",
        help="The model; if it is there, the new tasks are added to it.",
    ),
    weights: str | None = typer.Option(
        None,
        "--weights",
        metavar="pretrained|random:SEED|FILE",
        help="The backbone's weights; else the model's own, else pretrained.",
    ),
    preset: str | None = typer.Option(
        None, "--preset", metavar="NAME", help="Named settings of the method, such as paper-a or paper-b of tsn."
    ),
    settings: list[str] = typer.Option(
        [],
        "--set",
        metavar="KEY=VALUE",
        help=SET_HELP + " They go to the method; COMBINER.key=value goes to what a combiner learns, such as "
        "kmeans.clusters=64.",
    ),
    epochs: int | None = typer.Option(None, "--epochs", min=0, help="How long to train; else as the method says."),
    scale: str | None = typer.Option(
        None,
        "--scale",
        metavar="LOW:HIGH",
        help="Ends of the scale people rated on, the lower first; they become 0 and 100, for a table of DMOS 100 and 0. "
        "Else as published, else the first of 0:1, 1:5, 0:5, 0:10, 0:100 that holds the scores.",
    ),
    seed: int = typer.Option(0, "--seed", min=0, help="Seed of all randomness."),
    device: Device = typer.Option(Device.AUTO, "--device", help=DEVICE_HELP),
    resume: bool = typer.Option(False, "--resume", help="Skip tasks that the model has learned; go on with a cut run."),
    as_json: bool = typer.Option(False, "--json", help=JSON_HELP),
    workers: int = typer.Option(2, "--workers", min=0, help=WORKERS_HELP),
) -> None:
    """Learn tasks from human scores, in the order given.

    Adapters of earlier tasks stay the same to the byte, so nothing is forgotten.
    """
    terminal = terminal_of(context)
    from iqakit.pipeline.fitting import fit_tasks
    from iqakit.plugins.settings import parse_assignments

    with terminal.progress() as progress:
        report = fit_tasks(
            data or [],
            backbone=backbone,
            weights=weights,
            adapter=adapter,
            task=task,
            model=model,
            settings=parse_assignments(settings),
            preset=preset,
            epochs=epochs,
            scale=None if scale is None else parse_scale(scale),
            seed=seed,
            device=device.value,
            resume=resume,
            workers=workers,
            progress=progress,
        )
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report)
    terminal.say(f"model in {report.model}; score with: iqakit score IMAGE... --model {report.model}")


def _print_report(report: FitReport) -> None:
    """What was learned, for people."""
    figures = ("train", "validation", "SRCC", "seconds", "kB")
    print_table(
        ("task", "adapter", *figures, "file"),
        [
            (
                task.task,
                task.adapter,
                str(task.train),
                str(task.validation),
                "-" if task.srcc_validation is None else f"{task.srcc_validation:.3f}",
                f"{task.seconds:.1f}",
                f"{task.bytes / 1000:.0f}",
                task.file,
            )
            for task in report.tasks
        ],
        right=figures,
    )
