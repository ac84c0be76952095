from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from iqakit.errors import ConfigurationError
from iqakit.functional.gating import gate_weights, less_along, nearest_distance, shift_directions


def test_distance_against_plain_lines() -> None:
    rng = torch.Generator().manual_seed(0)
    x, c = torch.randn(7, 5, generator=rng), torch.randn(4, 5, generator=rng)
    wanted = [min(math.dist(a, b) for b in c.tolist()) for a in x.tolist()]
    assert nearest_distance(x, c).tolist() == pytest.approx(wanted, rel=1e-6)


def test_distance_of_close_unit_vectors_does_not_cancel() -> None:
    rng = torch.Generator().manual_seed(0)
    c = normalize(torch.randn(128, 320, generator=rng), dim=1)
    x = c + 1e-6 * torch.randn(128, 320, generator=rng)
    exact = torch.cdist(x.double(), c.double()).amin(dim=1)
    assert torch.allclose(nearest_distance(x, c).double(), exact, rtol=1e-5)
    short = (x.square().sum(1)[:, None] + c.square().sum(1) - 2 * x @ c.T).clamp_min(0).sqrt().amin(dim=1)
    assert not torch.allclose(short.double(), exact, rtol=0.1)  # what it would be, the short way
    assert nearest_distance(c, c).tolist() == [0.0] * 128


def test_distance_does_not_depend_on_the_other_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(0)
    x, c = torch.randn(50, 33, generator=rng), torch.randn(9, 33, generator=rng)
    whole = nearest_distance(x, c)
    assert torch.equal(torch.cat([nearest_distance(row[None], c) for row in x]), whole)
    monkeypatch.setattr("iqakit.functional.gating._ROWS", 7)
    assert torch.equal(nearest_distance(x, c), whole)
    assert nearest_distance(x[:0], c).shape == (0,)


@pytest.mark.parametrize(
    "dtypes", [("float64", "float32"), ("float16", "float16"), ("bfloat16", "float32"), ("int64", "int64")]
)
def test_distance_takes_any_dtype(dtypes: tuple[str, str]) -> None:
    x, c = torch.tensor([[3.0, 4.0], [300.0, 400.0]]), torch.tensor([[0.0, 0.0], [3.0, 3.0]])
    found = nearest_distance(x.to(getattr(torch, dtypes[0])), c.to(getattr(torch, dtypes[1])))
    assert found.dtype == (torch.float64 if "float64" in dtypes else torch.float32)
    assert found.tolist() == pytest.approx([1.0, math.dist((300, 400), (3, 3))])


def test_weights_of_whole_distances() -> None:
    assert gate_weights(torch.tensor([[[0, 1, 1]]]), 0).tolist() == [pytest.approx([1 / 3] * 3)]
    assert gate_weights(torch.tensor([[[0, 1]]]), 1).tolist() == [pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.e)])]


def test_distance_names_what_it_found() -> None:
    with pytest.raises(ConfigurationError, match=r"found \(3, 4\) and \(2, 5\)"):
        nearest_distance(torch.zeros(3, 4), torch.zeros(2, 5))
    with pytest.raises(ConfigurationError, match="at least one centroid"):
        nearest_distance(torch.zeros(3, 4), torch.zeros(0, 4))


