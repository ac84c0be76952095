from __future__ import annotations

import pytest
import torch

from iqakit.combiners.average import Average
from iqakit.combiners.last import Last
from iqakit.combiners.oracle import Oracle
from iqakit.combiners.settings import AverageConfig, LastConfig, OracleConfig
from iqakit.errors import ConfigurationError, UnknownNameError

FEATURES = (torch.zeros(3, 4), torch.zeros(3, 5))
TASKS = ("live", "csiq", "koniq10k")


def test_average() -> None:
    weights = Average(AverageConfig()).weights({}, TASKS, FEATURES, None)
    assert torch.equal(weights, torch.full((3, 3), 1 / 3))


def test_last() -> None:
    weights = Last(LastConfig()).weights({}, TASKS, FEATURES, None)
    assert weights.tolist() == [[0.0, 0.0, 1.0]] * 3


def test_oracle() -> None:
    weights = Oracle(OracleConfig()).weights({}, TASKS, FEATURES, ["csiq", "live", "csiq"])
    assert weights.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_oracle_must_be_told() -> None:
    with pytest.raises(ConfigurationError, match=r"^combiner oracle needs to be told the task of each image; give --task$"):
        Oracle(OracleConfig()).weights({}, TASKS, FEATURES, None)


def test_oracle_must_be_told_of_each_image() -> None:
    with pytest.raises(ConfigurationError, match="found 1 names for 3 images"):
        Oracle(OracleConfig()).weights({}, TASKS, FEATURES, ["live"])


def test_oracle_names_near_matches() -> None:
    with pytest.raises(UnknownNameError, match="no task is named 'koniq'; did you mean koniq10k"):
        Oracle(OracleConfig()).weights({}, TASKS, FEATURES, ["live", "koniq", "live"])
