from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from iqakit.contracts import Adapter
from iqakit.errors import (
    ConfigurationError,
    FileFormatError,
    IqakitError,
    MismatchError,
    NewerFormatError,
    StorageError,
    TrainingError,
)
from iqakit.storage import model_manifest
from iqakit.storage.adapter_file import read_adapter, write_adapter
from iqakit.storage.model_directory import (
    BackboneFacts,
    ModelManifest,
    add_task,
    holds_model,
    model_lock,
    model_version,
    read_manifest,
    read_model,
)

Make = Callable[..., Adapter]
FACTS = BackboneFacts("tiny", "random:0", "ab" * 32)


def states_of(*tasks: str) -> dict[str, dict[str, torch.Tensor]]:
    return {"kmeans": {f"{task}/centroids": torch.full((2, 3), float(len(task))) for task in tasks}, "average": {}}


@pytest.fixture
def model(tmp_path: Path, make_adapter: Make) -> Path:
    place = tmp_path / "model"
    add_task(place, FACTS, make_adapter("one"), states_of("one"), "# one\n")
    add_task(place, FACTS, make_adapter("three", seed=3), states_of("one", "three"), "# two\n")
    return place


def test_a_model_comes_back(model: Path, make_adapter: Make, content: Callable[[Adapter], Any]) -> None:
    manifest, adapters, states, shared = read_model(model)
    assert [content(adapter) for adapter in adapters] == [
        content(make_adapter("one")),
        content(make_adapter("three", seed=3)),
    ]
    assert [task.file for task in manifest.tasks] == ["adapters/00-one.safetensors", "adapters/01-three.safetensors"]
    assert manifest.backbone == FACTS
    assert manifest.combiners == ("average", "kmeans")
    assert set(states) == {"average", "kmeans"}
    assert states["average"] == {}
    assert torch.equal(states["kmeans"]["three/centroids"], torch.full((2, 3), 5.0))
    assert shared is None
    assert manifest.shared is None
    assert (model / "CARD.md").read_text() == "# two\n"
    found = {str(path.relative_to(model)) for path in model.rglob("*") if path.is_file()}
    assert found == {"model.json", "CARD.md", "combiner.safetensors", *(task.file for task in manifest.tasks)}


def test_the_version_is_of_the_file(model: Path) -> None:
    expected = hashlib.sha256((model / "model.json").read_bytes()).hexdigest()[:8]
    assert model_version(model) == model_version(read_manifest(model)) == expected
    bare = ModelManifest(
        **{k: getattr(read_manifest(model), k) for k in ("backbone", "tasks", "combiners", "combiner", "shared")}
    )
    assert bare == read_manifest(model)
    assert model_version(bare) == expected


def test_earlier_adapters_are_not_touched(model: Path, make_adapter: Make) -> None:
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for path in model.glob("adapters/*")}
    manifest = add_task(model, FACTS, make_adapter("seven"), states_of("one", "three", "seven"), "")
    assert len(before) == 2
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    assert manifest == read_manifest(model)
    assert manifest.version == model_version(model)


def test_equal_content_gives_equal_models(tmp_path: Path, make_adapter: Make) -> None:
    for name, order in (("a", ["kmeans", "average"]), ("b", ["average", "kmeans"])):
        states = states_of("one")
        add_task(tmp_path / name, FACTS, make_adapter("one"), {key: states[key] for key in order}, "")
    assert model_version(tmp_path / "a") == model_version(tmp_path / "b")


def test_shared_tensors_replace_and_add_up(tmp_path: Path, make_adapter: Make) -> None:
    place = tmp_path / "model"
    add_task(place, FACTS, make_adapter("a"), {}, "", {"conv.weight": torch.ones(2), "fc": torch.ones(1)})
    assert read_manifest(place).combiner is None
    add_task(place, FACTS, make_adapter("b"), {}, "", {"conv.weight": torch.zeros(2)})
    add_task(place, FACTS, make_adapter("c"), {}, "")
    shared = read_model(place)[3]
    assert shared is not None
    assert {name: tensor.tolist() for name, tensor in shared.items()} == {"conv.weight": [0.0, 0.0], "fc": [1.0]}


def test_a_file_of_another_task_is_never_overwritten(model: Path, make_adapter: Make) -> None:
    taken = model / "adapters" / "02-x.safetensors"
    (model / "adapters" / "00-one.safetensors").rename(taken)
    edit_manifest(model, lambda d: d["tasks"][0].update(file="adapters/02-x.safetensors"))
    before = taken.read_bytes()
    with pytest.raises(
        ConfigurationError, match=r"has a file 'adapters/02-x.safetensors' of another task; choose another --task"
    ):
        add_task(model, FACTS, make_adapter("x"), {}, "")
    assert taken.read_bytes() == before
    add_task(model, FACTS, make_adapter("y"), {}, "")
    assert taken.read_bytes() == before
    assert [adapter.task for adapter in read_model(model)[1]] == ["one", "three", "y"]


