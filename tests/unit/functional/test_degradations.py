from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Generator, Tensor

from iqakit.errors import ConfigurationError
from iqakit.functional import degradations as d
from iqakit.functional.colour_spaces import lab_to_rgb, rgb_to_lab, rgb_to_ycbcr, ycbcr_to_rgb


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def noise_image(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=seeded(seed))


@pytest.fixture(scope="module")
def photo() -> Tensor:
    import imageio.v3 as imageio

    spec = importlib.util.find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    pixels = imageio.imread(Path(spec.origin).parent / "datasets/images/china.jpg")[60:220, 200:400]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


# Every function, with an amount that leaves images as they are, and two rising amounts.
KINDS: dict[str, tuple[Callable[[Tensor, float, Generator], Tensor], float, float, float]] = {
    "gaussian_blur": (lambda x, a, g: d.gaussian_blur(x, a), 0, 1, 3),
    "lens_blur": (lambda x, a, g: d.lens_blur(x, a), 0, 1.5, 4),
    "motion_blur": (lambda x, a, g: d.motion_blur(x, a, 0.7), 0, 4, 12),
    "colour_diffusion": (lambda x, a, g: d.colour_diffusion(x, a), 0, 2, 8),
    "colour_shift": (lambda x, a, g: d.colour_shift(x, a, 0.7), 0, 1, 5),
    "colour_quantization": (lambda x, a, g: d.colour_quantization(x, int(a)), 256, 8, 3),
    "colour_saturation": (lambda x, a, g: d.colour_saturation(x, a), 1, 0.6, 0.1),
    "lab_saturation": (lambda x, a, g: d.lab_saturation(x, a), 1, 1.5, 4),
    "gaussian_noise": (d.gaussian_noise, 0, 0.05, 0.2),
    "chroma_noise": (d.chroma_noise, 0, 0.05, 0.2),
    "impulse_noise": (d.impulse_noise, 0, 0.01, 0.1),
    "multiplicative_noise": (d.multiplicative_noise, 0, 0.1, 0.4),
    "denoised": (d.denoised, 0, 0.05, 0.25),
    "brightened": (lambda x, a, g: d.brightened(x, a), 1, 1.4, 3),
    "darkened": (lambda x, a, g: d.darkened(x, a), 1, 1.4, 3),
    "mean_shift": (lambda x, a, g: d.mean_shift(x, a), 0, 0.1, 0.3),
    "jitter": (d.jitter, 0, 1, 4),
    "misplaced_patches": (lambda x, a, g: d.misplaced_patches(x, int(a), g), 0, 10, 60),
    "colour_blocks": (lambda x, a, g: d.colour_blocks(x, int(a), g), 0, 3, 20),
    "pixelated": (lambda x, a, g: d.pixelated(x, int(a)), 1, 2, 8),
    "quantized": (lambda x, a, g: d.quantized(x, int(a)), 4096, 8, 3),
    "sharpened": (lambda x, a, g: d.sharpened(x, a), 0, 1, 4),
    "contrast_changed": (lambda x, a, g: d.contrast_changed(x, a), 1, 0.7, 0.2),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind(name: str, photo: Tensor) -> None:
    degrade, none, mild, strong = KINDS[name]
    before, state = photo.clone(), torch.get_rng_state()
    images = {amount: degrade(photo, amount, seeded(3)) for amount in (none, mild, strong)}
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(photo, before)
    for image in images.values():
        assert image.shape == photo.shape
        assert image.dtype == torch.float32
        assert 0 <= image.min() <= image.max() <= 1
    assert (images[none] - photo).abs().max() < 0.5 / 255
    rmse = [(images[a] - photo).square().mean().sqrt().item() for a in (mild, strong)]
    assert 0.005 < rmse[0] < rmse[1]
    assert torch.equal(degrade(photo, strong, seeded(3)), images[strong])


RANDOM = [n for n in KINDS if n.endswith("noise") or n in ("denoised", "jitter", "misplaced_patches", "colour_blocks")]


@pytest.mark.parametrize("name", RANDOM)
def test_what_is_random_follows_the_generator(name: str, photo: Tensor) -> None:
    degrade, _, _, strong = KINDS[name]
    generator = seeded(3)
    first, second = degrade(photo, strong, generator), degrade(photo, strong, generator)
    assert not torch.equal(first, second)
    pair = degrade(torch.stack((photo, photo)), strong, seeded(3))
    assert not torch.equal(pair[0], pair[1])  # two images of a batch are not degraded alike


@pytest.mark.parametrize("name", [n for n in KINDS if n not in RANDOM])
def test_batches_are_degraded_image_by_image(name: str) -> None:
    degrade, _, _, strong = KINDS[name]
    batch = noise_image(3, 3, 40, 56)
    batch[1] *= 0.3
    whole = degrade(batch, strong, seeded())
    alone = torch.stack([degrade(image, strong, seeded()) for image in batch])
    assert torch.allclose(whole, alone, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.integers(1, 20), st.integers(1, 20), st.floats(0, 1), st.integers(0, 1000))
def test_any_size_and_amount_stays_in_range(name: str, height: int, width: int, share: float, seed: int) -> None:
    degrade, none, _, strong = KINDS[name]
    image = noise_image(3, height, width, seed=seed)
    out = degrade(image, none + share * (strong - none), seeded(seed))
    assert out.shape == image.shape
    assert torch.isfinite(out).all()
    assert 0 <= out.min() <= out.max() <= 1


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("name", KINDS)
def test_flat_images_give_no_nan(name: str, value: float) -> None:
    degrade, _, _, strong = KINDS[name]
    assert torch.isfinite(degrade(torch.full((3, 24, 24), value), strong, seeded())).all()


@pytest.mark.parametrize("sigma", [0.8, 2.0, 5.0])
def test_gaussian_blur_is_scipys(sigma: float) -> None:
    image = noise_image(3, 50, 70)
    reach = math.ceil(3 * sigma)
    expected = [ndimage.gaussian_filter(c.double().numpy(), sigma, mode="nearest", radius=reach) for c in image]
    assert np.allclose(d.gaussian_blur(image, sigma).numpy(), np.stack(expected), atol=1e-5)


def test_gaussian_blur_reaches_three_sigma_even_beyond_the_image() -> None:
    image = torch.zeros(3, 41, 41)
    image[:, 20, 20] = 1
    row = d.gaussian_blur(image, 5.0)[0, 20]
    assert row[20 - 15] > 0
    assert row[20 - 16] == 0
    mean = d.gaussian_blur(noise_image(3, 16, 16), 60.0)  # the kernel is 361 wide, the image 16
    assert mean.std(dim=(1, 2)).max() < 0.02


def test_lens_blur_is_a_disk() -> None:
    image = torch.zeros(3, 31, 31)
    image[:, 15, 15] = 1
    out = d.lens_blur(image, 6.0)[0]
    y, x = torch.meshgrid(torch.arange(31) - 15, torch.arange(31) - 15, indexing="ij")
    distance = torch.hypot(y.float(), x.float())
    assert out.sum().item() == pytest.approx(1, abs=1e-5)
    assert torch.allclose(out[distance <= 5.4], out[15, 15])
    assert (out[distance > 6.5] == 0).all()
    assert out[15, 15].item() == pytest.approx(1 / (math.pi * 36), rel=0.05)


def test_motion_blur_is_a_line() -> None:
    image = torch.zeros(3, 31, 31)
    image[:, 15, 15] = 1
    across, down = d.motion_blur(image, 10.0, 0.0)[0], d.motion_blur(image, 10.0, math.pi / 2)[0]
    assert across[15].sum().item() == pytest.approx(1, abs=1e-5)
    assert torch.allclose(down, across.T, atol=1e-6)
    assert (across[15] > 0).sum() == 11  # from 5 pixels left to 5 pixels right


def test_noise_has_the_sigma_asked_for() -> None:
    grey = torch.full((3, 200, 200), 0.5)
    noise = d.gaussian_noise(grey, 0.1, seeded()) - grey
    assert noise.std().item() == pytest.approx(0.1, rel=0.02)
    assert noise.mean().abs() < 0.002
    luma = rgb_to_ycbcr(d.chroma_noise(grey, 0.05, seeded()))
    assert luma[0].std() < 1e-4
    assert luma[1].std().item() == pytest.approx(0.05, rel=0.02)
    speckle = d.multiplicative_noise(grey, 0.1, seeded()) - grey
    assert speckle.std().item() == pytest.approx(0.05, rel=0.02)


def test_impulses_are_black_and_white_in_the_share_asked_for() -> None:
    grey = torch.full((3, 200, 200), 0.5)
    out = d.impulse_noise(grey, 0.1, seeded())
    assert (out == 0).float().mean().item() == pytest.approx(0.05, abs=0.003)
    assert (out == 1).float().mean().item() == pytest.approx(0.05, abs=0.003)
    assert ((out == 0) | (out == 1) | (out == 0.5)).all()


def test_denoising_takes_noise_away(photo: Tensor) -> None:
    noisy, clean = d.gaussian_noise(photo, 0.2, seeded()), d.denoised(photo, 0.2, seeded())
    assert (clean - photo).square().mean() < 0.5 * (noisy - photo).square().mean()


def test_colours_are_changed_and_lightness_is_not(photo: Tensor) -> None:
    lab = rgb_to_lab(photo)
    assert (rgb_to_lab(d.colour_diffusion(photo, 6.0))[0] - lab[0]).abs().mean() < 0.5
    grey = d.colour_saturation(photo, 0.0)
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], photo.amax(0))


