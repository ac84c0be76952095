from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from iqakit.contracts import Checkpoint
from iqakit.errors import ConfigurationError, StorageError
from iqakit.storage.checkpoint import FileCheckpoint


def saved(tmp_path: Path) -> FileCheckpoint:
    checkpoint = FileCheckpoint(tmp_path / "deep" / "work", "key-1")
    generator = torch.Generator().manual_seed(3)
    checkpoint.save(
        {"weight": torch.arange(4.0), "generator": generator.get_state(), "steps": torch.tensor(7)},
        {"epoch": 2, "best": 0.5, "history": [{"loss": 1.5}]},
    )
    return checkpoint


def test_state_comes_back_in_another_run(tmp_path: Path) -> None:
    saved(tmp_path)
    checkpoint: Checkpoint = FileCheckpoint(tmp_path / "deep" / "work", "key-1")
    loaded = checkpoint.load()
    assert loaded is not None
    tensors, state = loaded
    assert state == {"epoch": 2, "best": 0.5, "history": [{"loss": 1.5}]}
    assert tensors["weight"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert tensors["steps"].item() == 7
    again = torch.Generator()
    again.set_state(tensors["generator"])
    expected = torch.rand(3, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.rand(3, generator=again), expected)


def test_nothing_to_go_on_from(tmp_path: Path) -> None:
    checkpoint = FileCheckpoint(tmp_path / "none", "key-1")
    assert checkpoint.load() is None
    assert checkpoint.problem is None
    checkpoint.clear()
    assert not (tmp_path / "none").exists()


def test_replaces_and_clears(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path)
    checkpoint.save({}, {"epoch": 3})
    assert checkpoint.load() == ({}, {"epoch": 3})
    assert [entry.name for entry in checkpoint.path.parent.iterdir()] == ["checkpoint.safetensors"]
    checkpoint.clear()
    assert checkpoint.load() is None
    assert not checkpoint.path.parent.exists()
    assert tmp_path.exists()


def test_clearing_keeps_what_else_is_there(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path)
    (checkpoint.path.parent / "features.safetensors").write_bytes(b"x")
    checkpoint.clear()
    assert [entry.name for entry in checkpoint.path.parent.iterdir()] == ["features.safetensors"]


def test_other_settings_make_it_stale(tmp_path: Path) -> None:
    saved(tmp_path)
    other = FileCheckpoint(tmp_path / "deep" / "work", "key-2")
    assert other.load() is None
    assert other.problem == f"checkpoint {other.path} belongs to other settings or data; starting from the beginning"
    other.save({}, {})
    assert other.load() == ({}, {})
    assert other.problem is None


def test_a_cut_checkpoint_is_set_aside(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path)
    whole = checkpoint.path.read_bytes()
    for length in range(0, len(whole), 37):
        checkpoint.path.write_bytes(whole[:length])
        assert checkpoint.load() is None
        assert checkpoint.problem is not None
        assert "\n" not in checkpoint.problem
    checkpoint.path.write_bytes(whole)
    assert checkpoint.load() is not None


def test_a_damaged_checkpoint_is_set_aside(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path)
    whole = checkpoint.path.read_bytes()
    for data, problem in (
        (whole[:-1] + b"\xff", "is damaged: its checksum is wrong; starting from the beginning"),
        (whole.replace(b'\\"epoch\\":2', b'\\"epoch\\":9'), "is damaged: its checksum is wrong"),
        (whole.replace(b"iqakit-checkpoint", b"iqakit-checkpeint"), "was not written by iqakit"),
        (whole.replace(b'format_version\\":1', b'format_version\\":2'), "was written by another iqakit version"),
    ):
        assert data != whole
        checkpoint.path.write_bytes(data)
        assert checkpoint.load() is None
        assert problem in str(checkpoint.problem)
    checkpoint.path.unlink()
    checkpoint.path.mkdir()
    assert checkpoint.load() is None
    assert "is a directory" in str(checkpoint.problem)
    with pytest.raises(StorageError, match=r"could not remove checkpoint .*; remove it by hand"):
        checkpoint.clear()


def test_bad_state_and_bad_places(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path)
    before = checkpoint.path.read_bytes()
    with pytest.raises(ConfigurationError, match="nan is not a finite number"):
        checkpoint.save({}, {"best": float("nan")})
    assert checkpoint.path.read_bytes() == before
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=f"could not write checkpoint .*{os.strerror(17)}|Not a directory"):
        FileCheckpoint(tmp_path / "file", "k").save({}, {})
