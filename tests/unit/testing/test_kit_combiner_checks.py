"""Every check of a combiner catches a combiner that is broken in just that way."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from iqakit.contracts import CombinerEntry
from iqakit.errors import ConfigurationError, UnknownNameError
from iqakit.testing import check_combiner
from iqakit.testing.combiner_checks import SUITE

SETTINGS = {
    "config-is-a-frozen-dataclass",
    "defaults-are-plain",
    "settings-round-trip-as-text",
    "wrong-settings-get-one-line",
}
"""Their broken parts are in test_kit_settings_checks.py."""


@dataclass(frozen=True)
class Config:
    sharpness: float = 3.0


class Good:
    """A softmin of distances to each task's mean."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def fit_task(self, state: Mapping[str, Tensor], task: str, gate_features: Sequence[Tensor]) -> Mapping[str, Tensor]:
        return {**state, f"{task}/mean": gate_features[-1].mean(0)}

    def weights(
        self, state: Mapping[str, Tensor], tasks: Sequence[str], gate_features: Sequence[Tensor], oracle_names: Any
    ) -> Tensor:
        if not tasks or not gate_features or len({len(stage) for stage in gate_features}) > 1:
            raise ConfigurationError("nothing to weigh; give tasks and features")
        for task in tasks:
            if f"{task}/mean" not in state:
                raise ConfigurationError(f"knows nothing of {task!r}; fit it")
        away = [torch.linalg.vector_norm(gate_features[-1] - state[f"{task}/mean"].real, dim=1) for task in tasks]
        return torch.softmax(-self.config.sharpness * torch.stack(away, 1), 1)


class Transposed(Good):
    def weights(self, *given: Any) -> Tensor:
        return super().weights(*given).T


class Negative(Good):
    def weights(self, *given: Any) -> Tensor:
        return super().weights(*given) * 3 - 2 / 3


class Unshared(Good):
    def weights(self, *given: Any) -> Tensor:
        return super().weights(*given) * 0.9


class ShyWhenAlone(Good):
    def weights(self, state: Any, tasks: Sequence[str], *given: Any) -> Tensor:
        return super().weights(state, tasks, *given) * (0.5 if len(tasks) == 1 else 1)


class LooksAtNeighbours(Good):
    def weights(self, *given: Any) -> Tensor:
        found = super().weights(*given)
        return (found + found.mean(0)) / 2


class NeedsAnImage(Good):
    def weights(self, state: Any, tasks: Any, gate_features: Sequence[Tensor], oracle: Any) -> Tensor:
        gate_features[0].max()
        return super().weights(state, tasks, gate_features, oracle)


class Meddler(Good):
    def fit_task(self, state: Mapping[str, Tensor], task: str, gate_features: Sequence[Tensor]) -> Mapping[str, Tensor]:
        return {**super().fit_task(state, task, gate_features), "all/mean": gate_features[-1].mean(0)}


class ForgetsWithFaults(Good):
    def fit_copies(self, state: Any, task: str, gate_features: Sequence[Tensor]) -> Mapping[str, Tensor]:
        return {f"{task}/faults": gate_features[-1]}


class NamesShiftsBadly(Good):
    def fit_shifts(self, state: Any, task: str, shifts: Sequence[Tensor]) -> Mapping[str, Tensor]:
        return {**state, "shifts": shifts[-1]}


class InPlace(Good):
    def fit_task(self, state: Any, task: str, gate_features: Sequence[Tensor]) -> Mapping[str, Tensor]:
        state[f"{task}/mean"] = gate_features[-1].mean(0)
        return dict(state)


class AsksForGradients(Good):
    def fit_task(self, *given: Any) -> Mapping[str, Tensor]:
        return {name: tensor.clone().requires_grad_() for name, tensor in super().fit_task(*given).items()}


class NeverTheSame(Good):
    count = itertools.count()

    def fit_task(self, *given: Any) -> Mapping[str, Tensor]:
        state = super().fit_task(*given)
        return {**state, f"{given[1]}/mean": state[f"{given[1]}/mean"] + next(self.count)}


class Complex(Good):
    """Of a type that files do not hold."""

    def fit_task(self, *given: Any) -> Mapping[str, Tensor]:
        return {name: tensor.to(torch.complex64) for name, tensor in super().fit_task(*given).items()}


class Dice(Good):
    def weights(self, *given: Any) -> Tensor:
        torch.rand(1)
        return super().weights(*given)


class Unchecked(Good):
    def weights(self, state: Any, tasks: Any, gate_features: Sequence[Tensor], oracle: Any) -> Tensor:
        away = [torch.linalg.vector_norm(gate_features[-1] - state[f"{task}/mean"], dim=1) for task in tasks]
        return torch.softmax(torch.stack(away, 1), 1)


BROKEN: dict[str, tuple[Any, str]] = {
    "creates": (lambda config: object(), "create gave object, which lacks fit_task or weights"),
    "weights-have-their-shape": (Transposed, r"are \(3, 9\)"),
    "weights-are-not-negative": (Negative, "the smallest weight is -"),
    "rows-sum-to-one": (Unshared, "rows sum to 0.9 to 0.9"),
    "one-task-has-weight-one": (ShyWhenAlone, r"with one task the weights are \[0.5"),
    "rows-do-not-depend-on-the-batch": (LooksAtNeighbours, "image 0 is weighed"),
    "no-image-gives-no-row": (NeedsAnImage, "it raised RuntimeError"),
    "a-task-adds-only-its-own-state": (Meddler, "learning one more task changes earlier state: all/mean"),
    "faults-add-only-their-own-state": (ForgetsWithFaults, "it forgot lab/mean, phone/mean, web/mean"),
    "shifts-add-only-their-own-state": (
        NamesShiftsBadly,
        "learning shifts of 'web' adds shifts; its tensors must be named",
    ),
    "state-handed-in-stays": (InPlace, "the state handed in is changed: web/mean"),
    "state-is-plain-tensors": (AsksForGradients, "asks for a gradient"),
    "learning-repeats": (NeverTheSame, "learned twice from the same images, these differ: lab/mean"),
    "state-survives-its-file": (Complex, "cannot be stored"),
    "global-state-stays": (Dice, "it changes torch's global random state"),
    "bad-requests-get-one-line": (Unchecked, "must raise ConfigurationError, but it raised"),
    "an-unknown-task-is-named": (Unchecked, "must raise IqakitError, but it raised KeyError"),
}


def entry(create: Any = Good) -> CombinerEntry:
    return CombinerEntry("mine", "s", Config, create)


def test_every_check_has_its_broken_part() -> None:
    assert set(BROKEN) | SETTINGS == set(SUITE.names)


def test_a_good_one_passes(passes) -> None:
    assert passes(check_combiner(entry())) == {
        "faults-add-only-their-own-state",
        "shifts-add-only-their-own-state",
    }  # optional; it has none


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_one_is_caught(name: str, catch) -> None:
    create, said = BROKEN[name]
    assert re.search(said, catch(check_combiner(entry(create)), name))


def test_settings_reach_the_part(catch) -> None:
    class Loud(Good):
        def weights(self, *given: Any) -> Tensor:
            raise ConfigurationError(f"sharpness is {self.config.sharpness}")

    checks = check_combiner(entry(Loud), settings={"sharpness": 7.0})
    assert "sharpness is 7.0" in catch(checks, "weights-have-their-shape")


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(UnknownNameError, match="no combiner is named 'kmeens'; did you mean kmeans"):
        list(check_combiner("kmeens"))
