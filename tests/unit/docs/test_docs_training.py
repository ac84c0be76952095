"""``docs/how-to/write-a-training-method.md`` says what the code says, and its method keeps every promise."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from iqakit.adapters import epoch_training, training_images, training_passes
from iqakit.testing import check_adapter, make_fit_context, run_checks

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "how-to" / "write-a-training-method.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The page's method as a module."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    path = tmp_path_factory.mktemp("page") / "cropped_head_of_the_page.py"
    path.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_method_shown_keeps_every_promise(example: ModuleType) -> None:
    results = list(run_checks(check_adapter(example.ENTRY, settings={"crop": 48, "batch_size": 6})))
    assert [f"{result.check.name}: {result.reason}" for result in results if result.status == "failed"] == []
    passed = {result.check.name for result in results if result.status == "passed"}
    assert any("resume" in name or "cut" in name or "kill" in name for name in passed), passed


def test_the_method_shown_learns(example: ModuleType) -> None:
    result = example.CroppedHead(example.CroppedHeadConfig(crop=48, batch_size=6)).fit(make_fit_context(epochs=12))
    losses = [record["loss"] for record in result.history[1:]]
    assert losses[-1] < 0.7 * losses[0]
    best = max(record["validation_srcc"] for record in result.history)
    assert result.adapter.provenance["validation_srcc"] == best
    assert best > result.history[0]["validation_srcc"]


def test_the_table_names_what_a_method_brings() -> None:
    rows = re.findall(r"^\| `(\w+)\((.*?)\)` \|", PAGE, flags=re.MULTILINE)
    methods = {name: value for name, value in vars(epoch_training.Learner).items() if name in dict(rows)}
    assert len(rows) == len(methods) == 3
    for name, arguments in rows:
        assert arguments == ", ".join(list(inspect.signature(methods[name]).parameters)[1:])
    assert f"every {epoch_training.SAVE_EVERY} steps" in PAGE


def test_every_module_of_it_has_a_page() -> None:
    shown = (ROOT / "docs" / "reference" / "api" / "training.md").read_text(encoding="utf-8")
    promised = (ROOT / "docs" / "reference" / "stability.md").read_text(encoding="utf-8")
    for module in (epoch_training, training_images, training_passes):
        assert f"::: {module.__name__}" in shown
        assert f"`{module.__name__}`" in promised
        assert all(hasattr(module, name) for name in module.__all__)
