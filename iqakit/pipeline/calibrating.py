"""From a finished adapter's raw outputs to score points on the task's own scale of human scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from iqakit.adapters.training_images import human_scores
from iqakit.contracts import Adapter, Calibration, Dataset, Progress
from iqakit.errors import ConfigurationError
from iqakit.functional.calibration_choice import choose_calibration
from iqakit.functional.correlation import srcc
from iqakit.functional.heads import head_input, head_scores
from iqakit.imaging.tensors import prepare
from iqakit.runtimes.torch_runtime import TorchRuntime

CUSTOMARY_SCALES = ((0.0, 1.0), (1.0, 5.0), (0.0, 5.0), (0.0, 10.0), (0.0, 100.0))
"""Scales that human scores are commonly given on; the first that holds a table's scores is taken to be its own."""
LEAST_VALIDATION = 10
"""With fewer validation images the map is fitted on training images too."""
_SEED = 0


@dataclass(frozen=True, slots=True)
class Scale:
    """A scale of human scores, higher is better; its ends are 0 and 100 points.

    For a user's table of DMOS these are the ends of the turned numbers, as in ``Sample.score``; an adapter's provenance
    keeps them so too.

    Attributes:
        low: The worst score it has.
        high: The best.
        source: How it is known: ``"given"``, ``"published"``, ``"customary"`` or ``"observed"``.
        rated: For a user's table of DMOS the ends as people rated, lower first, which is the best; else None.
    """

    low: float
    high: float
    source: str
    rated: tuple[float, float] | None = None

    def points(self, scores: Tensor) -> Tensor:
        """Scores in points, 0-100; what lies beyond the ends is taken to lie on them."""
        return ((scores - self.low) / (self.high - self.low) * 100).clamp(0, 100)

    def __str__(self) -> str:
        """The ends as the user knows them."""
        if self.rated is None:
            return f"{self.low:g} to {self.high:g}"
        best, worst = self.rated
        return f"{best:g} to {worst:g} of DMOS, where {worst:g} is 0 points and {best:g} is 100"

    def outside(self, datasets: Sequence[Dataset]) -> str | None:
        """A line about scores beyond the ends, where there are any."""
        scores = [data.sample(index).score for data in datasets for index in range(len(data))]
        count = sum(not self.low <= score <= self.high for score in scores)
        if not count:
            return None
        return (
            f"{count} of {len(scores)} scores lie outside the scale {self}, and are taken to lie on its ends; "
            "--scale LOW:HIGH takes the scale that people rated on"
        )


def scale_of(dataset: Dataset, given: tuple[float, float] | None = None) -> Scale:
    """The scale of a task's human scores.

    Tasks are mixed in points, so equal points should mean equal quality. Taking each table's own worst and best image as
    0 and 100 would stretch a set of good photos as far as one that holds ruined ones; the scale people rated on does not.

    DMOS of a user's table were turned at max + min over the table, which moves the scale's ends as well: with c the
    turning point, a scale low to high becomes c - high to c - low. Customary scales are looked for among the numbers
    before that, which are those that people gave.

    Args:
        dataset: Images of the task.
        given: The scale as people rated on it, where the user says.

    Returns:
        The scale given, else as published, else the first customary one that holds all scores, else the range observed.
        Its ends are on the side of the turned numbers.

    Raises:
        ConfigurationError: The scale given is none.
    """
    if given is not None:
        low, high = given
        if not -1e9 < low < high < 1e9:
            raise ConfigurationError(f"a scale needs its low end below its high end, but it is {low:g} to {high:g}")
        return _turned(low, high, "given", dataset.facts.turned_at)
    facts = dataset.facts
    if facts.low is not None and facts.high is not None:
        return Scale(facts.low, facts.high, "published")
    scores = human_scores(dataset).double()
    if facts.turned_at is not None:
        # As exact as the ends are turned, so that a score on an end is not beyond it by rounding.
        scores = torch.tensor([dataset.sample(index).score for index in range(len(dataset))], dtype=torch.float64)
    worst, best = float(scores.min()), float(scores.max())
    for low, high in CUSTOMARY_SCALES:
        scale = _turned(low, high, "customary", facts.turned_at)
        if scale.low <= worst and best <= scale.high:
            return scale
    if facts.turned_at is None:
        return Scale(worst, best, "observed")
    return Scale(worst, best, "observed", (facts.turned_at - best, facts.turned_at - worst))


def _turned(low: float, high: float, source: str, turned_at: float | None) -> Scale:
    """A scale as people rated on it, turned as the scores were."""
    if turned_at is None:
        return Scale(low, high, source)
    return Scale(turned_at - high, turned_at - low, source, (low, high))


def calibrate(
    runtime: TorchRuntime,
    adapter: Adapter,
    shared: Mapping[str, Tensor],
    train: Dataset,
    validation: Dataset,
    scale: Scale,
    progress: Progress,
) -> tuple[Calibration, float]:
    """Choose and fit the map from raw outputs to points on held-out images.

    Which images are held out together while choosing is dealt by a fixed seed: the choice depends on the data alone.

    Args:
        runtime: Runs the backbone.
        adapter: The finished adapter.
        shared: Tensors in place of the backbone's own, under the adapter's.
        train: The task's training images.
        validation: Its validation images.
        scale: The scale of its human scores.
        progress: Where to say how far it is.

    Returns:
        The map, and SRCC of raw outputs with human scores on the validation images (nan where undefined).
    """
    used = [validation]
    if len(validation) < LEAST_VALIDATION and validation is not train:
        used.append(train)
    raw = [raw_outputs(runtime, adapter, shared, dataset, progress) for dataset in used]
    scores = [human_scores(dataset) for dataset in used]
    contents = [content for dataset in used for content in _contents(dataset)]
    generator = torch.Generator().manual_seed(_SEED)
    choice = choose_calibration(torch.cat(raw), scale.points(torch.cat(scores)), contents, generator)
    if choice.logistic_error == choice.logistic_error:  # not nan: there was enough to hold some images out
        errors = f"logistic {choice.logistic_error:.1f} points, isotonic {choice.isotonic_error:.1f}"
        progress.message(f"{adapter.task}: calibration {choice.fit.kind} (error on held-out images: {errors})")
    return Calibration(**asdict(choice.fit)), float(srcc(raw[0], scores[0]))


def _contents(dataset: Dataset) -> list[str]:
    """Names of the images' contents; an image of unknown content is a content of its own."""
    samples = (dataset.sample(index) for index in range(len(dataset)))
    return [f"image {sample.name}" if sample.content is None else f"content {sample.content}" for sample in samples]


def raw_outputs(
    runtime: TorchRuntime, adapter: Adapter, shared: Mapping[str, Tensor], dataset: Dataset, progress: Progress
) -> Tensor:
    """The adapter's raw outputs on whole images, (N,), over the shared tensors, as when scoring."""
    outputs = []
    overlay = {name: tensor.to(runtime.device) for name, tensor in {**shared, **adapter.tensors}.items()}
    progress.start(f"{adapter.task}: calibrating on {len(dataset)} images", len(dataset))
    for index in range(len(dataset)):
        image, _ = prepare(dataset.image(index), adapter.preprocessing)
        features = runtime.passes(image[None], [overlay])[0]
        inputs = head_input(features, adapter.features)
        outputs.append(head_scores(inputs, adapter.head_weight, adapter.head_bias, adapter.head_kind))
        progress.advance()
    return torch.cat(outputs)
