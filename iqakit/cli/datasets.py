"""``iqakit datasets``: the public sets that can be read, and checks and splits of any data."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from iqakit.cli.choices import JSON_HELP, parse_ratios, terminal_of
from iqakit.cli.command_group import NamedCommands
from iqakit.cli.output import print_facts, print_json, print_table, printable

if TYPE_CHECKING:
    from iqakit.contracts import Dataset, TaskFacts
    from iqakit.datasets.sources import TaskSource
    from iqakit.datasets.splits import Protocol

commands = typer.Typer(
    cls=NamedCommands, no_args_is_help=True, help="Public sets that can be read; checks and splits of any data."
)

DATA_HELP = "A CSV, a directory holding scores.csv, or NAME:PATH for a public set."


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="datasets")


@commands.command("list")
def list_datasets(as_json: bool = typer.Option(False, "--json", help=JSON_HELP)) -> None:
    """List the public sets that NAME:PATH can name. None is downloaded: ask its authors for it."""
    from iqakit.plugins.catalog import catalog

    parts = catalog().datasets
    if as_json:
        print_json([_facts(name, part.entry.facts) | {"distribution": part.distribution} for name, part in parts.items()])
        return
    print_table(
        ("name", "images", "scores", "title", "licence"),
        [
            (
                name,
                "" if part.entry.facts.images is None else str(part.entry.facts.images),
                _scale(part.entry.facts),
                part.entry.facts.title,
                part.entry.facts.licence,
            )
            for name, part in parts.items()
        ],
        right=("images",),
    )


@commands.command("show")
def show(
    name: str = typer.Argument(..., metavar="NAME", help="A public set, or the protocol tsn-six or tsn-six-reverse."),
    as_json: bool = typer.Option(False, "--json", help=JSON_HELP),
) -> None:
    """Show what is known of a public set (scores, terms, citation, where to ask for it), or the tasks of a protocol."""
    from iqakit.datasets.splits import PROTOCOLS
    from iqakit.plugins.catalog import catalog

    if name in PROTOCOLS:
        _show_protocol(PROTOCOLS[name], as_json)
        return
    entry = catalog().dataset(name)
    facts = _facts(entry.name, entry.facts)
    if as_json:
        print_json(facts)
        return
    low, high, direction = facts.pop("low"), facts.pop("high"), facts.pop("direction")
    shown = {key: "" if value is None else str(value) for key, value in facts.items()}
    if low is not None or high is not None:
        shown["scores"] = _scale(entry.facts) + (" (higher is worse)" if direction == "dmos" else " (higher is better)")
    print_facts(shown | {"use": f"iqakit fit {entry.name}:PATH"})


def _show_protocol(protocol: Protocol, as_json: bool) -> None:
    """A published order of tasks and how they are split."""
    facts = asdict(protocol)
    if as_json:
        print_json(facts)
        return
    shown = {key: ", ".join(map(str, value)) if isinstance(value, tuple) else str(value) for key, value in facts.items()}
    print_facts(shown)


@commands.command("check")
def check(
    context: typer.Context,
    data: str = typer.Argument(..., metavar="DATA", help=DATA_HELP),
    as_json: bool = typer.Option(False, "--json", help=JSON_HELP),
) -> None:
    """Read every image and every score, and say what is wrong. Exit code: 1 if anything is."""
    terminal = terminal_of(context)
    from iqakit.datasets.checking import check_dataset

    source = _source(data)
    dataset = source.open("all", 0)
    with terminal.progress() as progress:
        report = check_dataset(dataset, progress, source.open_splits())
    record = report.to_json()
    if as_json:
        print_json(record)
    else:
        _print_report(record)
    if not report.ok:
        raise typer.Exit(1)


@commands.command("split")
def split(
    context: typer.Context,
    data: str = typer.Argument(..., metavar="DATA", help=DATA_HELP),
    repeats: int = typer.Option(10, "--repeats", min=1, metavar="N", help="How many independent splits."),
    seed: int = typer.Option(0, "--seed", min=0, help="Seed of the first; the next ones count on."),
    ratios: str = typer.Option("70/10/20", "--ratios", help="Shares of train, val and test."),
    output: Path | None = typer.Option(None, "-o", "--output", metavar="FILE", help="The CSV; else standard output."),
    as_json: bool = typer.Option(False, "--json", help="How many images each split has, as JSON; needs -o."),
) -> None:
    """Split images so that no content is on two sides, several times over.

    The CSV has the columns image, content, split_0, split_1, ...: others can repeat an experiment with it.
    """
    from iqakit.datasets.splits import repeated_splits, write_splits
    from iqakit.errors import ConfigurationError

    if as_json and output is None:
        raise ConfigurationError("--json says how large the splits are; the splits themselves need a file: add -o FILE")
    shares = parse_ratios(ratios)
    source = _source(data)
    dataset = source.open("all", 0)
    names, contents = _names(dataset)
    splits = repeated_splits(contents, repeats, seed, shares)
    if output is None:
        with tempfile.TemporaryDirectory() as directory:
            written = Path(directory) / "splits.csv"
            write_splits(written, names, contents, splits)
            sys.stdout.write(written.read_text(encoding="utf-8"))
        return
    write_splits(output, names, contents, splits)
    counts = [{part: Counter(one)[part] for part in ("train", "val", "test")} for one in splits]
    if as_json:
        print_json(
            {
                "task": source.name,
                "images": len(names),
                "contents": len(set(contents)),
                "seed": seed,
                "splits": counts,
                "file": str(output),
            }
        )
    else:
        columns = ("split", "train", "val", "test")
        rows = [(str(index), *(str(count) for count in one.values())) for index, one in enumerate(counts)]
        print_table(columns, rows, right=columns)
    terminal_of(context).say(f"{source.name}: {len(names)} images of {len(set(contents))} contents; splits in {output}")


def _source(data: str) -> TaskSource:
    """What a DATA argument means."""
    from iqakit.datasets.sources import open_source
    from iqakit.plugins.catalog import catalog

    return open_source(data, catalog().dataset)


def _names(dataset: Dataset) -> tuple[list[str], list[str]]:
    """Names and contents of all images; one without content is its own."""
    samples = [dataset.sample(index) for index in range(len(dataset))]
    return [sample.name for sample in samples], [sample.content or sample.name for sample in samples]


def _facts(name: str, facts: TaskFacts) -> dict[str, Any]:
    """What is known of a set, as plain values, under the name that users type."""
    return {
        "name": name,
        "title": facts.title,
        "images": facts.images,
        "low": facts.low,
        "high": facts.high,
        "direction": facts.direction,
        "rated": facts.rated,
        "splits": facts.splits,
        "licence": facts.licence,
        "citation": facts.citation,
        "homepage": facts.homepage,
    }


def _scale(facts: TaskFacts) -> str:
    """The published scale in short, such as ``mos 1 to 5``."""
    if facts.low is None or facts.high is None:
        return facts.direction
    return f"{facts.direction} {facts.low:g} to {facts.high:g}"


def _print_report(record: dict[str, Any]) -> None:
    """What a check found, for people: figures first, then one line a finding."""
    figures: dict[str, str] = {}
    for key, value in record.items():
        label = key.replace("_", " ")
        if isinstance(value, bool):
            figures[label] = "yes" if value else "no"
        elif isinstance(value, int | float | str):
            figures[label] = str(value)
        elif isinstance(value, Mapping):
            figures[label] = ", ".join(f"{name} {_short(number)}" for name, number in value.items())
    print_facts(figures)
    for key, value in record.items():
        if isinstance(value, Sequence) and not isinstance(value, str) and value:
            sys.stdout.write(f"\n{key.replace('_', ' ')}:\n")
            for item in value:
                text = item if isinstance(item, str) else " = ".join(map(str, item))
                sys.stdout.write(f"  {printable(text)}\n")


def _short(value: object) -> str:
    """A figure, with four digits at most if it is not whole."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
