from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iqakit.contracts import InputSpec, Preprocessing
from iqakit.errors import ConfigurationError, FileFormatError
from iqakit.imaging.preprocessing import (
    preprocessing_for,
    preprocessing_from_json,
    preprocessing_to_json,
    target_size,
)
from iqakit.imaging.tensors import channels_last, normalise, prepare, random_crop, resize, resize_to

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = Preprocessing(MEAN, STD)


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


side = st.one_of(st.integers(1, 1200), st.integers(1, 20_000))


@given(
    height=side,
    width=side,
    shorter=st.sampled_from([None, 224, 768]),
    smallest=st.integers(1, 224),
    multiple=st.sampled_from([1, 2, 14, 32]),
    bound=st.sampled_from([65_536, 1_000_000, 4_194_304]),
)
@settings(max_examples=400, deadline=None)
def test_target_keeps_every_bound(
    height: int, width: int, shorter: int | None, smallest: int, multiple: int, bound: int
) -> None:
    pre = preprocessing_for(
        InputSpec(MEAN, STD, smallest_side=smallest, multiple=multiple), shorter_side=shorter, max_pixels=bound
    )
    high, wide = target_size(height, width, pre)
    assert high * wide <= bound
    assert min(high, wide) >= smallest
    assert high % multiple == 0
    assert wide % multiple == 0
    assert target_size(width, height, pre) == (wide, high)


@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((768, 768), (768, 768)),
        ((767, 4000), (767, 4000)),  # the shorter side is below 768: left alone
        ((1536, 2048), (768, 1024)),
        ((3000, 2000), (1152, 768)),
        ((16, 24), (32, 48)),
        ((1, 1), (32, 32)),
        ((9000, 12000), (768, 1024)),
        ((1, 5000), (32, 131_072)),  # 32x160000 would be more than max_pixels
        ((700, 12_000), (494, 8479)),  # a panorama: brought down to max_pixels
    ],
)
def test_rule_of_sizes(size: tuple[int, int], target: tuple[int, int]) -> None:
    assert target_size(*size, PLAIN) == target


@pytest.mark.parametrize(
    ("size", "options", "warnings"),
    [
        ((900, 1200), {}, ()),  # the ordinary rule needs no word
        ((500, 400), {}, ()),
        ((20, 400), {}, ("upscaled",)),
        ((1, 1), {}, ("upscaled",)),
        ((40, 200_000), {}, ("downscaled", "aspect-changed")),
        ((1, 5000), {"max_pixels": 65_536}, ("upscaled", "downscaled", "aspect-changed")),
        ((700, 12_000), {}, ("downscaled",)),
        ((301, 403), {"multiple": 14}, ()),
        ((100, 100), {"fixed_size": (224, 224)}, ("upscaled",)),
        ((448, 448), {"fixed_size": (224, 224)}, ()),
        ((448, 600), {"fixed_size": (224, 224)}, ("aspect-changed",)),
    ],
)
def test_warnings_of_resizing(size: tuple[int, int], options: dict[str, object], warnings: tuple[str, ...]) -> None:
    pre = preprocessing_for(InputSpec(MEAN, STD), **options)
    pixels, found = resize(torch.zeros(3, *size, dtype=torch.uint8), pre)
    assert found == warnings
    assert tuple(pixels.shape[1:]) == target_size(*size, pre)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "target"), [((301, 403), (150, 200)), ((90, 80), (203, 190)), ((1, 7), (32, 224))])
def test_resize_matches_pillow(interpolation: str, size: tuple[int, int], target: tuple[int, int]) -> None:
    pixels = noise(*size)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize(target[::-1], filters[interpolation])
    made = resize_to(pixels, target, interpolation)
    difference = np.abs(made.permute(1, 2, 0).numpy().astype(int) - np.asarray(picture).astype(int))
    assert difference.max() <= 3
    assert difference.mean() < 0.05


@given(height=st.integers(1, 70), width=st.integers(1, 70), target=st.tuples(st.integers(1, 70), st.integers(1, 70)))
@settings(max_examples=100, deadline=None)
def test_layout_in_memory_does_not_matter(height: int, width: int, target: tuple[int, int]) -> None:
    last = noise(height, width)
    first = last.clone(memory_format=torch.contiguous_format)
    strided = torch.zeros(3, height * 2, width, dtype=torch.uint8)
    strided[:, ::2] = last
    expected = resize_to(last, target)
    assert expected.stride() == (1, 3 * target[1], 3)
    for layout in (first, strided[:, ::2], last.flip(2).flip(2)):
        assert torch.equal(resize_to(layout, target), expected)
        assert torch.equal(channels_last(layout), last)


