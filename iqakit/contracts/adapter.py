"""What an adapter is, and what makes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from iqakit.contracts.backbone import Backbone
    from iqakit.contracts.dataset import Dataset
    from iqakit.contracts.features import Features
    from iqakit.functional.calibration import CalibrationKind, ResidualKind
    from iqakit.functional.isotonic import Knots

HeadKind = Literal["linear", "cosine"]
FeatureKind = Literal["embedding", "all-stages"]
HEAD_KINDS: tuple[HeadKind, ...] = ("linear", "cosine")
FEATURE_KINDS: tuple[FeatureKind, ...] = ("embedding", "all-stages")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How pixels become a backbone's input; written into the adapter and applied identically ever after.

    Attributes:
        mean: Mean a channel, RGB, of pixels in 0-1.
        std: Standard deviation a channel.
        interpolation: Filter of every resize, ``"bilinear"`` or ``"bicubic"``, antialiased.
        shorter_side: The shorter side is brought down to this, but only if both sides are at least this long; None: never.
        smallest_side: Images with a shorter side below this are enlarged to it.
        multiple: Height and width are brought to multiples of this.
        fixed_size: (height, width) every image is resized to, or None.
        max_pixels: Larger images are brought down to about this many pixels, which bounds memory.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    shorter_side: int | None = 768
    smallest_side: int = 32
    multiple: int = 1
    fixed_size: tuple[int, int] | None = None
    max_pixels: int = 4_194_304


@dataclass(frozen=True, slots=True)
class Calibration:
    """Map from a head's raw output to score points (0-100), strictly rising; ``iqakit.functional.calibration`` applies it.

    ``score = (1 - tilt) * f(raw) + tilt * 50 * (1 + z / (1 + |z|))``, ``z = (raw - centre) / width``, where
    0 <= low < high <= 100 and width > 0. ``logistic``: f is ``low + (high - low) / (1 + exp(-z))``. ``isotonic``: straight
    lines between the knots, flat beyond the first and the last; the tilt is then above 0.

    Attributes:
        low: Lower end of f.
        high: Upper end of f.
        centre: Raw output half-way between both ends (logistic), or where the tilt is steepest.
        width: Width of the slope, in raw units.
        residual: How far human scores lie from the map, in score points: half the width of the interval that holds 68 % of
            images that the map was not fitted to.
        kind: ``"logistic"`` or ``"isotonic"``.
        knots: (raw, points), both strictly rising, from ``low`` to ``high``; empty for a logistic.
        tilt: Share of the map that rises without end, so that no two outputs come out equal; 0 or more, below 1.
        residual_kind: ``"constant"``, or ``"bounded"``: the residual is that at 50 points, and is smaller towards the ends
            of the scale.
    """

    low: float
    high: float
    centre: float
    width: float
    residual: float
    kind: CalibrationKind = "logistic"
    knots: Knots = ()
    tilt: float = 0.0
    residual_kind: ResidualKind = "constant"


@dataclass(frozen=True, slots=True)
class Adapter:
    """What one task adds on the frozen backbone. Data, not code.

    Attributes:
        task: The task's name.
        method: The adaptation method that made it, e.g. ``"tsn"``.
        backbone_id: Name of the backbone.
        backbone_fingerprint: Fingerprint of the backbone it belongs on.
        tensors: Tensors laid over the backbone, by name in its module; may be empty.
        head_kind: ``"linear"`` (w.z + b) or ``"cosine"`` (w.z / (|w| |z|), no bias).
        head_weight: (1, D), D the width of the head's input.
        head_bias: (1,) for a linear head, None for a cosine head.
        features: The head's input: ``"embedding"``, or ``"all-stages"`` (mean and deviation of every stage and the
            embedding, each part L2-normalised, one after the other).
        preprocessing: How pixels become input.
        calibration: Map to score points; None where there was nothing to calibrate on.
        config: The method's settings, plain JSON.
        provenance: What it was learned from (data, counts, seed, versions), plain JSON; no time stamps.
    """

    task: str
    method: str
    backbone_id: str
    backbone_fingerprint: str
    tensors: Mapping[str, Tensor]
    head_kind: HeadKind
    head_weight: Tensor
    head_bias: Tensor | None
    features: FeatureKind
    preprocessing: Preprocessing
    calibration: Calibration | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


class Progress(Protocol):
    """Where a long piece of work says how far it is."""

    def start(self, what: str, total: int) -> None:
        """A stage of ``total`` steps begins."""
        ...

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Some steps are done; ``note`` is a short figure to show beside them."""
        ...

    def message(self, text: str) -> None:
        """One line worth reading."""
        ...


