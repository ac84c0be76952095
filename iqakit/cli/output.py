"""What the commands say: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from iqakit.contracts import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


@dataclass
class Terminal:
    """How much is said, and where; one for a run of the program.

    Attributes:
        quiet: Only results and errors.
        verbose: Details too.
        debug: A traceback with every error.
        owner: Whose code runs, to say whose bug an unexpected error is.
    """

    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    owner: str = "iqakit"
    _console: Console | None = field(default=None, repr=False)

    @property
    def console(self) -> Console:
        """Rich's console on standard error; it respects ``NO_COLOR``."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(stderr=True, highlight=False)
        return self._console

    @property
    def draws(self) -> bool:
        """Whether a progress bar may be drawn: somebody watches standard error and did not ask for quiet."""
        return not self.quiet and self.console.is_terminal

    def say(self, text: str) -> None:
        """One line worth reading, unless quiet."""
        if not self.quiet:
            self._line(text)

    def detail(self, text: str) -> None:
        """One line for those who asked for details."""
        if self.verbose and not self.quiet:
            self._line(text)

    def error(self, text: str) -> None:
        """One line that says what went wrong; never held back."""
        self._line(f"error: {' '.join(text.split())}")

    def _line(self, text: str) -> None:
        """Write to standard error, above a progress bar where one is drawn."""
        if self._console is not None and self._console.is_terminal:
            self._console.print(printable(text), markup=False, soft_wrap=True)
        else:
            sys.stderr.write(f"{printable(text)}\n")
            sys.stderr.flush()

    @contextmanager
    def progress(self, unit: str = "images") -> Iterator[Progress]:
        """Progress of a long piece of work: bars on a terminal, plain lines with ``-v``, else only the messages.

        Args:
            unit: What the steps are, for the figure of speed.
        """
        if not self.draws:
            yield PlainProgress(self)
            return
        with _bars(self.console, unit) as bars:
            yield BarProgress(self, bars)


class PlainProgress:
    """Progress where nobody watches: messages, and the name of each stage for those who asked for details."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def start(self, what: str, total: int) -> None:
        """A stage begins."""
        self._terminal.detail(f"{what} ({total})")

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Nothing: a line a step would be noise."""

    def message(self, text: str) -> None:
        """One line worth reading."""
        self._terminal.say(text)


class BarProgress:
    """Progress on a terminal: one bar for the stage at hand, with the time that is left."""

    def __init__(self, terminal: Terminal, bars: RichProgress) -> None:
        self._terminal = terminal
        self._bars = bars
        self._bar: TaskID | None = None

    def start(self, what: str, total: int) -> None:
        """A stage begins; the bar of the one before goes. ``total`` 0 or less: not known."""
        if self._bar is not None:
            self._bars.remove_task(self._bar)
        self._bar = self._bars.add_task(what, total=total if total > 0 else None, note="")

    def set_total(self, total: int) -> None:
        """The number of steps has become known."""
        if self._bar is not None:
            self._bars.update(self._bar, total=total)

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Some steps are done."""
        if self._bar is not None:
            self._bars.advance(self._bar, steps)
            if note:
                self._bars.update(self._bar, note=note)

    def message(self, text: str) -> None:
        """One line, above the bar."""
        self._terminal.say(text)


def _bars(console: Console, unit: str) -> RichProgress:
    """Rich's progress display, as iqakit wants it."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class SpeedColumn(ProgressColumn):
        """Steps a second."""

        def render(self, task: Task) -> Text:
            """The figure, once there is one."""
            return Text(f"{task.speed:.1f} {unit}/s" if task.speed else "")

    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        SpeedColumn(),
        TimeElapsedColumn(),
        TextColumn("left", style="dim"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        transient=True,
        # Results go past the bars where both are on a terminal. Elsewhere, in a file or a pipe, rich must not catch them:
        # it would print them on its own console, which is standard error.
        redirect_stdout=sys.stdout.isatty(),
    )


def printable(text: str) -> str:
    """A text that any stream takes: bytes of a path that are no text are shown escaped, control characters too."""
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in safe)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON text; readable letters, except where the value holds bytes that are no text (odd file names)."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=True, indent=indent, allow_nan=False)
    return text


def print_json(value: Any) -> None:
    """A result as JSON on standard output."""
    sys.stdout.write(to_json(value, indent=2) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A result as a table on standard output; in a pipe it is as wide as its content, so no line is broken.

    Args:
        columns: Headings.
        rows: Cells.
        right: Headings of the columns that stand to the right, such as numbers.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(file=sys.stdout, highlight=False, width=100_000)
    with wide.capture() as capture:
        wide.print(table)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in capture.get().splitlines()))


def print_facts(facts: Mapping[str, str]) -> None:
    """A result as lines of name and value on standard output; what is empty is left out."""
    shown = {name: value for name, value in facts.items() if value}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        sys.stdout.write(f"{name.ljust(width)}  {printable(value)}\n")