def test_green_is_moved_alone(photo: Tensor) -> None:
    out = d.colour_shift(photo, 3.0, 0.0)
    assert torch.equal(out[::2], photo[::2])
    assert torch.equal(out[1, :, 3:], photo[1, :, :-3])
    assert torch.equal(out[1, :, 0], photo[1, :, 0])


def test_brightening_mirrors_darkening_and_keeps_the_ends() -> None:
    ramp = torch.linspace(0, 1, 32).expand(3, 4, 32)
    up, down = d.brightened(ramp, 2.0), d.darkened(ramp, 2.0)
    for out in (up, down):
        assert out[0, 0, 0].item() == pytest.approx(0, abs=2e-3)
        assert out[0, 0, -1].item() == pytest.approx(1, abs=2e-3)
        assert (out[0, 0].diff() > 0).all()
    assert (up > ramp - 1e-6)[..., 1:-1].all()
    assert (down < ramp + 1e-6)[..., 1:-1].all()


def test_jitter_stays_near(photo: Tensor) -> None:
    position = torch.arange(200.0).expand(3, 160, 200) / 200
    moved = (d.jitter(position, 3.0, seeded()) - position) * 200
    assert moved.abs().max().item() == pytest.approx(3, abs=1e-3)
    assert set(d.jitter(photo, 3.0, seeded()).flatten().tolist()) <= set(photo.flatten().tolist())


