from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file

from iqakit.backbones.tiny_backbone import create_tiny
from iqakit.contracts import Adapter, Calibration
from iqakit.errors import (
    ConfigurationError,
    FileFormatError,
    MismatchError,
    NewerFormatError,
    StorageError,
    TrainingError,
)
from iqakit.functional.heads import head_input_dim
from iqakit.storage import adapter_file
from iqakit.storage.adapter_file import adapter_bytes, check_task_name, parse_adapter, read_adapter, write_adapter
from iqakit.storage.adapter_record import upgrade_from_1
from iqakit.storage.canonical_json import canonical_json
from iqakit.storage.fingerprints import fingerprint_tensors

Make = Callable[..., Adapter]
Content = Callable[[Adapter], tuple[Any, ...]]


def open_file(data: bytes) -> tuple[dict[str, Any], dict[str, Any], dict[str, torch.Tensor]]:
    """The header, the record and the tensors, read by hand from the published layout of safetensors."""
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    record = json.loads(header.pop("__metadata__")["iqakit"])
    tensors = {}
    kinds = {"F32": torch.float32, "I64": torch.int64}
    for name, entry in header.items():
        start, stop = (8 + size + offset for offset in entry["data_offsets"])
        flat = torch.frombuffer(bytearray(data[start:stop]), dtype=kinds[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    return header, record, tensors


def sealed(record: dict[str, Any], tensors: dict[str, torch.Tensor]) -> bytes:
    """A file of any record with a checksum that is right: what a skilled hand could make."""
    record = {key: value for key, value in record.items() if key != "checksum"}
    text = f"{canonical_json(record)}\n{fingerprint_tensors(tensors)}"
    return save(tensors, {"iqakit": canonical_json({**record, "checksum": hashlib.sha256(text.encode()).hexdigest()})})


def test_round_trip(tmp_path: Path, make_adapter: Make, content: Content) -> None:
    for changes in (
        {},
        {"calibration": None},
        {"head_kind": "cosine", "head_bias": None, "features": "all-stages"},
        {"tensors": {}},
    ):
        adapter = make_adapter(**changes)
        path = tmp_path / "a.safetensors"
        digest = write_adapter(adapter, path)
        assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
        assert content(read_adapter(path)) == content(adapter)


def test_the_layout_is_the_documented_one(make_adapter: Make) -> None:
    header, record, tensors = open_file(adapter_bytes(make_adapter()))
    assert set(header) == {"backbone/bn.weight", "backbone/bn.bias", "backbone/bn.running_mean", "head/weight", "head/bias"}
    assert set(record) == {
        "format", "format_version", "task", "method", "backbone", "head", "preprocessing", "calibration", "config",
        "provenance", "checksum",
    }  # fmt: skip
    assert (record["format"], record["format_version"]) == ("iqakit-adapter", 2)
    assert record["backbone"] == {"id": "tiny", "fingerprint": "ab" * 32}
    assert record["head"] == {"kind": "linear", "features": "embedding"}
    assert torch.equal(tensors["backbone/bn.weight"], make_adapter().tensors["bn.weight"])


def test_equal_content_gives_equal_bytes(make_adapter: Make) -> None:
    weight = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    plain = make_adapter(tensors={"a": weight, "b": torch.ones(2)}, config={"x": 1, "y": {"p": 1, "q": 2}})
    shared = torch.cat([torch.zeros(7), torch.ones(2)])
    other = make_adapter(
        tensors={"b": shared[7:].requires_grad_(), "a": weight.to(memory_format=torch.channels_last)},
        config={"y": {"q": 2, "p": 1}, "x": 1},
        head_weight=plain.head_weight.t().contiguous().t(),
    )
    assert adapter_bytes(other) == adapter_bytes(plain)
    same = torch.ones(2)
    assert adapter_bytes(make_adapter(tensors={"a": same, "b": same}))  # two names of one memory
    whole = make_adapter(calibration=Calibration(0, 100, 1, 2, 3))  # type: ignore[arg-type]
    assert adapter_bytes(whole) == adapter_bytes(make_adapter(calibration=Calibration(0.0, 100.0, 1.0, 2.0, 3.0)))


def test_equal_bytes_from_any_process(make_adapter: Make) -> None:
    here = Path(__file__).parent / "conftest.py"
    code = (
        "import hashlib, runpy; from iqakit.storage.adapter_file import adapter_bytes\n"
        f"make = runpy.run_path({str(here)!r})['build_adapter']\n"
        "print(hashlib.sha256(adapter_bytes(make(config={k: 1 for k in {'a', 'b', 'c', 'd'}}))).hexdigest())"
    )
    expected = hashlib.sha256(adapter_bytes(make_adapter(config=dict.fromkeys("dcba", 1)))).hexdigest()
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},  # this process has another
    )
    assert done.stdout.strip() == expected


