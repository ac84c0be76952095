"""TID2008 and TID2013, the Tampere image databases."""

from __future__ import annotations

from pathlib import Path

from iqakit.contracts.dataset import TaskFacts
from iqakit.datasets.public.layout import PublicSet, Row, Tree, lengths
from iqakit.datasets.readers import number_of, read_fields
from iqakit.errors import DataError

_MARKERS = (("mos_with_names.txt",), ("mos_std.txt",), ("distorted_images",))
# TID2008 has 17 distortions in 4 levels, TID2013 24 in 5; their files are named alike.
_LEVELS = {"tid2008": 4, "tid2013": 5}


def _read(tree: Tree, name: str) -> tuple[Path, list[Row]]:
    source = tree.root / str(tree.find("mos_with_names.txt"))
    spreads_path = tree.root / str(tree.find("mos_std.txt"))
    scores = read_fields(source, 2)
    spreads = read_fields(spreads_path, 1)
    lengths(tree.root, **{"mos_with_names.txt": len(scores), "mos_std.txt": len(spreads)})
    rows = []
    for (line, (score, image)), (spread_line, (spread,)) in zip(scores, spreads, strict=True):
        parts = image.rsplit(".", 1)[0].split("_")
        if len(parts) != 3 or not all(part.isdigit() for part in (parts[0][1:], *parts[1:])):
            raise DataError(f"{source}: line {line} names {image!r}; names must be like i01_01_1.bmp")
        value = number_of(score, source, line, "score")
        std = number_of(spread, spreads_path, spread_line, "standard deviation")
        # One picture is I01 in some names and i01 in others.
        rows.append(Row(image, f"distorted_images/{image}", value, std, parts[0].casefold()))
    deepest = max(int(row.name.rsplit(".", 1)[0].split("_")[2]) for row in rows)
    if deepest != _LEVELS[name]:
        other = {4: "; it looks like tid2008", 5: "; it looks like tid2013"}.get(deepest, "")
        raise DataError(
            f"{source} is not that of {name}: it has {deepest} levels of distortion, not {_LEVELS[name]}{other}"
        )
    return source, rows


_LAYOUT = "mos_with_names.txt, mos_std.txt, distorted_images/ (upper and lower case as they come)"
_RATED = "Copies of 25 pictures with {} distortions in {} levels, compared in pairs by observers of several countries"

TID2008 = PublicSet(
    facts=TaskFacts(
        name="tid2008",
        title="TID2008, Tampere Image Database 2008",
        low=0.0,
        high=9.0,
        direction="mos",
        rated=_RATED.format(17, 4),
        citation="N. Ponomarenko, V. Lukin, A. Zelensky, K. Egiazarian, M. Carli, F. Battisti: TID2008 - a database for "
        "evaluation of full-reference visual quality assessment metrics. Advances of Modern Radioelectronics 10, 2009",
        # From the readme of version 1.0.
        licence="free for educational and research purposes, with its notice; not to be modified without permission",
        homepage="http://www.ponomarenko.info/tid2008.htm",
        images=1700,
        splits="by content",
    ),
    layout=_LAYOUT,
    markers=_MARKERS,
    rule="70/10/20 by reference picture",
    read=lambda tree: _read(tree, "tid2008"),
)

TID2013 = PublicSet(
    facts=TaskFacts(
        name="tid2013",
        title="TID2013, Tampere Image Database 2013",
        low=0.0,
        high=9.0,
        direction="mos",
        rated=_RATED.format(24, 5),
        citation="N. Ponomarenko, L. Jin, O. Ieremeiev, V. Lukin, K. Egiazarian, J. Astola, B. Vozel, K. Chehdi, M. Carli, "
        "F. Battisti, C.-C. J. Kuo: Image database TID2013: peculiarities, results and perspectives. Signal Processing: "
        "Image Communication 30, 2015",
        licence="not stated",
        homepage="http://www.ponomarenko.info/tid2013.htm",
        images=3000,
        splits="by content",
    ),
    layout=_LAYOUT,
    markers=_MARKERS,
    rule="70/10/20 by reference picture",
    read=lambda tree: _read(tree, "tid2013"),
)
