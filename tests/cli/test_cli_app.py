from __future__ import annotations

import io
import os
import re
import resource
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from rich.console import Console

from iqakit import __version__
from iqakit.cli import score_run
from iqakit.cli.app import app, main
from iqakit.cli.output import BarProgress, Terminal
from iqakit.plugins.records import RESERVED_COMMANDS

HEAVY = ("torch", "timm", "sklearn", "PIL", "numpy", "safetensors", "torchvision", "scipy")
SEE_MODULES = f"""
import sys
from iqakit.cli.app import main
code = main(sys.argv[1:])
sys.stderr.write("loaded:" + ",".join(m for m in {HEAVY!r} if m in sys.modules) + ";")
sys.exit(code)
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["plugins", "list"], ["datasets", "list"], ["doctor", "--help"], ["score", "--help"], ["--version"]],
    ids=" ".join,
)
def test_light_commands_load_nothing_heavy_and_are_quick(arguments: list[str]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", SEE_MODULES, *arguments], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr == "loaded:;"
    assert done.stdout.strip()
    # Processor time, so that a busy machine makes no difference; about half a second, loading torch takes several.
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 2


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "iqakit", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"iqakit {__version__}\n"
    done = subprocess.run([sys.executable, "-m", "iqakit", "datasets", "lst"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no command of iqakit datasets is named 'lst'")


def script_target() -> str:
    """What the installed script calls, as MODULE:FUNCTION."""
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    target = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["scripts"]["iqakit"]
    assert isinstance(target, str)
    return target


def test_nothing_is_loaded_before_the_script_can_be_interrupted() -> None:
    module, _, function = script_target().partition(":")
    code = (
        f"import sys; from {module} import {function}\n"
        f"print([m for m in {(*HEAVY, 'typer', 'click', 'rich', 'iqakit.cli')!r} if m in sys.modules])\n"
        f"sys.argv = ['iqakit', '--version']; sys.exit({function}())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"[]\niqakit {__version__}\n"


@pytest.mark.parametrize("module", ["iqakit.cli.app", "typer", "iqakit.cli.output"])
def test_an_interruption_while_modules_load_is_one_line(module: str) -> None:
    source, _, function = script_target().partition(":")
    code = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        f"from {source} import {function}\n"
        f"sys.exit({function}())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


@pytest.mark.skipif(not Path("/bin/sh").exists(), reason="no shell that can close streams")
@pytest.mark.parametrize(
    ("arguments", "closing", "code", "err"),
    [
        ("datasets list --json", ">&-", 0, ""),
        ("score a.png --model not/there", ">&- 2>&-", 2, ""),
        ("score -", "<&-", 2, "error: there is nothing to score: no image was found in standard input"),
    ],
)
def test_streams_that_are_closed_from_the_start(arguments: str, closing: str, code: int, err: str) -> None:
    command = f'"{sys.executable}" -m iqakit {arguments} {closing}'
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(err)
    assert "bug" not in done.stderr
    assert done.stderr.count("\n") == bool(err)


def test_help_names_every_command(run) -> None:
    done = run("--help")
    assert done.code == 0
    for name in ("fit", "score", "eval", "datasets", "plugins", "doctor"):
        assert re.search(rf"\b{name}\b", done.out)


def test_version(run) -> None:
    assert run("--version").out == f"iqakit {__version__}\n"


def test_no_command_shows_the_help_and_is_a_usage_error(run) -> None:
    done = run()
    assert done.code == 2
    assert "Usage: iqakit" in done.out + done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scroe", "a.png"], "no command is named 'scroe'; did you mean score, compare?"),
        (["score"], "Missing argument 'IMAGE...' (see iqakit score --help)"),
        (["score", "a.png", "--formt", "json"], "No such option: --formt"),
        (["score", "a.png", "--format", "xml"], "'xml' is not one of 'table', 'json', 'jsonl', 'csv'"),
        (["score", "a.png", "--workers", "-1"], "Invalid value for '--workers'"),
        (["score", "a.png", "--on-error", "ignore"], "'ignore' is not one of 'skip', 'fail'"),
        (["score", "a.png", "--batch-size", "0"], "--batch-size is auto or a whole number above 0, not '0'"),
        (["score", "a.png", "--top", "0"], "--top is a number of images above 0 or a share up to 100%"),
        (["score", "a.png", "--top", "150%"], "such as 10 or 5%, not '150%'"),
        (["score", "a.png", "--top", "many%"], "such as 10 or 5%, not 'many%'"),
        (["score", "a.png", "--min", "nan"], "--min is a score, 0-100, not nan"),
        (["score", "a.png", "--set", "sharpness"], "--set takes key=value, not 'sharpness'"),
        (["score", "a.png", "--resume"], "--resume goes on with a file; name it with -o FILE"),
        (["score", "a.png", "--resume", "-o", "a.json"], "--resume goes on with jsonl and csv only, not with json"),
        (["score", "a.png", "--resume", "-o", "a.csv", "--top", "3"], "--resume and --top cannot be combined"),
        (["score", "a.png", "-o", "rows.dat"], "the ending of rows.dat does not say a format; add --format"),
        (["score", "a.png", ""], "an image is named '' (argument 2); is a variable not set? Name a file, a directory"),
        (["explain", "", "-o", "map.png"], "explain takes one image, and it is named ''; is a variable not set?"),
        (["explain", "a.png", "-o", "not/there/map.png"], "could not write quality map not/there/map.png: No such file"),
        (["export", "-o", "not/there/m.onnx"], "could not write exported model not/there/m.onnx: No such file"),
        (["adapt", "a.png", "--tta", "group-rank", "-o", "not/there/a.safetensors"], "could not write adapter not/there/"),
        (["compare", "a.png", "b.png", "-o", "not/there/c.csv"], "could not write rows to not/there/c.csv: No such file"),
        (["score", "none*.png"], "there is nothing to score: no image was found in 'none*.png'"),
        (["score", "a.png", "--model", "not/there"], "there is no model directory not/there"),
        (["fit", "not-there.csv"], "not-there.csv"),
        (["fit", "--adapter", "tsm"], "no fit adapter is named 'tsm'; did you mean tsn?"),
        (["fit", "--adapter", "tsn", "--set", "croop=3"], "no setting of tsn is named 'croop'; did you mean crop?"),
        (["fit", "--adapter", "tsn", "--set", "crop=big"], "crop=big of tsn: a whole number is wanted"),
        (["eval"], "Missing argument 'DATA...'"),
        (["plugins", "lst"], "no command of iqakit plugins is named 'lst'; did you mean list?"),
        (["plugins", "show", "kmens"], "no part or plugin is named 'kmens'; did you mean kmeans?"),
        (["datasets", "show", "koniq"], "no data set is named 'koniq'; did you mean koniq10k"),
        (["datasets", "split", ".", "--ratios", "1/2"], "--ratios takes three shares, train/val/test"),
        (["datasets", "split", ".", "--json"], "add -o FILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(run, arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert done.err.startswith("error: ")
    assert message in done.err


def test_a_traceback_comes_with_debug_only(run) -> None:
    assert "Traceback" not in run("score", "a.png", "--model", "not/there").err
    for arguments in (["--debug", "score", "a.png"], ["score", "a.png", "--debug"]):
        done = run(*arguments, "--model", "not/there")
        assert done.code == 2
        assert "Traceback" in done.err
        assert done.err.splitlines()[-1].startswith("error: there is no model directory not/there")


def test_an_unexpected_error_is_called_a_bug(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr(score_run, "expand_images", broken)
    done = run("score", "a.png")
    assert done.code == 2
    assert done.err == (
        "error: this is a bug in iqakit: ZeroDivisionError: first line second line; run again with --debug to see where\n"
    )
    assert "Traceback" in run("--debug", "score", "a.png").err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (PermissionError(13, "Permission denied", "a/b.csv"), 2, "error: permission denied: 'a/b.csv'\n"),
        (OSError(28, "No space left on device"), 2, "error: no space left on device\n"),
        (MemoryError(), 2, "error: out of memory; try fewer --workers or smaller images\n"),
        (BrokenPipeError(32, "Broken pipe"), 0, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_the_system_does_has_its_exit_code(
    run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    def failing(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("iqakit.cli.app._forget_standard_output", lambda: None)
    monkeypatch.setattr(score_run, "expand_images", failing)
    done = run("score", "a.png")
    assert (done.code, done.out, done.err) == (code, "", line)


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "iqakit.cli.app", "datasets", "list", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before the first word is written
        assert process.stderr.read() == b""
        assert process.wait() == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_line(run, pictures: Path, model: Path) -> None:
    done = run("-q", "score", pictures / "00.png", "--model", model, "--format", "jsonl", "-o", "/dev/full")
    assert done.code == 2
    assert done.err == (
        "error: could not write rows to /dev/full: No space left on device; free some space or write elsewhere\n"
    )


def test_flags_after_a_double_dash_are_names(run) -> None:
    done = run("score", "--model", "not/there", "--", "--debug")
    assert (done.code, done.err.count("\n")) == (2, 1)


def test_own_commands_cannot_be_taken_by_plugins() -> None:
    import typer

    assert set(typer.main.get_command(app).commands) <= RESERVED_COMMANDS


GREETER = """
from iqakit.contracts import CommandEntry
from iqakit.hookspecs import hookimpl