def test_a_combiner_that_is_not_named_keeps_its_state(model: Path, make_adapter: Make) -> None:
    manifest = add_task(model, FACTS, make_adapter("x"), {"average": {}}, "")
    assert manifest.combiners == ("average", "kmeans")
    assert set(read_model(model)[2]["kmeans"]) == {"one/centroids", "three/centroids"}


@pytest.mark.parametrize("name", ["one", "three"])
def test_a_combiner_must_keep_what_it_knew(model: Path, make_adapter: Make, name: str) -> None:
    before = (model / "model.json").read_bytes()
    for change in (torch.zeros(2, 3), None):
        states = states_of("one", "three", "x")
        if change is None:
            del states["kmeans"][f"{name}/centroids"]
        else:
            states["kmeans"][f"{name}/centroids"] = change
        with pytest.raises(
            ConfigurationError, match=rf"combiner 'kmeans' changed what it knew of an earlier task \('{name}/cent"
        ):
            add_task(model, FACTS, make_adapter("x"), states, "")
    assert (model / "model.json").read_bytes() == before
    assert len(list(model.glob("adapters/*"))) == 2


def test_what_cannot_be_added(model: Path, make_adapter: Make) -> None:
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    with pytest.raises(
        ConfigurationError, match=r"^model .* has learned a task 'one' already; choose another --task or --model$"
    ):
        add_task(model, FACTS, make_adapter("one"), {}, "")
    with pytest.raises(ConfigurationError, match="cannot name a task"):
        add_task(model, FACTS, make_adapter("../x"), {}, "")
    with pytest.raises(ConfigurationError, match="cannot name a task"):
        add_task(model, FACTS, make_adapter("x"), {"a/b": {}}, "")
    other = BackboneFacts("tiny", "random:1", "cd" * 32)
    with pytest.raises(
        MismatchError, match=r"the adapter of task 'x' belongs on backbone 'tiny' \(abababab\), not on 'tiny' \(cdcd"
    ):
        add_task(model, other, make_adapter("x"), {}, "")
    with pytest.raises(MismatchError) as caught:
        add_task(model, other, make_adapter("x", backbone_fingerprint="cd" * 32), {}, "")
    assert str(caught.value) == (
        f"model {model} stands on backbone 'tiny' with weights 'random:0' (abababab), but was given 'tiny' with "
        "'random:1' (cdcdcdcd); use that one or another --model"
    )
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before


