from __future__ import annotations

import pytest

from iqakit import __version__
from iqakit.errors import PluginError
from iqakit.plugins.manager import BUILTIN_MODULES, LoadedPlugins, PluginRecord, load_plugins

GOOD = """
from dataclasses import dataclass
from iqakit.contracts import CombinerEntry
from iqakit.hookspecs import hookimpl

@dataclass(frozen=True)
class Config:
    sharpness: float = 2.0

@hookimpl
def iqakit_combiners():
    yield CombinerEntry("median", "The middle task", Config, lambda config: None)
"""


def third_party(loaded: LoadedPlugins) -> list[PluginRecord]:
    return [record for record in loaded.records if not record.builtin]


def combiner_with(expression: str) -> str:
    return f"""
from dataclasses import dataclass
from iqakit.contracts import *
from iqakit.hookspecs import hookimpl

@dataclass(frozen=True)
class Config:
    a: int = 1

@dataclass(frozen=True)
class Demanding:
    a: int

@hookimpl
def iqakit_combiners():
    return {expression}
"""


def test_built_in_parts_come_through_the_same_hooks() -> None:
    loaded = load_plugins({"IQAKIT_DISABLED_PLUGINS": "*"})
    assert [record.name for record in loaded.records if record.builtin] == list(BUILTIN_MODULES)
    assert {record.version for record in loaded.records if record.builtin} == {__version__}
    names = {entry.name for record in loaded.records for entry in record.entries}
    assert {"tsn", "kmeans", "timm", "tiny", "koniq10k"} <= names


def test_good_plugin_is_loaded(install) -> None:
    install("iqakit-median", GOOD, version="3.1")
    (record,) = third_party(load_plugins({}))
    assert (record.name, record.distribution, record.version) == ("iqakit_median", "iqakit-median", "3.1")
    assert record.status == "loaded"
    assert record.reason is None
    assert [entry.name for entry in record.entries] == ["median"]
    assert record.seconds > 0


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "tried to end the process (SystemExit: 3)"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        (
            "from iqakit.hookspecs import hookimpl\n@hookimpl\ndef iqakit_combinerz():\n    return []",
            "no hook is named 'iqakit_combinerz'; did you mean iqakit_combiners",
        ),
        (
            "from iqakit.hookspecs import hookimpl\n@hookimpl\ndef iqakit_combiners(registry):\n    return []",
            "a hook has the wrong signature",
        ),
        (
            "from iqakit.hookspecs import hookimpl\n@hookimpl\ndef iqakit_combiners():\n    return 1 / 0",
            "ZeroDivisionError",
        ),
        (
            "from iqakit.hookspecs import hookimpl\n@hookimpl\ndef iqakit_combiners():\n    yield 1 / 0",
            "ZeroDivisionError",
        ),
        ("def iqakit_combiners():\n    return []", "it implements no hook; is the marker @hookimpl missing?"),
        (combiner_with("'median'"), "iqakit_combiners gave str; it must give several CombinerEntry"),
        (combiner_with("7"), "iqakit_combiners gave int; it must give several CombinerEntry"),
        (combiner_with("['median']"), "iqakit_combiners gave str where CombinerEntry is wanted"),
        (combiner_with("[CommandEntry('a', 's', print)]"), "gave CommandEntry where CombinerEntry is wanted"),
        (combiner_with("[CombinerEntry('a b', 's', Config, print)]"), "'a b': a name is letters, digits"),
        (combiner_with("[CombinerEntry(3, 's', Config, print)]"), "a name is letters, digits"),
        (combiner_with("[CombinerEntry('a', None, Config, print)]"), "summary must be a string"),
        (combiner_with("[CombinerEntry('a', 's', Config, None)]"), "create must be callable"),
        (combiner_with("[CombinerEntry('a', 's', dict, print)]"), "config must be a dataclass"),
        (combiner_with("[CombinerEntry('a', 's', Config(), print)]"), "config must be a dataclass"),
        (combiner_with("[CombinerEntry('a', 's', Demanding, print)]"), "settings without a default: a"),
        (combiner_with("[CombinerEntry('a', 's', Config, print)] * 2"), "gives two parts named 'a'"),
        (
            "from iqakit.contracts import *\nfrom iqakit.hookspecs import hookimpl\n@hookimpl\n"
            "def iqakit_commands():\n    return [CommandEntry('score', 's', print)]",
            "'score': that command is one of iqakit's own",
        ),
        (
            "from iqakit.contracts import *\nfrom iqakit.hookspecs import hookimpl\n@hookimpl\n"
            "def iqakit_backbones():\n    return [BackboneEntry('hf-hub', 's', print, print)]",
            "that prefix already means something else",
        ),
        (
            "from iqakit.contracts import *\nfrom iqakit.hookspecs import hookimpl\n@hookimpl\n"
            "def iqakit_datasets():\n    return [DatasetEntry('mine', None, print)]",
            "facts must be TaskFacts, not NoneType",
        ),
    ],
)
def test_broken_plugin_is_set_aside_and_the_others_go_on(install, source: str, reason: str) -> None:
    install("iqakit-broken", source)
    install("iqakit-median", GOOD)
    loaded = load_plugins({})
    broken, good = third_party(loaded)
    assert broken.status == "set aside"
    assert reason in str(broken.reason)
    assert "\n" not in str(broken.reason)
    assert broken.entries == ()
    assert good.status == "loaded"
    assert loaded.manager.get_plugin("iqakit-broken:iqakit_broken") is None
    loaded.manager.check_pending()  # nothing of the broken plugin is left behind


