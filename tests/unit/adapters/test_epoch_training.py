"""The loop that fit methods share: what is kept, how it moves, and that a cut run goes on to the same bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from iqakit.adapters import epoch_training
from iqakit.adapters.epoch_training import (
    BestEpoch,
    EpochTraining,
    Step,
    StepGenerators,
    json_record,
    one_cycle,
)
from iqakit.contracts import FitContext
from iqakit.errors import TrainingError
from iqakit.storage.checkpoint import FileCheckpoint
from iqakit.testing import make_backbone, make_fit_context

NAN = math.nan


class CutError(Exception):
    """Stands in for a kill."""


class CutCheckpoint(FileCheckpoint):
    """Dies right after its n-th save."""

    left = 0

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        super().save(tensors, state)
        self.left -= 1
        if self.left == 0:
            raise CutError


class Listener:
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, what: str, total: int) -> None:
        self.lines.append(f"{what} / {total}")

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.lines.append(f"+{steps} {note}".rstrip())

    def message(self, text: str) -> None:
        self.lines.append(text)


@dataclass
class Line:
    """Learns a plane from points, with noise from the step's generator; figures of its epochs are given."""

    figures: Sequence[float]
    size: int = 4
    noise: float = 0.0
    rate: float | None = None
    weight: Tensor = field(default_factory=lambda: torch.tensor([0.5, -0.5, 0.1]).requires_grad_(True))
    seen: Tensor = field(default_factory=lambda: torch.tensor(0))
    way: Tensor = field(default_factory=lambda: torch.zeros(3))
    rates: list[float] = field(default_factory=list)
    validated: list[Tensor] = field(default_factory=list)
    training: EpochTraining[Tensor] | None = None

    def points(self) -> tuple[Tensor, Tensor]:
        x = torch.randn(10, 3, generator=Generator().manual_seed(5))
        return x, x @ torch.tensor([1.0, 2.0, 3.0])

    def batches(self, epoch: int, generator: Generator) -> Sequence[Tensor]:
        return torch.randperm(10, generator=generator).split(self.size)

    def step(self, batch: Tensor, step: Step) -> Tensor:
        x, y = self.points()
        x = x[batch] + self.noise * torch.randn(len(batch), 3, generator=step.generator)
        loss = (x @ self.weight - y[batch]).square().mean()
        before = self.weight.detach().clone()
        step.minimise(loss, self.rate)
        self.rates.append(step.training.optimiser.param_groups[0]["lr"])
        self.seen += len(batch)
        self.way += (self.weight.detach() - before).abs()
        return loss

    def validate(self, tensors: Mapping[str, Tensor]) -> float:
        assert not any(tensor.requires_grad for tensor in tensors.values())
        self.validated.append(tensors["weight"].clone())
        assert self.training is not None
        return self.figures[len(self.training.history)]

    def begin(self, context: FitContext, **settings: Any) -> EpochTraining[Tensor]:
        generators = StepGenerators(context.generator)
        tensors = {"weight": self.weight, "seen": self.seen}
        given = {"epochs": len(self.figures) - 1, "learning_rate": 0.1, "beside": {"way": self.way}} | settings
        self.training = EpochTraining(context, self, tensors, generators, **given)
        return self.training

    def fit(self, context: FitContext, **settings: Any) -> tuple[BestEpoch, list[dict[str, Any]]]:
        training = self.begin(context, **settings)
        if not training.resume():
            training.check_start()
        return training.run(), training.history


@pytest.fixture(scope="module")
def small() -> FitContext:
    return make_fit_context(make_backbone())


@pytest.fixture
def context(small: FitContext) -> Callable[..., FitContext]:
    """Makes a context with a fresh generator, a listener and the checkpoint given."""

    def make(checkpoint: Any = None) -> FitContext:
        generator = Generator().manual_seed(0)
        kept = checkpoint or make_fit_context(small.backbone).checkpoint
        return replace(small, generator=generator, progress=Listener(), checkpoint=kept)

    return make


# -- the best epoch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "best"),
    [
        ([0.1, 0.5, 0.4], 1),
        ([0.5, 0.5, 0.4], 0),  # the first of equal ones
        ([NAN, 0.1, -0.2], 1),  # any figure is better than none
        ([NAN, NAN, -1.0], 2),
        ([0.3, NAN, 0.2], 0),
        ([NAN, NAN, NAN], 0),
        ([-1.0], 0),
    ],
)
def test_the_epoch_with_the_highest_figure_is_kept_whole(
    context: Callable[..., FitContext], figures: list[float], best: int
) -> None:
    line = Line(figures)
    kept, history = line.fit(context())
    assert kept.epoch == best
    assert repr(kept.figure) == repr(figures[best])
    assert [record["epoch"] for record in history] == list(range(len(figures)))
    assert repr([record["validation_srcc"] for record in history]) == repr(figures)
    assert torch.equal(kept.tensors["weight"], line.validated[best])
    assert int(kept.tensors["seen"]) == 10 * best
    assert bool((kept.beside["way"] == 0).all()) == (best == 0)
    assert kept.provenance() == {
        "best_epoch": best,
        "validation_srcc": None if math.isnan(figures[best]) else figures[best],
    }


