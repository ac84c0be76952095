"""``iqakit score``: how good images look, one row an image."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer

from iqakit.cli.choices import (
    DEVICE_HELP,
    MODEL_HELP,
    SCORING_WORKERS_HELP,
    SET_HELP,
    Device,
    parse_batch_size,
    parse_skip_below,
    parse_top,
    terminal_of,
)
from iqakit.cli.result_file import check_place
from iqakit.cli.run_rows import RunRows, decisive_settings
from iqakit.cli.score_formats import Format, check_parquet, check_resumable, format_of
from iqakit.cli.score_report import RunReport
from iqakit.cli.score_run import Tally, found_images, with_bar
from iqakit.cli.test_time import (
    ADAPTER_HELP,
    BATCH_HELP,
    MODE_HELP,
    ORDER_HELP,
    RESET_HELP,
    SEED_HELP,
    WHEN_IT_HELPS,
    TtaMode,
    TtaOrder,
    check_goes_on,
    divided,
    windows_to_go,
)
from iqakit.errors import ConfigurationError


class OnError(StrEnum):
    """What an image that cannot be read does."""

    SKIP = "skip"
    FAIL = "fail"


class Runtime(StrEnum):
    """What runs the network."""

    AUTO = "auto"
    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


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
    tta: str = typer.Option(
        "none",
        "--tta",
        metavar="none|auto|METHOD",
        help="Adapt to the images at hand, without scores: a test-time method (iqakit plugins list), or auto, where each "
        f"batch decides whether it is likely to gain. {WHEN_IT_HELPS}",
    ),
    tta_batch: int = typer.Option(8, "--tta-batch", min=1, metavar="N", help=BATCH_HELP),
    tta_mode: TtaMode = typer.Option(TtaMode.EPISODIC, "--tta-mode", help=MODE_HELP),
    tta_order: TtaOrder = typer.Option(TtaOrder.SHUFFLED, "--tta-order", help=ORDER_HELP),
    tta_seed: int = typer.Option(0, "--tta-seed", "--seed", min=0, metavar="N", help=SEED_HELP),
    tta_reset: int = typer.Option(20, "--tta-reset", min=0, metavar="N", help=RESET_HELP),
    adapter: Path | None = typer.Option(None, "--adapter", metavar="FILE", help=ADAPTER_HELP),
    settings: list[str] = typer.Option(
        [],
        "--set",
        metavar="KEY=VALUE",
        help=SET_HELP + " It goes to the combiner; with --tta to the method, and kmeans.KEY=VALUE to the combiner.",
    ),
    form: Format | None = typer.Option(
        None, "--format", help="How rows are written; else by the ending of -o, else a table.", show_default=False
    ),
    output: Path | None = typer.Option(None, "-o", "--output", metavar="FILE", help="Write the rows to this file."),
    report: Path | None = typer.Option(
        None, "--report", metavar="FILE.html", help="Write a page about all images: distribution, best, worst, a table."
    ),
    resuming: bool = typer.Option(False, "--resume", help="Go on with a cut run: images in the file are skipped."),
    on_error: OnError = typer.Option(
        OnError.SKIP, "--on-error", help="An image that cannot be read gives an error row, or ends the run."
    ),
    minimum: float | None = typer.Option(None, "--min", metavar="S", help="End with 1 if any image scores below this."),
    top: str | None = typer.Option(None, "--top", metavar="N|P%", help="Only the best N or P percent, best first."),
    runtime: Runtime = typer.Option(
        Runtime.AUTO, "--runtime", help="What runs the network; auto: the fastest installed on a CPU, torch on a GPU."
    ),
    skip_below: str = typer.Option(
        "0.001", "--skip-below", metavar="W|never", help="Leave out heads that weigh at most W together (100 W points)."
    ),
    explain_cost: bool = typer.Option(
        False, "--explain-cost", help="Say how many passes were run, and what that can cost."
    ),
    device: Device = typer.Option(Device.AUTO, "--device", help=DEVICE_HELP),
    batch_size: str = typer.Option("auto", "--batch-size", metavar="auto|N", help="Images that run together on a GPU."),
    workers: int | None = typer.Option(None, "--workers", min=0, help=SCORING_WORKERS_HELP),
) -> None:
    """Score images: 0-100, higher is better.

    Every image gives one row, also one that cannot be read. Exit code: 0 all scored; 1 some failed or scored below
    --min; 2 nothing could be done.
    """
    from iqakit.plugins.settings import parse_assignments

    terminal = terminal_of(context)
    count, share = parse_top(top)
    size = parse_batch_size(batch_size)
    threshold = parse_skip_below(skip_below)
    if minimum is not None and not math.isfinite(minimum):
        raise ConfigurationError(f"--min is a score, 0-100, not {minimum}")
    written = format_of(form, output)
    path = None if output is None or str(output) == "-" else output
    if resuming:
        check_resumable(path, written, top)
    if written is Format.PARQUET:
        check_parquet(path)
    check_place(path)
    page = context.with_resource(RunReport(report, path, minimum, resuming=resuming))
    assigned = parse_assignments(settings)
    paths = found_images(images)

    from iqakit.pipeline.adaptation_request import make_adaptation_request
    from iqakit.pipeline.model import QualityModel

    own, methods = divided(assigned, combiner, task, tta != "none")
    adaptation = make_adaptation_request(
        tta, methods, batch=tta_batch, mode=tta_mode.value, order=tta_order.value, seed=tta_seed, reset=tta_reset
    )
    if adaptation is not None:
        check_goes_on(adaptation, resuming)
    if adaptation is not None or adapter is not None:
        if runtime not in (Runtime.AUTO, Runtime.TORCH):
            what = "--adapter" if adaptation is None else "--tta"
            terminal.say(f"{what} runs with torch; --runtime {runtime.value} is not used")
        runtime = Runtime.TORCH
    loaded = QualityModel.load(model, device=device.value, runtime=runtime.value, adapter=adapter, say=terminal.say)
    terminal.say(f"model {loaded.version} in {loaded.directory}: {loaded.backbone_id}, tasks {', '.join(loaded.tasks)}")
    tally = Tally(minimum)
    decisive = decisive_settings(loaded.version, combiner, task, own, tta=adaptation, skip_below=threshold)
    out = RunRows(
        path, written, loaded.tasks, decisive, best=(count, share), resuming=resuming, adapted=adaptation is not None
    )
    for line in out.before():
        terminal.say(line)
    try:
        with out:
            how: Any = {"combiner": combiner, "task": task, "settings": own, "workers": workers}
            how |= {"on_error": on_error.value, "skip_below": threshold}
            if adaptation is None:
                rows = loaded.score_many(out.remaining(paths, tally), batch_size=size, **how)
            else:
                rows = loaded.score_windows(windows_to_go(paths, adaptation.window, out, tally), adaptation, **how)
            shown = with_bar(terminal, rows, images, out.kept, path is None and top is None)
            for row in tally.watch(row.to_json() for row in shown):
                out.write(row)
                page.add(row)
    except BaseException:  # whatever ended the run, people should know where their rows are
        for line in out.when_cut():
            terminal.say(line)
        raise
    for line in [*out.after(), *tally.summary(), *page.finish()]:
        terminal.say(line)
    if explain_cost:
        for line in loaded.cost.lines():
            terminal.say(line)
    if tally.failed or tally.below:
        raise typer.Exit(1)
