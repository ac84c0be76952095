from __future__ import annotations

from io import BytesIO
from itertools import pairwise

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from PIL import features
from torch import Tensor

from iqakit.errors import ConfigurationError, MissingExtraError
from iqakit.imaging.codecs import jpeg, jpeg2000


@pytest.fixture
def image() -> Tensor:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    waves = torch.stack((torch.sin(x / 5), torch.sin(y / 7), torch.sin((x + y) / 9)))
    return 0.5 + 0.4 * waves + 0.05 * torch.rand((3, 64, 80), generator=torch.Generator().manual_seed(0))


def error(a: Tensor, b: Tensor) -> float:
    return (a - b).square().mean().sqrt().item()


def test_jpeg_is_what_another_reader_and_writer_gives(image: Tensor) -> None:
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    stream = BytesIO()
    imageio.imwrite(stream, pixels, extension=".jpg", quality=30, subsampling=2)
    expected = imageio.imread(stream.getvalue(), extension=".jpg")
    assert np.array_equal((jpeg(image, 30) * 255).round().byte().permute(1, 2, 0).numpy(), expected)


def test_worse_settings_are_worse(image: Tensor) -> None:
    by_quality = [error(jpeg(image, q), image) for q in (90, 60, 30, 10, 3)]
    by_ratio = [error(jpeg2000(image, r), image) for r in (4, 10, 25, 60, 120)]
    for errors in (by_quality, by_ratio):
        assert all(b > a for a, b in pairwise(errors))
        assert errors[0] < 0.05


@pytest.mark.parametrize("codec", [lambda x: jpeg(x, 20), lambda x: jpeg2000(x, 30)], ids=["jpeg", "jpeg2000"])
def test_shape_range_and_batches(codec, image: Tensor) -> None:  # type: ignore[no-untyped-def]
    before, state = image.clone(), torch.get_rng_state()
    out = codec(image)
    assert torch.equal(image, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert out.shape == image.shape
    assert out.dtype == image.dtype
    assert 0 <= out.min() <= out.max() <= 1
    batch = codec(torch.stack((image, image.flip(-1)))[..., :33, :47])  # odd sizes, not contiguous
    assert batch.shape == (2, 3, 33, 47)
    assert torch.equal(batch[0], codec(image[:, :33, :47]))


def test_senseless_settings(image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="the JPEG quality must be in 1-95, but it is 96"):
        jpeg(image, 96)
    with pytest.raises(ConfigurationError, match=r"ratio must be at least 1, but it is 0.5"):
        jpeg2000(image, 0.5)
    with pytest.raises(ConfigurationError, match=r"needs float images .* got torch.uint8 \(3, 64, 80\)"):
        jpeg((image * 255).to(torch.uint8), 50)
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(MissingExtraError, match="this Pillow was built without it; install Pillow's own wheel"):
        jpeg2000(image, 20)