def test_weights_against_plain_lines() -> None:
    d = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = gate_weights(d, 32.0)
    for n in range(3):
        wanted = [0.0] * 4
        for stage in range(2):
            powers = [math.exp(-32 * v) for v in d[stage, n].tolist()]
            wanted = [w + p / sum(powers) / 2 for w, p in zip(wanted, powers, strict=True)]
        assert found[n].tolist() == pytest.approx(wanted, rel=1e-12)
    assert torch.equal(gate_weights(d), found)  # 32 is the default


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 6), st.floats(0, 1e4))
def test_weights_sum_to_one_and_follow_the_tasks(seed: int, stages: int, tasks: int, temperature: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    d = 2 * torch.rand(stages, 5, tasks, generator=rng)
    found = gate_weights(d, temperature)
    assert found.shape == (5, tasks)
    assert bool((found >= 0).all())
    assert torch.allclose(found.sum(dim=1), torch.ones(5), atol=1e-6)
    order = torch.randperm(tasks, generator=rng)
    assert torch.allclose(gate_weights(d[:, :, order], temperature), found[:, order], atol=1e-6)


def test_temperature_zero_is_the_average_and_one_task_gets_all() -> None:
    d = torch.rand(2, 5, 4)
    assert torch.equal(gate_weights(d, 0.0), torch.full((5, 4), 0.25))
    assert torch.equal(gate_weights(d[:, :, :1]), torch.ones(5, 1))
    assert torch.equal(gate_weights(d, 1e9).sum(dim=1), torch.ones(5))


def test_weights_name_what_they_found() -> None:
    with pytest.raises(ConfigurationError, match=r"found shape \(3, 4\)"):
        gate_weights(torch.zeros(3, 4))
    with pytest.raises(ConfigurationError, match="at least one stage and one task"):
        gate_weights(torch.zeros(2, 3, 0))
    for temperature in (-1.0, math.nan, math.inf):
        with pytest.raises(ConfigurationError, match="temperature must be finite and 0 or more"):
            gate_weights(torch.zeros(1, 1, 1), temperature)


def test_shift_directions_are_the_principal_ones_of_numpy() -> None:
    """Distances along each shrink as promised, against an eigendecomposition in plain numpy."""
    rng = torch.Generator().manual_seed(0)
    shifts = torch.randn(200, 7, generator=rng) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05])
    square = shifts.double().numpy().T @ shifts.double().numpy()
    shares, axes = np.linalg.eigh(square / (np.trace(square) / 7))
    for steadiness in (0.0, 0.3, 5.0):
        found = shift_directions(shifts, steadiness, 3)
        assert found.shape == (3, 7)
        assert found.dtype == torch.float32
        for at in range(7):
            point = torch.from_numpy(axes[:, -1 - at])[None].float()
            left = float(less_along(point, found).norm())
            assert left == pytest.approx(1 / math.sqrt(1 + steadiness * shares[-1 - at]) if at < 3 else 1.0, abs=1e-5)
    lengths = shift_directions(shifts, 5.0, 7).norm(dim=1)
    assert (lengths.diff() < 0).all()
    assert float(lengths.max()) < 1


def test_shift_directions_do_not_depend_on_order_scale_or_sign() -> None:
    shifts = torch.randn(40, 5, generator=torch.Generator().manual_seed(3))
    found = shift_directions(shifts, 0.3, 5)
    for other in (shifts.flip(0), shifts * 100, -shifts, torch.cat([shifts, shifts])):
        assert torch.allclose(shift_directions(other, 0.3, 5), found, atol=1e-6)
    assert shift_directions(shifts, 0.3, 99).shape == (5, 5)
    assert torch.equal(shift_directions(torch.zeros(3, 5), 0.3, 2).abs().sum(), torch.tensor(0.0))


def test_less_along_does_not_depend_on_the_other_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(0)
    points, directions = torch.randn(50, 320, generator=rng), 0.1 * torch.randn(48, 320, generator=rng)
    whole = less_along(points, directions)
    wanted = points.double() - points.double() @ directions.double().T @ directions.double()
    assert torch.allclose(whole.double(), wanted, atol=1e-5)
    assert torch.equal(torch.cat([less_along(row[None], directions) for row in points]), whole)
    monkeypatch.setattr("iqakit.functional.gating._VALUES", 48 * 320 * 7)
    assert torch.equal(less_along(points, directions), whole)
    assert less_along(points[:0], directions).shape == (0, 320)


@pytest.mark.parametrize(
    ("shifts", "steadiness", "count", "found"),
    [
        (torch.zeros(0, 4), 1.0, 2, r"\(0, 4\), 1.0 and 2"),
        (torch.zeros(4), 1.0, 2, r"\(4,\), 1.0 and 2"),
        (torch.zeros(2, 4), -1.0, 2, r"\(2, 4\), -1.0 and 2"),
        (torch.zeros(2, 4), math.nan, 2, r"\(2, 4\), nan and 2"),
        (torch.zeros(2, 4), math.inf, 2, r"\(2, 4\), inf and 2"),
        (torch.zeros(2, 4), 1.0, 0, r"\(2, 4\), 1.0 and 0"),
    ],
)
def test_shifts_that_make_no_sense_are_named(shifts: Tensor, steadiness: float, count: int, found: str) -> None:
    with pytest.raises(ConfigurationError, match=f"shift directions need shifts .* found {found}"):
        shift_directions(shifts, steadiness, count)
