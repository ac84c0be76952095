"""A crash at any point of adding a task leaves a model that is whole: the earlier one or the new one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from iqakit.contracts import Adapter
from iqakit.errors import StorageError
from iqakit.storage import model_directory
from iqakit.storage.model_directory import BackboneFacts, add_task, holds_model, read_manifest, read_model

Make = Callable[..., Adapter]
FACTS = BackboneFacts("tiny", "random:0", "ab" * 32)
TASKS = ("a", "b", "c")


class CrashError(Exception):
    """The power went."""


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """The crashes here are errors, not power cuts; waiting for the disk would only take time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def add(place: Path, make_adapter: Make, index: int) -> None:
    tasks = TASKS[: index + 1]
    states = {"kmeans": {f"{task}/centroids": torch.full((2,), float(ord(task))) for task in tasks}}
    add_task(
        place, FACTS, make_adapter(TASKS[index], seed=index), states, f"# {index}", {"conv": torch.full((3,), index * 1.0)}
    )


def seen(place: Path, content: Callable[[Adapter], Any]) -> Any:
    manifest, adapters, states, shared = read_model(place)
    assert shared is not None
    return (
        manifest,
        [content(adapter) for adapter in adapters],
        {name: tensor.tolist() for name, tensor in states["kmeans"].items()},
        {name: tensor.tolist() for name, tensor in shared.items()},
    )


def crash_at(monkeypatch: pytest.MonkeyPatch, step: int, after: bool) -> None:
    """Let every change to the disk through up to number ``step``; crash just before that one, or just after it."""
    done = iter(range(1000))

    def guarded(act: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            last = next(done) == step
            if last and not after:
                raise CrashError
            result = act(*args, **options)
            if last:
                raise CrashError
            return result

        return run

    for name in ("write_bytes_atomic", "_remove", "_make_directory"):
        monkeypatch.setattr(model_directory, name, guarded(getattr(model_directory, name)))


def crashes() -> Iterator[tuple[int, bool]]:
    return ((step, after) for step in range(30) for after in (False, True))


@pytest.mark.parametrize("earlier", [0, 1])
def test_a_crash_at_any_step(
    earlier: int, tmp_path: Path, make_adapter: Make, content: Callable[[Adapter], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = tmp_path / "finished"
    for index in range(earlier + 1):
        add(finished, make_adapter, index)
        if index == earlier - 1:
            shutil.copytree(finished, tmp_path / "before")
    new = seen(finished, content)
    old = seen(tmp_path / "before", content) if earlier else None
    outcomes = []
    for step, after in crashes():
        place = tmp_path / f"crash-{step}-{after}"
        if earlier:
            shutil.copytree(tmp_path / "before", place)
        with monkeypatch.context() as patch:
            crash_at(patch, step, after)
            try:
                add(place, make_adapter, earlier)
            except CrashError:
                pass
            else:
                assert step >= 5
                break  # there are no more steps to crash at
        if earlier or holds_model(place):
            outcomes.append(seen(place, content))
            assert outcomes[-1] in (old, new)
        else:
            with pytest.raises(StorageError, match=r"no model\.json"):
                read_model(place)
        check_resumed(place, make_adapter, earlier, new, content, monkeypatch)
    else:
        pytest.fail("it never ran to its end")
    assert new in outcomes
    assert not earlier or old in outcomes


def check_resumed(
    place: Path,
    make_adapter: Make,
    earlier: int,
    new: Any,
    content: Callable[[Adapter], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Going on after the crash gives the model that there would have been, even if the second try crashes as well."""
    if not holds_model(place) or len(read_manifest(place).tasks) == earlier:
        old = seen(place, content) if earlier else None
        with monkeypatch.context() as patch:
            crash_at(patch, 4, after=True)
            with pytest.raises(CrashError):
                add(place, make_adapter, earlier)
        if earlier:
            assert seen(place, content) == old
        add(place, make_adapter, earlier)
    assert seen(place, content) == new
    add(place, make_adapter, earlier + 1)
    assert [task.name for task in read_manifest(place).tasks] == list(TASKS[: earlier + 2])
    assert not list(place.rglob(".*"))


def test_another_task_after_a_crash(tmp_path: Path, make_adapter: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, make_adapter, 0)
    with monkeypatch.context() as patch:
        crash_at(patch, 4, after=True)
        with pytest.raises(CrashError):
            add(tmp_path, make_adapter, 1)
    states = read_model(tmp_path)[2]
    states["kmeans"]["z/centroids"] = torch.zeros(2)
    add_task(tmp_path, FACTS, make_adapter("z"), states, "")
    manifest, _, states, shared = read_model(tmp_path)
    assert [task.name for task in manifest.tasks] == ["a", "z"]
    assert sorted(path.name for path in tmp_path.glob("adapters/*")) == ["00-a.safetensors", "01-z.safetensors"]
    assert set(states["kmeans"]) == {"a/centroids", "z/centroids"}
    assert shared is not None
    assert shared["conv"].tolist() == [0.0, 0.0, 0.0]


def test_a_reader_meets_a_writer(tmp_path: Path, make_adapter: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files change between the reading of model.json and of the rest: the reader takes the newer model."""
    add(tmp_path, make_adapter, 0)
    real = model_directory._read_files
    calls = []

    def late(place: Path, manifest: Any) -> Any:
        if not calls:
            calls.append(1)
            add(tmp_path, make_adapter, 1)
        return real(place, manifest)

    monkeypatch.setattr(model_directory, "_read_files", late)
    manifest, adapters, _, _ = read_model(tmp_path)
    assert [task.name for task in manifest.tasks] == [adapter.task for adapter in adapters] == ["a", "b"]
