"""Which runtime is taken, and what is said where it cannot be."""

from __future__ import annotations

import pytest

from iqakit.errors import ConfigurationError, MissingExtraError, UnknownNameError
from iqakit.runtimes import choice


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    there: set[str] = set()
    monkeypatch.setattr(choice, "installed", there.__contains__)
    monkeypatch.setattr(choice, "gpu_in_sight", lambda: False)
    monkeypatch.delenv("IQAKIT_RUNTIME", raising=False)
    return there


def test_auto_takes_the_fastest_that_is_there(packages: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert choice.choose_runtime("auto", "auto") == "torch"
    packages.add(choice.FASTEST_FIRST[1])
    assert choice.choose_runtime("auto", "cpu") == choice.FASTEST_FIRST[1]
    packages.add(choice.FASTEST_FIRST[0])
    assert choice.choose_runtime("auto", "auto") == choice.FASTEST_FIRST[0]
    assert choice.choose_runtime("auto", "cuda") == "torch"
    assert choice.choose_runtime("torch", "cpu") == "torch"
    monkeypatch.setattr(choice, "gpu_in_sight", lambda: True)
    assert choice.choose_runtime("auto", "auto") == "torch"
    monkeypatch.setenv("IQAKIT_RUNTIME", choice.FASTEST_FIRST[1])
    assert choice.choose_runtime("auto", "cpu") == choice.FASTEST_FIRST[1]


def test_what_cannot_be_is_one_line(packages: set[str]) -> None:
    with pytest.raises(MissingExtraError, match=r"onnxruntime was asked for, but is not installed; pip install"):
        choice.choose_runtime("onnxruntime", "cpu")
    packages.add("openvino")
    with pytest.raises(ConfigurationError, match="runtime openvino runs on the CPU, not on cuda; use --runtime torch"):
        choice.choose_runtime("openvino", "cuda")
    with pytest.raises(UnknownNameError, match="no runtime is named 'onxruntime'; did you mean onnxruntime"):
        choice.choose_runtime("onxruntime", "cpu")
    with pytest.raises(MissingExtraError, match="export takes onnx and onnxscript, not installed here; pip install"):
        choice.check_exporters("export")