def test_wrong_kind_of_adapter_is_set_aside(install) -> None:
    install(
        "iqakit-odd",
        """
        from dataclasses import dataclass
        from iqakit.contracts import AdapterEntry
        from iqakit.hookspecs import hookimpl

        @dataclass(frozen=True)
        class Config:
            pass

        @hookimpl
        def iqakit_adapters():
            return [AdapterEntry("odd", "train-time", "s", Config, print)]
        """,
    )
    (record,) = third_party(load_plugins({}))
    assert record.reason == "AdapterEntry 'odd': kind is 'train-time'; it must be 'fit' or 'test-time'"


def test_an_entry_point_is_known_by_its_own_name(install) -> None:
    install("iqakit-median", GOOD, entry_point="middle")
    assert third_party(load_plugins({}))[0].name == "middle"
    assert third_party(load_plugins({"IQAKIT_DISABLED_PLUGINS": "middle"}))[0].status == "disabled"


@pytest.mark.parametrize("named", ["iqakit-median", "iqakit_median", "IQAKIT.Median", "*", "other, iqakit-median "])
def test_disabled_plugin_is_not_even_imported(install, named: str) -> None:
    install("iqakit-median", "raise SystemExit('must not be imported')")
    (record,) = third_party(load_plugins({"IQAKIT_DISABLED_PLUGINS": named}))
    assert record.status == "disabled"
    assert "IQAKIT_DISABLED_PLUGINS" in str(record.reason)


def test_disabling_one_plugin_leaves_the_others(install) -> None:
    install("iqakit-median", GOOD)
    install("iqakit-broken", "1 / 0")
    statuses = {r.distribution: r.status for r in third_party(load_plugins({"IQAKIT_DISABLED_PLUGINS": "iqakit-broken"}))}
    assert statuses == {"iqakit-broken": "disabled", "iqakit-median": "loaded"}


def test_strict_makes_a_broken_plugin_an_error(install) -> None:
    install("iqakit-broken", "1 / 0", version="0.3")
    with pytest.raises(
        PluginError, match=r"'iqakit_broken' of iqakit-broken 0\.3 is broken: .*ZeroDivisionError"
    ) as caught:
        load_plugins({"IQAKIT_STRICT_PLUGINS": "1"})
    assert "IQAKIT_DISABLED_PLUGINS=iqakit-broken" in str(caught.value)
    assert load_plugins({"IQAKIT_STRICT_PLUGINS": "0"}).records


def test_trace_says_what_was_loaded_on_standard_error(install, capsys: pytest.CaptureFixture[str]) -> None:
    install("iqakit-median", GOOD)
    install("iqakit-broken", "print('hello from the plugin')\n1 / 0")
    load_plugins({"IQAKIT_TRACE_PLUGINS": "1"})
    out, err = capsys.readouterr()
    assert out == ""
    assert "iqakit_median (iqakit-median 1.2) loaded in" in err
    assert "1 parts" in err
    assert "iqakit_broken (iqakit-broken 1.2) set aside in" in err
    assert "hello from the plugin" in err  # not on standard output, where the results go


def test_without_trace_nothing_is_said(install, capsys: pytest.CaptureFixture[str]) -> None:
    install("iqakit-broken", "1 / 0")
    load_plugins({})
    assert capsys.readouterr() == ("", "")


def test_an_interruption_is_not_taken_for_a_broken_plugin(install) -> None:
    install("iqakit-slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_plugins({})
