from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqakit.contracts import Preprocessing
from iqakit.errors import ConfigurationError
from iqakit.imaging import batching
from iqakit.imaging.batching import Failed, MemoryGate, Prepared, prepare_source, stream

PRE = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def picture(seed: int, height: int = 40, width: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def decoders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("iqakit-decode")]


@pytest.fixture
def folder(tmp_path: Path) -> list[Path]:
    paths = []
    for index in range(12):
        path = tmp_path / f"{index}.png"
        if index == 5:
            path.write_bytes(b"no image")
        else:
            Image.fromarray(picture(index, 40 + 13 * (index % 4), 50)).save(path)
        paths.append(path)
    return paths


def test_order_failures_and_values_do_not_depend_on_workers(folder: list[Path]) -> None:
    plain = list(stream(folder, PRE, workers=0))
    assert [item.source for item in plain] == folder
    failed = plain[5]
    assert isinstance(failed, Failed)
    assert str(failed.error).startswith(f"{folder[5]} is not an image that can be read")
    for workers, ahead in ((1, None), (3, None), (2, 1), (2, 50)):
        for left, right in zip(plain, stream(folder, PRE, workers=workers, ahead=ahead), strict=True):
            assert left.source == right.source
            if isinstance(left, Prepared):
                assert isinstance(right, Prepared)
                np.testing.assert_array_equal(left.image, right.image)
                assert (left.width, left.height, left.warnings) == (right.width, right.height, right.warnings)
            else:
                assert isinstance(right, Failed)
    assert not decoders()


@pytest.mark.parametrize("workers", [0, 2])
def test_sources_are_taken_as_needed(workers: int) -> None:
    taken = itertools.count()
    seen = []

    def endless() -> Iterator[np.ndarray]:
        for index in taken:
            seen.append(index)
            yield picture(index)

    items = stream(endless(), PRE, workers=workers, ahead=3)
    for expected in range(10):
        item = next(items)
        assert isinstance(item, Prepared)
        assert np.array_equal(item.source, picture(expected))
        assert len(seen) <= expected + 1 + 3
    items.close()
    assert not decoders()


def test_an_error_of_the_source_reaches_the_caller_and_threads_end() -> None:
    def broken() -> Iterator[np.ndarray]:
        yield picture(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(stream(broken(), PRE, workers=2, ahead=5))
    assert not decoders()


def test_waiting_images_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    one = 40 * 50 * 3 * 4
    monkeypatch.setattr(batching, "WAITING_BYTES", 3 * one)
    taken = []

    def sources() -> Iterator[np.ndarray]:
        for index in range(60):
            taken.append(index)
            time.sleep(0.002)  # the pool keeps up, so that images wait
            yield picture(index)

    items = stream(sources(), PRE, workers=2, ahead=50)
    next(items)
    assert len(taken) < 20
    assert len(list(items)) == 59


def test_gate_bounds_what_is_taken_together_and_lets_a_giant_pass_alone() -> None:
    gate = MemoryGate(100)
    now, most, lock = [0], [0], threading.Lock()

    def work(size: int) -> None:
        gate.take(size)
        with lock:
            now[0] += size
            most[0] = max(most[0], now[0])
        time.sleep(0.002)
        with lock:
            now[0] -= size
        gate.give(size)

    threads = [threading.Thread(target=work, args=(size,)) for size in [40] * 12 + [100]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert now[0] == 0
    assert 40 <= most[0] <= 100
    gate.take(1000)
    gate.give(1000)


def test_large_files_pass_a_small_gate(folder: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "DECODING_BYTES", 10)
    assert len(list(stream(folder, PRE, workers=3))) == len(folder)


def test_warnings_of_both_steps_and_the_size_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path / "a.png"
    Image.fromarray(picture(0, 20, 90)).save(path, exif=exif)
    item = prepare_source(path, PRE)
    assert isinstance(item, Prepared)
    assert (item.width, item.height) == (20, 90)
    assert item.warnings == ("exif-rotated", "upscaled")
    assert item.image.shape == (3, 144, 32)


def test_limits_are_passed_on_and_checked() -> None:
    (item,) = stream([picture(0)], PRE, workers=0, max_pixels=10)
    assert isinstance(item, Failed)
    assert "more than the limit of 10" in str(item.error)
    for options, said in (
        ({"workers": -1}, "workers is -1; it must be 0 or more"),
        ({"workers": 2, "ahead": 0}, "ahead is 0; it must be at least 1"),
        ({"workers": 0, "max_pixels": 0}, "max_pixels is 0"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            stream([], PRE, **options)  # type: ignore[arg-type]