def test_prepare_is_the_formula() -> None:
    pixels = noise(40, 50)
    made, warnings = prepare(pixels, PLAIN)
    expected = (pixels.double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(made, expected.float(), atol=1e-6, rtol=1e-6)
    assert made.dtype == torch.float32
    assert made.stride() == (1, 150, 3)
    assert warnings == ()
    assert torch.equal(normalise(pixels[None].expand(2, -1, -1, -1), PLAIN)[1], made)
    assert torch.equal(normalise(pixels.contiguous(), PLAIN), made)


def test_scaled_decoding_gets_the_size_of_the_whole() -> None:
    made, _ = prepare(noise(501, 1000), PLAIN, full_size=(1001, 2000))
    assert made.shape == (3, *target_size(1001, 2000, PLAIN))


def test_threads_do_not_change_a_bit() -> None:
    code = (
        "import hashlib, numpy, torch\n"
        "from iqakit.contracts import Preprocessing\n"
        "from iqakit.imaging.tensors import prepare\n"
        "def digest():\n"
        "    found = hashlib.sha256()\n"
        "    for name in ('bilinear', 'bicubic'):\n"
        "        for size in ((1100, 1500), (20, 33), (801, 777)):\n"
        "            pixels = numpy.random.default_rng(0).integers(0, 256, (*size, 3), dtype='uint8')\n"
        "            pre = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), interpolation=name)\n"
        "            made, _ = prepare(torch.from_numpy(pixels).permute(2, 0, 1), pre)\n"
        "            found.update(made.contiguous().numpy().tobytes())\n"
        "    return found.hexdigest()\n"
        "for threads in (1, 2, 4):\n"
        "    torch.set_num_threads(threads)\n"
        "    print(digest())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    digests = done.stdout.split()
    assert len(digests) == 3
    assert len(set(digests)) == 1


def test_random_crop() -> None:
    pixels = noise(60, 80)
    made = random_crop(pixels, (32, 48), torch.Generator().manual_seed(3), flip=False)
    assert made.shape == (3, 32, 48)
    places = [
        (top, left)
        for top in range(29)
        for left in range(33)
        if torch.equal(pixels[:, top : top + 32, left : left + 48], made)
    ]
    assert len(places) == 1
    again = random_crop(pixels, (32, 48), torch.Generator().manual_seed(3), flip=False)
    assert torch.equal(made, again)
    state = torch.random.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    whole = {bool(torch.equal(random_crop(pixels, (60, 80), generator), pixels)) for _ in range(30)}
    assert whole == {True, False}  # mirrored now and then
    assert torch.equal(torch.random.get_rng_state(), state)


@given(height=st.integers(1, 60), width=st.integers(1, 60), size=st.integers(1, 64), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_random_crop_of_any_image(height: int, width: int, size: int, seed: int) -> None:
    made = random_crop(noise(height, width), size, torch.Generator().manual_seed(seed))
    assert made.shape == (3, size, size)
    assert made.dtype == torch.uint8


# ---- the record


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"colour": 1}, "preprocessing has no setting 'colour'; there are: fixed_size"),
        ({"mean": (0.5, 0.5)}, "mean must be three numbers"),
        ({"std": (0.5, 0.5, 0.0)}, "std must be three positive numbers"),
        ({"std": (0.5, 0.5, float("nan"))}, "std must be three positive numbers"),
        ({"interpolation": "nearest"}, "interpolation must be bilinear or bicubic, not 'nearest'"),
        ({"multiple": 0}, "multiple must be a whole number from 1, not 0"),
        ({"smallest_side": True}, "smallest_side must be a whole number from 1, not True"),
        ({"shorter_side": 7.5}, "shorter_side must be a whole number or none"),
        ({"shorter_side": 16}, "shorter_side 16 is below smallest_side 32"),
        ({"fixed_size": (224,)}, "fixed_size must be height and width"),
        ({"fixed_size": (224, 224), "max_pixels": 1000}, "fixed_size 224x224 exceeds max_pixels 1000"),
        ({"fixed_size": (224, 220), "multiple": 14}, "does not fit multiple 14"),
        ({"max_pixels": 1000}, "leaves no room for 32x32"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        preprocessing_for(InputSpec(MEAN, STD), **options)
    assert said in str(caught.value)


def test_the_backbone_decides_and_overrides_win() -> None:
    spec = InputSpec(MEAN, STD, interpolation="bicubic", smallest_side=28, multiple=14)
    assert preprocessing_for(spec, shorter_side=None) == Preprocessing(
        MEAN, STD, interpolation="bicubic", shorter_side=None, smallest_side=28, multiple=14
    )


@pytest.mark.parametrize(
    "pre", [PLAIN, Preprocessing(MEAN, STD, interpolation="bicubic", shorter_side=None, fixed_size=(224, 224), multiple=14)]
)
def test_json_there_and_back(pre: Preprocessing) -> None:
    assert preprocessing_from_json(json.loads(json.dumps(preprocessing_to_json(pre)))) == pre


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gamma": 1}, "preprocessing has an unknown key 'gamma'"),
        ({"mean": "abc"}, "mean must be three numbers"),
        ({"mean": [0.5, "x", 0.5]}, "mean must be three numbers"),
        ({"interpolation": None}, "interpolation must be"),
        ({"interpolation": []}, "interpolation must be"),
        ({"multiple": 1.0}, "multiple must be a whole number"),
        ({"max_pixels": "many"}, "max_pixels must be a whole number"),
        ({"fixed_size": [224, 224, 3]}, "fixed_size must be height and width"),
    ],
)
def test_json_that_is_foreign(change: dict[str, object], said: str) -> None:
    with pytest.raises(FileFormatError) as caught:
        preprocessing_from_json(preprocessing_to_json(PLAIN) | change)
    assert said in str(caught.value)


def test_json_that_lacks_something() -> None:
    data = preprocessing_to_json(PLAIN)
    del data["std"]
    with pytest.raises(FileFormatError, match="preprocessing lacks 'std'"):
        preprocessing_from_json(data)
    with pytest.raises(FileFormatError, match="must be a JSON object, not list"):
        preprocessing_from_json([])
