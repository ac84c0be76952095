"""What the network gives for the images of an evaluation: each pass is made once and kept.

Kept are raw outputs, one column a task's head, under everything that they depend on. So another combiner, another order
or a second run needs no pass. Heads that see the same network share its pass: all heads on the bare backbone, and all
heads of a method that replaces shared tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iqakit.adapters.training_images import human_scores
from iqakit.contracts import Adapter, Dataset, Features
from iqakit.errors import DataError, ImageError, TrainingError
from iqakit.functional.heads import head_input, head_scores
from iqakit.functional.pooling import gate_features
from iqakit.pipeline.continual_learning import Workshop
from iqakit.pipeline.reading import prepared_images
from iqakit.storage.canonical_json import canonical_json
from iqakit.storage.checkpoint import FileCheckpoint
from iqakit.storage.fingerprints import fingerprint_tensors

_NETWORKS_AT_ONCE = 8
"""Overlays held in memory at a time; more of them are passed over the images in turns."""
_SAVE_EVERY = 100
"""Images between two saves of passes that are not complete."""


@dataclass(frozen=True)
class TestSet:
    """One task's images for evaluation.

    Attributes:
        task: The task's name.
        seed: The seed of its split.
        dataset: The images that can be read.
        human: Their human scores, (N,).
        features: Their bare features.
        gate: Their gate features.
        failed: How many images could not be read.
        key: What the images and their bare features are known by.
    """

    __test__ = False  # not a test, whatever pytest makes of the name

    task: str
    seed: int
    dataset: Dataset
    human: Tensor
    features: Features
    gate: tuple[Tensor, ...]
    failed: int
    key: str


@dataclass(frozen=True)
class Head:
    """One adapter over the shared tensors of a model.

    Attributes:
        adapter: The adapter.
        overlay: All tensors laid over the backbone; empty: the bare backbone.
        network: Fingerprint of ``overlay``.
        key: What the head's outputs depend on, images left out.
    """

    adapter: Adapter
    overlay: Mapping[str, Tensor]
    network: str
    key: str

    @classmethod
    def of(cls, adapter: Adapter, shared: Mapping[str, Tensor]) -> Head:
        """The head of an adapter in a model with these shared tensors."""
        overlay = {**shared, **adapter.tensors}
        network = fingerprint_tensors(overlay)
        head = {"weight": adapter.head_weight}
        if adapter.head_bias is not None:
            head["bias"] = adapter.head_bias
        record = [network, fingerprint_tensors(head), adapter.head_kind, adapter.features]
        return cls(adapter, overlay, network, hashlib.sha256(canonical_json(record).encode()).hexdigest())

    def outputs(self, features: Features) -> Tensor:
        """Raw outputs (N,) from the network's features."""
        inputs = head_input(features, self.adapter.features)
        return head_scores(inputs, self.adapter.head_weight, self.adapter.head_bias, self.adapter.head_kind)


class Passes:
    """Makes and keeps the passes of an evaluation.

    Args:
        shop: Tasks, backbone and the directory of kept work.
        split: Which images are evaluated.
    """

    def __init__(self, shop: Workshop, split: str) -> None:
        self.shop = shop
        self.split = split
        self._sets: dict[tuple[str, int], TestSet] = {}

    def test_set(self, task: str, seed: int) -> TestSet:
        """A task's images for evaluation.

        Raises:
            DataError: Fewer than two of them can be read.
        """
        if (task, seed) not in self._sets:
            whole = self.shop.open(task, self.split, seed)
            try:
                dataset, features = self.shop.features(task, self.split, seed)
            except ImageError as error:
                raise DataError(f"{error}; at least 2 are needed to evaluate") from error
            if len(dataset) < 2:
                raise DataError(f"{task}: {len(dataset)} of {len(whole)} images can be read; at least 2 are needed")
            self._sets[task, seed] = TestSet(
                task=task,
                seed=seed,
                dataset=dataset,
                human=human_scores(dataset),
                features=features,
                gate=tuple(gate_features(features.stages)),
                # Images that a table names and that are not there were left out on opening; they failed all the same.
                failed=len(whole) - len(dataset) + len(getattr(whole, "left_out", ())),
                key=self.shop.features_key(task, self.split, seed),
            )
        return self._sets[task, seed]

    def raw(self, images: TestSet, heads: Sequence[Head]) -> Tensor:
        """Raw outputs (N, heads) of some heads for a task's images; passes that were made before are found again.

        Raises:
            TrainingError: An output is not finite.
        """
        found: dict[str, Tensor] = {}
        missing: dict[str, Head] = {}
        for head in heads:
            if not head.overlay:
                found[head.key] = head.outputs(images.features)
            elif head.key not in found and head.key not in missing:
                kept = self._column(images, head).load()
                if kept is None:
                    missing[head.key] = head
                else:
                    found[head.key] = kept[0]["raw"]
        by_network: dict[str, list[Head]] = {}
        for head in missing.values():
            by_network.setdefault(head.network, []).append(head)
        networks = list(by_network.values())
        for start in range(0, len(networks), _NETWORKS_AT_ONCE):
            group = networks[start : start + _NETWORKS_AT_ONCE]
            columns = self._pass(images, group)
            for head, column in zip((head for network in group for head in network), columns.T, strict=True):
                found[head.key] = column.contiguous()
                self._column(images, head).save({"raw": found[head.key]}, {})
        for head in heads:
            bad = torch.nonzero(~torch.isfinite(found[head.key]))
            if len(bad):
                name = images.dataset.sample(int(bad[0])).name
                raise TrainingError(
                    f"the head of task {head.adapter.task!r} gives a number that is not finite for {images.task}/{name}; "
                    "train more gently"
                )
        return torch.stack([found[head.key] for head in heads], 1)

    def _pass(self, images: TestSet, networks: Sequence[Sequence[Head]]) -> Tensor:
        """Raw outputs (N, heads), the heads in the order of their networks; a cut pass goes on where it stopped."""
        runtime, say = self.shop.runtime, self.shop.say
        key = _key([images.key, self.shop.device, [head.key for network in networks for head in network]])
        partial = FileCheckpoint(self.shop.work / "passes" / f"partial-{key[:16]}", key)
        kept = partial.load()
        rows: list[Tensor] = list(kept[0]["raw"]) if kept else []
        overlays = [
            {name: tensor.to(runtime.device) for name, tensor in network[0].overlay.items()} for network in networks
        ]
        names = ", ".join(dict.fromkeys(head.adapter.method for network in networks for head in network))
        say.start(f"{images.task}: {names} on {len(images.dataset)} images", len(images.dataset))
        say.advance(len(rows))
        for _, image in prepared_images(images.dataset, self.shop.preprocessing, self.shop.workers, len(rows)):
            if isinstance(image, ImageError):  # it could be read a moment ago
                raise image
            parts = runtime.passes(image[None], overlays)
            rows.append(
                torch.cat([head.outputs(part) for part, network in zip(parts, networks, strict=True) for head in network])
            )
            say.advance()
            if len(rows) % _SAVE_EVERY == 0:
                partial.save({"raw": torch.stack(rows)}, {})
        partial.clear()
        return torch.stack(rows)

    def _column(self, images: TestSet, head: Head) -> FileCheckpoint:
        """Where one head's outputs for a task's images are kept."""
        key = _key([images.key, self.shop.device, head.key])
        return FileCheckpoint(self.shop.work / "passes" / key[:24], key)


def _key(record: Any) -> str:
    return hashlib.sha256(canonical_json(record).encode()).hexdigest()
