"""LIVE, LIVE multiply distorted and LIVE in the Wild Challenge, all of the University of Texas at Austin."""

from __future__ import annotations

from pathlib import Path

from iqakit.contracts.dataset import TaskFacts
from iqakit.datasets.public.layout import PublicSet, Row, Tree, lengths, stem
from iqakit.datasets.readers import mat_floats, mat_texts, read_mat
from iqakit.errors import DataError

# The notice stands in the readme files of LIVE (2003) and of the Challenge (2015), nearly word for word the same.
_NOTICE = "use, copy, modify, distribute for any purpose, free, with the copyright notice and a citation"

# Order of the folders in dmos.mat and refnames_all.mat, and how many images each has (release 2).
_FOLDERS = (("jp2k", 227), ("jpeg", 233), ("wn", 174), ("gblur", 174), ("fastfading", 174))


def _read_live(tree: Tree) -> tuple[Path, list[Row]]:
    names = [f"{folder}/img{number}.bmp" for folder, count in _FOLDERS for number in range(1, count + 1)]
    realigned = tree.file("dmos_realigned.mat")
    source = realigned or tree.root / str(tree.find("dmos.mat"))
    variable = "dmos_new" if realigned else "dmos"
    found = read_mat(source, [variable, "orgs", "dmos_std"] if realigned else [variable, "orgs"])
    scores = mat_floats(source, variable, found[variable])
    originals = mat_floats(source, "orgs", found["orgs"])
    spreads: list[float] | list[None] = [None] * len(scores)
    if realigned:
        spreads = mat_floats(source, "dmos_std", found["dmos_std"])
    where = tree.root / str(tree.find("refnames_all.mat"))
    references = mat_texts(where, "refnames_all", read_mat(where, ["refnames_all"])["refnames_all"])
    lengths(tree.root, images=len(names), scores=len(scores), orgs=len(originals), std=len(spreads), refs=len(references))
    rows = [
        Row(name, name, score, spread, stem(reference))
        for name, score, spread, original, reference in zip(names, scores, spreads, originals, references, strict=True)
        if not original  # copies of the reference pictures stand among the distorted ones
    ]
    return source, rows


def _part_folders(part: str) -> tuple[str, ...]:
    """Where a part of LIVE MD may lie; some copies have an underscore for the blank."""
    return tuple(above + name for above in ("", "To_Release/") for name in (part, part.replace(" ", "_")))


def _read_live_md(tree: Tree) -> tuple[Path, list[Row]]:
    rows = []
    source = tree.root
    for part, folder in (("Part 1", "blurjpeg"), ("Part 2", "blurnoise")):
        base = str(tree.first(*_part_folders(part)))
        source = tree.root / base / "Scores.mat"
        lists = tree.file(f"{base}/Imagelists.mat")
        if lists is None:
            raise DataError(f"{tree.root / base} has no Imagelists.mat; unpack the set again")
        found = read_mat(lists, ["distimgs", "refimgs", "ref4dist"])
        names = mat_texts(lists, "distimgs", found["distimgs"])
        references = mat_texts(lists, "refimgs", found["refimgs"])
        indices = [int(value) for value in mat_floats(lists, "ref4dist", found["ref4dist"])]
        scores = mat_floats(source, "DMOSscores", read_mat(source, ["DMOSscores"])["DMOSscores"])
        lengths(tree.root / base, distimgs=len(names), ref4dist=len(indices), DMOSscores=len(scores))
        for name, index, score in zip(names, indices, scores, strict=True):
            if not 1 <= index <= len(references):
                raise DataError(f"{lists}: ref4dist names reference {index}, but there are {len(references)}")
            # the same 15 pictures are the references of both parts
            rows.append(Row(f"{folder}/{name}", f"{base}/{folder}/{name}", score, None, stem(references[index - 1])))
    return source, rows


_TRAINING_IMAGES = 7  # shown to train the observers; they come first in the lists and lie in Images/trainingImages


