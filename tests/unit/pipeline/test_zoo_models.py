"""Pushing, pulling, verifying and refusing whole models."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import iqakit
from iqakit.errors import (
    ConfigurationError,
    FileFormatError,
    IqakitError,
    MismatchError,
    NewerFormatError,
    StorageError,
    UnknownNameError,
)
from iqakit.pipeline import zoo_checks, zoo_push
from iqakit.pipeline.model import QualityModel
from iqakit.pipeline.model_finding import find_model
from iqakit.pipeline.zoo import list_models, pull_model, remove_model, show_model, zoo_sources
from iqakit.pipeline.zoo_checks import check_minimum
from iqakit.pipeline.zoo_facts import FACTS_NAME, FIGURES_NAME, CardFacts, read_facts, read_figures
from iqakit.pipeline.zoo_local import bundled_models, bundled_zoo, find_local, local_models
from iqakit.pipeline.zoo_probes import PROBES, difference, probe_directory
from iqakit.pipeline.zoo_push import card_of, push_model
from iqakit.pipeline.zoo_verify import verify_models
from iqakit.storage.adapter_file import read_adapter, write_adapter
from iqakit.storage.model_directory import read_model
from iqakit.storage.zoo_index import INDEX_NAME, Probe, ZooEntry, index_bytes, parse_index
from iqakit.storage.zoo_limits import Limits

ROOT = Path(__file__).resolve().parents[3]
FACTS = {"summary": "Sharpness of small pictures", "licence_code": "Apache-2.0", "licence_data": "own pictures"}


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("IQAKIT_ZOO", "IQAKIT_OFFLINE", "IQAKIT_MODEL")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("IQAKIT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def pushed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo of one model, ``mine``; read it, do not write to it."""
    zoo = tmp_path_factory.mktemp("zoo")
    push_model(tiny_model, zoo, name="mine", facts=FACTS)
    return zoo


def entry_of(zoo: Path) -> ZooEntry:
    (entry,) = parse_index((zoo / INDEX_NAME).read_bytes(), "it").values()
    return entry


@pytest.fixture
def tampered(pushed: Path, tmp_path: Path) -> Callable[[Callable[[Path], None]], Path]:
    """A copy of the zoo whose model was changed by somebody who also made the index fit."""

    def make(change: Callable[[Path], None]) -> Path:
        zoo = tmp_path / "tampered"
        shutil.copytree(pushed, zoo)
        entry = entry_of(zoo)
        place = zoo / entry.path
        change(place)
        manifest = json.loads((place / "model.json").read_text())
        for record in [*manifest["tasks"], manifest["combiner"]]:
            record["sha256"] = hashlib.sha256((place / record["file"]).read_bytes()).hexdigest()
        (place / "model.json").write_text(json.dumps(manifest))
        files = tuple(
            dataclasses.replace(
                file,
                size=(place / file.path).stat().st_size,
                sha256=hashlib.sha256((place / file.path).read_bytes()).hexdigest(),
            )
            for file in entry.files
        )
        backbone = dataclasses.replace(entry.backbone, fingerprint=manifest["backbone"]["fingerprint"])
        (zoo / INDEX_NAME).write_bytes(index_bytes([dataclasses.replace(entry, files=files, backbone=backbone)]))
        return zoo

    return make


def test_what_is_pushed_can_be_pulled_and_scores_the_same(pushed: Path, tiny_model: Path, tmp_path: Path) -> None:
    found = pull_model("mine", [str(pushed)])
    assert found.origin == "pulled"
    assert found.directory.is_relative_to(tmp_path / "home" / "zoo" / "models")
    photo = probe_directory() / PROBES[0]
    assert QualityModel.load("mine").score(photo).raw == QualityModel.load(tiny_model).score(photo).raw
    assert find_model("mine") == ("mine", found.directory)
    (result,) = verify_models("mine", scores=True)
    assert result.ok
    assert [probe.name for probe in result.probes] == list(PROBES)
    assert all(probe.difference <= 0.001 for probe in result.probes)
    assert pull_model("mine", [str(pushed)]) == found
    assert {model.name for model in local_models()} == {"mine", *bundled_models()}
    assert remove_model("mine") == entry_of(pushed).size
    assert find_local("mine") is None
    assert not found.directory.exists()