def load():
    import typer
    app = typer.Typer()

    @app.command()
    def greet(name: str, loud: bool = False):
        print("HELLO " + name if loud else "hello " + name)
        if name == "nobody":
            raise typer.Exit(1)

    return app

@hookimpl
def iqakit_commands():
    return [CommandEntry("greet", "Greets somebody", load)]
"""


def test_a_plugins_command_is_listed_and_run(run, distribution) -> None:
    distribution("iqakit-greeter", GREETER)
    assert "Greets somebody" in run("--help").out
    done = run("greet", "Ada", "--loud")
    assert (done.code, done.out) == (0, "HELLO Ada\n")
    assert run("greet", "nobody").code == 1
    wrong = run("greet")
    assert wrong.code == 2
    assert wrong.err.startswith("error: Missing argument")


def test_a_plugins_command_is_loaded_only_when_used(run, distribution) -> None:
    distribution("iqakit-greeter", GREETER.replace("    import typer\n", "    raise RuntimeError('loaded')\n", 1))
    assert run("--help").code == 0
    done = run("greet", "Ada")
    assert done.code == 2
    assert done.err.startswith("error: this is a bug in iqakit-greeter 0.7: RuntimeError: loaded; run again with --debug")


def test_own_commands_work_whatever_a_plugin_does(run, distribution) -> None:
    distribution("iqakit-broken", "raise SystemExit('broken')")
    done = run("plugins", "list")
    assert done.code == 0
    assert "set aside: iqakit_broken of iqakit-broken 0.7" in done.out
    assert run("--help").code == 0


def test_strict_plugins_are_an_error(run, distribution, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution("iqakit-broken", "1 / 0")
    monkeypatch.setenv("IQAKIT_STRICT_PLUGINS", "1")
    done = run("plugins", "list")
    assert done.code == 2
    assert "iqakit-broken 0.7 is broken: " in done.err


def test_main_leaves_warning_filters_as_they_were() -> None:
    import warnings

    before = list(warnings.filters)
    main(["--version"])
    assert warnings.filters == before


def test_colours_are_not_forced_into_a_pipe(run, pictures: Path, model: Path) -> None:
    done = run("score", pictures / "00.png", "--model", model)
    assert done.code == 0
    assert "\x1b" not in done.out + done.err


def test_progress_on_a_terminal_is_a_bar_with_the_time_left() -> None:
    screen = io.StringIO()
    terminal = Terminal(_console=Console(file=screen, force_terminal=True, width=120))
    with terminal.progress() as progress:
        progress.start("scoring", 0)
        assert isinstance(progress, BarProgress)
        progress.set_total(4)
        progress.advance(2, "SRCC 0.91")
        time.sleep(0.3)  # the bar is drawn ten times a second
        progress.message("one line")
        progress.start("calibrating", 3)
    shown = screen.getvalue()
    for text in ("scoring", "2/4", "SRCC 0.91", "left", "one line", "calibrating", "0/3"):
        assert text in shown


def test_progress_elsewhere_is_messages_only(capsys: pytest.CaptureFixture[str]) -> None:
    for terminal, expected in (
        (Terminal(), "one line\n"),
        (Terminal(verbose=True), "scoring (4)\none line\n"),
        (Terminal(quiet=True), ""),
    ):
        with terminal.progress() as progress:
            progress.start("scoring", 4)
            progress.advance()
            progress.message("one line")
        assert capsys.readouterr() == ("", expected)


def test_no_bar_is_drawn_for_those_who_want_quiet() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    assert Terminal(_console=console).draws
    assert not Terminal(quiet=True, _console=console).draws


def test_results_reach_their_file_while_bars_are_shown(tmp_path: Path) -> None:
    """Standard error is a terminal, standard output is a file."""
    pty = pytest.importorskip("pty")
    code = (
        "import sys\n"
        "from iqakit.cli.output import Terminal\n"
        "with Terminal().progress() as progress:\n"
        "    progress.start('scoring', 2)\n"
        "    sys.stdout.write('[1]\\n')\n"
        "    progress.advance()\n"
    )
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with (tmp_path / "rows.json").open("wb") as rows:
        done = subprocess.run([sys.executable, "-c", code], stdout=rows, stderr=slave, env=environment, check=True)
    os.close(slave)
    shown = os.read(master, 10_000)
    os.close(master)
    assert done.returncode == 0
    assert b"scoring" in shown  # there was a bar
    assert b"[1]" not in shown
    assert (tmp_path / "rows.json").read_text() == "[1]\n"