def _read_clive(tree: Tree) -> tuple[Path, list[Row]]:
    lists = {}
    for name in ("AllImages_release", "AllMOS_release", "AllStdDev_release"):
        path = tree.root / str(tree.find(f"Data/{name}.mat"))
        lists[name] = (path, read_mat(path, [name])[name])
    source = lists["AllMOS_release"][0]
    names = mat_texts(lists["AllImages_release"][0], "AllImages_release", lists["AllImages_release"][1])
    scores = mat_floats(source, "AllMOS_release", lists["AllMOS_release"][1])
    spreads = mat_floats(lists["AllStdDev_release"][0], "AllStdDev_release", lists["AllStdDev_release"][1])
    lengths(tree.root / "Data", AllImages=len(names), AllMOS=len(scores), AllStdDev=len(spreads))
    triples = list(zip(names, scores, spreads, strict=True))[_TRAINING_IMAGES:]
    return source, [Row(name, f"Images/{name}", score, spread) for name, score, spread in triples]


LIVE = PublicSet(
    facts=TaskFacts(
        name="live",
        title="LIVE Image Quality Assessment Database, release 2",
        low=0.0,
        high=100.0,
        direction="dmos",
        rated="Copies of 29 pictures with JPEG 2000, JPEG, white noise, blur or fast fading, rated in the laboratory; "
        "the realigned scores are read where they are there, and some pass the ends of the scale",
        citation="H. R. Sheikh, M. F. Sabir, A. C. Bovik: A statistical evaluation of recent full reference image quality "
        "assessment algorithms. IEEE Transactions on Image Processing 15(11), 2006",
        licence=_NOTICE,
        homepage="https://live.ece.utexas.edu/research/quality/subjective.htm",
        images=779,
        splits="by content",
    ),
    layout="dmos_realigned.mat (or dmos.mat), refnames_all.mat; jp2k/, jpeg/, wn/, gblur/, fastfading/ with img1.bmp, ...",
    markers=(("dmos_realigned.mat", "dmos.mat"), ("refnames_all.mat",)),
    rule="70/10/20 by reference picture; undistorted copies are left out",
    read=_read_live,
)

LIVE_MD = PublicSet(
    facts=TaskFacts(
        name="live-md",
        title="LIVE Multiply Distorted Image Quality Database",
        low=0.0,
        high=100.0,
        direction="dmos",
        rated="Copies of 15 pictures with blur and then JPEG (part 1) or blur and then noise (part 2), "
        "rated in the laboratory",
        citation="D. Jayaraman, A. Mittal, A. K. Moorthy, A. C. Bovik: Objective quality assessment of multiply distorted "
        "images. Asilomar Conference on Signals, Systems and Computers, 2012",
        licence="not stated",
        homepage="https://live.ece.utexas.edu/research/Quality/live_multidistortedimage.html",
        images=450,
        splits="by content",
    ),
    layout="Part 1/ and Part 2/, each with Imagelists.mat, Scores.mat and blurjpeg/ or blurnoise/ (also below To_Release/)",
    markers=tuple(tuple(f"{folder}/Scores.mat" for folder in _part_folders(part)) for part in ("Part 1", "Part 2")),
    rule="70/10/20 by reference picture, the same in both parts",
    read=_read_live_md,
)

CLIVE = PublicSet(
    facts=TaskFacts(
        name="clive",
        title="LIVE In the Wild Image Quality Challenge Database",
        low=0.0,
        high=100.0,
        direction="mos",
        rated="Photos taken by many people with mobile devices, faults as they came, rated by crowd workers",
        citation="D. Ghadiyaram, A. C. Bovik: Massive online crowdsourced study of subjective and objective picture "
        "quality. IEEE Transactions on Image Processing 25(1), 2016",
        licence=_NOTICE,
        homepage="https://live.ece.utexas.edu/research/ChallengeDB/index.html",
        images=1162,
        splits="random",
    ),
    layout="Data/AllImages_release.mat, Data/AllMOS_release.mat, Data/AllStdDev_release.mat, Images/",
    markers=(("Data/AllImages_release.mat",), ("Data/AllMOS_release.mat",), ("Data/AllStdDev_release.mat",)),
    rule="70/10/20 by image; the 7 images that trained the observers are left out",
    read=_read_clive,
)