def edit_manifest(place: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = place / "model.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_directories_that_are_no_models(tmp_path: Path, model: Path) -> None:
    with pytest.raises(StorageError, match=r"^there is no model at .*gone; check the path, or make one with `iqakit fit`$"):
        read_model(tmp_path / "gone")
    with pytest.raises(
        StorageError, match=r"model.json is a file, and a model is a directory; give the directory that holds"
    ):
        read_model(model / "model.json")
    with pytest.raises(StorageError, match=r"^.* is not an iqakit model: it holds no model.json; check the path, or run"):
        read_model(tmp_path)
    (model / "model.json").rename(tmp_path / "model.json.bak")
    assert not holds_model(model)
    with pytest.raises(
        StorageError, match=r"^.* holds adapters but no model.json: fitting was cut off; run `iqakit fit` again$"
    ):
        read_model(model)


def test_a_model_that_lost_its_manifest_is_not_overwritten(model: Path, make_adapter: Make) -> None:
    (model / "model.json").unlink()
    with pytest.raises(
        StorageError, match=r"holds adapters of several tasks but no model.json; restore that file or choose"
    ):
        add_task(model, FACTS, make_adapter("new"), {}, "")
    assert len(list(model.glob("adapters/*"))) == 2


def test_a_file_in_the_place_of_a_model(tmp_path: Path, make_adapter: Make) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    with pytest.raises(StorageError, match=r"^.*file is a file, and a model is a directory; choose another --model$"):
        add_task(tmp_path / "file", FACTS, make_adapter(), {}, "")
    with pytest.raises(StorageError, match="Not a directory; one part of the path is a file"):
        add_task(tmp_path / "file" / "below", FACTS, make_adapter(), {}, "")
    assert (tmp_path / "file").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", FileFormatError, r"^model file .*model.json is empty; it was not written to the end"),
        (b'{"format": "iqakit-mo', FileFormatError, r"^model file .*model.json is not valid JSON"),
        (b"[]", FileFormatError, r"^model file .*model.json is not of an iqakit model; choose another --model$"),
        (b'{"format": "keras"}', FileFormatError, "is not of an iqakit model"),
        (
            b'{"format": "iqakit-model", "format_version": 2, "x": 1}',
            NewerFormatError,
            r"is in format 2, and this iqakit reads up to format 1; upgrade iqakit to use it$",
        ),
        (b'{"format": "iqakit-model", "format_version": "1"}', FileFormatError, "format version '1', which is no number"),
        (b'{"format": "iqakit-model", "format_version": 0}', FileFormatError, "format 0, which this iqakit cannot upgrade"),
        (b'{"format": "iqakit-model", "format_version": 1}', FileFormatError, "damaged or was edited: backbone is missing"),
    ],
)
def test_broken_manifests(model: Path, make_adapter: Make, data: bytes, error: type[IqakitError], message: str) -> None:
    (model / "model.json").write_bytes(data)
    for act in (
        lambda: read_model(model),
        lambda: model_version(model),
        lambda: add_task(model, FACTS, make_adapter("x"), {}, ""),
    ):
        with pytest.raises(error, match=message) as caught:
            act()
        assert type(caught.value) is error
        assert "\n" not in str(caught.value)
    assert (model / "model.json").read_bytes() == data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["tasks"][0].update(file="/etc/passwd"), "the file name '/etc/passwd' leads out of the directory"),
        (lambda d: d["tasks"][0].update(file="../other/a"), "the file name '../other/a' leads out of the directory"),
        (lambda d: d["tasks"][0].update(file="a\\..\\b"), "leads out of the directory"),
        (lambda d: d["tasks"][0].update(file="C:a"), "leads out of the directory"),
        (lambda d: d["tasks"][0].update(file="."), "leads out of the directory"),
        (lambda d: d["combiner"].update(file="../c"), "leads out of the directory"),
        (lambda d: d["tasks"][0].update(file=3), "file is '3', which it cannot be"),
        (lambda d: d["tasks"][0].update(name="../x"), "cannot name a task"),
        (lambda d: d["tasks"][0].update(sha256="abc"), "'abc' is not a SHA-256"),
        (lambda d: d["tasks"][1].update(name="one"), "it names a task twice"),
        (lambda d: d["tasks"][1].update(file=d["tasks"][0]["file"]), "it names a file twice"),
        (lambda d: d["combiners"].append("kmeans"), "it names a combiner twice"),
        (lambda d: d.update(combiners="kmeans"), "combiners is not a list"),
        (lambda d: d.update(tasks=[]), "it lists no task"),
        (lambda d: d.update(extra=1), "extra is unknown"),
        (lambda d: d.update(backbone=None), "backbone is not an object"),
        (lambda d: d["backbone"].update(id=5), "backbone.id is '5', which it cannot be"),
        (lambda d: d["tasks"][1].pop("file"), r"tasks\[1\].file is missing"),
    ],
)
def test_edited_manifests(model: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    edit_manifest(model, change)
    with pytest.raises(
        FileFormatError, match=rf"model.json is damaged or was edited: .*{message}.*; fetch or fit it again$"
    ):
        read_model(model)


def test_older_manifests_are_upgraded(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read_manifest(model)

    def make_older(document: dict[str, Any]) -> None:
        document.update(format_version=0, domains=document.pop("tasks"))

    edit_manifest(model, make_older)

    def upgrade(document: dict[str, Any]) -> dict[str, Any]:
        return {**{k: v for k, v in document.items() if k != "domains"}, "tasks": document["domains"]}

    monkeypatch.setitem(model_manifest.UPGRADES, 0, upgrade)
    assert read_manifest(model) == expected
    assert read_model(model)[0].version != expected.version


def test_manifest_and_files_must_agree(model: Path) -> None:
    def swap(document: dict[str, Any]) -> None:
        one, two = document["tasks"]
        one["name"], two["name"] = two["name"], one["name"]

    edit_manifest(model, swap)
    with pytest.raises(FileFormatError, match=r"is of task 'one', but model.json lists 'three'; fetch or fit it again"):
        read_model(model)
    edit_manifest(model, swap)
    edit_manifest(model, lambda d: d["backbone"].update(fingerprint="cd" * 32))
    with pytest.raises(
        FileFormatError, match=r"^model.json of .* contradicts its adapters: .* \(abababab\), not on 'tiny' \(cdcd"
    ):
        read_model(model)
    edit_manifest(model, lambda d: d["backbone"].update(fingerprint="ab" * 32))
    edit_manifest(model, lambda d: d["combiners"].remove("kmeans"))
    with pytest.raises(FileFormatError, match=r"has a tensor 'kmeans/one/centroids' of no combiner in model.json"):
        read_model(model)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["combiner.safetensors", "shared.safetensors"])
def test_numbers_that_are_none_are_refused(model: Path, make_adapter: Make, name: str, bad: float) -> None:
    """Neither written nor read: with them every score would be none, or one that nobody can explain."""
    sound, broken = torch.ones(2, 3), torch.tensor([[1.0, bad, 1.0], [1.0, 1.0, 1.0]])
    states = {"kmeans": {**states_of("one", "three")["kmeans"], "x/centroids": broken if "comb" in name else sound}}
    shared = {"layer.weight": sound if "comb" in name else broken}
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    with pytest.raises(
        TrainingError, match=r": values are not finite in .*(x/centroids|layer\.weight); nothing was written"
    ):
        add_task(model, FACTS, make_adapter("x"), states, "", shared)
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before
    states["kmeans"]["x/centroids"], shared["layer.weight"] = sound, sound
    add_task(model, FACTS, make_adapter("x"), states, "", shared)
    file = model / name
    tensors = load_file(file)
    field = name.removesuffix(".safetensors")
    named = "kmeans/x/a\nb" if field == "combiner" else "a\nb"  # a file may hold any name; the message stays one line
    save_file({**tensors, named: torch.full((2,), bad)}, file)
    edit_manifest(model, lambda d: d[field].update(sha256=hashlib.sha256(file.read_bytes()).hexdigest()))
    with pytest.raises(
        FileFormatError, match=rf"^{field} file .* has values that are not finite in '.*a\\nb'; fetch or fit it again$"
    ):
        read_model(model)


@pytest.mark.parametrize("name", ["adapters/01-three.safetensors", "combiner.safetensors"])
def test_changed_and_missing_files(model: Path, make_adapter: Make, name: str) -> None:
    path = model / name
    whole = path.read_bytes()
    kept = hashlib.sha256(whole).hexdigest()[:8]
    if name.startswith("adapters"):
        write_adapter(make_adapter("three", seed=4), path)  # a sound file, but not this model's
        assert read_adapter(path).task == "three"
    else:
        path.write_bytes(whole[:-1] + b"\xff")
    found = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    for act in (lambda: read_model(model), lambda: add_task(model, FACTS, make_adapter("x"), {}, "")):
        with pytest.raises(FileFormatError) as caught:
            act()
        assert f"{path} has changed since it was written: its SHA-256 is {found}..., model.json says {kept}..." in str(
            caught.value
        )
        assert str(caught.value).endswith("restore that file, or fetch or fit the model again")
    path.unlink()
    with pytest.raises(StorageError, match=r"is missing, though model.json lists it; fetch or fit the model again$"):
        read_model(model)
    path.write_bytes(b"")
    with pytest.raises(FileFormatError, match="is empty"):
        read_model(model)
    assert len(list(model.glob("adapters/*"))) <= 2


def test_links_may_not_lead_out(model: Path, tmp_path: Path, make_adapter: Make) -> None:
    outside = tmp_path / "outside"
    shutil.move(model / "adapters", outside)
    (model / "adapters").symlink_to(outside)
    for act in (lambda: read_model(model), lambda: add_task(model, FACTS, make_adapter("x"), {}, "")):
        with pytest.raises(StorageError, match=r"leads out of the model's directory; a model must hold its own files"):
            act()
    assert len(list(outside.iterdir())) == 2
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / "adapters").symlink_to(outside)
    with pytest.raises(StorageError):
        add_task(fresh, FACTS, make_adapter("x"), {}, "")
    assert len(list(outside.iterdir())) == 2


def test_two_fits_into_one_directory(tmp_path: Path, make_adapter: Make) -> None:
    place = tmp_path / "model"
    message = r"^another iqakit is adding to .*model right now; wait until it is done or choose another --model$"
    with model_lock(place):
        with pytest.raises(StorageError, match=message):
            add_task(place, FACTS, make_adapter("a"), {}, "")
        add_task(place, FACTS, make_adapter("a"), {}, "", locked=True)
    add_task(place, FACTS, make_adapter("b"), {}, "")
    assert not (place / ".iqakit.lock").exists()


def test_a_killed_fit_leaves_no_lock(tmp_path: Path, make_adapter: Make) -> None:
    place = tmp_path / "model"
    code = (
        "import sys, time\nfrom iqakit.storage.directory_lock import locked_directory\n"
        "with locked_directory(sys.argv[1]):\n print('held', flush=True)\n time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        try:
            with pytest.raises(StorageError, match="another iqakit is adding"):
                add_task(place, FACTS, make_adapter("a"), {}, "")
        finally:
            child.kill()
    assert (place / ".iqakit.lock").exists()
    add_task(place, FACTS, make_adapter("a"), {}, "")
    assert [task.name for task in read_manifest(place).tasks] == ["a"]