def test_the_index_says_what_the_model_is(pushed: Path, tiny_model: Path) -> None:
    entry = entry_of(pushed)
    manifest = read_model(tiny_model)[0]
    assert (entry.name, entry.summary, entry.licence_code, entry.licence_data) == ("mine", *FACTS.values())
    assert entry.tasks == ("sharpness",)
    assert entry.backbone.fingerprint == manifest.backbone.fingerprint
    assert entry.version == manifest.version
    assert [file.path for file in entry.files] == sorted(
        ["CARD.md", "adapters/00-sharpness.safetensors", "combiner.safetensors", "facts.json", "model.json"]
    )
    model = QualityModel.load(tiny_model)
    for probe in entry.probes:
        assert probe.raw == pytest.approx(model.score(probe_directory() / probe.name, skip_below=None).raw, abs=1e-6)
        assert probe.sha256 == hashlib.sha256((probe_directory() / probe.name).read_bytes()).hexdigest()


def test_pushing_again_replaces_the_entry_and_keeps_the_earlier_files(tiny_model: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    first, place = push_model(tiny_model, zoo, name="mine")
    assert push_model(tiny_model, zoo, name="mine") == (first, place)
    second, other = push_model(tiny_model, zoo, name="mine", facts={"summary": "Better told"})
    assert place.is_dir()
    assert other != place
    assert entry_of(zoo) == second
    push_model(tiny_model, zoo, name="another")
    assert set(parse_index((zoo / INDEX_NAME).read_bytes(), "it")) == {"another", "mine"}
    assert not [path for path in zoo.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["../evil", "a b", "con"])
def test_a_model_is_not_pushed_under_a_name_that_is_none(tiny_model: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"choose another --name$"):
        push_model(tiny_model, tmp_path / "zoo", name=name)
    assert not (tmp_path / "zoo").exists()


def test_weights_that_nobody_else_has_are_not_pushed(tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    manifest = json.loads((model / "model.json").read_text())
    manifest["backbone"]["weights"] = "/home/somebody/weights.safetensors"
    (model / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigurationError, match="weights that only this machine has") as caught:
        push_model(model, tmp_path / "zoo")
    assert "/home/somebody" not in str(caught.value)


def test_a_zoo_is_a_directory(tiny_model: Path, tmp_path: Path) -> None:
    place = tmp_path / "index.json"
    place.write_text("{}")
    with pytest.raises(StorageError, match=r"index.json is a file, and a zoo is a directory; choose another --index"):
        push_model(tiny_model, place, name="mine")


def test_an_index_that_is_damaged_is_left_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    (zoo / INDEX_NAME).write_text("{}")
    with pytest.raises(FileFormatError, match=r"nothing was pushed: .* no index of an iqakit zoo"):
        push_model(tiny_model, zoo, name="mine")
    assert [path.name for path in zoo.iterdir()] == [INDEX_NAME]


def _nan_in_adapter(place: Path) -> None:
    path = place / "adapters" / "00-sharpness.safetensors"
    data = bytearray(path.read_bytes())
    data[-4:] = b"\x00\x00\xc0\x7f"
    path.write_bytes(bytes(data))


def _nan_in_combiner(place: Path) -> None:
    tensors = load_file(place / "combiner.safetensors")
    name = next(name for name, tensor in sorted(tensors.items()) if tensor.is_floating_point())
    save_file({**tensors, name: torch.full_like(tensors[name], float("nan"))}, place / "combiner.safetensors")


def _rewrite(place: Path, **changes: Any) -> None:
    path = place / "adapters" / "00-sharpness.safetensors"
    write_adapter(dataclasses.replace(read_adapter(path), **changes), path)


def _other_backbone(place: Path) -> None:
    _rewrite(place, backbone_fingerprint="ab" * 32)
    manifest = json.loads((place / "model.json").read_text())
    manifest["backbone"]["fingerprint"] = "ab" * 32
    (place / "model.json").write_text(json.dumps(manifest))


def _other_task(place: Path) -> None:
    _rewrite(place, task="other")
    manifest = json.loads((place / "model.json").read_text())
    manifest["tasks"][0]["name"] = "other"
    (place / "model.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        (_nan_in_adapter, FileFormatError, "has changed since it was written|not finite"),
        (_nan_in_combiner, FileFormatError, r"combiner file .* has values that are not finite in kmeans/"),
        (_other_backbone, MismatchError, r"belongs on backbone 'tiny' \(abababab\), but was given 'tiny'"),
        (lambda place: _rewrite(place, head_weight=torch.zeros(1, 7)), MismatchError, "has a head for 7 features"),
        (
            lambda place: _rewrite(place, tensors={"no.such.tensor": torch.zeros(3)}),
            MismatchError,
            "does not fit backbone 'tiny': no.such.tensor is not in the backbone",
        ),
        (_other_task, FileFormatError, "its tasks are other, but the index lists sharpness"),
        (
            lambda place: (place / "combiner.safetensors").write_bytes(b"\x80\x04\x95pickle"),
            FileFormatError,
            "not a safetensors file|truncated",
        ),
    ],
)
def test_a_model_that_cannot_be_trusted_never_becomes_visible(
    tampered: Callable[..., Path], change: Callable[[Path], None], error: type[IqakitError], reason: str, tmp_path: Path
) -> None:
    zoo = tampered(change)
    with pytest.raises(error, match=reason) as caught:
        pull_model("mine", [str(zoo)])
    assert "\n" not in str(caught.value)
    assert find_local("mine") is None
    assert not (tmp_path / "home" / "zoo" / "models").exists()


def test_shapes_are_compared_where_the_weights_cannot_be_had(pushed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from iqakit.errors import OfflineError
    from iqakit.plugins import catalog

    made = catalog.make_backbone

    def offline(name: str, weights: str) -> Any:
        if weights == "pretrained":
            raise OfflineError("no hub")
        return made(name, weights)

    monkeypatch.setattr(catalog, "make_backbone", offline)
    entry = entry_of(pushed)
    adapters = read_model(pushed / entry.path)[1]
    elsewhere = dataclasses.replace(entry, backbone=dataclasses.replace(entry.backbone, weights="pretrained"))
    said: list[str] = []
    zoo_checks._check_backbone(adapters, elsewhere, "model 'mine'", said.append)
    assert len(said) == 1
    assert "fingerprint is compared later (no hub)" in said[0]
    wrong = [dataclasses.replace(adapter, head_weight=torch.zeros(1, 7)) for adapter in adapters]
    with pytest.raises(MismatchError, match="has a head for 7 features"):
        zoo_checks._check_backbone(wrong, elsewhere, "model 'mine'", said.append)


def test_a_model_for_a_newer_iqakit_says_so(pushed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = entry_of(pushed)
    for version, minimum in (("0.1.0.dev0", "0.1.0"), ("0.1.0", "0.1"), ("1.0", "0.99.9"), ("0.10.0", "0.9")):
        monkeypatch.setattr(iqakit, "__version__", version)
        check_minimum(dataclasses.replace(entry, minimum_iqakit=minimum))
    with pytest.raises(NewerFormatError, match=r"'mine' needs iqakit 0\.10\.1 or newer, and this is 0\.10\.0; upgrade"):
        check_minimum(dataclasses.replace(entry, minimum_iqakit="0.10.1"))


def test_verify_finds_what_was_changed(pushed: Path) -> None:
    found = pull_model("mine", [str(pushed)])
    adapter = found.directory / "adapters" / "00-sharpness.safetensors"
    good = adapter.read_bytes()
    adapter.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    (found.directory / "notes.txt").write_text("hello")
    (result,) = verify_models("mine")
    assert not result.ok
    assert result.problems[0].startswith("adapters/00-sharpness.safetensors was changed: its SHA-256 is ")
    assert result.problems[1] == "notes.txt is no file of the model; remove it"
    adapter.write_bytes(good[:-1])
    assert f"has {len(good) - 1} bytes, the index says {len(good)}" in verify_models("mine")[0].problems[0]
    adapter.unlink()
    assert "is missing, or no ordinary file" in verify_models("mine")[0].problems[0]
    (found.directory / "notes.txt").unlink()
    assert pull_model("mine", [str(pushed)]).directory == found.directory
    assert verify_models("mine")[0].ok
    with pytest.raises(UnknownNameError, match=r"no model that is here is named 'mien'; did you mean mine"):
        verify_models("mien")


def test_verify_finds_scores_that_differ(pushed: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    shutil.copytree(pushed, zoo)
    entry = entry_of(zoo)
    first = entry.probes[0]
    moved = dataclasses.replace(first, score=(first.score or 0) + 1)
    (zoo / INDEX_NAME).write_bytes(index_bytes([dataclasses.replace(entry, probes=(moved, *entry.probes[1:]))]))
    pull_model("mine", [str(zoo)])
    assert verify_models("mine")[0].ok
    (result,) = verify_models("mine", scores=True)
    assert [probe.ok for probe in result.probes] == [False, True, True, True]
    assert f"probe {first.name} scores" in result.problems[0]
    assert "more than 0.1 points apart" in result.problems[0]
    assert verify_models("mine", scores=True, tolerance=1.5)[0].ok


def test_probes_without_points_are_compared_by_raw_output() -> None:
    one = Probe("a.jpg", "ab" * 32, None, 10.0)
    assert difference(one, dataclasses.replace(one, raw=10.02)) == pytest.approx(0.1)
    assert difference(one, dataclasses.replace(one, score=3.0)) == float("inf")
    assert difference(dataclasses.replace(one, score=3.0), dataclasses.replace(one, score=3.5)) == 0.5


def test_which_zoos_are_looked_in(tmp_path: Path) -> None:
    assert [source.text for source in zoo_sources(environ={})] == [str(bundled_zoo())]
    listed = {"IQAKIT_ZOO": "https://host/zoo, /a/b ,hf://me/mine,"}
    assert [source.text for source in zoo_sources(environ=listed)] == ["https://host/zoo", "/a/b", "hf://me/mine"]
    assert [source.text for source in zoo_sources(["/c,d", "/c,d"], environ=listed)] == ["/c,d"]


def test_the_first_zoo_that_has_a_name_gives_it(pushed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    named = dataclasses.replace(entry_of(pushed), summary="Elsewhere")
    (other / INDEX_NAME).write_bytes(index_bytes([named]))
    assert show_model("mine", [str(other), str(pushed)]).entry.summary == "Elsewhere"
    assert show_model("mine", [str(pushed), str(other)]).entry.summary == FACTS["summary"]
    monkeypatch.setenv("IQAKIT_ZOO", f"http://127.0.0.1:9/zoo,{pushed}")
    models, problems = list_models(limits=Limits(stall_seconds=2, attempts=1))
    assert {model.entry.name for model in models} == {"mine", *bundled_models()}
    assert [model.origin for model in models if model.entry.name == "mine"] == ["zoo"]
    assert len(problems) == 1
    assert "127.0.0.1:9" in problems[0]


def test_bundled_models_are_never_removed() -> None:
    with pytest.raises(ConfigurationError, match="'default' comes with iqakit and was not pulled"):
        remove_model("default")
    assert bundled_models()["default"].is_dir()
    with pytest.raises(UnknownNameError, match="no pulled model is named 'nobody'; there are none"):
        remove_model("nobody")


# Cards


def test_a_card_says_everything_that_is_known(
    tiny_model: Path, tmp_path: Path, make_rated_photos: Callable[..., Path]
) -> None:
    facts = {
        "summary": "Small pictures",
        "licence": {"code": "Apache-2.0", "data": "CC BY 4.0"},
        "data": ["Made by a program; **free**."],
        "tasks": {"sharpness": "squares, blurred"},
        "split": "by hand.",
        "training": "python train.py --seed 0",
        "limits": ["It knows squares alone."],
        "citation": ["Somebody, 2026"],
    }
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / FACTS_NAME).write_text(json.dumps(facts))
    records = iqakit.evaluate(tiny_model, make_rated_photos(tmp_path / "sharpness"), bootstrap=20)
    (tmp_path / "eval.json").write_text(json.dumps(records))
    entry, place = push_model(model, tmp_path / "zoo", name="small", figures=tmp_path / "eval.json")
    card = (place / "CARD.md").read_text()
    for heading in (
        "Data and terms",
        "Figures on the test split",
        "Calibration",
        "Speed",
        "What to know",
        "How to cite",
        "Files",
    ):
        assert f"\n## {heading}" in card
    for text in (f"`small@{entry.version}`", "CC BY 4.0", "Made by a program; **free**.", "squares, blurred", "by hand.",
                 "`python train.py --seed 0`", "It knows squares alone.", "Somebody, 2026", "| seed | 0 |"):  # fmt: skip
        assert text in card
    (record,) = records
    interval = f"{record['srcc']:.3f} [{record['srcc_low']:.3f}, {record['srcc_high']:.3f}]"
    assert interval in card.partition("On sets that no task was learned from")[0]
    for file in entry.files:
        assert (f"`{file.sha256}`" in card) == (file.path != "CARD.md")
    assert read_facts(place / FACTS_NAME).limits == ("It knows squares alone.",)
    figures = read_figures(place / FIGURES_NAME)
    assert figures is not None
    assert figures.model == entry.version


def test_figures_of_another_version_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / FIGURES_NAME).write_text(json.dumps({"model": "01234567"}))
    manifest, adapters, _, _ = read_model(model)
    with pytest.raises(MismatchError, match=r"is of version '01234567', but the model is .*; measure it again"):
        card_of(model, "mine", manifest, adapters)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ('{"sumary": "x"}', "unknown field 'sumary'; there are: citation, data"),
        ('{"summary": 3}', "should be text, and it is '3'"),
        ('{"limits": "none"}', "should be a list"),
        ('{"licence": {"image": "x"}}', "has 'image'; there are: code, data"),
        ("[]", "should be an object"),
    ],
)
def test_facts_that_are_none_are_refused(tmp_path: Path, facts: str, reason: str) -> None:
    (tmp_path / FACTS_NAME).write_text(facts)
    with pytest.raises(FileFormatError, match=reason):
        read_facts(tmp_path / FACTS_NAME)
    assert read_facts(tmp_path / "missing.json") == CardFacts()


@pytest.mark.parametrize(
    "records", ["{}", "[3]", '[{"task": "a"}]', '[{"task": "a", "combiner": "b", "n": 3, "srcc": "x"}]']
)
def test_figures_that_iqakit_eval_did_not_write_are_refused(tiny_model: Path, tmp_path: Path, records: str) -> None:
    (tmp_path / "eval.json").write_text(records)
    with pytest.raises(FileFormatError, match=r"the figures in .*eval\.json"):
        push_model(tiny_model, tmp_path / "zoo", figures=tmp_path / "eval.json")


# The zoo of this repository


@pytest.fixture(scope="module")
def make_index() -> Any:
    """The script that makes the repository's zoo."""
    spec = importlib.util.spec_from_file_location("make_index", ROOT / "model_zoo" / "make_index.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_repositorys_zoo_is_up_to_date(make_index: Any) -> None:
    """``python model_zoo/make_index.py`` makes index, figures and cards; this says when it was not run."""
    make_index.main(["--check"])


def test_a_card_that_disagrees_with_its_model_is_found(make_index: Any, pushed: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    shutil.copytree(pushed / entry_of(pushed).path, zoo / "mine")
    (zoo / "mine" / FACTS_NAME).write_text('{"summary": "S", "measured": {"evaluation": "run", "behaviour": "seen"}}')
    results = tmp_path / "results"
    results.mkdir()
    version = entry_of(pushed).version
    row = {"task": "sharpness", "combiner": "kmeans", "n": 9, "failed": 0, "srcc": 0.5, "srcc_low": 0.4, "srcc_high": 0.6,
           "krcc": 0.3, "plcc": 0.5, "rmse": 1.0}  # fmt: skip
    (results / "run.json").write_text(json.dumps({"model": version, "test": [row]}))
    call = ["--zoo", str(zoo), "--results", str(results)]
    make_index.main(call)
    make_index.main([*call, "--check"])
    card = zoo / "mine" / "CARD.md"
    assert "0.500 [0.400, 0.600]" in card.read_text()
    assert set(parse_index((zoo / INDEX_NAME).read_bytes(), "it")) == {"mine"}

    def stale() -> str:
        with pytest.raises(SystemExit, match="not up to date") as caught:
            make_index.main([*call, "--check"])
        return str(caught.value)

    good = card.read_text()
    card.write_text(good.replace("sharpness", "sharpnes"))
    assert "mine/CARD.md" in stale()
    card.write_text(good)
    (results / "run.json").write_text(json.dumps({"model": f"mine@{version}", "test": [{**row, "srcc": 0.7}]}))
    assert "mine/figures.json, mine/CARD.md" in stale()
    (results / "run.json").write_text(json.dumps({"model": "01234567", "test": [row]}))
    assert "mine/figures.json, mine/CARD.md" in stale()  # figures of another version are dropped
    (results / "run.json").write_text(json.dumps({"model": version, "test": [row]}))
    _rewrite(zoo / "mine", provenance={"seed": 7})
    with pytest.raises(FileFormatError, match="has changed since it was written"):
        make_index.main([*call, "--check"])


def test_the_card_of_fit_is_by_the_same_hand(tiny_model: Path) -> None:
    card = (tiny_model / "CARD.md").read_text()
    adapters = read_model(tiny_model)[1]
    assert card == zoo_push.model_card(adapters, "tiny", "pretrained")
    assert "None are known; `iqakit eval` measures them." in card
