from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iqakit.contracts import Sample, TaskFacts
from iqakit.errors import ConfigurationError
from iqakit.pipeline.calibrating import Scale, scale_of
from iqakit.pipeline.fitting import SilentProgress, fit_tasks
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


def dmos_table(values: list[float]) -> Scores:
    """Scores as a table of DMOS gives them."""
    turn = max(values) + min(values)
    return Scores([turn - value for value in values], TaskFacts("t", direction="dmos", turned_at=turn))


@pytest.mark.parametrize(
    ("values", "given", "ends"),
    [
        ([20, 45.5, 100], None, (0, 100)),
        ([0.1, 33.3, 100], None, (0, 100)),  # 100.1 - (100.1 - 100) is not 100 exactly
        ([1.7, 3, 5], None, (1, 5)),
        ([0, 0.3, 0.9], None, (0, 1)),
        ([-4, 20, 111], None, (-4, 111)),
        ([20, 45.5, 100], (10, 110), (10, 110)),
        ([1.5, 2, 4], (1, 4), (1, 4)),
    ],
)
def test_dmos_are_in_points_of_the_scale_that_people_rated_on(
    values: list[float], given: tuple[float, float] | None, ends: tuple[float, float]
) -> None:
    dataset = dmos_table(values)
    scale = scale_of(dataset, given)
    points = scale.points(torch.tensor(dataset.values, dtype=torch.float64))
    low, high = ends
    expected = [100 * (high - value) / (high - low) for value in values]  # straight from the DMOS, never turned
    assert points.tolist() == pytest.approx(expected, abs=1e-9)
    assert scale.rated == pytest.approx(ends)
    assert str(scale) == f"{low:g} to {high:g} of DMOS, where {high:g} is 0 points and {low:g} is 100"
    assert scale.outside([dataset]) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=2, unique=True).filter(lambda v: max(v) > 10))
def test_dmos_and_the_same_scores_as_mos_get_the_same_points(values: list[float]) -> None:
    """A table of 100 - dmos as mos says the same thing."""
    turned, plain = dmos_table(values), Scores([100 - value for value in values])
    points = [scale_of(d, (0, 100)).points(torch.tensor(d.values, dtype=torch.float64)) for d in (turned, plain)]
    assert torch.allclose(points[0], points[1], atol=1e-9)
    assert scale_of(turned).rated == (0, 100)


def test_a_public_set_turned_on_its_published_scale_stays_so() -> None:
    facts = TaskFacts("t", low=0.0, high=100.0, direction="dmos")
    assert scale_of(Scores([20.0, 90.0], facts)) == Scale(0.0, 100.0, "published")
    assert str(scale_of(Scores([1.5, 4.0]))) == "1 to 5"


def test_a_given_scale_that_scores_do_not_fit_is_named_with_how_many() -> None:
    scale = scale_of(Scores([1.0, 2.5, 4.0]), (2, 3))
    assert scale.outside([Scores([1.0, 2.5, 4.0]), Scores([2.0, 3.0, 3.1])]) == (
        "3 of 6 scores lie outside the scale 2 to 3, and are taken to lie on its ends; "
        "--scale LOW:HIGH takes the scale that people rated on"
    )
    assert scale.outside([Scores([2.0, 3.0])]) is None
    dmos = dmos_table([10, 50, 90, 95])
    told = scale_of(dmos, (0, 90)).outside([dmos])
    assert told is not None
    assert told.startswith("1 of 4 scores lie outside the scale 0 to 90 of DMOS, where 90 is 0 points and 0 is 100")


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


class Listener(SilentProgress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_a_table_of_dmos_and_the_same_as_mos_make_equal_scores(rated_photos: Path, tmp_path: Path) -> None:
    """The best photo has DMOS 20 on a scale of 0 to 100: 80 points, not 100."""
    header, *rows = [row.split(",") for row in (rated_photos / "scores.csv").read_text().splitlines()]
    scores = [float(row[1]) for row in rows]
    places = [(max(scores) - score) / (max(scores) - min(scores)) for score in scores]
    tables = {"mos": [80 - 80 * place for place in places], "dmos": [20 + 80 * place for place in places]}
    models, told = {}, Listener()
    for name, numbers in tables.items():
        written = [",".join([header[0], name, *header[2:]])]
        written += [",".join([row[0], f"{number:.9f}", *row[2:]]) for row, number in zip(rows, numbers, strict=True)]
        (rated_photos / f"{name}.csv").write_text("\n".join(written) + "\n")
        fit_tasks([rated_photos / f"{name}.csv"], backbone="tiny", adapter="linear", model=tmp_path / name, progress=told)
        models[name] = QualityModel.load(tmp_path / name)
    assert "mos: human scores are taken to be on the scale 0 to 100 (customary); --scale LOW:HIGH says otherwise" in (
        told.messages
    )
    assert (
        "dmos: human scores are taken to be on the scale 0 to 100 of DMOS, where 100 is 0 points and 0 is 100 (customary); "
        "--scale LOW:HIGH says otherwise"
    ) in told.messages
    photos = sorted((rated_photos / "images").iterdir())
    points = {name: [row.score for row in model.score_many(photos)] for name, model in models.items()}
    assert points["dmos"] == pytest.approx(points["mos"], abs=0.1)
    assert 60 < max(points["dmos"]) < 90
    assert models["mos"].adapters[0].provenance["scale"] == {"low": 0, "high": 100, "source": "customary"}
    # Turned at 120; the numbers that the adapter was trained and checked on.
    assert models["dmos"].adapters[0].provenance["scale"] == {"low": 20, "high": 120, "source": "customary"}


def test_fit_says_how_many_scores_a_given_scale_leaves_out(rated_photos: Path, tmp_path: Path) -> None:
    told = Listener()
    options = {"backbone": "tiny", "adapter": "linear", "task": "t", "progress": told}
    fit_tasks([rated_photos], model=tmp_path / "narrow", scale=(2, 3), **options)
    rows = [row.split(",") for row in (rated_photos / "scores.csv").read_text().splitlines()[1:]]
    used = [float(row[1]) for row in rows if row[3] != "test"]
    count = sum(score < 2 or score > 3 for score in used)
    assert 0 < count < len(used)
    (line,) = [text for text in told.messages if "outside" in text]
    assert line.startswith(f"t: {count} of {len(used)} scores lie outside the scale 2 to 3")
    told.messages.clear()
    fit_tasks([rated_photos], model=tmp_path / "wide", scale=(0, 6), **options)
    assert not [text for text in told.messages if "scale" in text]