def test_counters_are_left_out_and_whole_numbers_kept(make_adapter: Make) -> None:
    index = torch.arange(3)
    counted = make_adapter(tensors={"bn.num_batches_tracked": torch.tensor(5), "index": index})
    assert adapter_bytes(counted) == adapter_bytes(make_adapter(tensors={"index": index}))
    assert parse_adapter(adapter_bytes(counted), "x").tensors["index"].dtype == torch.int64


@pytest.mark.parametrize("name", ["a", "koniq10k", "my-camera_2.1", "-x", "x" * 64])
def test_good_task_names(name: str) -> None:
    assert check_task_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "../x", "a/b", "a\\b", "C:", "a b", "ü", "x" * 65, "a\n", "\0", "/etc/passwd", None]
)
def test_bad_task_names(name: str, make_adapter: Make) -> None:
    message = "cannot name a task; use 1 to 64 letters, digits, dots, dashes and underscores, and no dot in front"
    with pytest.raises(ConfigurationError, match=message):
        check_task_name(name)
    with pytest.raises(ConfigurationError, match=message):
        adapter_bytes(make_adapter(task=name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tensors": {"a": torch.ones(2, dtype=torch.float64)}},
            r"tensor 'backbone/a' is torch.float64; it must be float32",
        ),
        ({"tensors": {"a": torch.ones(2, dtype=torch.bool)}}, "torch.bool; it must be float32"),
        ({"head_weight": torch.ones(6)}, r"'head/weight' is \(6,\); it must be \(1, D\)"),
        ({"head_bias": None}, "'head/bias' is missing, and a linear head has one"),
        ({"head_kind": "cosine"}, "'head/bias' is there, but a cosine head has none"),
        ({"head_bias": torch.ones(2)}, r"'head/bias' is \(2,\); it must be \(1,\)"),
        ({"head_kind": "mlp"}, "head.kind is 'mlp', which it cannot be"),
        ({"features": "all"}, "head.features is 'all', which it cannot be"),
        ({"method": ""}, "method is '', which it cannot be"),
        ({"calibration": Calibration(50, 40, 0, 1, 0)}, "runs from 50.0 to 40.0, which is not rising within 0-100"),
        ({"calibration": Calibration(0, 100, 0, 0, 0)}, "calibration.width is '0.0', which it cannot be"),
        (
            {"config": {"a": {1, 2}}},
            r"the adapter of task 'gallery'\['config'\]\['a'\] cannot be written as JSON: it is a set",
        ),
    ],
)
def test_what_cannot_be_stored_is_refused(
    make_adapter: Make, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        write_adapter(make_adapter(**changes), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_values_that_are_not_finite_are_refused(make_adapter: Make) -> None:
    broken = make_adapter(tensors={"a": torch.tensor([1.0, float("nan")])})
    with pytest.raises(
        TrainingError, match=r"task 'gallery' has values that are not finite in backbone/a; nothing was written"
    ):
        adapter_bytes(broken)
    _, record, tensors = open_file(adapter_bytes(make_adapter()))
    tensors["head/bias"] = torch.tensor([float("inf")])
    with pytest.raises(FileFormatError, match=r"^x has values that are not finite in head/bias; make or fetch it again$"):
        parse_adapter(sealed(record, tensors), "x")


def header_of(claimed: int, text: bytes, rest: bytes = b"") -> bytes:
    return struct.pack("<Q", claimed) + text + rest


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x01\x02\x03", r"is truncated: it ends within its header after 3 bytes; make or fetch it again$"),
        (header_of(2**62, b'{"a":1}'), "is truncated: it ends within its header"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "is not a safetensors file; give one that iqakit wrote$"),
        (header_of(20 * 2**20, b"{", bytes(20 * 2**20)), r"has a header of 20971520 bytes, more than the 16777216 allowed"),
        (header_of(9, b'{"a": nul}'), r"the header of adapter file .* is not valid JSON"),
        (header_of(13, b'{"a":1,"a":2}'), "the key 'a' stands twice"),
        (header_of(4, b'{"a":1}'), "is not valid JSON"),
        (header_of(7, b'{"a":1}'), "the header's entry for 'a' is malformed"),
        (save({"a": torch.ones(2)}) + b"xx", "2 bytes at its end belong to nothing"),
        (save({"a": torch.ones(2)}), "is a safetensors file, but not an iqakit adapter; give one made by `iqakit fit`"),
        (save({"a": torch.ones(2)}, {"format": "pt"}), "is a safetensors file, but not an iqakit adapter"),
        (save({"a": torch.ones(2)}, {"iqakit": '{"format":"iqakit-model"}'}), "but not an iqakit adapter"),
        (save({"a": torch.ones(2)}, {"iqakit": '{"format":'}), "the iqakit record in adapter file .* is not valid JSON"),
        (save({"a": torch.ones(2)}, {"iqakit": "[]"}), "its iqakit record is not a JSON object"),
        (save({"a": torch.ones(2, dtype=torch.complex64)}), "has the type 'C64', which is not stored here"),
    ],
)
def test_files_that_are_no_adapters(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=message) as caught:
        read_adapter(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "the offsets of 'a' do not fit its shape"),
        ({"a": {"dtype": "F32", "shape": [0, 2**50], "data_offsets": [0, 0]}}, "tensor 'a' claims an impossible size"),
        (
            {"a": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}},
            r"truncated: it holds 8 of 1099511627776 bytes",
        ),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, "shape or offsets of 'a' are malformed"),
        ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, "shape or offsets of 'a' are malformed"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "its tensors overlap or leave gaps"),
        ({"a": {"dtype": 3, "shape": [1], "data_offsets": [0, 4]}}, "has the type '3', which is not stored here"),
        ({"a": {"dtype": "F32", "shape": [1]}}, "entry for 'a' is malformed"),
        ({"__metadata__": {"iqakit": 3}}, "its metadata is not text"),
    ],
)
def test_headers_that_lie(entries: dict[str, Any], message: str) -> None:
    text = json.dumps(entries).encode()
    with pytest.raises(FileFormatError, match=message):
        parse_adapter(header_of(len(text), text, bytes(8)), "x")


