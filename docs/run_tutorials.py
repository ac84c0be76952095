"""Run the code of a tutorial as its reader would, and compare what it prints: ``python docs/run_tutorials.py [PAGE]...``.

With ``--write`` the outputs shown are replaced by those found. What is run, block by block and in order:

- ``bash``: each line, in a directory made for the page that holds ``examples`` and ``plugins`` of this repository.
  ``iqakit`` runs within this process, everything else in bash, and what ``pip install -e`` installs is seen by the page
  alone. A line ends with 0, or says otherwise: ``# exit code 1``.
- ``python``: in one namespace for the whole page.
- a block with ``title="FILE"``: written to that file.
- ``text``: what the block before printed on standard output; of commands that fail with 2, their error. A line ``...``
  stands for any lines. Numbers may differ in the last digits; between ``<!-- numbers: any -->`` and
  ``<!-- numbers: close -->`` they are not compared: seconds, and what another default model gives.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iqakit.plugins.catalog import catalog

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = ROOT / "docs" / "tutorials"
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
LOOSE = re.compile(r"[█▉▊▋▌▍▎▏]+|[0-9a-f]{8,}|[-─]{3,}|\.{4,}")
"""Bars, hashes, rules and dots: as long as what they stand for."""


class TutorialError(AssertionError):
    """A tutorial does not do what it says."""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: What stands after the fence.
        title: The file that it is, or empty.
        text: What it holds.
        start: Where it begins in the page.
        end: Where it ends.
        loose: Its numbers are not compared.
    """

    language: str
    title: str
    text: str
    start: int
    end: int
    loose: bool


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    for found in FENCE.finditer(page):
        loose = page.rfind("<!-- numbers: any -->", 0, found.start()) > page.rfind(
            "<!-- numbers: close -->", 0, found.start()
        )
        yield Block(found[1], found[2] or "", found[3], found.start(), found.end(), loose)


class Desk:
    """A directory in which a reader works, and what was printed last."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.here = directory
        self.names: dict[str, object] = {"__name__": "tutorial"}
        self.installed: Path | None = None
        for name in ("examples", "plugins"):
            (directory / name).symlink_to(ROOT / name)

    def run(self, block: Block) -> str:
        """Do what a block says; gives what it printed."""
        if block.title:
            path = self.here / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
            return ""
        if block.language == "python":
            with contextlib.chdir(self.here), contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(block.text, "tutorial", "exec"), self.names)
            return printed.getvalue()
        lines = block.text.replace("\\\n", " ").splitlines()
        return "".join(self.command(line) for line in lines if line.strip() and not line.lstrip().startswith("#"))

    def command(self, line: str) -> str:
        """Run one line of bash; gives what it printed."""
        said = re.search(r"\s# exit code (\d+)", line)
        expected = int(said[1]) if said else 0
        words = shlex.split(line, comments=True)
        if words[0] == "cd":
            self.here = (self.here / words[1]).resolve()
            return ""
        if words[:3] == ["pip", "install", "-e"]:
            self.install(words[3])
            return ""
        if words[0] == "iqakit":
            code, out, err = self.iqakit(words[1:])
        else:
            tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
            found = {} if self.installed is None else {"PYTHONPATH": str(self.installed)}
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", line],
                cwd=self.here,
                env={**os.environ, "LC_ALL": "C.UTF-8", "PATH": tools, **found},  # names in one order everywhere
                capture_output=True,
                text=True,
                check=False,
            )
            code, out, err = done.returncode, done.stdout, done.stderr
        if code != expected:
            raise TutorialError(f"{line}\nended with {code}, not {expected}:\n{out}{err}")
        return err if code == 2 else out

    def install(self, project: str) -> None:
        """What ``pip install -e`` does for a reader, in a place of this desk's own: nothing of it outlives the page."""
        place = self.directory / ".installed"
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "--upgrade",
        ]
        subprocess.run([*pip, "--target", str(place), str(self.here / project)], check=True, capture_output=True)
        self.installed = place
        sys.path.insert(0, str(place))
        catalog.cache_clear()

    def leave(self) -> None:
        """Forget what was installed."""
        if self.installed is not None:
            sys.path.remove(str(self.installed))
            for name, module in list(sys.modules.items()):
                if (getattr(module, "__file__", None) or "").startswith(str(self.installed)):
                    del sys.modules[name]
            catalog.cache_clear()

    def iqakit(self, words: list[str]) -> tuple[int, str, str]:
        """A command of iqakit within this process: torch is loaded once, not once a line."""
        from iqakit.cli.app import main

        target = self.here / words.pop() if words[-2:-1] == [">"] else None
        spread = [one for word in words if word != ">" for one in self.spread(word)]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.here), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(spread)
        if target is not None:
            target.write_text(out.getvalue(), encoding="utf-8")
            return code, "", err.getvalue()
        return code, out.getvalue(), err.getvalue()

    def spread(self, word: str) -> list[str]:
        """What the shell makes of a pattern."""
        found = sorted(str(path.relative_to(self.here)) for path in self.here.glob(word)) if "*" in word else []
        return found or [word]


