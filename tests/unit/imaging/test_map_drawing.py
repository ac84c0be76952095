from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from iqakit.errors import ConfigurationError
from iqakit.imaging.map_drawing import Legend, colour_ramp, draw_map

LEGEND = Legend(20.0, 80.0, [(20.0, "20"), (50.0, "50"), (80.0, "80")], "score of each part", "score 50.0", mark=50.0)


def drawn(height: int, width: int, values: np.ndarray, legend: Legend = LEGEND, side: int = 1600) -> np.ndarray:
    photo = np.full((height, width, 3), 128, dtype=np.uint8)
    return np.asarray(Image.open(BytesIO(draw_map(photo, values.astype(np.float32), legend, side=side))))


def oklab(colours: np.ndarray) -> np.ndarray:
    """sRGB (0-255) to OKLab, with the matrices of the other direction inverted."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_cone = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.cbrt(linear @ to_cone.T) @ to_lab.T


def test_the_ramp_is_even_and_its_lightness_rises() -> None:
    ramp = colour_ramp()
    assert ramp.shape == (256, 3)
    lab = oklab(ramp.astype(float))
    assert lab[0, 0] == pytest.approx(0.30, abs=0.02)
    assert lab[-1, 0] == pytest.approx(0.93, abs=0.02)
    # 8 bits a channel round single steps; over eight of them the walk is even.
    walked = np.linalg.norm(np.diff(lab[::8], axis=0), axis=1)
    assert walked.std() < 0.12 * walked.mean()
    assert (np.diff(lab[::8, 0]) > 0).all()


@pytest.mark.parametrize("missing", ["protan", "deutan", "tritan", "all"])
def test_the_ramp_keeps_its_order_for_the_colour_blind(missing: str) -> None:
    """Simulated after Machado et al. (2009), severity 1: luminance rises all the way."""
    matrix = {
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
        "all": np.eye(3),
    }[missing]
    linear = (colour_ramp()[::16] / 255.0) ** 2.2
    seen = (linear @ np.array(matrix).T).clip(0, 1) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(seen) > 0).all()


def test_high_values_are_lighter_and_in_their_place() -> None:
    values = np.zeros((8, 12))
    values[:, :6], values[:, 6:] = 25, 75
    picture = drawn(400, 800, values)
    assert picture.shape[1] == 800
    photo = picture[:400].astype(float)
    assert photo[:, 420:].sum(2).mean() > photo[100:, :380].sum(2).mean() + 60


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(512, 384, (640, 480)), (3000, 4000, (1200, 1600)), (600, 1200, (600, 1200)), (4000, 500, (1600, 200))],
)
def test_the_size_is_bounded(height: int, width: int, expected: tuple[int, int]) -> None:
    picture = drawn(height, width, np.full((4, 4), 50.0))
    assert picture.shape[1] >= expected[1]
    assert expected[0] < picture.shape[0] < expected[0] + 220


def test_a_smaller_size_can_be_asked_for() -> None:
    assert drawn(3000, 4000, np.full((4, 4), 50.0), side=400).shape[1] == 400
    with pytest.raises(ConfigurationError, match="a map is at least 256 pixels wide or high; found 100"):
        drawn(300, 400, np.full((4, 4), 50.0), side=100)


def test_a_legend_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="low end must be below its high end; found 3 and 3"):
        drawn(64, 64, np.zeros((2, 2)), Legend(3.0, 3.0, [], "", ""))


def test_one_pixel_and_long_titles_are_drawn() -> None:
    legend = Legend(0.0, 1.0, [(0.0, "0")], "a long title " * 12, "score 1.0")
    picture = drawn(1, 1, np.zeros((1, 1)), legend)
    assert picture.shape[0] > 640
    assert (picture[650:] < 100).any()


def test_equal_input_gives_equal_bytes() -> None:
    photo, values = np.zeros((90, 120, 3), dtype=np.uint8), np.full((3, 4), 40, dtype=np.float32)
    assert draw_map(photo, values, LEGEND) == draw_map(photo, values, LEGEND)
