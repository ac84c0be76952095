"""CSIQ, the Categorical Image Quality database."""

from __future__ import annotations

from pathlib import Path

from iqakit.contracts.dataset import TaskFacts
from iqakit.datasets.public.layout import PublicSet, Row, Tree
from iqakit.datasets.readers import read_xlsx
from iqakit.errors import DataError

# How the sheet names a distortion, and how folders and files do. Case on disk differs between copies of the set.
_KINDS = {
    "noise": "AWGN",
    "blur": "BLUR",
    "contrast": "contrast",
    "fnoise": "fnoise",
    "jpeg": "JPEG",
    "jpeg 2000": "jpeg2000",
}


def _read(tree: Tree) -> tuple[Path, list[Row]]:
    source = tree.root / str(tree.find("csiq.DMOS.xlsx"))
    table = read_xlsx(source, ["image", "dst_type", "dst_lev", "dmos_std", "dmos"], sheet="all_by_image")
    rows = []
    columns = (table.text("image"), table.text("dst_type"), table.text("dst_lev"))
    for number, image, kind, level, spread, score in zip(
        table.numbers, *columns, table.floats("dmos_std"), table.floats("dmos"), strict=True
    ):
        if kind.casefold() not in _KINDS:
            raise DataError(f"{source}: row {number} has the distortion {kind!r}; known are {', '.join(_KINDS)}")
        folder = _KINDS[kind.casefold()]
        name = f"{image}.{folder}.{level}.png"
        rows.append(Row(name, f"dst_imgs/{folder}/{name}", score, spread, image.casefold()))
    return source, rows


CSIQ = PublicSet(
    facts=TaskFacts(
        name="csiq",
        title="CSIQ, Categorical Image Quality Database",
        low=0.0,
        high=1.0,
        direction="dmos",
        rated="Copies of 30 pictures with JPEG, JPEG 2000, two kinds of noise, blur or less contrast, "
        "placed along a line by 35 observers",
        citation="E. C. Larson, D. M. Chandler: Most apparent distortion: full-reference image quality assessment and the "
        "role of strategy. Journal of Electronic Imaging 19(1), 2010",
        licence="not stated",
        homepage="http://vision.eng.shizuoka.ac.jp/mod/page/view.php?id=23",
        images=866,
        splits="by content",
    ),
    layout="csiq.DMOS.xlsx (sheet all_by_image), dst_imgs/ with awgn/, blur/, contrast/, fnoise/, jpeg/, jpeg2000/",
    markers=(("csiq.DMOS.xlsx",),),
    rule="70/10/20 by reference picture",
    read=_read,
)
