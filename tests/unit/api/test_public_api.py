"""What programs and plugins may rely on: exactly these names, documented, and light to import.

A change here is a change of the public surface: see docs/reference/stability.md for what it needs.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference" / "api").glob("*.md")}

PUBLIC: dict[str, set[str]] = {
    "iqakit": {
        *("__version__", "adapt", "continual", "evaluate", "explain", "fit", "load"),
        *("AdaptationReport", "ContinualReport", "QualityMap", "QualityModel", "ScoreRow"),
    },
    "iqakit.options": {"AdaptOptions", "ContinualOptions", "EvaluateOptions", "ExplainOptions", "FitOptions"},
    "iqakit.contracts": {
        *("FEATURE_KINDS", "HEAD_KINDS", "FeatureKind", "HeadKind"),
        *("Adapter", "Calibration", "Preprocessing", "FitContext", "FitMethod", "FitResult", "TaskData", "TestTimeMethod"),
        *("Checkpoint", "Progress", "Backbone", "InputSpec", "MapBackbone", "Features", "FeatureMaps"),
        *("Combiner", "FaultCombiner", "ShiftCombiner", "Dataset", "Sample", "TaskFacts"),
        *("AdapterEntry", "BackboneEntry", "CombinerEntry", "CommandEntry", "DatasetEntry", "ModelEntry", "Entry"),
    },
    "iqakit.errors": {
        *("IqakitError", "ConfigurationError", "DataError", "FileFormatError", "ImageError", "MismatchError"),
        *("MissingExtraError", "NewerFormatError", "OfflineError", "PluginError", "StorageError", "TrainingError"),
        "UnknownNameError",
    },
    "iqakit.hookspecs": {
        *("PROJECT", "hookimpl", "hookspec", "iqakit_adapters", "iqakit_backbones", "iqakit_combiners"),
        *("iqakit_commands", "iqakit_datasets", "iqakit_models"),
    },
    "iqakit.functional.bootstrap": {"Statistic", "bootstrap_interval", "bootstrap_values", "percentile_interval"},
    "iqakit.functional.contrastive": {"group_contrastive_loss"},
    "iqakit.functional.correlation": {"krcc", "plcc", "rmse", "srcc"},
    "iqakit.functional.forgetting": {"mean_srcc", "plasticity", "stability", "trade_off"},
    "iqakit.functional.gating": {
        *("DEFAULT_TEMPERATURE", "gate_weights", "less_along", "nearest_distance", "shift_directions"),
    },
    "iqakit.functional.heads": {
        *("FeatureKind", "HeadKind", "PooledFeatures", "head_input", "head_input_dim", "head_scores"),
        *("row_sums", "unit_length"),
    },
    "iqakit.functional.overlay": {"is_norm", "norm_tensor_names", "overlay_call", "trainable_overlay"},
    "iqakit.functional.pooling": {"gate_features", "spatial_mean_std", "token_mean_std"},
    "iqakit.functional.preference": {
        *("fidelity_loss", "pairs_within_batch", "preference_probability", "sample_pairs", "thurstone_target"),
    },
    "iqakit.functional.ranking": {"relative_rank_loss"},
    "iqakit.functional.regression": {"centred_smooth_l1_loss", "plcc_loss"},
    "iqakit.testing": {
        *(
            "check_adapter",
            "check_backbone",
            "check_combiner",
            "check_command",
            "check_dataset",
            "check_model",
            "check_part",
            "check_plugin",
        ),
        *(
            "Check",
            "CheckFailedError",
            "CheckResult",
            "CheckSkippedError",
            "SmallTask",
            "make_backbone",
            "make_fit_context",
            "make_start",
            "run_checks",
        ),
    },
    "iqakit.adapters.epoch_training": {
        *("SAVE_EVERY", "BestEpoch", "EpochTraining", "Learner", "Step", "StepGenerators", "json_record", "one_cycle"),
    },
    "iqakit.adapters.training_images": {"MEMORY_BUDGET", "TrainingImages", "crop_side", "human_scores"},
    "iqakit.adapters.training_passes": {"head_inputs", "over_whole_images", "validation_srcc"},
    "iqakit.reporting.html_report": {"ReportWriter", "write_report"},
    "iqakit.reporting.plots": {"draw_continual"},
    "iqakit.reporting.quality_map": {"map_png", "write_map"},
}
FUNCTIONAL = [name for name in PUBLIC if name.startswith("iqakit.functional.")]
LIGHT = ["iqakit", "iqakit.options", "iqakit.contracts", "iqakit.errors", "iqakit.hookspecs"]
HEAVY = ["torch", "timm", "numpy", "PIL", "sklearn", "scipy", "safetensors", "typer", "rich", "huggingface_hub", "pandas"]


@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_names_of_a_module_are_these(name: str) -> None:
    module = importlib.import_module(name)
    listed: list[str] = module.__all__
    assert set(listed) == PUBLIC[name]
    assert len(listed) == len(set(listed)), "a name is listed twice"
    assert listed == sorted(listed, key=lambda one: (not one.isupper(), one))
    for public in listed:
        assert hasattr(module, public), public
    assert set(listed) - {"__version__"} <= set(dir(module))


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_name_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    for public in PUBLIC[name]:
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{name}.{public}"
            if name not in ("iqakit", "iqakit.contracts", "iqakit.testing"):
                assert value.__module__ == name, f"{name}.{public} is defined elsewhere"


def test_no_other_module_looks_public() -> None:
    inner = {"iqakit.datasets.public", "iqakit.plugins.catalog", "iqakit.storage.model_directory"}
    found = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "iqakit").rglob("*.py")
        if re.search(r"^__all__\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {name for name in found if not name.startswith("iqakit.testing.")} == PUBLIC.keys() | inner


def test_each_public_module_is_on_a_page() -> None:
    shown = {name for page in PAGES.values() for name in re.findall(r"^::: (iqakit[\w.]*)", page, re.MULTILINE)}
    gathered = {"iqakit.contracts", "iqakit.testing"}
    assert PUBLIC.keys() - gathered <= shown
    assert PUBLIC["iqakit.testing"] <= {name.rpartition(".")[2] for name in shown if name.startswith("iqakit.testing.")}
    pieces = {name for name in shown if name.startswith("iqakit.contracts.")}
    homes = {getattr(importlib.import_module("iqakit.contracts"), name).__module__ for name in _classes("iqakit.contracts")}
    assert {home for home in homes if home.startswith("iqakit.contracts.")} == pieces


def _classes(name: str) -> list[str]:
    module = importlib.import_module(name)
    return [public for public in PUBLIC[name] if inspect.isclass(getattr(module, public))]


def test_importing_what_plugins_register_with_loads_nothing_heavy() -> None:
    code = f"import sys, {', '.join(LIGHT)}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    module = importlib.import_module(name)
    found = doctest.testmod(module)
    assert found.attempted > 0, f"no example in {name}"
    assert found.failed == 0
