"""Photos with the faults they came with, one small reader each: BID, SPAQ, CID2013 and BIQ2021."""

from __future__ import annotations

from pathlib import Path

from iqakit.contracts.dataset import TaskFacts
from iqakit.datasets.public.layout import PublicSet, Row, Tree
from iqakit.datasets.readers import read_csv, read_xlsx
from iqakit.errors import DataError


def _read_bid(tree: Tree) -> tuple[Path, list[Row]]:
    source = tree.root / str(tree.find("DatabaseGrades.xlsx"))
    table = read_xlsx(source, ["Image Number", "Average Subjective Grade", "std"])
    folder = f"{tree.find('ImageDatabase')}/" if tree.find("ImageDatabase") else ""
    rows = []
    for line, number, score, spread in zip(
        table.numbers,
        table.text("Image Number"),
        table.floats("Average Subjective Grade"),
        table.floats("std"),
        strict=True,
    ):
        if not number.isdigit():
            raise DataError(f"{source}: row {line} has {number!r} under 'Image Number', which is not a whole number")
        name = f"DatabaseImage{int(number):04d}.JPG"
        rows.append(Row(name, folder + name, score, spread))
    return source, rows


_SPAQ_SCORES = "MOS and Image attribute scores.xlsx"


def _read_spaq(tree: Tree) -> tuple[Path, list[Row]]:
    source = tree.file(f"Annotations/{_SPAQ_SCORES}", _SPAQ_SCORES) or tree.root
    table = read_xlsx(source, ["Image name", "MOS"])
    folder = tree.first("TestImage", "Dataset/TestImage") or "TestImage"
    names = table.text("Image name")
    return source, [Row(name, f"{folder}/{name}", mos) for name, mos in zip(names, table.floats("MOS"), strict=True)]


_CID_SETS = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5, "VI": 6}


def _read_cid(tree: Tree) -> tuple[Path, list[Row]]:
    source = tree.root / str(tree.find("CID2013 data*.xlsx"))
    table = read_xlsx(source, ["Source_ID", "Realigned MOS"], sheet="CID2013 MOS")
    rows = []
    for number, name, score in zip(table.numbers, table.text("Source_ID"), table.floats("Realigned MOS"), strict=True):
        parts = name.split("_")  # IS_VI_C08_D14: image set, scene, camera
        if len(parts) != 4 or parts[1] not in _CID_SETS or not parts[2][1:].isdigit():
            raise DataError(f"{source}: row {number} has the Source_ID {name!r}; it must be like IS_I_C01_D01")
        file = f"IS{_CID_SETS[parts[1]]}/co{int(parts[2][1:])}/{name}.jpg"
        # The eight scenes are the same in all image sets, so a scene is one content.
        rows.append(Row(name, file, score, None, parts[2].casefold()))
    return source, rows


# The repository has two pairs of files. They rank the images alike, but the scores of the second are 0.9645 times those of
# the first, which fill the scale of 0 to 1 and are the ones in use elsewhere.
_BIQ_FILES = (("Train (Images and MOS).csv", "Test (Images and MOS).csv"), ("Train.csv", "Test.csv"))


def _read_biq(tree: Tree) -> tuple[Path, list[Row]]:
    pair = next((pair for pair in _BIQ_FILES if all(tree.find(name) for name in pair)), None)
    if pair is None:
        wanted = " or ".join(map(" and ".join, _BIQ_FILES))
        raise DataError(f"{tree.root} has no pair of score files; there must be {wanted}")
    rows = []
    for file, split in zip(pair, ("train", "test"), strict=True):
        table = read_csv(tree.root / str(tree.find(file)), ["Image Name", "MOS"])
        names = table.text("Image Name")
        rows += [
            Row(name, f"Images/{name}", score, None, None, split)
            for name, score in zip(names, table.floats("MOS"), strict=True)
        ]
    return tree.root / pair[0], rows