def test_missing_empty_and_truncated(tmp_path: Path, make_adapter: Make) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(StorageError, match=r"^adapter file .* does not exist; check the path$"):
        read_adapter(path)
    path.write_bytes(b"")
    with pytest.raises(FileFormatError, match=r"^adapter file .* is empty;"):
        read_adapter(path)
    data = adapter_bytes(make_adapter())
    path.write_bytes(data[:-10])
    held = sum(t.numel() * 4 for t in open_file(data)[2].values())
    with pytest.raises(
        FileFormatError, match=rf"is truncated: it holds {held - 10} of {held} bytes of tensors; make or fetch"
    ):
        read_adapter(path)


def test_an_edited_record_is_noticed(make_adapter: Make) -> None:
    data = adapter_bytes(make_adapter())
    edited = data.replace(b"0.485", b"0.585")
    assert edited != data
    with pytest.raises(
        FileFormatError, match=r"^x has changed since it was written: its checksum is wrong; make or fetch it again$"
    ):
        parse_adapter(edited, "x")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("task", "../x", "'../x' cannot name a task"),
        ("task", 3, "task is '3', which it cannot be"),
        ("backbone", None, "backbone is 'None', which it cannot be"),
        ("backbone", [], r"backbone is '\[\]', which it cannot be"),
        ("head", {}, "head.features is missing"),
        ("backbone.id", 1, "backbone.id is '1', which it cannot be"),
        ("preprocessing.mean", [0.1, 0.2], r"preprocessing.mean is '\[0.1, 0.2\]', which it cannot be"),
        ("preprocessing.std", [0.1, 0.2, 0.0], "preprocessing.std is"),
        ("preprocessing.interpolation", "nearest", "preprocessing.interpolation is 'nearest'"),
        ("preprocessing.shorter_side", True, "preprocessing.shorter_side is 'True'"),
        ("preprocessing.max_pixels", 0, "preprocessing.max_pixels is '0'"),
        ("preprocessing.multiple", "remove", "preprocessing.multiple is missing"),
        ("preprocessing.gamma", 2.2, "preprocessing.gamma is unknown"),
        ("calibration.low", 10**400, "calibration.low is '1000"),
        ("config", [], r"config is '\[\]', which it cannot be"),
        ("provenance", "remove", "provenance is missing"),
        ("made", "today", "made is unknown"),
    ],
)
def test_every_field_is_checked(make_adapter: Make, place: str, value: Any, message: str) -> None:
    _, record, tensors = open_file(adapter_bytes(make_adapter()))
    *outer, last = place.split(".")
    inner = record[outer[0]] if outer else record
    if value == "remove":
        del inner[last]
    else:
        inner[last] = value
    with pytest.raises(FileFormatError, match=f"^x is not a valid iqakit adapter: {message}"):
        parse_adapter(sealed(record, tensors), "x")


