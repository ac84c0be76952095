"""``iqakit adapt``: an adapter made from images without scores, for ``score --adapter``."""

from __future__ import annotations

from pathlib import Path

import typer

from iqakit.cli.choices import DEVICE_HELP, JSON_HELP, MODEL_HELP, SET_HELP, WORKERS_HELP, Device, terminal_of
from iqakit.cli.output import print_facts, print_json
from iqakit.cli.result_file import check_place
from iqakit.cli.score_run import found_images
from iqakit.cli.test_time import TtaOrder
from iqakit.errors import ConfigurationError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("adapt")(adapt)


def adapt(
    context: typer.Context,
    images: list[str] = typer.Argument(
        ..., metavar="IMAGE...", help="Files, directories, patterns, or - for one path a line on standard input."
    ),
    output: Path = typer.Option(..., "-o", "--output", metavar="FILE.safetensors", help="Where the adapter goes."),
    tta: str = typer.Option(..., "--tta", metavar="METHOD", help="The test-time method (iqakit plugins list)."),
    model: str | None = typer.Option(None, "--model", metavar="NAME|DIR", help=MODEL_HELP),
    task: str | None = typer.Option(
        None, "--task", help="The task whose adapter is adapted; else the one that the images belong to, as the gate says."
    ),
    tta_batch: int = typer.Option(8, "--tta-batch", min=1, metavar="N", help="Images of one batch, at most."),
    tta_order: TtaOrder = typer.Option(
        TtaOrder.SHUFFLED, "--tta-order", help="Images are mixed before they are cut into batches, or taken as they come."
    ),
    tta_seed: int = typer.Option(
        0, "--tta-seed", "--seed", min=0, metavar="N", help="Seed of the mixing and of what the method draws."
    ),
    settings: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help=SET_HELP + " They go to the method."),
    device: Device = typer.Option(Device.AUTO, "--device", help=DEVICE_HELP),
    workers: int = typer.Option(2, "--workers", min=0, help=WORKERS_HELP),
    as_json: bool = typer.Option(False, "--json", help=JSON_HELP),
) -> None:
    """Adapt a model to images without scores, and write the adapter for later: iqakit score --adapter FILE.

    The images are taken in batches, one after the other; each goes on from the one before. The model itself is not changed.
    Exit code: 1 if some images could not be scored.
    """
    from iqakit.plugins.settings import parse_assignments

    terminal = terminal_of(context)
    if output.suffix.lower() != ".safetensors":
        # Also where a shell put an image there, which must not be overwritten.
        raise ConfigurationError(
            f"adapt writes an adapter file; -o needs a name that ends in .safetensors, not {str(output)!r}"
        )
    check_place(output, "adapter")
    assigned = parse_assignments(settings)
    paths = found_images(images)

    from iqakit.pipeline.adapter_making import adapt as adapt_images
    from iqakit.pipeline.model import QualityModel

    loaded = QualityModel.load(model, device=device.value, runtime="torch")
    terminal.say(f"model {loaded.version} in {loaded.directory}: {loaded.backbone_id}, tasks {', '.join(loaded.tasks)}")
    with terminal.progress() as progress:
        done = adapt_images(
            loaded,
            paths,
            tta,
            output=output,
            task=task,
            settings=assigned,
            batch=tta_batch,
            order=tta_order.value,
            seed=tta_seed,
            workers=workers,
            progress=progress,
        )
    if done.refused:
        example = max(done.refused, key=lambda reason: done.refused[reason])
        count = sum(done.refused.values())
        terminal.say(f"{count} of {done.batches} batches left it as it was, such as: {example}")
    if as_json:
        print_json({"adapter": str(output), **done.to_json()})
    else:
        facts = {"adapter": str(output), "task": done.task, "images": str(done.images), "batches": str(done.batches)}
        if done.source_mean is not None and done.adapted_mean is not None:
            facts["mean score"] = f"{done.source_mean:.1f} before, {done.adapted_mean:.1f} adapted"
        print_facts(facts)
    if done.failed:
        images_failed = "1 image" if len(done.failed) == 1 else f"{len(done.failed)} images"
        terminal.say(
            f"{images_failed} could not be scored; nothing was learned from {'it' if len(done.failed) == 1 else 'them'}"
        )
        raise typer.Exit(1)