BID = PublicSet(
    facts=TaskFacts(
        name="bid",
        title="BID, Blurred Image Database",
        low=0.0,
        high=5.0,
        direction="mos",
        rated="Photos by ordinary people, many of them blurred by motion or lack of focus, rated in the laboratory",
        citation="A. Ciancio, A. L. N. T. da Costa, E. A. B. da Silva, A. Said, R. Samadani, P. Obrador: No-reference blur "
        "assessment of digital pictures based on multifeature classifiers. "
        "IEEE Transactions on Image Processing 20(1), 2011",
        licence="not stated",
        homepage="http://www.lps.ufrj.br/profs/eduardo/ImageDatabase.htm",
        images=586,
        splits="random",
    ),
    layout="DatabaseGrades.xlsx (Image Number, Average Subjective Grade, std), DatabaseImage0001.JPG, ... "
    "(also in ImageDatabase/)",
    markers=(("DatabaseGrades.xlsx",),),
    rule="70/10/20 by image",
    read=_read_bid,
)

SPAQ = PublicSet(
    facts=TaskFacts(
        name="spaq",
        title="SPAQ, Smartphone Photography Attribute and Quality",
        low=0.0,
        high=100.0,
        direction="mos",
        rated="Photos taken with 66 smartphones, rated in the laboratory",
        citation="Y. Fang, H. Zhu, Y. Zeng, K. Ma, Z. Wang: Perceptual quality assessment of smartphone photography. "
        "IEEE Conference on Computer Vision and Pattern Recognition, 2020",
        licence="not stated",
        homepage="https://github.com/h4nwei/SPAQ",
        images=11125,
        splits="random",
    ),
    layout=f"Annotations/{_SPAQ_SCORES} (Image name, MOS), TestImage/",
    markers=((f"Annotations/{_SPAQ_SCORES}", _SPAQ_SCORES),),
    rule="70/10/20 by image",
    read=_read_spaq,
)

CID2013 = PublicSet(
    facts=TaskFacts(
        name="cid2013",
        title="CID2013, Camera Image Database",
        low=0.0,
        high=100.0,
        direction="mos",
        rated="The same eight scenes taken with 79 cameras, each rated beside the others of its scene in the laboratory; "
        "the realigned scores are read, and some fall below the scale",
        citation="T. Virtanen, M. Nuutinen, M. Vaahteranoksa, P. Oittinen, J. Hakkinen: CID2013: a database for evaluating "
        "no-reference image quality assessment algorithms. IEEE Transactions on Image Processing 24(1), 2015",
        # As the Qualinet list of databases gives it.
        licence="use, copy, modify, distribute for any purpose, free, with the copyright notice and acknowledgement; "
        "single images not outside the database",
        homepage="https://zenodo.org/record/2647033",
        images=474,
        splits="by content",
    ),
    layout="CID2013 data - version 12112014.xlsx (sheet CID2013 MOS), IS1/ to IS6/, each with co1/, co2/, ...",
    markers=(("CID2013 data*.xlsx",),),
    rule="70/10/20 by scene",
    read=_read_cid,
)

BIQ2021 = PublicSet(
    facts=TaskFacts(
        name="biq2021",
        title="BIQ2021",
        low=0.0,
        high=1.0,
        direction="mos",
        rated="A photo gallery, photos with faults made on purpose while taking them, and photos from Unsplash, "
        "rated in the laboratory by 30 observers",
        citation="N. Ahmed, S. Asif: BIQ2021: a large-scale blind image quality assessment database. "
        "Journal of Electronic Imaging 31(5), 053010, 2022",
        licence="not stated",
        homepage="https://github.com/nisarahmedrana/BIQ2021",
        images=12000,
        splits="official",
    ),
    layout="'Train (Images and MOS).csv' and 'Test (Images and MOS).csv', or Train.csv and Test.csv "
    "(Image Name, MOS), Images/",
    markers=(("Train.csv", "Train (Images and MOS).csv"), ("Test.csv", "Test (Images and MOS).csv"), ("Images",)),
    rule="official train and test; one eighth of train, by image, is val",
    read=_read_biq,
)