def test_a_start_that_does_not_count_is_kept_only_where_there_is_no_epoch(context: Callable[..., FitContext]) -> None:
    line = Line([0.5, 0.4, 0.3])
    training = line.begin(context(), epochs=2)
    assert training.run().epoch == 1
    assert [record["epoch"] for record in training.history] == [1, 2]
    assert Line([0.9]).begin(context(), epochs=0).run().epoch == 0


def test_what_is_kept_is_a_copy(context: Callable[..., FitContext]) -> None:
    line = Line([0.5, 0.4])
    kept, _ = line.fit(context())
    with torch.no_grad():
        line.weight.zero_()
        line.way.zero_()
    assert float(kept.tensors["weight"].abs().sum()) > 0


# -- how it moves ------------------------------------------------------------------------------------------------------


def test_the_rate_in_ten_plain_lines() -> None:
    for percent in range(101):
        done, top = percent / 100, 0.02
        if done < 0.3:
            low, high, way = top / 25, top, done / 0.3
        else:
            low, high, way = top, top / 10_000, (done - 0.3) / 0.7
        assert one_cycle(top, done) == pytest.approx(low + (high - low) * (1 - math.cos(math.pi * way)) / 2, rel=1e-9)
    assert max(range(101), key=lambda percent: one_cycle(1.0, percent / 100)) == 30


def test_steps_are_adam_on_one_cycle_in_plain_lines(context: Callable[..., FitContext]) -> None:
    """Weights after two epochs, and their running average, from the textbook's formulas."""
    line = Line([0.0, 0.1, 0.2])
    kept, history = line.fit(context(), weight_decay=0.01, averaging=0.8)
    draws = StepGenerators(Generator().manual_seed(0))
    x, y = (part.double() for part in line.points())
    w, m, v = torch.tensor([0.5, -0.5, 0.1]).double(), torch.zeros(3).double(), torch.zeros(3).double()
    average, count, losses = None, 0, []
    for epoch in (1, 2):
        for batch in torch.randperm(10, generator=draws(epoch, 0)).split(4):
            error = x[batch] @ w - y[batch]
            losses.append(float(error.square().mean()))
            slope = 2 * x[batch].T @ error / len(batch) + 0.01 * w
            rate, count = one_cycle(0.1, count / 6), count + 1
            m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
            w = w - rate * (m / (1 - 0.9**count)) / ((v / (1 - 0.999**count)).sqrt() + 1e-8)
            average = w if average is None else 0.8 * average + 0.2 * w
        assert history[epoch]["loss"] == pytest.approx(sum(losses[-3:]) / 3, rel=1e-4)
    assert torch.allclose(line.weight.detach().double(), w, atol=1e-5)
    assert torch.allclose(kept.tensors["weight"].double(), average, atol=1e-5)
    assert torch.equal(kept.beside["way"], line.way)  # not averaged


def test_a_method_may_say_the_rate_and_add_to_the_gradients(context: Callable[..., FitContext]) -> None:
    line = Line([0.0, 0.1], rate=0.25)
    line.fit(context())
    assert line.rates == [0.25] * 3

    class Still(Line):
        def step(self, batch: Tensor, step: Step) -> Tensor:
            loss = self.weight.square().sum()
            step.minimise(loss, before_update=lambda: self.weight.grad.zero_())  # type: ignore[union-attr]
            return loss

    still = Still([0.0, 0.1])
    still.fit(context())
    assert still.weight.tolist() == pytest.approx([0.5, -0.5, 0.1])


def test_divergence_is_one_line(context: Callable[..., FitContext]) -> None:
    line = Line([0.0, 0.1], rate=1e30)
    message = (
        "training 'sharpness' diverged: the loss is inf in epoch 1, step 2; lower the learning rate "
        "(--set learning_rate=0.01)"
    )
    with pytest.raises(TrainingError) as caught:
        line.fit(context())
    assert str(caught.value) == message


def test_generators_come_from_one_draw_and_differ(context: Callable[..., FitContext]) -> None:
    source, other = Generator().manual_seed(3), Generator().manual_seed(3)
    draws = StepGenerators(source)
    torch.randint(2**62, (), generator=other)
    assert torch.equal(torch.rand(3, generator=source), torch.rand(3, generator=other))
    seeds = [draws(epoch, step).initial_seed() for epoch in range(4) for step in range(50)]
    assert len(set(seeds)) == 200
    assert seeds == [draws(epoch, step).initial_seed() for epoch in range(4) for step in range(50)]


