"""``iqakit export``: a whole model as one ONNX file."""

from __future__ import annotations

from pathlib import Path

import typer

from iqakit.cli.choices import MODEL_HELP, SET_HELP, terminal_of
from iqakit.cli.result_file import check_place
from iqakit.errors import ConfigurationError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(export)


def export(
    context: typer.Context,
    output: Path = typer.Option(..., "-o", "--output", metavar="FILE.onnx", help="The file to write."),
    model: str | None = typer.Option(None, "--model", metavar="NAME|DIR", help=MODEL_HELP),
    combiner: str | None = typer.Option(
        None, "--combiner", help="What makes one score of the tasks': kmeans (the default), oracle, average or last."
    ),
    task: str | None = typer.Option(None, "--task", help="The task that the images belong to; then oracle is the default."),
    settings: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help=SET_HELP + " They go to the combiner."),
) -> None:
    """Write a model as one ONNX file that needs neither iqakit nor torch.

    Gate, adapters, combiner and calibration are in it, and weights that passes share are stored once. The page "Speed and
    runtimes" says what goes in and what comes out.
    """
    from iqakit.plugins.settings import parse_assignments

    terminal = terminal_of(context)
    if output.suffix.lower() != ".onnx":
        raise ConfigurationError(f"export writes ONNX, and {output} does not end in .onnx; name a file such as model.onnx")
    check_place(output, "exported model")
    assigned = parse_assignments(settings)

    from iqakit.pipeline.exporting import export_model
    from iqakit.pipeline.model import DEFAULT_COMBINER, QualityModel
    from iqakit.runtimes.choice import check_exporters
    from iqakit.runtimes.graph_session import GraphError
    from iqakit.storage.atomic import write_bytes_atomic

    check_exporters("export")
    loaded = QualityModel.load(model, device="cpu", runtime="torch")
    chosen = combiner or ("oracle" if task else DEFAULT_COMBINER)
    loaded.check_request(chosen, task, assigned)
    try:
        data = export_model(loaded.parts, loaded.version, chosen, task, assigned)
    except GraphError as error:
        raise ConfigurationError(
            f"model {loaded.version} cannot be exported with combiner {chosen}: {error}; score with iqakit instead"
        ) from error
    write_bytes_atomic(output, data, "exported model")
    terminal.say(f"{loaded.version}: {len(data) / 1e6:.1f} MB in {output}")
