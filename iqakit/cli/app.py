"""The program ``iqakit``: its global options, its commands, and what an error looks like."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from iqakit import __version__
from iqakit.cli import adapt, compare, continual, datasets, doctor, evaluate, explain, export, fit, plugins, score, zoo
from iqakit.cli.output import Terminal
from iqakit.errors import IqakitError, UnknownNameError

if TYPE_CHECKING:
    from iqakit.plugins.catalog import Catalog

DONE, PARTLY, FAILED, INTERRUPTED = 0, 1, 2, 130
_GLOBAL_FLAGS = frozenset(("-q", "--quiet", "-v", "--verbose", "--debug"))


class ReaderGoneError(Exception):
    """Whoever read standard output has closed it, as ``head`` does; there is nobody left to write for."""


class CommandGroup(TyperGroup):
    """iqakit's own commands and those of plugins; a plugin's command is loaded when it is used, not to list it."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Own commands in the order written, then those of plugins by name."""
        return [*super().list_commands(ctx), *_catalog().commands]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """An own command, or what stands for a plugin's in the list."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in _catalog().commands:
            return own
        return _listed_command(cmd_name, _catalog().commands[cmd_name].entry.summary)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is about to be run."""
        if super().get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            return args[0], _load(args[0], list(self.commands), ctx.ensure_object(Terminal)), args[1:]
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command. The framework has its own idea of a closed pipe and of an interruption; ours come first."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise ReaderGoneError from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise ReaderGoneError from error
            raise
        return result


app = typer.Typer(
    name="iqakit",
    cls=CommandGroup,
    help="Blind image quality assessment that learns new domains without forgetting.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        sys.stdout.write(f"iqakit {__version__}\n")
        raise typer.Exit


@app.callback()
def _global_options(
    context: typer.Context,
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Only results and errors."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Details too, on standard error."),
    debug: bool = typer.Option(False, "--debug", help="A traceback with every error."),
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="The version."),
) -> None:
    terminal = context.ensure_object(Terminal)
    terminal.quiet, terminal.verbose, terminal.debug = quiet, verbose, debug
    if verbose:
        warnings.simplefilter("default")


fit.register(app)
score.register(app)
adapt.register(app)
export.register(app)
evaluate.register(app)
continual.register(app)
explain.register(app)
compare.register(app)
zoo.register(app)
datasets.register(app)
plugins.register(app)
doctor.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: What follows the program's name; None is what the process was given.

    Returns:
        0 done; 1 done, but some images failed or a score was too low; 2 usage, configuration or input/output error;
        130 interrupted. An error is one line on standard error; its traceback comes with ``--debug`` only.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    _open_closed_streams()
    terminal = Terminal(debug="--debug" in given)
    with warnings.catch_warnings():
        if not sys.warnoptions:
            # What concerns an image is in its row; the rest is for those who asked for details.
            warnings.simplefilter("ignore")
        try:
            result = app(_flags_first(given), prog_name="iqakit", standalone_mode=False, obj=terminal)
            sys.stdout.flush()
        except ReaderGoneError:
            _forget_standard_output()
            return DONE
        except (KeyboardInterrupt, typer.Abort):
            return _interrupted(terminal)
        except SystemExit as stop:  # a plugin's command may end this way
            return stop.code if isinstance(stop.code, int) else FAILED if stop.code else DONE
        except Exception as error:  # the last resort: whatever it is, people get one line
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                _forget_standard_output()
                return DONE
            if terminal.debug:
                traceback.print_exc(file=sys.stderr)
            return _tell(terminal, error)
    if result == INTERRUPTED:
        return _interrupted(terminal)
    return result if isinstance(result, int) and not isinstance(result, bool) else DONE


def _tell(terminal: Terminal, error: Exception) -> int:
    """One line about an error, and the exit code."""
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        # A usage error of the command line framework; its class lives elsewhere from one version to the next.
        message = str(error.format_message()).replace("Value error, ", "")
        if type(error).__name__ == "NoArgsIsHelpError":
            if message.strip():
                sys.stderr.write(message.rstrip() + "\n")
            return FAILED
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "iqakit"
        terminal.error(f"{message.rstrip().rstrip('.')} (see {command} --help)")
    elif isinstance(error, IqakitError):
        terminal.error(str(error))
    elif isinstance(error, MemoryError):
        terminal.error("out of memory; try fewer --workers or smaller images")
    elif isinstance(error, OSError) and error.strerror:
        where = f": {os.fspath(error.filename)!r}" if isinstance(error.filename, str | os.PathLike) else ""
        terminal.error(f"{error.strerror[0].lower()}{error.strerror[1:]}{where}")
    else:
        again = "" if terminal.debug else "; run again with --debug to see where"
        terminal.error(f"this is a bug in {terminal.owner}: {type(error).__name__}: {error}{again}")
    return FAILED


def _interrupted(terminal: Terminal) -> int:
    """Say that the run was cut, and give its exit code."""
    with contextlib.suppress(OSError):
        terminal.error("interrupted")
    return INTERRUPTED


def _flags_first(arguments: Sequence[str]) -> list[str]:
    """Global flags may also follow one of iqakit's own commands; they are brought to the front."""
    command = next((word for word in arguments if not word.startswith("-")), None)
    if command not in _own_commands():
        return list(arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    flags = [word for word in arguments[:end] if word in _GLOBAL_FLAGS]
    return [*flags, *(word for word in arguments[:end] if word not in _GLOBAL_FLAGS), *arguments[end:]]


@functools.cache
def _own_commands() -> frozenset[str]:
    """Names of iqakit's own commands."""
    return frozenset(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def _catalog() -> Catalog:
    """The catalog; imported late, as a command that needs no part should not look for any."""
    from iqakit.plugins.catalog import catalog

    return catalog()


def _load(name: str, own: Sequence[str], terminal: Terminal) -> Any:
    """A plugin's command, and from here on the plugin is to blame for what it does not catch."""
    found = _catalog()
    try:
        entry = found.command(name)
    except UnknownNameError as error:
        known = [*own, *found.commands]
        raise UnknownNameError.of("command", name, known, "(iqakit --help lists them)") from error
    part = found.commands[name]
    terminal.owner = f"{part.distribution} {part.version}"
    loaded = entry.load()
    return typer.main.get_command(loaded) if isinstance(loaded, typer.Typer) else loaded


def _listed_command(name: str, summary: str) -> Any:
    """A command that only has a name and a line of help."""
    stand_in = typer.Typer(add_completion=False)

    @stand_in.command(name, help=summary)
    def never_run() -> Iterator[None]:
        """Stands in the list of commands; ``resolve_command`` loads the real one."""
        raise AssertionError(name)

    command = typer.main.get_command(stand_in)
    command.name = name
    return command


def _open_closed_streams() -> None:
    """Standard streams that were closed from the start (``>&-``) lead nowhere, and no file may take their place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free descriptor is the closed one, and stays taken until the process ends.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115


def _forget_standard_output() -> None:
    """Send what is left to nowhere, so that the interpreter does not complain at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
