"""What every family of backbones in the catalog promises, whoever brings it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from iqakit.contracts import Backbone, Features
from iqakit.errors import IqakitError
from iqakit.functional.overlay import overlay_call
from iqakit.imaging.preprocessing import preprocessing_for
from iqakit.imaging.tensors import prepare
from iqakit.plugins.catalog import catalog

SMALL = {"timm": ["test_resnet.r160_in1k"], "tiny": ["tiny", "tiny:groupnorm", "tiny:layernorm", "tiny:none"]}
"""Small networks of the built-in families; of any other the first that it lists is taken."""


def cases() -> Iterator[tuple[str, str]]:
    for family, part in catalog().backbones.items():
        for name in SMALL.get(family) or list(part.entry.names(None))[:1]:
            yield family, name


CASES = tuple(cases())
each_family = pytest.mark.parametrize("family", catalog().backbones)


@pytest.fixture(scope="module", params=CASES, ids=[" ".join(case) for case in CASES])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    family, name = request.param
    return catalog().backbones[family].entry.create(name, "random:0")


def images(backbone: Backbone, count: int = 2) -> torch.Tensor:
    """Noise, prepared as this backbone wants it."""
    pixels = torch.randint(256, (count, 3, 90, 121), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return torch.stack([prepare(picture, preprocessing_for(backbone.input))[0] for picture in pixels])


def test_every_family_has_a_case() -> None:
    assert {family for family, _ in CASES} == set(catalog().backbones) >= {"timm", "tiny"}


@each_family
def test_names_are_listed_and_matched_by_a_glob(family: str) -> None:
    entry = catalog().backbones[family].entry
    names = list(entry.names(None))
    assert names
    assert all(isinstance(name, str) and name for name in names)
    assert len(set(names)) == len(names)
    assert names[0] in entry.names(names[0][:3] + "*")
    assert list(entry.names("no such network?")) == []


@each_family
def test_an_unknown_name_and_wrong_weights_get_one_line(family: str) -> None:
    entry = catalog().backbones[family].entry
    name = dict(CASES)[family]
    for asked in (("no-such-network", "random:0"), (name, "random:none"), (name, "no/such/file.safetensors")):
        with pytest.raises(IqakitError) as caught:
            entry.create(*asked)
        assert "\n" not in str(caught.value)
        assert any(part in str(caught.value) for part in asked)


def test_it_is_frozen_and_in_eval_mode(backbone: Backbone) -> None:
    assert isinstance(backbone, Backbone)
    assert not any(part.training for part in backbone.module.modules())
    assert not any(parameter.requires_grad for parameter in backbone.module.parameters())


def test_features_are_what_its_facts_say(backbone: Backbone, untouched_global_state: Callable[[], None]) -> None:
    before = backbone.fingerprint()
    batch = images(backbone)
    with torch.inference_mode():
        features = backbone.forward(batch)
        called = backbone.module(batch)
    assert isinstance(features, Features)
    assert torch.equal(called.embedding, features.embedding)
    assert features.embedding.shape == (2, backbone.embedding_dim)
    assert len(features.stages) == len(features.deviations) == len(backbone.stage_dims) >= 2
    for stage, deviation, width in zip(features.stages, features.deviations, backbone.stage_dims, strict=True):
        assert stage.shape == deviation.shape == (2, width)
        assert bool((deviation >= 0).all())
    for tensor in (features.embedding, *features.stages, *features.deviations):
        assert tensor.dtype == torch.float32
        assert bool(torch.isfinite(tensor).all())
    assert backbone.fingerprint() == before
    untouched_global_state()


def test_it_takes_the_smallest_image_that_it_says_it_takes(backbone: Backbone) -> None:
    height, width = backbone.input.fixed_size or (backbone.input.smallest_side,) * 2
    assert height % backbone.input.multiple == width % backbone.input.multiple == 0
    with torch.inference_mode():
        assert backbone.forward(torch.zeros(1, 3, height, width)).embedding.shape == (1, backbone.embedding_dim)


def test_normalization_tensors_can_be_laid_over_it(backbone: Backbone) -> None:
    own = backbone.module.state_dict()
    names = backbone.norm_tensor_names()
    assert set(names) <= set(own)
    assert not any(name.endswith("num_batches_tracked") for name in names)
    batch = images(backbone, 1)
    with torch.inference_mode():
        bare = backbone.forward(batch).embedding
        assert torch.equal(overlay_call(backbone.module, {name: own[name] for name in names}, batch).embedding, bare)
        if names:
            moved = {name: own[name] * 1.5 + 0.1 for name in names}
            assert not torch.equal(overlay_call(backbone.module, moved, batch).embedding, bare)


def test_its_id_and_weights_lead_back_to_it(backbone: Backbone, untouched_global_state: Callable[[], None]) -> None:
    again = catalog().make_backbone(backbone.id, backbone.weights)
    assert (again.id, again.weights, again.fingerprint()) == (backbone.id, "random:0", backbone.fingerprint())
    assert catalog().make_backbone(backbone.id, "random:1").fingerprint() != backbone.fingerprint()
    untouched_global_state()
