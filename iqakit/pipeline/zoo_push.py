"""Publishing a model: its card, its hashes and its probes' scores go into a directory that any static server can serve."""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import iqakit
from iqakit.errors import ConfigurationError, FileFormatError, MismatchError, StorageError
from iqakit.pipeline.zoo_card import model_card
from iqakit.pipeline.zoo_checks import check_content
from iqakit.pipeline.zoo_facts import FACTS_NAME, FIGURES_NAME, CardFacts, Figures, eval_records, read_facts, read_figures
from iqakit.pipeline.zoo_probes import probe_scores
from iqakit.storage.atomic import read_file_bytes, write_bytes_atomic, write_error, write_text_atomic
from iqakit.storage.canonical_json import parse_json, readable_json
from iqakit.storage.directory_lock import locked_directory
from iqakit.storage.fingerprints import file_sha256
from iqakit.storage.model_directory import CARD_NAME, MANIFEST_NAME, read_model
from iqakit.storage.zoo_cache import is_whole
from iqakit.storage.zoo_index import INDEX_NAME, Probe, ZooBackbone, ZooEntry, ZooFile, index_bytes, parse_index
from iqakit.storage.zoo_names import BadNameError, model_name

if TYPE_CHECKING:
    from iqakit.contracts import Adapter
    from iqakit.storage.model_manifest import ModelManifest

_PUBLISHABLE = re.compile(r"pretrained|random:\d{1,20}")


def push_model(
    model: str | os.PathLike[str],
    index: str | os.PathLike[str],
    *,
    name: str | None = None,
    facts: Mapping[str, str] | None = None,
    figures: str | os.PathLike[str] | None = None,
    minimum: str | None = None,
) -> tuple[ZooEntry, Path]:
    """Put a model into a zoo: its files, a card, and its entry in ``index.json``, which is written last.

    The files go to a directory of their own for each content, so whoever pulls the model's earlier version at that moment
    is not disturbed. Earlier versions stay until they are deleted.

    Args:
        model: The model's directory. ``facts.json`` and ``figures.json`` in it go along, and into the card.
        index: The zoo; made if it is missing.
        name: The model's name in the zoo; None: its directory's.
        facts: ``summary``, ``licence_code`` and ``licence_data``; they go over what ``facts.json`` says.
        figures: What ``iqakit eval --json`` wrote for this model; goes over ``figures.json``.
        minimum: The oldest iqakit that can use it; None: this one.

    Returns:
        Its entry, and where its files lie.

    Raises:
        ConfigurationError: The name is none, or the backbone's weights are a local file, which nobody else has.
        StorageError: The model cannot be read, or the zoo cannot be written.
        FileFormatError: The model, its facts, its figures or the zoo's index is not sound.
        MismatchError: The figures are of another version, or the model does not fit its backbone.
    """
    source, zoo = Path(model), Path(index)
    called = _name(name or source.resolve().name)
    content = read_model(source)
    manifest, adapters = content[0], content[1]
    _check_weights(manifest)
    if zoo.is_file():
        raise StorageError(f"{zoo} is a file, and a zoo is a directory; choose another --index")
    told = _facts(source, facts or {})
    measured = _figures(source, figures, manifest)
    with locked_directory(zoo):
        known = _known(zoo)
        draft = zoo / f".push-{secrets.token_hex(6)}"
        try:
            _copy_model(source, manifest, draft)
            if told != CardFacts():
                write_text_atomic(draft / FACTS_NAME, readable_json(told.to_json()), "facts")
            if measured is not None:
                write_text_atomic(draft / FIGURES_NAME, readable_json(measured.to_json()), "figures")
            write_card(draft, called, manifest, adapters)
            entry = describe_model(draft, called, called, manifest, told, probe_scores(draft), minimum)
            entry = dataclasses.replace(entry, path=f"{called}/{entry.key[:12]}")
            check_content(draft, entry)
            new_index = index_bytes({**known, called: entry}.values())  # refused before anything is moved
            _move(draft, zoo / entry.path, entry)
            write_bytes_atomic(zoo / INDEX_NAME, new_index, "index")
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return entry, zoo / entry.path


def describe_model(
    directory: Path,
    name: str,
    path: str,
    manifest: ModelManifest,
    facts: CardFacts,
    probes: Sequence[Probe],
    minimum: str | None = None,
) -> ZooEntry:
    """The entry of a finished model directory.

    Args:
        directory: The model, with its card.
        name: Its name.
        path: Where the directory lies, relative to the index.
        manifest: Its ``model.json``.
        facts: Its facts.
        probes: Its scores of the probes.
        minimum: The oldest iqakit that can use it; None: this one.
    """
    tasks = tuple(task.name for task in manifest.tasks)
    return ZooEntry(
        name=name,
        summary=facts.summary or f"Learned from {', '.join(tasks)}"[:500],
        path=path,
        minimum_iqakit=minimum or re.sub(r"[^\d.].*$", "", iqakit.__version__).strip("."),
        tasks=tasks,
        backbone=ZooBackbone(manifest.backbone.id, manifest.backbone.weights, manifest.backbone.fingerprint),
        licence_code=facts.licence_code or "not stated",
        licence_data=facts.licence_data or "not stated",
        files=model_files(directory, manifest),
        probes=tuple(probes),
    )


