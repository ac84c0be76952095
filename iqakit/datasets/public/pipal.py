"""PIPAL, images made by restoration and super-resolution methods."""

from __future__ import annotations

from pathlib import Path

from iqakit.contracts.dataset import TaskFacts
from iqakit.datasets.public.layout import PublicSet, Row, Tree
from iqakit.datasets.readers import number_of, read_fields
from iqakit.errors import DataError

# Names of the folders with labels and with images: in the archives, in the authors' own account of them, in copies.
_LABELS = ("Train_Label", "training/MOS_Scores_train", "MOS_Scores_train")
_FOLDERS = (
    *(f"Distortion_{part}" for part in (1, 2, 3, 4)),
    *(f"{above}Distortion/Distortion_{part}" for above in ("", "training/") for part in (1, 2, 3, 4)),
    "Distortion",
    "Train_Dist",
    "Dist_Imgs",
)


def _read(tree: Tree) -> tuple[Path, list[Row]]:
    place = str(tree.first(*_LABELS))
    source = tree.root / place
    labels = [name for name in tree.names(place) if name.casefold().endswith(".txt")]
    if not labels:
        raise DataError(f"{source} has no .txt files; there must be one for each reference picture")
    where = {name.casefold(): folder for folder in reversed(_FOLDERS) for name in tree.names(folder)}
    rows = []
    for label in labels:
        for line, (name, score) in read_fields(source / label, 2, ","):
            folder = where.get(name.casefold(), _FOLDERS[0])
            value = number_of(score, source / label, line, "score")
            rows.append(Row(name, f"{folder}/{name}", value, None, name.split("_")[0].casefold()))
    return source, rows


PIPAL = PublicSet(
    facts=TaskFacts(
        name="pipal",
        title="PIPAL, Perceptual Image Processing Algorithms",
        # Elo ratings have no ends.
        direction="mos",
        rated="Patches distorted, or restored by many methods, compared in pairs of one picture by many people; "
        "the scores are Elo ratings",
        citation="J. Gu, H. Cai, H. Chen, X. Ye, J. S. Ren, C. Dong: PIPAL: a large-scale image quality assessment dataset "
        "for perceptual image restoration. European Conference on Computer Vision, 2020",
        licence="not stated",
        homepage="https://www.jasongt.com/projectpages/pipal.html",
        images=23200,
        splits="by content",
    ),
    layout="Train_Label/ with A0001.txt, ... (name,score a line); "
    "Distortion_1/ to Distortion_4/ (or in one folder, Dist_Imgs/)",
    markers=(_LABELS,),
    rule="70/10/20 by reference picture of the 200 with public scores",
    read=_read,
)