def test_every_tensor_is_checked(make_adapter: Make) -> None:
    _, record, tensors = open_file(adapter_bytes(make_adapter()))
    for extra, message in (
        ({"head/scale": torch.ones(1)}, "tensor 'head/scale' is unknown"),
        ({"backbone/": torch.ones(1)}, "tensor 'backbone/' is unknown"),
        ({"backbone/bn.num_batches_tracked": torch.tensor(1)}, "is a counter, which is not stored"),
        ({"head/weight": torch.ones(1, 6, dtype=torch.float16)}, "'head/weight' is torch.float16; it must be float32"),
    ):
        with pytest.raises(FileFormatError, match=message):
            parse_adapter(sealed(record, {**tensors, **extra}), "x")
    del tensors["head/weight"]
    with pytest.raises(FileFormatError, match="tensor 'head/weight' is missing"):
        parse_adapter(sealed(record, tensors), "x")


def test_numbers_that_are_whole_but_odd_are_refused(make_adapter: Make) -> None:
    odd = make_adapter(tensors={"a": torch.ones(2, dtype=torch.uint16)})
    with pytest.raises(ConfigurationError, match=r"cannot be stored: tensor 'backbone/a' is torch.uint16, .*; use float32"):
        adapter_bytes(odd)


def test_versions(make_adapter: Make, content: Content, monkeypatch: pytest.MonkeyPatch) -> None:
    _, record, tensors = open_file(adapter_bytes(make_adapter()))
    with pytest.raises(
        NewerFormatError, match=r"^x is in format 7, and this iqakit reads up to format 2; upgrade iqakit to use it$"
    ):
        parse_adapter(save(tensors, {"iqakit": canonical_json({**record, "format_version": 7, "new": 1})}), "x")
    for odd in ("1", True, -1, None, 1.0):
        with pytest.raises(FileFormatError, match="which is no number"):
            parse_adapter(sealed({**record, "format_version": odd}, tensors), "x")
    curve = {name: record["calibration"][name] for name in ("low", "high", "centre", "width", "residual")}
    older = {**record, "format_version": 0, "calibration": curve}
    older["algorithm"] = older.pop("method")
    data = sealed(older, tensors)
    with pytest.raises(
        FileFormatError, match=r"^x is in format 0, which this iqakit cannot upgrade; make or fetch it again$"
    ):
        parse_adapter(data, "x")

    def rename(document: dict[str, Any], held: dict[str, torch.Tensor]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        return {**{k: v for k, v in document.items() if k != "algorithm"}, "method": document["algorithm"]}, held

    monkeypatch.setitem(adapter_file.UPGRADES, 0, rename)
    assert content(parse_adapter(data, "x")) == content(make_adapter())


def test_an_older_reader_refuses_the_format_of_today(make_adapter: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    data = adapter_bytes(make_adapter())
    monkeypatch.setattr(adapter_file, "FORMAT_VERSION", 1)
    with pytest.raises(
        NewerFormatError, match=r"^x is in format 2, and this iqakit reads up to format 1; upgrade iqakit to use it$"
    ):
        parse_adapter(data, "x")


def test_format_1_is_upgraded(make_adapter: Make, content: Content) -> None:
    _, record, tensors = open_file(adapter_bytes(make_adapter()))
    first = {**record, "format_version": 1}
    first["calibration"] = {name: record["calibration"][name] for name in ("low", "high", "centre", "width", "residual")}
    kept = json.dumps(first)
    assert content(parse_adapter(sealed(first, tensors), "x")) == content(make_adapter())
    upgraded, same = upgrade_from_1(first, tensors)
    assert json.dumps(first) == kept  # pure
    assert same is tensors
    assert upgraded["calibration"] == record["calibration"]
    bare = {**first, "calibration": None}
    assert upgrade_from_1(bare, tensors) == (bare, tensors)
    for wrong, message in (
        ({**first["calibration"], "kind": "isotonic"}, "calibration.kind is unknown in format 1"),
        ([], r"calibration is '\[\]', which it cannot be"),
    ):
        with pytest.raises(FileFormatError, match=f"^x is not a valid iqakit adapter: {message}"):
            parse_adapter(sealed({**first, "calibration": wrong}, tensors), "x")


def test_an_isotonic_calibration_comes_back(make_adapter: Make, content: Content) -> None:
    knots = ((-0.25, 10.0), (0.1, 35.5), (1 / 3, 90.0))
    curve = Calibration(10.0, 90.0, 0.0, 0.5, 7.5, "isotonic", knots, 1e-4, "bounded")
    adapter = make_adapter(calibration=curve)
    assert content(parse_adapter(adapter_bytes(adapter), "x")) == content(adapter)
    _, record, _ = open_file(adapter_bytes(adapter))
    assert record["calibration"] == {
        "kind": "isotonic", "low": 10.0, "high": 90.0, "centre": 0.0, "width": 0.5, "residual": 7.5, "tilt": 1e-4,
        "knots": [[-0.25, 10.0], [0.1, 35.5], [1 / 3, 90.0]], "residual_kind": "bounded",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"knots": ((0.0, 10.0), (0.0, 90.0))}, "an isotonic calibration needs at least 2 knots, rising in both"),
        ({"knots": ((0.0, 10.0),)}, "found 1 knots, low 10.0, high 90.0"),
        ({"knots": ((0.0, 10.0), (1.0, 80.0))}, "rising in both, from low to high"),
        ({"tilt": 0.0}, "an isotonic calibration needs a tilt above 0"),
        ({"tilt": 1.0}, "calibration.tilt is '1.0', which it cannot be"),
        ({"kind": "logistic"}, "a logistic calibration has no knots; found 2"),
        ({"kind": "spline"}, "calibration.kind is 'spline', which it cannot be"),
        ({"residual_kind": "wide"}, "calibration.residual_kind is 'wide', which it cannot be"),
        ({"knots": ((0.0, 10.0), (float("nan"), 90.0))}, "calibration.knots is"),
    ],
)
def test_calibrations_that_are_none(changes: dict[str, Any], message: str, make_adapter: Make) -> None:
    good = Calibration(10.0, 90.0, 0.0, 0.5, 7.5, "isotonic", ((0.0, 10.0), (1.0, 90.0)), 1e-4)
    assert adapter_bytes(make_adapter(calibration=good))
    with pytest.raises(ConfigurationError, match=f"the adapter of task 'gallery' cannot be stored: .*{message}"):
        adapter_bytes(make_adapter(calibration=dataclasses.replace(good, **changes)))