def differs(shown: str, found: str, *, loose: bool) -> bool:
    """Whether what was printed is other than what is shown."""
    lines = [line.rstrip() for line in found.rstrip().splitlines()]
    pieces: list[list[str]] = [[]]
    for line in shown.rstrip().splitlines():
        if line.strip() == "...":
            pieces.append([])
        else:
            pieces[-1].append(line.rstrip())
    at = 0
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        starts = range(at, len(lines) - len(piece) + 1)
        if number == 0:
            starts = range(min(1, len(starts)))
        elif last:
            starts = range(max(at, len(lines) - len(piece)), len(lines) - len(piece) + 1)
        for start in starts:
            if all(alike(one, other, loose=loose) for one, other in zip(piece, lines[start:], strict=False)):
                at = start + len(piece)
                break
        else:
            return True
    return at != len(lines)


def alike(shown: str, found: str, *, loose: bool) -> bool:
    """Whether two lines say the same, numbers aside that differ in their last digits."""
    shown, found = LOOSE.sub("~", shown), LOOSE.sub("~", found)
    if NUMBER.sub("0", " ".join(shown.split())) != NUMBER.sub("0", " ".join(found.split())):
        return False
    numbers = zip(NUMBER.findall(shown), NUMBER.findall(found), strict=True)
    return loose or all(abs(float(one) - float(other)) <= tolerance(one) for one, other in numbers)


def tolerance(number: str) -> float:
    """How far a number may be from the one shown: none if it is whole, else two of its last digits or a fiftieth of it."""
    _, point, digits = number.partition(".")
    return max(2 * 10.0 ** -len(digits), 0.02 * float(number)) if point else 0.0


@contextlib.contextmanager
def home(directory: Path) -> Iterator[None]:
    """Keep caches, pulled models among them, below a directory."""
    changed = {"IQAKIT_HOME": str(directory), "IQAKIT_OFFLINE": "1"}
    before = {name: os.environ.get(name) for name in (*changed, "IQAKIT_MODEL", "IQAKIT_ZOO")}
    for name in before:
        os.environ.pop(name, None)
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def run_page(page: Path, directory: Path, *, write: bool = False) -> int:
    """Run a tutorial.

    Args:
        page: The tutorial.
        directory: An empty directory to work in.
        write: Put what was found in the place of what is shown.

    Returns:
        How many blocks were run or compared.

    Raises:
        TutorialError: It does not do what it says.
    """
    text = page.read_text(encoding="utf-8")
    desk = Desk(directory)
    printed, count, changed = "", 0, []
    with contextlib.ExitStack() as stack:
        stack.enter_context(home(directory / ".home"))
        stack.callback(desk.leave)
        for block in blocks(text):
            count += 1
            if block.language in ("bash", "python") or block.title:
                printed = desk.run(block)
            elif block.language == "text":
                if differs(block.text, printed, loose=block.loose):
                    if not write:
                        raise TutorialError(f"{page.name} shows\n{block.text}\nbut this was printed\n{printed}")
                    changed.append((block, printed))
            else:
                raise TutorialError(
                    f"{page.name}: a block of {block.language!r} is neither run nor compared; give it a title"
                )
    for block, found in reversed(changed):
        tidy = "\n".join(line.rstrip() for line in found.rstrip().splitlines())
        text = f"{text[: block.start]}```text\n{tidy}\n```{text[block.end :]}"
    if changed:
        page.write_text(text, encoding="utf-8")
    return count


def main(arguments: list[str]) -> int:
    """Run the tutorials named, or all."""
    write = "--write" in arguments
    named = [Path(one) for one in arguments if not one.startswith("--")]
    os.environ.setdefault("IQAKIT_RUNTIME", "torch")
    for page in named or sorted(TUTORIALS.glob("*.md")):
        scratch = Path(tempfile.mkdtemp())
        try:
            print(f"{page.name}: {run_page(page.resolve(), scratch, write=write)} blocks")
        finally:
            shutil.rmtree(scratch)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
