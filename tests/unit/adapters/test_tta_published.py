"""Published mode of the rank loss, held to a loop that shares nothing with it but the network and the order of draws."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from iqakit.adapters.adaptation_passes import source_scores
from iqakit.backbones.tiny_backbone import create_tiny
from iqakit.contracts import Adapter, Backbone
from iqakit.imaging.preprocessing import preprocessing_for
from iqakit.plugins.catalog import catalog

CROP, ITERATIONS, RATE = 40, 2, 1e-3


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return create_tiny("", "random:0")


@pytest.fixture(scope="module")
def start(tiny: Backbone) -> Adapter:
    return Adapter(
        task="sharpness",
        method="linear",
        backbone_id=tiny.id,
        backbone_fingerprint=tiny.fingerprint(),
        tensors={},
        head_kind="linear",
        head_weight=torch.randn(1, tiny.embedding_dim, generator=Generator().manual_seed(5)),
        head_bias=torch.tensor([0.25]),
        features="embedding",
        preprocessing=preprocessing_for(tiny.input),
        calibration=None,
        provenance={},
    )


def batch(count: int, seed: int) -> list[Tensor]:
    generator = Generator().manual_seed(seed)
    coarse = [torch.randn(1, 3, 5 + 4 * (n % 4), 5 + 4 * (n % 4), generator=generator) for n in range(count)]
    pixels = [F.interpolate(one, size=(48, 48), mode="bilinear")[0].sigmoid() for one in coarse]
    prepared = preprocessing_for(create_tiny("", "random:0").input)
    return [(one - torch.tensor(prepared.mean).view(3, 1, 1)) / torch.tensor(prepared.std).view(3, 1, 1) for one in pixels]


class ByHand:
    """The released code's run in plain lines: what it forgets to clear is never cleared."""

    def __init__(self, start: Adapter, groups: bool, rate: float) -> None:
        self.start, self.groups, self.rate = start, groups, rate
        self.network: Any = create_tiny("", "random:0").module
        self.at_start = {key: value.clone() for key, value in self.network.state_dict().items()}
        norms = [layer for layer in self.network.modules() if isinstance(layer, nn.BatchNorm2d)]
        self.trained = [tensor.requires_grad_(True) for norm in norms for tensor in (norm.weight, norm.bias)]
        self.gradients = [torch.zeros_like(tensor) for tensor in self.trained]
        self.first = [torch.zeros_like(tensor) for tensor in self.trained]
        self.second = [torch.zeros_like(tensor) for tensor in self.trained]
        self.steps = 0
        self.projection: tuple[Tensor, Tensor] | None = None
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (
            start.preprocessing.mean, start.preprocessing.std,
        ))  # fmt: skip

    def scores(self, images: Tensor) -> Tensor:
        self.network.eval()
        with torch.no_grad():
            phi = F.normalize(self.network(images).embedding, dim=1)  # what every head is given
        found: Tensor = phi @ self.start.head_weight[0] + 0.25
        return found

    def degraded(self, crop: Tensor, kind: str, strong: bool, generator: Generator) -> Tensor:
        pixels = crop * self.std + self.mean
        u = float(torch.rand((), generator=generator))
        if kind == "blur":
            sigma = 40 + 20 * u if strong else 5 + 15 * u
            line = torch.tensor([math.exp(-(x**2) / (2 * sigma**2)) for x in (-2, -1, 0, 1, 2)])
            kernel = (line[:, None] * line[None, :] / line.sum() ** 2).expand(3, 1, 5, 5)
            return F.conv2d(F.pad(pixels[None], (2, 2, 2, 2), mode="replicate"), kernel, groups=3)[0].clamp(0, 1)
        if kind == "noise":
            variance = 5e-5 if strong else 1e-5
            return (pixels + variance**0.5 * torch.randn(1, *pixels.shape, generator=generator)[0]).clamp(0, 1)
        stream = io.BytesIO()
        array = (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(array).save(stream, "JPEG", quality=round(40 + 19 * u if strong else 80 + 9 * u), subsampling=2)
        back: Tensor = torch.from_numpy(np.asarray(Image.open(stream)).copy()).permute(2, 0, 1) / 255
        return back

    def copies(self, crops: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        made = []
        for kind in ("blur", "noise", "jpeg"):
            weak, strong = (
                torch.stack([(self.degraded(crop, kind, side, generator) - self.mean) / self.std for crop in crops])
                for side in (False, True)
            )
            made.append((weak, strong, (self.scores(strong) - self.scores(weak)).abs()))
        best = torch.stack([gap for _, _, gap in made]).argmax(0).tolist()
        return tuple(torch.stack([made[kind][side][n] for n, kind in enumerate(best)]) for side in (0, 1))  # type: ignore[return-value]

    def embedded(self, images: Tensor) -> Tensor:
        assert self.projection is not None
        weight, bias = self.projection
        self.network.train()
        phi: Tensor = self.network(images).embedding
        return torch.sigmoid(phi @ weight.T + bias)

    def adapt(self, images: list[Tensor], generator: Generator) -> list[float]:
        places = [[int(torch.randint(48 - CROP + 1, (), generator=generator)) for _ in "yx"] for _ in images]
        crops = torch.stack([i[:, y : y + CROP, x : x + CROP] for i, (y, x) in zip(images, places, strict=True)])
        self.network.load_state_dict(self.at_start)
        if self.projection is None:
            weight, bias = (torch.rand(256, 48, generator=generator), torch.rand(256, generator=generator))
            self.projection = ((weight * 2 - 1) / 48**0.5, (bias * 2 - 1) / 48**0.5)
        self.groups = self.groups and len(images) >= 4
        order = self.scores(torch.stack(images)).argsort()
        weak, strong = self.copies(crops, generator)
        losses = []
        for _ in range(ITERATIONS):
            z, near, far = self.embedded(crops), self.embedded(weak), self.embedded(strong)
            gap = (far - z).square().sum(1).sqrt() - (near - z).square().sum(1).sqrt()
            loss = torch.log(1 + torch.exp(-gap)).mean()
            if self.groups:
                u = F.normalize(self.embedded(crops), dim=1)
                low, high = order[:2].tolist(), order[-2:].tolist()
                shares = []
                for own, other in ((low, high), (high, low)):
                    for i in own:
                        (j,) = (k for k in own if k != i)
                        alike = torch.exp(u[i] @ u[j] / 0.1)
                        shares.append(alike / (alike + sum(torch.exp(u[i] @ u[k] / 0.1) for k in other)))
                loss = loss - torch.log(torch.stack(shares).mean())
            losses.append(loss.item())
            if not self.rate:
                continue
            for held, new in zip(self.gradients, torch.autograd.grad(loss, self.trained), strict=True):
                held += new  # never cleared
            self.adam()
        return losses

    def adam(self) -> None:
        self.steps += 1  # goes on from batch to batch, and so do both moments
        with torch.no_grad():
            for tensor, g, m, v in zip(self.trained, self.gradients, self.first, self.second, strict=True):
                m += 0.1 * (g - m)
                v += 0.001 * (g**2 - v)
                step = (m / (1 - 0.9**self.steps)) / ((v / (1 - 0.999**self.steps)).sqrt() + 1e-8)
                tensor -= self.rate * step


@pytest.mark.parametrize("rate", [RATE, 0.0])
@pytest.mark.parametrize("name", ["relative-rank", "group-rank"])
def test_published_mode_is_the_released_codes_run(name: str, rate: float, tiny: Backbone, start: Adapter) -> None:
    """Three batches; the second has three images, after which the group loss never comes back."""
    batches = [batch(8, 0), batch(3, 1), batch(8, 2)]
    entry = catalog().adapter(name, "test-time")
    settings = {"mode": "published", "iterations": ITERATIONS, "learning_rate": rate, "crop": CROP}
    made: Any = entry.create(entry.config(**settings))
    by_hand = ByHand(start, groups=name == "group-rank", rate=rate)
    for number, images in enumerate(batches):
        adapted = made.adapt(tiny, start, images, Generator().manual_seed(number))
        losses = by_hand.adapt(images, Generator().manual_seed(number))
        facts = adapted.provenance["adaptation"]
        assert facts["adapted"]
        assert [sum(terms.values()) for terms in facts["losses"]] == pytest.approx(losses, rel=1e-5)
        expected = {"rank", "group"} if name == "group-rank" and number == 0 else {"rank"}
        assert all(set(terms) == expected for terms in facts["losses"])
        for key, tensor in by_hand.network.state_dict().items():
            if key in adapted.tensors:  # a step moves by about .001
                torch.testing.assert_close(adapted.tensors[key], tensor, rtol=1e-4, atol=2e-5, msg=f"{number} {key}")
        found = source_scores(tiny, adapted, images)
        torch.testing.assert_close(found, by_hand.scores(torch.stack(images)), rtol=1e-3, atol=1e-4)
        kept = adapted.tensors["stages.0.1.weight"].equal(by_hand.at_start["stages.0.1.weight"])
        assert kept == (rate == 0)
