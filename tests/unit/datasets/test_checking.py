from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from iqakit.contracts import Sample, TaskFacts
from iqakit.datasets.checking import _count_bits, check_dataset, difference_hash
from iqakit.datasets.image_table import ImageTable
from iqakit.datasets.practice import open_practice
from iqakit.datasets.sources import open_source
from iqakit.functional.degradations import gaussian_blur, gaussian_noise, mean_shift
from iqakit.imaging.codecs import jpeg


def picture(seed: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Random soft blotches: unlike any other seed's, at any size."""
    coarse = np.random.default_rng(seed).random((3, 6, 7))
    tensor = torch.nn.functional.interpolate(torch.from_numpy(coarse)[None], (height, width), mode="bicubic")[0]
    return (tensor.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


class Steps:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.total, self.done = 0, 0

    def start(self, what: str, total: int) -> None:
        assert what == "checking t"
        self.total = total

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done += steps

    def message(self, text: str) -> None:
        raise AssertionError(text)


@pytest.fixture
def faulty(tmp_path: Path) -> ImageTable:
    """Twelve pictures and every fault there is."""
    rows = []
    for number in range(12):
        imageio.imwrite(tmp_path / f"{number}.png", picture(number))
        rows.append((f"{number}.png", 1.0 + number / 4, f"scene{number}"))
    (tmp_path / "copy.png").write_bytes((tmp_path / "3.png").read_bytes())
    imageio.imwrite(tmp_path / "alike.jpg", picture(5, 96, 128), quality=60)
    (tmp_path / "torn.png").write_bytes((tmp_path / "1.png").read_bytes()[:200])
    (tmp_path / "text.png").write_text("no picture")
    rows += [
        ("copy.png", 2.0, "scene3"),
        ("alike.jpg", 2.0, "other"),
        ("torn.png", 2.0, None),
        ("text.png", 2.0, None),
        ("gone.png", 5.5, None),
    ]
    facts = TaskFacts("t", low=1.0, high=5.0)
    return ImageTable(facts, tmp_path, tuple(Sample(n, s, None, c) for n, s, c in rows), tuple(r[0] for r in rows))


def test_every_fault_is_found(faulty: ImageTable) -> None:
    steps = Steps()
    report = check_dataset(faulty, steps)
    assert (steps.total, steps.done) == (17, 17)
    assert (report.images, report.readable, report.contents) == (17, 14, 16)
    assert report.missing == ("gone.png",)
    assert [line.split(":")[0] for line in report.unreadable] == ["torn.png", "text.png"]
    assert report.out_of_range == ("gone.png: 5.5 is not in 1 to 5",)
    assert report.duplicates == (("3.png", "copy.png"),)
    assert report.near_duplicates == (("5.png", "alike.jpg"),)
    assert report.near_duplicate_count == 1
    assert report.sizes == {"smallest": "64x48", "median": "64x48", "largest": "128x96"}
    scores = [faulty.sample(i).score for i in range(17)]
    assert report.scores == pytest.approx(
        {"min": min(scores), "mean": np.mean(scores), "max": max(scores), "std": np.std(scores)}
    )
    assert report.splits == {}
    assert not report.ok


def test_what_splits_share_is_found(faulty: ImageTable) -> None:
    splits = {"train": faulty.subset(range(9)), "val": faulty.subset([9, 12]), "test": faulty.subset([10, 11, 13])}
    report = check_dataset(faulty.subset(range(14)), None, splits)
    assert report.splits == {"train": 9, "val": 2, "test": 3}
    assert report.shared_contents == ("scene3: train, val",)
    assert report.duplicates_across_splits == (("3.png", "copy.png"),)
    together = {"train": faulty.subset([3, 12]), "test": faulty.subset([4])}
    report = check_dataset(faulty.subset([3, 4, 12]), None, together)
    assert report.shared_contents == ()
    assert report.duplicates_across_splits == ()
    assert report.duplicates


def test_a_set_without_faults(faulty: ImageTable) -> None:
    report = check_dataset(faulty.subset(range(12)))
    assert report.ok
    assert report.near_duplicate_count == 0
    assert check_dataset(replace(faulty, facts=TaskFacts("t")).subset(range(12))).ok  # no scale declared


@pytest.mark.parametrize("fault", [(3, 12), (0, 14), (0, 15), (0, 16)])
def test_one_fault_is_enough(faulty: ImageTable, fault: tuple[int, int]) -> None:
    assert not check_dataset(faulty.subset(fault)).ok


def test_near_duplicates_of_one_content_are_expected(faulty: ImageTable) -> None:
    same = tuple(replace(sample, content="scene5") for sample in faulty.samples)
    assert check_dataset(replace(faulty, samples=same)).near_duplicate_count == 0


def test_reports_are_json(faulty: ImageTable) -> None:
    report = check_dataset(faulty, None, {"train": faulty})
    record = json.loads(json.dumps(report.to_json()))
    assert record["ok"] is False
    assert record["duplicates"] == [["3.png", "copy.png"]]
    assert record["splits"] == {"train": 17}
    assert set(record) == {"ok", *(field for field in report.__slots__)}


def test_sets_made_in_memory() -> None:
    task = open_practice("test")
    report = check_dataset(task, None, {"test": task})
    assert report.ok
    assert (report.images, report.readable, report.contents) == (39, 39, 3)
    assert report.sizes["median"] == "160x160"
    twice = task.subset([1, 2, 1])
    assert check_dataset(twice).duplicates == ((task.sample(1).name, task.sample(1).name),)


def test_a_users_table_with_missing_images_and_open_splits(tmp_path: Path) -> None:
    for number in range(10):
        imageio.imwrite(tmp_path / f"{number}.png", picture(number))
    rows = "".join(f"{n}.png,{n}\n" for n in range(12))
    (tmp_path / "scores.csv").write_text("image,mos\n" + rows)
    source = open_source(str(tmp_path), lambda name: pytest.fail(name))
    report = check_dataset(source.open("all"), None, source.open_splits(1))
    assert report.missing == ("10.png", "11.png")
    assert (report.images, report.readable) == (12, 10)
    assert sum(report.splits.values()) == 10
    assert len(report.warnings) == 1
    assert not report.ok


def test_no_image_at_all(faulty: ImageTable) -> None:
    report = check_dataset(faulty.subset([]))
    assert (report.images, report.sizes, report.scores) == (0, {}, {})


def distance(a: tuple[int, int] | None, b: tuple[int, int] | None) -> int:
    assert a is not None
    assert b is not None
    return sum((x ^ y).bit_count() for x, y in zip(a, b, strict=True))


def test_the_hash_is_that_of_ten_plain_lines() -> None:
    pixels = picture(1, 72, 72)
    grey = pixels.astype(float).mean(2)
    means = grey.reshape(8, 9, 9, 8).mean((1, 3))  # 8 rows of 9 pixels, 9 columns of 8
    rows = int("".join("1" if means[r, c] < means[r, c + 1] else "0" for r in range(8) for c in range(8)), 2)
    means = grey.reshape(9, 8, 8, 9).mean((1, 3))
    columns = int("".join("1" if means[r, c] < means[r + 1, c] else "0" for r in range(8) for c in range(8)), 2)
    assert difference_hash(torch.from_numpy(pixels).permute(2, 0, 1)) == (rows, columns)


def test_the_hash_sees_through_degradations_and_tells_pictures_apart() -> None:
    images = [torch.from_numpy(picture(seed, 96, 128)).permute(2, 0, 1) for seed in range(20)]
    hashes = [difference_hash(image) for image in images]
    for image, own in zip(images, hashes, strict=True):
        clean = image.float() / 255
        noisy = gaussian_noise(clean, 0.03, torch.Generator().manual_seed(0))
        for worse in (jpeg(clean, 30), gaussian_blur(clean, 1.5), mean_shift(clean * 0.8, 0.05), noisy):
            assert distance(difference_hash((worse * 255).round().byte()), own) <= 8
    apart = [distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) > 20


def test_flat_images_have_no_hash() -> None:
    assert difference_hash(torch.full((3, 40, 40), 7, dtype=torch.uint8)) is None
    assert difference_hash(torch.zeros((3, 1, 1), dtype=torch.uint8)) is None
    assert difference_hash(torch.arange(30, dtype=torch.uint8).expand(3, 5, 30) * 8) is not None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_bits_are_counted(values: list[int]) -> None:
    assert _count_bits(np.array(values, dtype=np.uint64)).tolist() == [value.bit_count() for value in values]
