"""KADID-10k, KonIQ-10k and UHD-IQA, whose home is the University of Konstanz."""

from __future__ import annotations

from pathlib import Path

from iqakit.contracts.dataset import TaskFacts
from iqakit.datasets.public.layout import PublicSet, Row, Tree, known, stem
from iqakit.datasets.readers import read_csv

_PARTS = {"training": "train", "validation": "val", "test": "test"}


def _read_kadid(tree: Tree) -> tuple[Path, list[Row]]:
    source = tree.root / str(tree.find("dmos.csv"))
    table = read_csv(source, ["dist_img", "ref_img", "dmos", "var"])
    folder = tree.first("images", "distorted_images") or "images"
    names, references = table.text("dist_img"), table.text("ref_img")
    rows = []
    # The column is called var, but holds standard deviations: 4.57 with 0.496, in its first row, is what seventeen 5s and
    # thirteen 4s give as mean and standard deviation; no thirty ratings have that mean and that variance.
    for name, reference, score, spread in zip(names, references, table.floats("dmos"), table.floats("var"), strict=True):
        rows.append(Row(name, f"{folder}/{name}", score, spread, stem(reference)))
    return source, rows


_KONIQ_OFFICIAL = "koniq10k_distributions_sets.csv"


def _read_koniq(tree: Tree) -> tuple[Path, list[Row]]:
    source = tree.root / str(tree.find(_KONIQ_OFFICIAL))
    table = read_csv(source, ["image_name", "MOS", "SD", "set"])
    folder = tree.first("1024x768", "512x384") or "1024x768"
    parts = [known(part, _PARTS, source, row, "set") for row, part in zip(table.numbers, table.text("set"), strict=True)]
    # MOS is on the scale of 1 to 100 here. SD is that of the raw ratings, on their scale of 1 to 5: stretched alike.
    return source, [
        Row(name, f"{folder}/{name}", score, spread * 99 / 4, None, part)
        for name, score, spread, part in zip(
            table.text("image_name"), table.floats("MOS"), table.floats("SD"), parts, strict=True
        )
    ]


def _read_uhd(tree: Tree) -> tuple[Path, list[Row]]:
    source = tree.root / str(tree.find("uhd-iqa-metadata.csv"))
    table = read_csv(source, ["image_name", "quality_mos", "set"])
    rows = []
    for number, name, score, part in zip(
        table.numbers, table.text("image_name"), table.floats("quality_mos"), table.text("set"), strict=True
    ):
        split = known(part, _PARTS, source, number, "set")
        rows.append(Row(name, f"{part.casefold()}/{name}", score, None, None, split))
    return source, rows


KADID10K = PublicSet(
    facts=TaskFacts(
        name="kadid10k",
        title="KADID-10k",
        low=1.0,
        high=5.0,
        # The column is called dmos, but 5 stands for no visible difference: higher is better.
        direction="mos",
        rated="Copies of 81 pictures with 25 distortions in 5 levels, rated against the original by crowd workers; "
        "the column called dmos grows with quality",
        citation="H. Lin, V. Hosu, D. Saupe: KADID-10k: a large-scale artificially distorted IQA database. "
        "International Conference on Quality of Multimedia Experience (QoMEX), 2019",
        licence="not stated",
        homepage="http://database.mmsp-kn.de/kadid-10k-database.html",
        images=10125,
        splits="by content",
    ),
    layout="dmos.csv (dist_img, ref_img, dmos, var), images/",
    markers=(("dmos.csv",),),
    rule="70/10/20 by reference picture",
    read=_read_kadid,
)

KONIQ10K = PublicSet(
    facts=TaskFacts(
        name="koniq10k",
        title="KonIQ-10k",
        low=1.0,
        high=100.0,
        direction="mos",
        rated="Photos from Flickr, chosen to be varied, faults as they came, rated by crowd workers in five steps; "
        "the scores were brought to a scale of 1 to 100 by the authors",
        citation="V. Hosu, H. Lin, T. Sziranyi, D. Saupe: KonIQ-10k: an ecologically valid database for deep learning of "
        "blind image quality assessment. IEEE Transactions on Image Processing 29, 2020",
        licence="not stated",
        homepage="http://database.mmsp-kn.de/koniq-10k-database.html",
        images=10073,
        splits="official",
    ),
    layout=f"{_KONIQ_OFFICIAL} (image_name, MOS, SD, set), 1024x768/ or 512x384/",
    markers=((_KONIQ_OFFICIAL,),),
    rule="official: the column set; the file is in github.com/subpic/koniq, folder metadata",
    read=_read_koniq,
)

UHD_IQA = PublicSet(
    facts=TaskFacts(
        name="uhd-iqa",
        title="UHD-IQA",
        low=0.0,
        high=1.0,
        direction="mos",
        rated="Popular photos from Pixabay, 3840 pixels wide, rated twice each by ten photographers and graphic artists",
        citation="V. Hosu, L. Agnolucci, O. Wiedemann, D. Iso, D. Saupe: UHD-IQA benchmark database: pushing the "
        "boundaries of blind photo quality assessment. arXiv 2406.17472, 2024",
        licence="not stated",
        homepage="https://database.mmsp-kn.de/uhd-iqa-benchmark-database.html",
        images=6073,
        splits="official",
    ),
    layout="uhd-iqa-metadata.csv (image_name, quality_mos, set), training/, validation/, test/",
    markers=(("uhd-iqa-metadata.csv",),),
    rule="official: the column set",
    read=_read_uhd,
)
