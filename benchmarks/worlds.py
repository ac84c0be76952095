"""Pictures of other worlds than the photos a model was learned from, made by program.

Each maker takes a numpy Generator and gives one picture: uint8 (512, 512, 3), RGB. ``underwater`` is laid over a photo.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE = 512
WORDS = ("file", "edit", "view", "total", "report", "score", "open", "cancel", "settings", "of", "the", "and", "12.5")


def screen(rng: Generator) -> np.ndarray:
    """A desktop: windows with title bars, lines of text, buttons and a table."""
    picture = Image.new("RGB", (SIZE, SIZE), tuple(int(value) for value in rng.integers(0, 256, 3)))
    draw = ImageDraw.Draw(picture)
    dark = rng.random() < 0.4
    paper, ink = ((30, 32, 36), (220, 220, 220)) if dark else ((250, 250, 250), (30, 30, 30))
    for _ in range(int(rng.integers(1, 4))):
        left, top = (int(value) for value in rng.integers(0, 180, 2))
        right, bottom = left + int(rng.integers(240, 420)), top + int(rng.integers(200, 400))
        accent = tuple(int(value) for value in rng.integers(40, 220, 3))
        draw.rectangle((left, top, right, bottom), paper, accent, 2)
        draw.rectangle((left, top, right, top + 24), accent)
        font = ImageFont.load_default(int(rng.integers(10, 18)))
        draw.text((left + 8, top + 4), " ".join(rng.choice(WORDS, 2)), "white", font)
        for line in range(top + 34, bottom - 40, int(font.size) + 6):
            draw.text((left + 10, line), " ".join(rng.choice(WORDS, int(rng.integers(3, 8)))), ink, font)
        for button in range(2):
            place = (right - 90 * (button + 1), bottom - 30, right - 90 * button - 12, bottom - 8)
            draw.rounded_rectangle(place, 5, accent)
            draw.text((place[0] + 12, place[1] + 3), str(rng.choice(WORDS)), "white", font)
    return np.asarray(picture)


def render(rng: Generator) -> np.ndarray:
    """Spheres on a chequered plane under one light, by ray casting; no texture, no noise."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE - 0.5
    ray = np.stack([x, -y, np.ones_like(x)], -1)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    light = rng.normal(size=3) + np.array([0, 3, -2])
    light /= np.linalg.norm(light)
    sky = np.clip(0.5 - y[..., None], 0, 1) * rng.uniform(0.3, 0.9, 3) + 0.2
    picture = sky.copy()
    depth = np.full((SIZE, SIZE), np.inf)
    ground = np.where(ray[..., 1] < -1e-3, -1.0 / np.minimum(ray[..., 1], -1e-3), np.inf)
    hit = np.isfinite(ground) & (ground < 40)
    place = ray * np.where(hit, ground, 0)[..., None]
    chequers = (np.floor(place[..., 0]) + np.floor(place[..., 2])) % 2
    colours = rng.uniform(0, 1, (2, 3))
    picture[hit] = np.where(chequers[..., None] > 0, colours[0], colours[1])[hit] * light[1]
    depth[hit] = ground[hit]
    for _ in range(int(rng.integers(2, 7))):
        radius = rng.uniform(0.3, 1.2)
        centre = np.array([rng.uniform(-2.5, 2.5), radius - 1, rng.uniform(3, 9)])
        along = ray @ centre
        inside = along**2 - (centre @ centre - radius**2)
        distance = along - np.sqrt(np.maximum(inside, 0))
        seen = (inside > 0) & (distance < depth)
        normal = (ray * distance[..., None] - centre) / radius
        facing = np.maximum(normal @ light, 0)[..., None]
        shine = np.maximum((normal * 2 * (normal @ light)[..., None] - light) @ np.array([0, 0, -1]), 0)[..., None] ** 40
        colour = 0.15 + 0.85 * facing * rng.uniform(0, 1, 3) + 0.6 * shine
        picture[seen], depth[seen] = colour[seen], distance[seen]
    return _bytes(picture)


