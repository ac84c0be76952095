from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iqakit.contracts import Sample, TaskFacts
from iqakit.errors import ConfigurationError
from iqakit.pipeline.calibrating import Scale, scale_of
from iqakit.pipeline.fitting import fit_tasks
from iqakit.pipeline.model import QualityModel


@dataclass
class Scores:
    values: list[float]
    facts: TaskFacts = field(default_factory=lambda: TaskFacts("t"))

    def __len__(self) -> int:
        return len(self.values)

    def sample(self, index: int) -> Sample:
        return Sample(str(index), self.values[index])

    def image(self, index: int) -> torch.Tensor:
        raise AssertionError("a scale reads no pixel")

    def path(self, index: int) -> None:
        return None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.03, 0.95], (0, 1, "customary")),
        ([1.0, 5.0], (1, 5, "customary")),
        ([0.4, 4.1], (0, 5, "customary")),
        ([0.24, 7.2], (0, 10, "customary")),
        ([12.5, 88.0], (0, 100, "customary")),
        ([-3.0, 111.0], (-3, 111, "observed")),
    ],
)
def test_a_table_that_does_not_say_is_on_the_first_scale_that_holds_it(
    values: list[float], expected: tuple[float, float, str]
) -> None:
    scale = scale_of(Scores(values))
    assert (scale.low, scale.high) == pytest.approx(expected[:2])
    assert scale.source == expected[2]


def test_published_comes_before_customary_and_given_before_both() -> None:
    published = Scores([0.2, 0.9], TaskFacts("t", low=0.0, high=9.0))
    assert scale_of(published) == Scale(0.0, 9.0, "published")
    assert scale_of(published, (0.0, 2.0)) == Scale(0.0, 2.0, "given")
    with pytest.raises(ConfigurationError, match="a scale needs its low end below its high end, but it is 5 to 1"):
        scale_of(published, (5, 1))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, unique=True))
def test_points_keep_the_order_and_stay_within_the_scale(values: list[float]) -> None:
    scores = torch.tensor(sorted(values), dtype=torch.float64)
    points = scale_of(Scores(values)).points(scores)
    assert points.min() >= 0
    assert points.max() <= 100
    assert bool((points.diff() >= 0).all())


def test_tasks_of_one_scale_stay_comparable(rated_photos: Path, tmp_path: Path) -> None:
    """The better half alone, learned as a task of its own, still scores as good: its worst photo is not 0 points."""
    rows = (rated_photos / "scores.csv").read_text().splitlines()
    good = [rows[0], *(row for row in rows[1:] if float(row.split(",")[1]) > 3)]
    (rated_photos / "good.csv").write_text("\n".join(good) + "\n")
    for name in ("scores.csv", "good.csv"):
        options = {"backbone": "tiny", "adapter": "linear", "task": "t", "scale": (0, 6)}
        fit_tasks([rated_photos / name], model=tmp_path / name, **options)
    whole, half = QualityModel.load(tmp_path / "scores.csv"), QualityModel.load(tmp_path / "good.csv")
    for index in (0, 1, 8, 9):
        photo = rated_photos / "images" / f"p{index:03d}.png"
        assert half.score(photo).score == pytest.approx(whole.score(photo).score, abs=15)
    assert half.adapters[0].provenance["scale"] == {"low": 0, "high": 6, "source": "given"}
