"""LIVE-FB, the pictures of PaQ-2-PiQ (whole pictures; its patches are another task)."""

from __future__ import annotations

from pathlib import Path

from iqakit.contracts.dataset import TaskFacts
from iqakit.datasets.public.layout import PublicSet, Row, Tree
from iqakit.datasets.readers import read_csv
from iqakit.errors import DataError

# Names with < and > are not allowed everywhere, so copies have them without.
_TRAIN = ("labels<=640_padded.csv", "labels=640_padded.csv", "labels640_padded.csv")
_TEST = ("labels>640.csv", "labels640.csv")
_TRUE = {"true": True, "1": True, "false": False, "0": False}


def _anywhere(names: tuple[str, ...]) -> tuple[str, ...]:
    """The label files lie beside the folder ``database`` in some copies and in it in others."""
    return tuple(folder + name for name in names for folder in ("", "database/"))


def _read(tree: Tree) -> tuple[Path, list[Row]]:
    source = tree.file(*_anywhere(("labels_image.csv",))) or tree.root
    table = read_csv(source, ["name", "mos"])
    folder = f"{tree.find('database')}/" if tree.find("database") else ""
    parts = _official(tree)
    rows = [
        Row(name, folder + name, score, None, None, parts.get(name, "train"))
        for name, score in zip(table.text("name"), table.floats("mos"), strict=True)
    ]
    return source, rows


def _official(tree: Tree) -> dict[str, str]:
    """Pictures larger than 640 pixels are test, those marked are val; all others are train."""
    parts: dict[str, str] = {}
    padded = tree.file(*_anywhere(_TRAIN)) or tree.root
    table = read_csv(padded, ["name_image", "is_valid"])
    for number, name, valid in zip(table.numbers, table.text("name_image"), table.text("is_valid"), strict=True):
        if valid.casefold() not in _TRUE:
            raise DataError(f"{padded}: row {number} has {valid!r} under 'is_valid'; it must be True or False")
        if _TRUE[valid.casefold()]:
            parts[name] = "val"
    large = tree.file(*_anywhere(_TEST)) or tree.root
    parts.update(dict.fromkeys(read_csv(large, ["name_image"]).text("name_image"), "test"))
    return parts


LIVE_FB = PublicSet(
    facts=TaskFacts(
        name="live-fb",
        title="LIVE-FB (FLIVE, PaQ-2-PiQ)",
        low=0.0,
        high=100.0,
        direction="mos",
        rated="Photos from AVA, VOC, EMOTIC and a set of blurred ones, faults as they came, rated by crowd workers",
        citation="Z. Ying, H. Niu, P. Gupta, D. Mahajan, D. Ghadiyaram, A. Bovik: From patches to pictures (PaQ-2-PiQ): "
        "mapping the perceptual space of picture quality. IEEE/CVF Conference on Computer Vision and Pattern "
        "Recognition, 2020",
        licence="not stated",
        homepage="https://github.com/niu-haoran/FLIVE_Database",
        images=39810,
        splits="official",
    ),
    layout="labels_image.csv (name, mos), labels<=640_padded.csv (name_image, is_valid), labels>640.csv (name_image); "
    "database/ with voc_emotic_ava/, blur_dataset/, EE371R/",
    markers=(_anywhere(("labels_image.csv",)), _anywhere(_TRAIN), _anywhere(_TEST)),
    rule="official: pictures larger than 640 pixels are test, those with is_valid are val",
    read=_read,
)