@pytest.mark.parametrize("name", ["misplaced_patches", "colour_blocks"])
def test_more_patches_include_the_fewer(name: str, photo: Tensor) -> None:
    degrade = KINDS[name][0]
    few, many = degrade(photo, 5, seeded(1)), degrade(photo, 25, seeded(1))
    touched = (few != photo).any(0)
    assert touched.any()
    assert ((many != photo).any(0) | ~touched).float().mean() > 0.99
    assert (many != photo).any(0).sum() > touched.sum()


def test_pixels_are_flat_means() -> None:
    image = noise_image(3, 12, 18)
    out = d.pixelated(image, 3)
    expected = image.reshape(3, 4, 3, 6, 3).mean((2, 4)).repeat_interleave(3, 1).repeat_interleave(3, 2)
    assert torch.allclose(out, expected, atol=1e-6)


def test_quantization_leaves_as_many_values_as_asked_for(photo: Tensor) -> None:
    for levels in (2, 5):
        assert len(d.quantized(photo, levels).unique()) == levels
        assert all(len(c.unique()) <= levels for c in d.colour_quantization(photo, levels))


def test_contrast_keeps_the_mean_grey(photo: Tensor) -> None:
    flat = d.contrast_changed(photo, 0.0)
    assert flat.std() < 1e-6
    assert flat.mean().item() == pytest.approx(rgb_to_ycbcr(photo)[0].mean().item(), abs=1e-5)


def test_lab_of_known_colours() -> None:
    """White, black and the primaries; the published values of sRGB's primaries, to one decimal."""
    rgb = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).T.reshape(3, 1, 5)
    expected = [[100, 0, 0], [0, 0, 0], [53.2, 80.1, 67.2], [87.7, -86.2, 83.2], [32.3, 79.2, -107.9]]
    assert torch.allclose(rgb_to_lab(rgb)[:, 0].T, torch.tensor(expected), atol=0.06)


def test_colour_spaces_there_and_back() -> None:
    image = noise_image(2, 3, 20, 20)
    assert torch.allclose(lab_to_rgb(rgb_to_lab(image)), image, atol=2e-5)
    assert torch.allclose(ycbcr_to_rgb(rgb_to_ycbcr(image)), image, atol=1e-5)


BAD: list[tuple[Callable[[Tensor], Tensor], str]] = [
    (lambda x: d.gaussian_blur(x, -1), "the blur's sigma must be a number of 0 or more, but it is -1"),
    (lambda x: d.gaussian_blur(x, float("nan")), "must be a number of 0 or more, but it is nan"),
    (lambda x: d.lens_blur(x, -1), "the disk's radius must be"),
    (lambda x: d.motion_blur(x, -1, 0), "the motion's length must be"),
    (lambda x: d.gaussian_noise(x, -1, seeded()), "the noise's sigma must be"),
    (lambda x: d.impulse_noise(x, 1.5, seeded()), "the share of impulses must be in 0-1, but it is 1.5"),
    (lambda x: d.colour_saturation(x, 2), "the saturation's factor must be in 0-1, but it is 2"),
    (lambda x: d.colour_quantization(x, 1), "colours need at least 2 levels a channel, but 1"),
    (lambda x: d.quantized(x, 0), "values need at least one level, but 0"),
    (lambda x: d.pixelated(x, 0), "the size of pixels must be at least 1, but it is 0"),
    (lambda x: d.brightened(x, 0.5), "gamma must be 1 or more, but it is 0.5"),
    (lambda x: d.gaussian_blur((x * 255).to(torch.uint8), 1), r"needs float images .* got torch.uint8 \(3, 8, 8\)"),
    (lambda x: d.sharpened(x[:1], 1), r"sharpened needs float images .* got torch.float32 \(1, 8, 8\)"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_senseless_amounts_and_images(call: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        call(noise_image(3, 8, 8))
