"""What a check is, how checks are run, and what importing the kit costs."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import unittest
from pathlib import Path

import pytest

import iqakit.testing
from iqakit.errors import ConfigurationError
from iqakit.testing import Check, CheckFailedError, CheckSkippedError, check_combiner, run_checks
from iqakit.testing.adaptation_checks import SUITE as ADAPTATION
from iqakit.testing.adapter_checks import SUITE as FIT
from iqakit.testing.backbone_checks import SUITE as BACKBONE
from iqakit.testing.checks import Once, counts, expect, expect_error
from iqakit.testing.combiner_checks import SUITE as COMBINER
from iqakit.testing.command_checks import SUITE as COMMAND
from iqakit.testing.dataset_checks import SUITE as DATASET
from iqakit.testing.model_checks import SUITE as MODEL
from iqakit.testing.plugin_checks import SUITE as PLUGIN

ROOT = Path(__file__).resolve().parents[3]
SUITES = (PLUGIN, BACKBONE, FIT, ADAPTATION, COMBINER, DATASET, COMMAND, MODEL)


def check(probe, name: str = "holds") -> Check:
    return Check("combiner", "mine", name, "It holds", probe)


def fail() -> None:
    expect(False, "found\nsomething   odd")


def skip() -> None:
    raise CheckSkippedError("it has none")


def leave() -> None:
    raise SystemExit(4)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_run_says_what_was_found_in_one_line() -> None:
    assert check(lambda: None).run() is None
    with pytest.raises(CheckFailedError, match=r"^found something odd$"):
        check(fail).run()
    with pytest.raises(AssertionError, match=r"^it raised SystemExit: 4$"):
        check(leave).run()
    with pytest.raises(CheckFailedError, match="ZeroDivisionError: division by zero"):
        check(lambda: 1 / 0).run()
    with pytest.raises(unittest.SkipTest, match="it has none"):
        check(skip).run()
    with pytest.raises(KeyboardInterrupt):
        check(interrupt).run()


def test_one_failure_does_not_stop_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    results = list(run_checks([check(fail), check(skip), check(lambda: print("noise")), check(leave)]))
    assert [result.status for result in results] == ["failed", "skipped", "passed", "failed"]
    assert [result.reason for result in results] == ["found something odd", "it has none", None, "it raised SystemExit: 4"]
    assert counts(results) == {"passed": 1, "failed": 2, "skipped": 1}
    assert capsys.readouterr() == ("", "noise\n")
    assert results[0].to_json() | {"seconds": 0} == {
        "kind": "combiner",
        "part": "mine",
        "check": "holds",
        "description": "It holds",
        "status": "failed",
        "reason": "found something odd",
        "seconds": 0,
    }


def test_what_is_needed_is_made_once_and_blamed_once() -> None:
    made = []
    once = Once(lambda: made.append(1) or len(made), "creates")
    assert (once.tried(), once.needed(), len(made)) == (1, 1, 1)
    broken = Once(leave, "creates")
    with pytest.raises(SystemExit):
        broken.tried()
    with pytest.raises(CheckSkippedError, match="not tried, as 'creates' fails: 4"):
        broken.needed()


def refuse(message: str) -> object:
    raise ConfigurationError(message)


def test_an_error_must_be_the_right_one_in_one_line_that_names_it() -> None:
    expect_error(ConfigurationError, "rate=x", lambda: refuse("rate=x is no number"), ["rate"])
    for call, said in (
        (lambda: None, "rate=x must raise ConfigurationError, but nothing was raised"),
        (lambda: 1 / 0, "rate=x must raise ConfigurationError, but it raised ZeroDivisionError"),
        (lambda: refuse("two\nlines"), "rate=x gets a message of several lines"),
        (lambda: refuse("no"), "rate=x gets a message that names none of 'rate': no"),
    ):
        with pytest.raises(CheckFailedError, match=said):
            expect_error(ConfigurationError, "rate=x", call, ["rate"])


def test_nothing_is_done_before_a_check_is_run() -> None:
    from iqakit.contracts import CombinerEntry

    checks = list(check_combiner(CombinerEntry("mine", "s", dict, lambda config: 1 / 0)))
    assert [found.name for found in checks] == list(COMBINER.names)
    assert checks[0].id == "combiner-mine-config-is-a-frozen-dataclass"


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.kind)
def test_every_check_says_what_it_promises_and_is_on_the_page(suite) -> None:
    page = (ROOT / "docs" / "how-to" / "check-a-plugin.md").read_text(encoding="utf-8")
    for found in suite.of("mine", None):
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", found.name)
        assert 15 < len(found.description) <= 124
        assert f"| `{found.name}` | {found.description} |" in page
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", page, flags=re.MULTILINE)
    assert sorted(listed) == sorted(name for each in SUITES for name in each.names)


def test_what_the_kit_offers_is_there_and_on_the_page() -> None:
    page = (ROOT / "docs" / "how-to" / "check-a-plugin.md").read_text(encoding="utf-8")
    for name in iqakit.testing.__all__:
        assert getattr(iqakit.testing, name) is not None
        assert f"`{name}" in page, name
    assert dir(iqakit.testing) == sorted(iqakit.testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'check_nothing'"):
        iqakit.testing.check_nothing  # noqa: B018


def test_importing_the_kit_and_its_pytest_plugin_loads_nothing_slow() -> None:
    code = (
        "import sys, iqakit.testing, iqakit.testing.pytest_plugin; "
        "print([m for m in ('torch', 'timm', 'numpy', 'sklearn', 'pluggy.none') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_in_a_test_run_of_somebody_else(tmp_path: Path) -> None:
    """Each check is a test of its own: a skip is a skip, and a failure is one line without the kit's own frames."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["iqakit.testing.pytest_plugin"]\n')
    (tmp_path / "test_mine.py").write_text(
        textwrap.dedent(
            """
            from iqakit.testing import check_combiner
            from iqakit.testing.checks import Check, expect
            from iqakit.testing.pytest_plugin import parametrize_with_checks

            odd = Check("combiner", "odd", "fails", "Never", lambda: expect(False, "an odd thing"))

            @parametrize_with_checks(check_combiner("average"), odd)
            def test_conformance(check):
                check.run()

            def test_fixtures(iqakit_backbone, iqakit_fit_context):
                assert iqakit_fit_context(count=6).backbone is iqakit_backbone
                assert len(iqakit_fit_context(count=6, task="other").train) == 6
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert f"1 failed, {len(COMBINER.names) - 5 + 1} passed, 5 skipped" in done.stdout, done.stdout
    assert "test_conformance[combiner-odd-fails]" in done.stdout
    assert "E   iqakit.testing.checks.CheckFailedError: an odd thing" in done.stdout
    assert "checks.py" not in done.stdout.split("FAILURES")[1].split("short test summary")[0]