def test_against_a_backbone(tmp_path: Path, make_adapter: Make) -> None:
    backbone = create_tiny("tiny", "random:0")
    own = dict(backbone.module.named_parameters()) | dict(backbone.module.named_buffers())
    tensors = {name: own[name].detach().clone() for name in backbone.norm_tensor_names()}
    fits = make_adapter(
        backbone_fingerprint=backbone.fingerprint(),
        tensors=tensors,
        head_weight=torch.ones(1, backbone.embedding_dim),
    )
    path = tmp_path / "a.safetensors"
    write_adapter(fits, path)
    kept = {name for name in tensors if not name.endswith("num_batches_tracked")}
    assert set(read_adapter(path, backbone).tensors) == kept

    other = create_tiny("tiny", "random:1")
    with pytest.raises(MismatchError) as caught:
        read_adapter(path, other)
    assert str(caught.value) == (
        f"adapter file {path} belongs on backbone 'tiny' ({backbone.fingerprint()[:8]}), but was given "
        f"{other.id!r} ({other.fingerprint()[:8]}); use the backbone and weights that it was made with"
    )

    first, second = sorted(kept)[:2]
    wrong = {**tensors, first: torch.ones(1, 99), second: torch.ones(own[second].shape, dtype=torch.int64)}
    wrong |= {f"zz.{index}": torch.ones(1) for index in range(6)}
    write_adapter(dataclasses.replace(fits, tensors=wrong), path)
    with pytest.raises(MismatchError) as caught:
        read_adapter(path, backbone)
    text = str(caught.value)
    assert f"{first} is (1, 99), the backbone's {tuple(own[first].shape)}" in text
    assert f"{second} is torch.int64, the backbone's torch.float32" in text
    assert "zz.2 is not in the backbone; and 3 more; fit it again" in text
    assert "zz.3" not in text

    width = head_input_dim("all-stages", backbone.embedding_dim, backbone.stage_dims)
    write_adapter(dataclasses.replace(fits, features="all-stages"), path)
    with pytest.raises(
        MismatchError, match=rf"head for {backbone.embedding_dim} features, but 'all-stages' .* gives {width}"
    ):
        read_adapter(path, backbone)
    write_adapter(dataclasses.replace(fits, features="all-stages", head_weight=torch.ones(1, width)), path)
    assert read_adapter(path, backbone).head_weight.shape == (1, width)


def test_reads_nothing_foreign_as_code(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    torch.save({"a": torch.ones(2)}, path)
    with pytest.raises(FileFormatError, match="is not a safetensors file"):
        read_adapter(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(FileFormatError, match="not an iqakit adapter"):
        read_adapter(path)
