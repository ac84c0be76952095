from __future__ import annotations

import subprocess
import sys

import pytest

from iqakit.errors import ConfigurationError, PluginError, UnknownNameError
from iqakit.plugins.catalog import catalog, make_backbone


def combiner_plugin(name: str) -> str:
    return f"""
from dataclasses import dataclass
from iqakit.contracts import CombinerEntry
from iqakit.hookspecs import hookimpl

@dataclass(frozen=True)
class Config:
    pass

@hookimpl
def iqakit_combiners():
    return [CombinerEntry({name!r}, "summary", Config, lambda config: "made by " + __name__)]
"""


ADAPTERS = """
from dataclasses import dataclass
from iqakit.contracts import AdapterEntry
from iqakit.hookspecs import hookimpl

@dataclass(frozen=True)
class Config:
    pass

@hookimpl
def iqakit_adapters():
    return [
        AdapterEntry("nudge", "test-time", "s", Config, print),
        AdapterEntry("learn", "fit", "s", Config, print),
    ]
"""

BACKBONES = """
from iqakit.contracts import BackboneEntry
from iqakit.hookspecs import hookimpl

@hookimpl
def iqakit_backbones():
    return [BackboneEntry("echo", "s", lambda name, weights: (name, weights), lambda pattern: [])]
"""


def test_parts_know_who_brings_them(install) -> None:
    install("iqakit-median", combiner_plugin("median"), version="2.0")
    part = catalog().combiners["median"]
    assert (part.distribution, part.version, part.builtin) == ("iqakit-median", "2.0", False)
    assert catalog().combiners["kmeans"].builtin
    assert catalog().combiner("median").create(None) == "made by iqakit_median"


def test_unknown_names_come_with_near_matches() -> None:
    with pytest.raises(UnknownNameError, match=r"no combiner is named 'kmean'; did you mean kmeans\?"):
        catalog().combiner("kmean")
    with pytest.raises(UnknownNameError, match="no data set is named 'koniq'; did you mean koniq10k"):
        catalog().dataset("koniq")
    with pytest.raises(UnknownNameError, match="no fit adapter is named 'tsm'; did you mean tsn"):
        catalog().adapter("tsm", "fit")
    with pytest.raises(UnknownNameError, match="no command is named 'greet'"):
        catalog().command("greet")


def test_unknown_name_points_at_plugins_that_are_not_loaded(install) -> None:
    install("iqakit-median", "1 / 0")
    with pytest.raises(UnknownNameError, match=r"not loaded: iqakit_median; see iqakit plugins list"):
        catalog().combiner("median")


def test_asking_for_the_other_kind_of_adapter_says_so(install) -> None:
    install("iqakit-nudge", ADAPTERS)
    assert catalog().adapter("nudge").name == "nudge"
    assert catalog().adapter("nudge", "test-time").name == "nudge"
    with pytest.raises(
        ConfigurationError, match=r"'nudge' is a test-time method.*what is wanted here is a fit method"
    ) as e:
        catalog().adapter("nudge", "fit")
    assert "learn" in str(e.value)
    assert "tsn" in str(e.value)
    with pytest.raises(ConfigurationError, match="'tsn' is a fit method: it learns from human scores"):
        catalog().adapter("tsn", "test-time")


def test_two_parts_of_one_name_raise_on_look_up_and_name_both(install) -> None:
    install("iqakit-one", combiner_plugin("median"), version="1.0")
    install("iqakit-two", combiner_plugin("median"), version="2.0")
    install("iqakit-three", combiner_plugin("mode"))
    found = catalog()
    assert found.combiner("mode").name == "mode"
    assert found.combiner("kmeans").name == "kmeans"
    assert "median" not in found.combiners
    with pytest.raises(PluginError, match=r"iqakit-one 1\.0 and by iqakit-two 2\.0"):
        found.combiner("median")
    (conflict,) = found.conflicts
    assert (conflict.kind, conflict.name) == ("combiner", "median")


def test_a_plugin_cannot_take_a_built_in_name_in_silence(install) -> None:
    install("iqakit-mine", combiner_plugin("kmeans"))
    with pytest.raises(
        PluginError, match=r"offered by iqakit .* and by iqakit-mine 1\.2;.*IQAKIT_DISABLED_PLUGINS=iqakit-mine"
    ):
        catalog().combiner("kmeans")


def test_strict_raises_a_conflict_at_once(install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("iqakit-mine", combiner_plugin("kmeans"))
    monkeypatch.setenv("IQAKIT_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match="'kmeans' is offered by"):
        catalog()


def test_disabling_resolves_a_conflict(install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("iqakit-mine", combiner_plugin("kmeans"))
    monkeypatch.setenv("IQAKIT_DISABLED_PLUGINS", "iqakit-mine")
    assert catalog().combiners["kmeans"].builtin


def test_backbone_names_go_to_their_family(install) -> None:
    install("iqakit-echo", BACKBONES)
    found = catalog()
    assert found.make_backbone("echo:large:x", "random:1") == ("large:x", "random:1")
    assert found.make_backbone("echo", "pretrained") == ("", "pretrained")
    assert found.split_backbone_name("resnet18.a1_in1k") == ("timm", "resnet18.a1_in1k")
    assert found.split_backbone_name("hf-hub:timm/resnet18") == ("timm", "hf-hub:timm/resnet18")
    assert found.split_backbone_name("timm:resnet18") == ("timm", "resnet18")
    assert found.split_backbone_name("tiny:groupnorm") == ("tiny", "groupnorm")


def test_unknown_family_is_said_with_near_matches() -> None:
    with pytest.raises(UnknownNameError, match="no backbone family is named 'tinny'; did you mean tiny"):
        make_backbone("tinny:groupnorm", "random:0")


def test_contested_family_raises(install) -> None:
    install("iqakit-echo", BACKBONES)
    install("iqakit-echo-too", BACKBONES)
    with pytest.raises(PluginError, match=r"backbone 'echo' is offered by iqakit-echo 1\.2 and by iqakit-echo-too 1\.2"):
        make_backbone("echo:x", "random:0")


def test_tiny_backbone_is_made() -> None:
    assert make_backbone("tiny", "random:0").embedding_dim > 0


def test_catalog_loads_neither_torch_nor_timm() -> None:
    code = (
        "import sys; from iqakit.plugins.catalog import catalog; catalog(); "
        "print([m for m in ('torch', 'timm', 'sklearn', 'PIL', 'numpy', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
