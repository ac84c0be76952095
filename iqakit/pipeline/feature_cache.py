"""Bare features of a task's images, kept in one directory so that several fits and evaluations share one reading."""

from __future__ import annotations

import hashlib
from pathlib import Path

from iqakit.contracts import Dataset, Features, Preprocessing, Progress
from iqakit.imaging.preprocessing import preprocessing_to_json
from iqakit.pipeline.provenance import versions
from iqakit.pipeline.reading import bare_features
from iqakit.runtimes.torch_runtime import TorchRuntime
from iqakit.storage.canonical_json import canonical_json
from iqakit.storage.checkpoint import FileCheckpoint


def images_key(dataset: Dataset) -> str:
    """SHA-256, in hexadecimal, over names and scores of a data set's images in order; reads no pixel."""
    samples = map(dataset.sample, range(len(dataset)))
    rows = [[sample.name, repr(sample.score), sample.content] for sample in samples]
    return hashlib.sha256(canonical_json(rows).encode()).hexdigest()


def features_key(dataset: Dataset, identity: str, fingerprint: str, preprocessing: Preprocessing) -> str:
    """What bare features belong to; anything that changes them changes it.

    The seed is not part of it: it decides which images there are, and those are.

    Args:
        dataset: The images.
        identity: ``TaskSource.identity``.
        fingerprint: The backbone's.
        preprocessing: How images become input.
    """
    record = {
        "what": "bare features",
        "data": identity,
        "images": images_key(dataset),
        "backbone": fingerprint,
        "preprocessing": preprocessing_to_json(preprocessing),
        "versions": versions(),
    }
    return hashlib.sha256(canonical_json(record).encode()).hexdigest()


def kept_features(
    runtime: TorchRuntime,
    dataset: Dataset,
    preprocessing: Preprocessing,
    *,
    identity: str,
    fingerprint: str,
    kept: Path | None,
    place: Path,
    what: str,
    progress: Progress,
    workers: int,
) -> tuple[Dataset, Features]:
    """Bare features of a data set, from where they are kept if they were read before.

    Args:
        runtime: Runs the backbone.
        dataset: The images.
        preprocessing: How they become input.
        identity: ``TaskSource.identity``.
        fingerprint: The backbone's.
        kept: Directory in which features of many data sets lie, each under its key; None: ``place`` alone.
        place: Directory for this data set's, where ``kept`` is None.
        what: What is being read, for people.
        progress: Where to say how far it is.
        workers: Threads that decode.

    Returns:
        The images that could be read, and their features in that order.

    Raises:
        ImageError: None of them can be read.
    """
    key = features_key(dataset, identity, fingerprint, preprocessing)
    cache = FileCheckpoint(place if kept is None else kept / key[:16], key)
    return bare_features(runtime, dataset, preprocessing, what=what, progress=progress, workers=workers, cache=cache)