class Checkpoint(Protocol):
    """Where a fit method keeps its resumable state, atomically; tensors and plain JSON only."""

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the state kept."""
        ...

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The state kept, or None where there is none to go on from."""
        ...


@dataclass(frozen=True, slots=True)
class TaskData:
    """Images of one task.

    Attributes:
        task: The task's name.
        train: Images to learn from; every one of them can be read.
        validation: Images to choose by, readable too; disjoint in content from ``train``.
    """

    task: str
    train: Dataset
    validation: Dataset


@dataclass(frozen=True)
class FitContext:
    """All that a fit method sees.

    Attributes:
        backbone: The frozen backbone, on ``device``.
        earlier: Adapters of the tasks learned so far, in order.
        shared: Tensors that methods of earlier tasks put in place of the backbone's own; empty for most.
        task: The task's name.
        train: Images to learn from; every one of them can be read.
        validation: Images to choose by, readable too; disjoint in content from ``train``.
        train_features: The bare backbone's features of the whole training images, in order, on the CPU.
        validation_features: The same of the validation images.
        preprocessing: How pixels become input.
        generator: The one source of randomness, on the CPU.
        seed: The seed that generator was made with.
        device: Torch device's name.
        progress: Where to say how far it is.
        checkpoint: Where to keep resumable state.
        workers: Threads that decode images.
        epochs: How many epochs the user asked for; None: as the method's settings say.
        memory: What the same method kept of earlier tasks (``FitResult.memory``); empty for the first task.
        earlier_data: Images of the earlier tasks, in the order learned; only for methods whose entry says
            ``needs_earlier_data``, else empty.
    """

    backbone: Backbone
    earlier: Sequence[Adapter]
    shared: Mapping[str, Tensor]
    task: str
    train: Dataset
    validation: Dataset
    train_features: Features
    validation_features: Features
    preprocessing: Preprocessing
    generator: Generator
    seed: int
    device: str
    progress: Progress
    checkpoint: Checkpoint
    workers: int = 2
    epochs: int | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    earlier_data: Sequence[TaskData] = ()


@dataclass(frozen=True)
class FitResult:
    """What a fit method gives back.

    Attributes:
        adapter: The task's adapter, without calibration (the pipeline adds it).
        replaced: Tensors that replace the shared ones from now on, for methods that train those; else None.
        history: One plain record an epoch, for logs and plots.
        memory: What the method wants to find again when it learns the next task (importance of weights, examples to
            rehearse); kept beside the model, never used for scoring. None: what there was stays.
        copies: What degraded copies of the task's images look like to the bare backbone, for combiners that learn from
            that (``FaultCombiner``): gate features, one (M, D_l) a stage, a row for each of M faults. None: none were made.
        shifts: How weak degradation moves images of the task, as the bare backbone sees it, for combiners that learn from
            that (``ShiftCombiner``): gate features of a copy less those of its image, one (M, D_l) a stage. None: none.
    """

    adapter: Adapter
    replaced: Mapping[str, Tensor] | None = None
    history: Sequence[Mapping[str, Any]] = ()
    memory: Mapping[str, Tensor] | None = None
    copies: Sequence[Tensor] | None = None
    shifts: Sequence[Tensor] | None = None


@runtime_checkable
class FitMethod(Protocol):
    """Learns one task from its scores."""

    def fit(self, context: FitContext) -> FitResult:
        """Learn ``context.task``. Leaves the backbone, module modes and global random state untouched."""
        ...


@runtime_checkable
class TestTimeMethod(Protocol):
    """Makes an adapter for the images at hand; sees no score."""

    def adapt(self, backbone: Backbone, start: Adapter, images: Sequence[Tensor], generator: Generator) -> Adapter:
        """Adapt ``start`` to prepared images, each (3, H, W). Leaves what it was given untouched."""
        ...
