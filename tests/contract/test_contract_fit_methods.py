"""What every fit method in the catalog promises, whoever brings it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from iqakit.contracts import FEATURE_KINDS, HEAD_KINDS, Adapter, AdapterEntry, Backbone, FitContext, FitMethod, FitResult
from iqakit.errors import ConfigurationError, UnknownNameError
from iqakit.functional.heads import head_input, head_scores
from iqakit.functional.overlay import overlay_call
from iqakit.imaging.tensors import prepare
from iqakit.pipeline import model as model_module
from iqakit.pipeline.fitting import fit_tasks
from iqakit.pipeline.model import QualityModel
from iqakit.plugins.catalog import Catalog, catalog, describe_settings, make_config
from iqakit.storage.adapter_file import adapter_bytes, check_fits, parse_adapter
from iqakit.storage.canonical_json import canonical_json

ENTRIES = {name: part.entry for name, part in catalog().adapters.items() if part.entry.kind == "fit"}
MakeContext = Callable[..., FitContext]
QUICK: dict[str, dict[str, Any]] = {"tsn": {"crop": 64}}
"""Settings that make a method quick; where there are none, its defaults are used."""
each_method = pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)


def fitted(entry: AdapterEntry, context: FitContext) -> FitResult:
    method = entry.create(entry.config(**QUICK.get(entry.name, {})))
    assert isinstance(method, FitMethod)
    return method.fit(context)


def state_of(backbone: Backbone) -> Mapping[str, object]:
    module = backbone.module
    return {
        "fingerprint": backbone.fingerprint(),
        "modes": [(name, part.training) for name, part in module.named_modules()],
        "gradients": [(name, p.requires_grad, p.grad) for name, p in module.named_parameters()],
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()],
    }


def raw_score(adapter: Adapter, backbone: Backbone, pixels: Tensor) -> Tensor:
    """The head's output from the adapter's data and the backbone alone."""
    image, _ = prepare(pixels, adapter.preprocessing)
    with torch.inference_mode():
        features = overlay_call(backbone.module, adapter.tensors, image[None])
        inputs = head_input(features, adapter.features)
        return head_scores(inputs, adapter.head_weight, adapter.head_bias, adapter.head_kind)


def test_there_are_fit_methods() -> None:
    assert {"tsn", "linear"} <= set(ENTRIES)


@each_method
def test_what_it_was_given_and_global_state_stay_as_they_were(
    entry: AdapterEntry, fit_context: MakeContext, tiny: Backbone, untouched_global_state: Callable[[], None]
) -> None:
    first = fitted(entry, replace(fit_context(place="earlier"), task="before"))
    earlier = first.adapter
    held = adapter_bytes(earlier)
    context = replace(fit_context(earlier=(earlier,)), shared=first.replaced or {}, memory=first.memory or {})
    features = [context.train_features.embedding, *context.train_features.stages, *context.train_features.deviations]
    copies = [tensor.clone() for tensor in features]
    before, threads = state_of(tiny), torch.get_num_threads()
    fitted(entry, context)
    assert state_of(tiny) == before
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert adapter_bytes(earlier) == held
    assert all(torch.equal(a, b) for a, b in zip(features, copies, strict=True))
    untouched_global_state()


@each_method
def test_one_seed_gives_one_adapter_and_a_checkpoint_changes_nothing(entry: AdapterEntry, fit_context: MakeContext) -> None:
    first = adapter_bytes(fitted(entry, fit_context(seed=3, place="a")).adapter)
    assert adapter_bytes(fitted(entry, fit_context(seed=3, place="b")).adapter) == first
    assert adapter_bytes(fitted(entry, fit_context(seed=3, place="a")).adapter) == first  # goes on from what it left


@each_method
def test_the_adapter_keeps_its_contract_and_comes_back_from_its_file(
    entry: AdapterEntry, fit_context: MakeContext, tiny: Backbone
) -> None:
    context = fit_context()
    result = fitted(entry, context)
    adapter = result.adapter
    assert (adapter.task, adapter.method) == (context.task, entry.name)
    assert (adapter.backbone_id, adapter.backbone_fingerprint) == (tiny.id, tiny.fingerprint())
    assert adapter.preprocessing == context.preprocessing
    assert adapter.calibration is None  # the pipeline's business
    assert adapter.head_kind in HEAD_KINDS
    assert adapter.features in FEATURE_KINDS
    assert adapter.head_weight.device.type == "cpu"
    assert not any(tensor.requires_grad for tensor in (adapter.head_weight, *adapter.tensors.values()))
    assert set(adapter.tensors) <= set(tiny.module.state_dict())
    check_fits(adapter, tiny)
    canonical_json(adapter.config)
    canonical_json(adapter.provenance)
    json.dumps([dict(record) for record in result.history])
    # It comes back from its file and gives the same scores.
    data = adapter_bytes(adapter)
    back = parse_adapter(data, "the file", tiny)
    assert adapter_bytes(back) == data
    for index in range(3):
        pixels = context.validation.image(index)
        assert torch.equal(raw_score(back, tiny, pixels), raw_score(adapter, tiny, pixels))


@each_method
def test_a_model_scores_without_the_method(
    entry: AdapterEntry, rated_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_tasks(
        [rated_photos],
        backbone="tiny",
        adapter=entry.name,
        settings={name: str(value) for name, value in QUICK.get(entry.name, {}).items()},
        model=tmp_path / "model",
        epochs=1,
        workers=0,
    )
    image = rated_photos / "images" / "p000.png"
    score = QualityModel.load(tmp_path / "model").score(image)
    without = Catalog(
        tuple(
            replace(plugin, entries=tuple(e for e in plugin.entries if not isinstance(e, AdapterEntry)))
            for plugin in catalog().plugins
        )
    )
    assert not without.adapters
    monkeypatch.setattr(model_module, "catalog", lambda: without)
    again = QualityModel.load(tmp_path / "model").score(image)
    assert again == score
    assert again.status == "ok"


@each_method
def test_settings_are_plain_frozen_and_refused_where_they_are_wrong(entry: AdapterEntry) -> None:
    config = entry.config()
    canonical_json(asdict(config))
    assert make_config(entry, {}) == config
    with pytest.raises(UnknownNameError, match=f"no setting of {entry.name} is named 'no_such_setting'"):
        make_config(entry, {"no_such_setting": "1"})
    for setting in describe_settings(entry):
        if "a text" not in setting.wanted and "a path" not in setting.wanted:
            with pytest.raises(ConfigurationError, match=rf"^{setting.name}=\?! of {entry.name}: .+ is wanted$"):
                make_config(entry, {setting.name: "?!"})
    for field in fields(config):
        with pytest.raises((FrozenInstanceError, AttributeError)):
            setattr(config, field.name, getattr(config, field.name))
