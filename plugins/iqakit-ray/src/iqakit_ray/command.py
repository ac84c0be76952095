"""``iqakit ray-score``: the rows of ``iqakit score``, from a cluster."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from iqakit.cli.choices import DEVICE_HELP, MODEL_HELP, SET_HELP, Device, terminal_of
from iqakit.cli.result_file import check_place
from iqakit.cli.run_rows import RunRows, decisive_settings
from iqakit.cli.score_formats import Format, check_parquet, check_resumable, format_of
from iqakit.cli.score_run import Tally, found_images, with_bar
from iqakit.errors import ConfigurationError

app = typer.Typer(add_completion=False)


@app.command("ray-score")
def ray_score(
    context: typer.Context,
    images: list[str] = typer.Argument(..., metavar="IMAGE...", help="Files, directories, patterns, or -, as for score."),
    output: Path = typer.Option(..., "-o", "--output", metavar="FILE", help="Write the rows to this file."),
    form: Format | None = typer.Option(None, "--format", help="jsonl, csv, parquet or json; else by the ending of -o."),
    model: str | None = typer.Option(None, "--model", metavar="NAME|DIR", help=MODEL_HELP),
    combiner: str | None = typer.Option(None, "--combiner", help="As for score."),
    task: str | None = typer.Option(None, "--task", help="The task that the images belong to."),
    settings: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help=SET_HELP + " They go to the combiner."),
    resuming: bool = typer.Option(False, "--resume", help="Go on with a cut run, of score or of ray-score."),
    address: str | None = typer.Option(None, "--address", help="A cluster's address, or auto; else this machine alone."),
    actors: int = typer.Option(2, "--actors", min=1, help="Workers; each loads the model once."),
    cpus: int = typer.Option(1, "--cpus", min=1, help="Cores that each worker takes."),
    block: int = typer.Option(32, "--block", min=1, help="Images that a worker gets at a time."),
    device: Device = typer.Option(Device.CPU, "--device", help=DEVICE_HELP + " With cuda, each worker takes one GPU."),
) -> None:
    """Score images on a Ray cluster. Rows, order, files and exit codes are those of score."""
    from iqakit.plugins.settings import parse_assignments

    terminal = terminal_of(context)
    written = format_of(form, output)
    if written is Format.TABLE or str(output) == "-":
        raise ConfigurationError("ray-score writes to a file of jsonl, csv, parquet or json; name it with -o FILE")
    if resuming:
        check_resumable(output, written, None)
    if written is Format.PARQUET:
        check_parquet(output)
    check_place(output)
    assigned = parse_assignments(settings)
    paths = found_images(images)

    from iqakit.pipeline.model import QualityModel
    from iqakit.pipeline.skipping import DEFAULT_SKIP_BELOW
    from iqakit_ray.cluster import Scoring, connect, same_everywhere, score_on_cluster

    loaded = QualityModel.load(model, device="cpu")
    # Wrong names are said here, before a cluster is started.
    loaded.score_many([], combiner=combiner, task=task, settings=assigned)
    terminal.say(f"model {loaded.version} in {loaded.directory}: {loaded.backbone_id}, tasks {', '.join(loaded.tasks)}")
    decisive = decisive_settings(loaded.version, combiner, task, assigned, skip_below=DEFAULT_SKIP_BELOW)
    scoring = Scoring(
        model=same_everywhere(model),
        version=loaded.version,
        directory=os.getcwd(),  # noqa: PTH109 - as it was reached
        combiner=combiner,
        task=task,
        settings=dict(assigned),
        device=device.value,
        cpus=cpus,
    )
    ray = connect(address, actors * cpus)
    tally = Tally()
    out = RunRows(output, written, loaded.tasks, decisive, resuming=resuming)
    for line in out.before():
        terminal.say(line)
    try:
        with out:
            rows = score_on_cluster(ray, out.remaining(paths, tally), scoring, workers=actors, block=block)
            for row in tally.watch(with_bar(terminal, rows, images, out.kept, False)):
                out.write(row)
    except BaseException:  # whatever ended the run, people should know where their rows are
        for line in out.when_cut():
            terminal.say(line)
        raise
    for line in [*out.after(), *tally.summary()]:
        terminal.say(line)
    if tally.failed:
        raise typer.Exit(1)
