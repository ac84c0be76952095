"""``iqakit plugins check``: rows, JSON, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

GATE = '''
"""A gate."""
from dataclasses import dataclass
from iqakit.contracts import CombinerEntry
from iqakit.hookspecs import hookimpl

@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        sharpness: How sharp.
    """

    sharpness: float = 2.0

class Halves:
    def __init__(self, config):
        self.config = config

    def fit_task(self, state, task, gate_features):
        return dict(state)

    def weights(self, state, tasks, gate_features, oracle_names):
        import torch
        from iqakit.errors import ConfigurationError
        print("weighing")
        if not tasks or not gate_features or len({len(stage) for stage in gate_features}) > 1:
            raise ConfigurationError("nothing to weigh; give tasks and features")
        return torch.full((len(gate_features[0]), len(tasks)), SHARE / len(tasks))

SHARE = 1.0

@hookimpl
def iqakit_combiners():
    return [CombinerEntry("halves", "Weighs all alike", Config, Halves)]
'''


def test_a_good_part_passes(run, distribution) -> None:
    distribution("iqakit-halves", GATE)
    done = run("plugins", "check", "halves")
    assert done.code == 0, done.out
    lines = done.out.splitlines()
    assert lines[0].split() == ["part", "check", "status", "found"]
    assert any(line.split()[:4] == ["combiner", "halves", "rows-sum-to-one", "passed"] for line in lines)
    assert "it keeps no state" in done.out  # why a check was skipped
    assert "weighing" not in done.out
    assert "21 checks: 17 passed, 0 failed, 4 skipped" in done.err


def test_a_failure_is_exit_code_1_and_does_not_stop_the_rest(run, distribution) -> None:
    distribution("iqakit-halves", GATE.replace("SHARE = 1.0", "SHARE = 0.5"))
    done = run("plugins", "check", "iqakit-halves", "--json")
    assert done.code == 1
    rows = json.loads(done.out)
    assert list(rows[0]) == ["kind", "part", "check", "description", "status", "reason", "seconds"]
    by_name = {(row["kind"], row["check"]): row for row in rows}
    assert by_name["combiner", "rows-sum-to-one"]["status"] == "failed"
    assert by_name["combiner", "rows-sum-to-one"]["reason"] == "rows sum to 0.5 to 0.5; each must sum to 1"
    assert by_name["combiner", "an-unknown-task-is-named"]["status"] == "skipped"  # the last one was reached
    assert by_name["plugin", "import-is-light"]["status"] == "passed"
    assert by_name["plugin", "states-its-licence"]["reason"].startswith("pyproject.toml states no licence")


def test_a_plugin_that_is_set_aside_fails_with_its_reason(run, distribution) -> None:
    distribution("iqakit-broken", "raise SystemExit('no')")
    done = run("plugins", "check", "iqakit-broken", "--json")
    assert done.code == 1
    (loaded,) = [row for row in json.loads(done.out) if row["check"] == "is-loaded"]
    assert loaded["reason"] == "it is set aside: loading 'iqakit_broken' tried to end the process (SystemExit: no)"


def test_built_in_parts_can_be_checked_by_name(run) -> None:
    done = run("plugins", "check", "average", "--json")
    assert done.code == 0
    assert {row["part"] for row in json.loads(done.out)} == {"average"}
    done = run("plugins", "check", "tiny:none", "--json")
    assert done.code == 0
    assert {row["part"] for row in json.loads(done.out)} == {"tiny:none"}


def test_a_data_set_wants_its_directory(run, tmp_path: Path) -> None:
    done = run("plugins", "check", "koniq10k", "--json")
    assert done.code == 0
    skipped = [row["reason"] for row in json.loads(done.out) if row["status"] == "skipped"]
    assert "the set's directory is not at hand; give it with root= or --root" in skipped
    (tmp_path / "empty").mkdir()
    done = run("plugins", "check", "koniq10k", "--root", tmp_path / "empty", "--json")
    assert done.code == 1
    (opens,) = [row for row in json.loads(done.out) if row["check"] == "opens"]
    assert "DataError" in opens["reason"]


def test_a_name_that_nobody_has_gets_one_line(run) -> None:
    done = run("plugins", "check", "kmeens")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: no part or plugin is named 'kmeens'; did you mean kmeans? (iqakit plugins list shows all)\n"


def test_list_and_show_tell_hooks_parts_and_problems(run, distribution) -> None:
    distribution("iqakit-halves", GATE)
    distribution("iqakit-thirds", GATE)
    distribution("iqakit-broken", "1 / 0")
    listed = {plugin["name"]: plugin for plugin in json.loads(run("plugins", "list", "--json").out)["plugins"]}
    halves = listed["iqakit_halves"]
    assert {key: halves[key] for key in ("version", "distribution", "status", "builtin", "hooks", "parts")} == {
        "version": "0.7",
        "distribution": "iqakit-halves",
        "status": "loaded",
        "builtin": False,
        "hooks": ["iqakit_combiners"],
        "parts": ["halves"],
    }
    assert halves["problems"][0].startswith("combiner 'halves' is offered by iqakit-halves 0.7 and by iqakit-thirds 0.7")
    assert "ZeroDivisionError" in listed["iqakit_broken"]["problems"][0]
    assert listed["iqakit.combiners"]["builtin"]
    assert listed["iqakit.combiners"]["problems"] == []
    table = run("plugins", "list").out
    (row,) = [line for line in table.splitlines() if line.startswith("iqakit_halves")]
    assert row.split()[:6] == ["iqakit_halves", "0.7", "iqakit-halves", "loaded", "iqakit_combiners", "halves"]
    shown = run("plugins", "show", "iqakit-broken").out
    assert "problems" in shown
    assert "ZeroDivisionError" in shown
    assert "hooks         iqakit_combiners" in run("plugins", "show", "iqakit-halves").out
