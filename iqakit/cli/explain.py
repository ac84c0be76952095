"""``iqakit explain``: which parts of a photo look good or bad."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path

import typer

from iqakit.cli.choices import DEVICE_HELP, MODEL_HELP, SET_HELP, Device, parse_scale, terminal_of
from iqakit.cli.output import print_facts, print_json
from iqakit.cli.result_file import check_place
from iqakit.errors import ConfigurationError


class Form(StrEnum):
    """How local quality is found."""

    CAM = "cam"
    TILES = "tiles"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("explain")(explain)


def explain(
    context: typer.Context,
    image: str = typer.Argument(..., metavar="IMAGE", help="One image file."),
    outputs: list[Path] = typer.Option(
        [],
        "-o",
        "--output",
        metavar="FILE",
        help="File of the map; its ending, png, npy or json, says the form. May be given again.",
    ),
    model: str | None = typer.Option(None, "--model", metavar="NAME|DIR", help=MODEL_HELP),
    combiner: str | None = typer.Option(None, "--combiner", help="As for score."),
    task: str | None = typer.Option(None, "--task", help="The task that the image belongs to, as for score."),
    settings: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help=SET_HELP + " They go to the combiner."),
    method: Form | None = typer.Option(
        None,
        "--method",
        help="cam (default): what each place does to the score; tiles: the scores of overlapping parts, seen alone.",
        show_default=False,
    ),
    tile: int | None = typer.Option(
        None, "--tile", metavar="N", help="Side of a tile in the photo's pixels; else a quarter of its shorter side."
    ),
    side: int = typer.Option(1600, "--size", metavar="N", help="Longer side of the drawn photo in pixels, at most."),
    scale: str | None = typer.Option(None, "--scale", metavar="LOW:HIGH", help="Ends of the legend; else the map's range."),
    device: Device = typer.Option(Device.AUTO, "--device", help=DEVICE_HELP),
    as_json: bool = typer.Option(False, "--json", help="The map as numbers, JSON on standard output."),
) -> None:
    """Draw a map of local quality over a photo."""
    from iqakit.plugins.settings import parse_assignments
    from iqakit.reporting.quality_map import check_suffix, place_in_words, write_map

    terminal = terminal_of(context)
    if not outputs and not as_json:
        raise ConfigurationError("explain draws a map: name its file with -o map.png, or ask for numbers with --json")
    for output in outputs:
        check_suffix(output)
        check_place(output, "quality map")
    ends = None if scale is None else parse_scale(scale)
    assigned = parse_assignments(settings)

    from iqakit.pipeline.explaining import explain as explain_image
    from iqakit.pipeline.model import QualityModel

    if not image:
        raise ConfigurationError("explain takes one image, and it is named ''; is a variable not set? Name a file")
    if Path(image).is_dir():
        raise ConfigurationError(f"explain takes one image, and {image} is a directory; name a file in it")
    loaded = QualityModel.load(model, device=device.value)
    terminal.say(f"model {loaded.version} in {loaded.directory}: {loaded.backbone_id}, tasks {', '.join(loaded.tasks)}")
    with terminal.progress("tiles") as progress:
        found = explain_image(
            loaded,
            image,
            combiner=combiner,
            task=task,
            settings=assigned,
            method=None if method is None else method.value,
            tile=tile,
            progress=progress,
        )
    for output in outputs:
        write_map(found, output, side=side, scale=ends)
    if as_json:
        print_json(found.to_json())
        return
    digits = 1 if found.unit == "points" else 3
    facts = {"image": found.path, found.unit if found.unit == "raw" else "score": f"{found.score:.{digits}f}"}
    for name, worst in (("worst part", True), ("best part", False)):
        where, value = place_in_words(found, worst=worst)
        shown = f"{value:.{digits}f}" if found.method == "tiles" else f"{value - found.score:+.{digits}f}"
        facts[name] = f"{shown} ({where})"
    facts["method"] = found.method if found.tile is None else f"{found.method} of {found.tile} pixels"
    facts["map"] = ", ".join(str(output) for output in outputs)
    print_facts(facts)
    sys.stdout.flush()
