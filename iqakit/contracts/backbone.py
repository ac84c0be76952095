"""What a backbone promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from iqakit.contracts.features import FeatureMaps, Features


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a backbone wants its images to be.

    Attributes:
        mean: Mean a channel, RGB, of pixels in 0-1, subtracted first.
        std: Standard deviation a channel, divided by second.
        interpolation: The resize filter it was trained with, ``"bilinear"`` or ``"bicubic"``.
        smallest_side: The smallest height and width, in pixels, that it takes.
        multiple: Height and width must be multiples of this; 1 where any size does.
        fixed_size: (height, width) where only one size works, else None.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    smallest_side: int = 32
    multiple: int = 1
    fixed_size: tuple[int, int] | None = None


@runtime_checkable
class Backbone(Protocol):
    """A frozen network, in eval mode, that turns images into features.

    Attributes:
        id: The name by which ``create`` made it, e.g. ``"resnet50"`` or ``"tiny"``.
        weights: Where its tensors came from: ``"pretrained"``, ``"random:SEED"`` or a file's name (for people; the
            fingerprint decides).
        input: What its images must be.
        embedding_dim: D of the embedding.
        stage_dims: D_l of each stage, shallow to deep; at least two.
        module: The network; calling it with images (N, 3, H, W) gives ``Features``. Its parameters ask for no gradient.
    """

    id: str
    weights: str
    input: InputSpec
    embedding_dim: int
    stage_dims: tuple[int, ...]
    module: nn.Module

    def forward(self, images: Tensor) -> Features:
        """Features of prepared images (N, 3, H, W), float32, RGB, normalised as ``input`` says."""
        ...

    def norm_tensor_names(self) -> tuple[str, ...]:
        """Names, in ``module``, of every normalization weight, bias and running statistic; empty where there are none."""
        ...

    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, over names, shapes and bytes of the tensors."""
        ...


@runtime_checkable
class MapBackbone(Protocol):
    """What a backbone may offer beside ``Backbone``: its maps before pooling.

    Optional. ``iqakit explain`` draws the class-activation form from them; a backbone without them is explained from
    tiles alone.
    """

    def maps(self, images: Tensor, tensors: Mapping[str, Tensor]) -> FeatureMaps:
        """Maps of prepared images, to be called with gradients enabled.

        Args:
            images: As for ``forward``.
            tensors: An adapter's tensors, laid over the module for this call; may be empty.
        """
        ...