def model_files(directory: Path, manifest: ModelManifest) -> tuple[ZooFile, ...]:
    """The files of a model, those that its ``model.json`` names and those about it, with size and SHA-256."""
    names = [MANIFEST_NAME, *_parts(manifest)]
    names += [name for name in (FACTS_NAME, FIGURES_NAME, CARD_NAME) if (directory / name).is_file()]
    return tuple(ZooFile(name, (directory / name).stat().st_size, file_sha256(directory / name)) for name in sorted(names))


def write_card(directory: Path, name: str, manifest: ModelManifest, adapters: Sequence[Adapter]) -> None:
    """Make ``CARD.md`` of a model directory anew."""
    write_text_atomic(directory / CARD_NAME, card_of(directory, name, manifest, adapters), "model card")


def card_of(directory: Path, name: str, manifest: ModelManifest, adapters: Sequence[Adapter]) -> str:
    """What the card of a model directory must say, by its files, its facts and its figures.

    Raises:
        MismatchError: Its figures are of another version of the model.
    """
    figures = read_figures(directory / FIGURES_NAME)
    if figures is not None and figures.model != manifest.version:
        raise MismatchError(
            f"{directory / FIGURES_NAME} is of version {figures.model[:20]!r}, but the model is {manifest.version!r}; "
            "measure it again or delete that file"
        )
    return model_card(
        adapters,
        manifest.backbone.id,
        Path(manifest.backbone.weights).name,
        name=name,
        version=manifest.version,
        facts=read_facts(directory / FACTS_NAME),
        figures=figures,
        files=[file for file in model_files(directory, manifest) if file.path != CARD_NAME],
    )


def _name(text: str) -> str:
    try:
        return model_name(text)
    except BadNameError as error:
        raise ConfigurationError(f"{error}; choose another --name") from error


def _check_weights(manifest: ModelManifest) -> None:
    if not _PUBLISHABLE.fullmatch(manifest.backbone.weights) or manifest.backbone.id.startswith("local-dir:"):
        raise ConfigurationError(
            f"this model stands on weights that only this machine has ({Path(manifest.backbone.weights).name!r}); fit it "
            "on --weights pretrained, and everybody can use it"
        )


def _facts(source: Path, given: Mapping[str, str]) -> CardFacts:
    found = read_facts(source / FACTS_NAME)
    changes: dict[str, Any] = {key: text for key, text in given.items() if text}
    for key, text in changes.items():
        if not text.isprintable() or len(text) > 500:
            raise ConfigurationError(f"--{key.replace('_', '-')} must be one line of up to 500 printable characters")
    return dataclasses.replace(found, **changes)


def _figures(source: Path, given: str | os.PathLike[str] | None, manifest: ModelManifest) -> Figures | None:
    if given is None:
        return read_figures(source / FIGURES_NAME)
    what = f"the figures in {os.fspath(given)}"
    records = eval_records(parse_json(read_file_bytes(Path(given), "figures"), what), what)
    learned = {task.name for task in manifest.tasks}
    own = tuple(row for row in records if row["task"] in learned)
    return Figures(manifest.version, own, tuple(row for row in records if row["task"] not in learned))


def _known(zoo: Path) -> dict[str, ZooEntry]:
    path = zoo / INDEX_NAME
    if not path.exists():
        return {}
    try:
        return parse_index(read_file_bytes(path, "index"), str(path))
    except FileFormatError as error:
        raise FileFormatError(f"nothing was pushed: {error}") from error


def _parts(manifest: ModelManifest) -> list[str]:
    """The files that ``model.json`` names."""
    records = [record for record in (manifest.combiner, manifest.shared) if record is not None]
    return [*(task.file for task in manifest.tasks), *(record.file for record in records)]


def _copy_model(source: Path, manifest: ModelManifest, target: Path) -> None:
    try:
        for name in (MANIFEST_NAME, *_parts(manifest)):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
    except OSError as error:
        raise write_error(target, "model", error) from error


def _move(draft: Path, place: Path, entry: ZooEntry) -> None:
    """Put the finished files where the index will say; the same content may be there already."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if is_whole(place, entry):
            return
        if place.exists():
            shutil.rmtree(place)
        draft.replace(place)
    except OSError as error:
        raise write_error(place, "model", error) from error