def drawing(rng: Generator) -> np.ndarray:
    """Flat colours and outlines, as in a cartoon."""
    picture = Image.new("RGB", (SIZE, SIZE), tuple(int(value) for value in rng.integers(180, 256, 3)))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(6, 20))):
        corners = rng.integers(0, SIZE, 2) + rng.integers(-140, 140, (int(rng.integers(3, 8)), 2))
        points = [(int(a), int(b)) for a, b in corners]
        fill = tuple(int(value) for value in rng.integers(0, 256, 3))
        if rng.random() < 0.4:
            (left, top), reach = points[0], int(rng.integers(20, 110))
            draw.ellipse((left - reach, top - reach, left + reach, top + reach), fill, "black", 4)
        else:
            draw.polygon(points, fill, "black", 4)
    return np.asarray(picture)


def sketch(rng: Generator) -> np.ndarray:
    """Thin dark strokes on white paper."""
    picture = Image.new("L", (SIZE, SIZE), 250)
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(40, 120))):
        start, step = rng.uniform(0, SIZE, 2), rng.normal(0, 12, 2)
        steps = step + rng.normal(0, 4, (int(rng.integers(4, 20)), 2))
        line = np.cumsum(np.vstack([start, steps]), axis=0)
        draw.line([tuple(point) for point in line], int(rng.integers(0, 120)), int(rng.integers(1, 3)))
    return np.asarray(picture.convert("RGB"))


def noise(rng: Generator) -> np.ndarray:
    """Independent noise, of one size of grain and one strength a picture."""
    grain = int(rng.choice([1, 2, 4, 8]))
    field = rng.normal(128, rng.uniform(20, 90), (SIZE // grain, SIZE // grain, 3))
    return _bytes(field.repeat(grain, 0).repeat(grain, 1) / 255)


def x_ray(rng: Generator) -> np.ndarray:
    """Grey, soft, glowing shapes on black, with ribs and grain."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE - 0.5
    body = np.exp(-((x / rng.uniform(0.25, 0.4)) ** 4 + (y / rng.uniform(0.4, 0.6)) ** 4))
    lungs = sum(np.exp(-(((x - side) / 0.11) ** 2 + ((y + 0.05) / 0.25) ** 2)) for side in (-0.17, 0.17))
    ribs = 0.5 + 0.5 * np.sin(rng.uniform(45, 70) * (y + 0.6 * x**2 + rng.uniform(0, 1)))
    spine = np.exp(-((x / 0.035) ** 2))
    grey = body * (0.55 - 0.4 * lungs + 0.15 * ribs * lungs + 0.3 * spine) + rng.normal(0, 0.02, x.shape)
    return _bytes(np.repeat(grey[..., None], 3, -1))


def underwater(photo: np.ndarray, rng: Generator) -> np.ndarray:
    """A photo as if through metres of water: red swallowed first, blue-green haze, soft, little contrast."""
    picture = Image.fromarray(photo).resize((SIZE, SIZE)).filter(ImageFilter.GaussianBlur(rng.uniform(1, 3)))
    values = np.asarray(picture) / 255
    far = np.linspace(1.0, 0.5, SIZE)[:, None, None] * rng.uniform(0.7, 1.3)
    kept = np.exp(-far * np.array([2.5, 0.7, 0.5]))
    water = np.array([0.02, rng.uniform(0.3, 0.5), rng.uniform(0.4, 0.65)])
    return _bytes(values * kept + water * (1 - kept))


WORLDS: dict[str, Callable[[Generator], np.ndarray]] = {
    "screens": screen,
    "renders": render,
    "drawings": drawing,
    "sketches": sketch,
    "noise": noise,
    "X-rays": x_ray,
}


def _bytes(values: np.ndarray) -> np.ndarray:
    return (np.clip(values, 0, 1) * 255).round().astype(np.uint8)