# -- going on after a cut ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_a_run_cut_at_any_save_ends_in_the_same_bytes(
    context: Callable[..., FitContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, averaging: float
) -> None:
    monkeypatch.setattr(epoch_training, "SAVE_EVERY", 2)
    figures = [NAN, 0.2, NAN, 0.1]
    whole, history = Line(figures, noise=0.3).fit(context(CutCheckpoint(tmp_path / "whole", "key")), averaging=averaging)
    assert whole.epoch == 1
    for cut in range(1, 7):  # in the middle of an epoch of three steps, and at its end
        checkpoint = CutCheckpoint(tmp_path / f"cut{cut}", "key")
        checkpoint.left = cut
        with pytest.raises(CutError):
            Line(figures, noise=0.3).fit(context(checkpoint), averaging=averaging)
        made = context(checkpoint)
        line = Line(figures, noise=0.3)
        resumed, again = line.fit(made, averaging=averaging)
        where = "after epoch 0, step 2" if cut == 1 else f"after epoch {cut // 2}, step {2 * (cut % 2)}"
        assert made.progress.lines[0] == f"sharpness: going on {where}"
        assert repr([sorted(record.items()) for record in again]) == repr([sorted(record.items()) for record in history])
        assert (resumed.epoch, resumed.figure) == (whole.epoch, whole.figure)
        assert torch.equal(resumed.tensors["weight"], whole.tensors["weight"])
        assert torch.equal(resumed.tensors["seen"], whole.tensors["seen"])
        assert torch.equal(resumed.beside["way"], whole.beside["way"])
        assert line.training is not None
        assert line.training.optimiser.state[line.weight]["step"].item() == 9


def test_a_resumed_tensor_keeps_its_layout_in_memory(context: Callable[..., FitContext], tmp_path: Path) -> None:
    """A sum over another layout may round differently, and files hold one layout only."""

    class Wide(Line):
        def step(self, batch: Tensor, step: Step) -> Tensor:
            loss = self.weight.square().sum()
            step.minimise(loss)
            return loss

    def wide() -> Wide:
        weight = torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_(True)
        return Wide([0.1, 0.2, 0.3], weight=weight)

    checkpoint = CutCheckpoint(tmp_path, "key")
    checkpoint.left = 1
    with pytest.raises(CutError):
        wide().fit(context(checkpoint), averaging=0.5)
    line = wide()
    training = line.begin(context(checkpoint), averaging=0.5)
    assert training.resume()
    assert training.best is not None
    held = [line.weight, training.best.tensors["weight"], *training.optimiser.state[line.weight].values()]
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in held if tensor.ndim == 4)
    assert len(held) == 5


def test_state_that_an_earlier_version_left_is_begun_anew_with_one_line(
    context: Callable[..., FitContext], tmp_path: Path
) -> None:
    """Neither another form nor tensors of other names or shapes are misread."""
    whole, history = Line([0.1, 0.3, 0.2]).fit(context(FileCheckpoint(tmp_path / "whole", "key")))
    earlier = {"overlay/weight": torch.ones(3), "head": torch.ones(3)}
    former = {"epoch": 1, "step": 0, "loss_sum": 0.0, "best_figure": 0.9, "best_epoch": 1, "history": []}
    mine = FileCheckpoint(tmp_path / "whole", "key").load()
    assert mine is not None
    other_shape = {name: torch.ones(4) if name.endswith("/weight") else tensor for name, tensor in mine[0].items()}
    other_names = {name.replace("way", "path"): tensor for name, tensor in mine[0].items()}
    for number, (tensors, state) in enumerate([(earlier, former), (other_shape, mine[1]), (other_names, mine[1])]):
        checkpoint = FileCheckpoint(tmp_path / str(number), "key")
        checkpoint.save(tensors, state)
        made = context(checkpoint)
        again, records = Line([0.1, 0.3, 0.2]).fit(made)
        assert made.progress.lines[0] == (
            "sharpness: what is kept of the training was left by another version of it; starting from the beginning"
        )
        assert torch.equal(again.tensors["weight"], whole.tensors["weight"])
        assert records == history


# -- what it says --------------------------------------------------------------------------------------------------------


def test_progress_is_told_step_by_step(context: Callable[..., FitContext]) -> None:
    made = context()
    _, history = Line([0.25, NAN], size=5).fit(made)
    first, second = made.progress.lines[3][len("+1 loss ") :], made.progress.lines[4][len("+1 loss ") :]
    assert made.progress.lines == [
        "sharpness: epoch 0, validation SRCC 0.2500",
        "sharpness: epoch 1 of 1 / 2",
        "+0",
        f"+1 loss {first}",
        f"+1 loss {second}",
        f"sharpness: epoch 1, loss {history[1]['loss']:.4f}, validation SRCC nan",
    ]
    assert (float(first) + float(second)) / 2 == pytest.approx(history[1]["loss"], abs=1e-4)


def test_records_for_json_hold_neither_nan_nor_infinity() -> None:
    assert json_record({"a": NAN, "b": math.inf, "c": 0.5, "d": 3, "e": "text"}) == {
        "a": None,
        "b": None,
        "c": 0.5,
        "d": 3,
        "e": "text",
    }
