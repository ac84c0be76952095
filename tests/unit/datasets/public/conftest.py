"""Miniatures of the public sets: the true layout, the true file and column names, a few tiny images, made-up scores."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
from PIL import Image
from scipy.io import savemat


@dataclass(frozen=True)
class Miniature:
    """What must be read from a miniature: rows in order, scores oriented so that higher is better."""

    root: Path
    scores: dict[str, float]
    contents: dict[str, str | None]
    stds: dict[str, float | None]
    better: str
    worse: str
    score_file: Path
    official: dict[str, str] | None = None


def picture(path: Path, shade: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (shade, 50, 200)).save(path, format={".jpg": "JPEG"}.get(path.suffix.lower()))


def table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def workbook(path: Path, sheet: str, rows: Iterable[Sequence[Any]], before: Sequence[str] = ()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    book.active.title = before[0] if before else sheet  # type: ignore[union-attr]
    target = book.create_sheet(sheet) if before else book.active
    for row in rows:
        target.append(list(row))  # type: ignore[union-attr]
    book.save(path)
    return path


def cells(values: Iterable[object], column: bool = False) -> Any:
    items = list(values)
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(-1, 1) if column else array.reshape(1, -1)


def live(root: Path) -> Miniature:
    folders = (("jp2k", 227), ("jpeg", 233), ("wn", 174), ("gblur", 174), ("fastfading", 174))
    names = [f"{folder}/img{i}.bmp" for folder, count in folders for i in range(1, count + 1)]
    dmos = np.array([float(i % 90) + 0.25 for i in range(982)])
    orgs = np.array([i % 5 == 4 for i in range(982)])
    refs = [f"picture{i % 29}.bmp" for i in range(982)]
    spreads = np.array([5 + (i % 7) / 4 for i in range(982)])
    root.mkdir(parents=True, exist_ok=True)
    savemat(root / "dmos_realigned.mat", {"dmos_new": dmos[None], "dmos_std": spreads[None], "orgs": orgs[None]})
    savemat(root / "refnames_all.mat", {"refnames_all": cells(refs)})
    for folder, _ in folders:
        for i in (1, 2, 3):
            picture(root / folder / f"img{i}.bmp")
    kept = [i for i in range(982) if not orgs[i]]
    return Miniature(
        root=root,
        scores={names[i]: 100 - dmos[i] for i in kept},
        contents={names[i]: refs[i][:-4] for i in kept},
        stds={names[i]: spreads[i] for i in kept},
        better="jp2k/img1.bmp",
        worse="jp2k/img4.bmp",
        score_file=root / "dmos_realigned.mat",
    )


def live_md(root: Path) -> Miniature:
    scores, contents = {}, {}
    for part, folder, kind in (("Part 1", "blurjpeg", "jpeg"), ("Part 2", "blurnoise", "noise")):
        base = root / "To_Release" / part
        references = [f"scene{r}" for r in range(10)]
        names = [f"{ref}_blur{level}_{kind}{level}.bmp" for ref in references for level in (1, 2, 3)]
        dmos = [20.0 * int(name[-5]) + references.index(name.split("_")[0]) for name in names]
        base.mkdir(parents=True)
        savemat(
            base / "Imagelists.mat",
            {
                "distimgs": cells(names, column=True),
                "refimgs": cells([cells([f"{ref}.bmp"]) for ref in references], column=True),
                "ref4dist": np.array([[references.index(name.split("_")[0]) + 1] for name in names], dtype=np.uint8),
            },
        )
        savemat(base / "Scores.mat", {"DMOSscores": np.array([dmos]), "Zscores": np.zeros((3, 3))})
        for name in names:
            picture(base / folder / name)
        scores |= {f"{folder}/{n}": 100 - d for n, d in zip(names, dmos, strict=True)}
        contents |= {f"{folder}/{n}": n.split("_")[0] for n in names}
    return Miniature(
        root=root,
        scores=scores,
        contents=contents,
        stds=dict.fromkeys(scores),
        better="blurjpeg/scene1_blur1_jpeg1.bmp",
        worse="blurjpeg/scene1_blur3_jpeg3.bmp",
        score_file=root / "To_Release" / "Part 1" / "Scores.mat",
    )


def clive(root: Path) -> Miniature:
    names = [f"t{i}.bmp" for i in range(1, 8)] + [f"{i}.bmp" for i in range(3, 33)]
    mos = np.array([30 + (i * 7 % 60) + 0.5 for i in range(len(names))])
    spreads = np.array([15 + i / 10 for i in range(len(names))])
    (root / "Data").mkdir(parents=True)
    savemat(root / "Data" / "AllImages_release.mat", {"AllImages_release": cells(names, column=True)})
    savemat(root / "Data" / "AllMOS_release.mat", {"AllMOS_release": mos[None]})
    savemat(root / "Data" / "AllStdDev_release.mat", {"AllStdDev_release": spreads[None]})
    for name in names:
        picture(root / "Images" / ("trainingImages" if name[0] == "t" else "") / name)
    scores = dict(zip(names[7:], mos[7:], strict=True))
    return Miniature(
        root=root,
        scores=scores,
        contents=dict.fromkeys(scores),
        stds=dict(zip(names[7:], spreads[7:], strict=True)),
        better=max(scores, key=scores.__getitem__),
        worse=min(scores, key=scores.__getitem__),
        score_file=root / "Data" / "AllMOS_release.mat",
    )


def csiq(root: Path) -> Miniature:
    kinds = {
        "noise": "AWGN",
        "blur": "BLUR",
        "contrast": "contrast",
        "fnoise": "fnoise",
        "jpeg": "JPEG",
        "jpeg 2000": "jpeg2000",
    }
    images = [1600, "Aerial_City", *(f"picture{i}" for i in range(8))]
    rows: list[list[object]] = [[], ["", "", "", "ratings of all images"], []]
    rows.append(["", "", "", "image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"])
    scores, contents, stds = {}, {}, {}
    for image in images:
        for index, (kind, code) in enumerate(kinds.items(), 1):
            for level in (1, 2):
                dmos, spread = 0.1 * level + 0.01 * index, 0.05 * level
                rows.append(["", "", "", image, index, kind, level, spread, dmos])
                name = f"{image}.{code}.{level}.png"
                picture(root / "dst_imgs" / code.lower() / name)  # folders are lower case in the archive
                scores[name], contents[name], stds[name] = 1 - dmos, str(image).lower(), spread
    path = workbook(root / "csiq.DMOS.xlsx", "all_by_image", rows, before=["readme"])
    return Miniature(root, scores, contents, stds, "1600.AWGN.1.png", "1600.AWGN.2.png", path)


def tid(root: Path, kinds: int, levels: int) -> Miniature:
    scores, contents, stds, lines, spreads = {}, {}, {}, [], []
    for ref in range(1, 11):
        for kind in range(1, kinds + 1):
            for level in range(1, levels + 1):
                # names in the table and on disk differ in case, as in the archives
                name, on_disk = (
                    f"i{ref:02d}_{kind:02d}_{level}.bmp",
                    f"{'I' if ref % 2 else 'i'}{ref:02d}_{kind:02d}_{level}",
                )
                mos, spread = 6.5 - level + 0.125 * kind, 0.1 + level / 8
                picture(root / "distorted_images" / f"{on_disk}.{'BMP' if ref == 3 else 'bmp'}")
                lines.append(f"{mos:.4f} {name}")
                spreads.append(f"{spread:.5f}")
                scores[name], contents[name], stds[name] = mos, f"i{ref:02d}", spread
    (root / "mos_with_names.txt").write_text("\n".join(lines) + "\n")
    (root / "mos_std.txt").write_text("\r\n".join(spreads) + "\r\n")
    return Miniature(root, scores, contents, stds, "i02_01_1.bmp", "i02_01_4.bmp", root / "mos_with_names.txt")


def kadid(root: Path) -> Miniature:
    scores, contents, stds, rows = {}, {}, {}, []
    for ref in range(1, 11):
        for level in range(1, 6):
            name = f"I{ref:02d}_01_{level:02d}.png"
            picture(root / "images" / name)
            scores[name], contents[name], stds[name] = 5.0 - 0.75 * level, f"i{ref:02d}", 0.25 * level
            rows.append([name, f"I{ref:02d}.png", scores[name], stds[name]])
    path = table(root / "dmos.csv", ["dist_img", "ref_img", "dmos", "var"], rows)
    # level 1 looks better than level 5 and has the higher number, though the column is called dmos
    return Miniature(root, scores, contents, stds, "I01_01_01.png", "I01_01_05.png", path)


def pipal(root: Path) -> Miniature:
    scores, contents = {}, {}
    for ref in range(1, 13):
        lines = []
        for kind in (0, 6):
            name = f"A{ref:04d}_{kind:02d}_00.bmp"
            picture(root / f"Distortion_{1 + ref % 4}" / name)
            scores[name], contents[name] = 1500.0 - 20.5 * kind + ref, f"a{ref:04d}"
            lines.append(f"{name},{scores[name]}")
        (root / "Train_Label").mkdir(parents=True, exist_ok=True)
        (root / "Train_Label" / f"A{ref:04d}.txt").write_text("\n".join(lines))
    first = root / "Train_Label" / "A0001.txt"
    return Miniature(root, scores, contents, dict.fromkeys(scores), "A0001_00_00.bmp", "A0001_06_00.bmp", first)


def photographs(root: Path, names: Sequence[str], folder: str, low: float, step: float) -> dict[str, float]:
    for name in names:
        picture(root / folder / name)
    return {name: low + step * i for i, name in enumerate(names)}


def bid(root: Path) -> Miniature:
    numbers = [3, 7, *range(100, 120), 586]
    names = [f"DatabaseImage{n:04d}.JPG" for n in numbers]
    scores = photographs(root, names, "ImageDatabase", 0.5, 0.125)
    stds: dict[str, float | None] = {name: 0.25 + i / 64 for i, name in enumerate(names)}
    header = ["Image Number", "Average Subjective Grade", "std"]
    rows = [header, *([n, scores[name], stds[name]] for n, name in zip(numbers, names, strict=True))]
    path = workbook(root / "DatabaseGrades.xlsx", "Plan1", rows)
    return Miniature(root, scores, dict.fromkeys(names), stds, names[-1], names[0], path)


def koniq(root: Path) -> Miniature:
    names = [f"{10004473376 + i}.jpg" for i in range(20)]
    scores = photographs(root, names, "512x384", 20.0, 3.5)
    parts = ["training"] * 12 + ["validation"] * 3 + ["test"] * 5
    header = ["image_name", "c1", "c2", "c3", "c4", "c5", "c_total", "MOS", "SD", "set"]
    rows = [[name, 0, 0.1, 0.5, 0.4, 0, 105, scores[name], 0.5, p] for name, p in zip(names, parts, strict=True)]
    path = table(root / "koniq10k_distributions_sets.csv", header, rows)
    official = {"training": "train", "validation": "val", "test": "test"}
    return Miniature(
        root, scores, dict.fromkeys(names), dict.fromkeys(names, 0.5 * 99 / 4), names[-1], names[0], path,
        {name: official[part] for name, part in zip(names, parts, strict=True)},
    )  # fmt: skip


def spaq(root: Path) -> Miniature:
    names = [f"{i:05d}.jpg" for i in range(1, 21)]
    scores = photographs(root, names, "TestImage", 10.0, 4.25)
    header = ["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"]
    rows = [header, *([name, scores[name], 50, 50, 50, 50, 50] for name in names)]
    path = workbook(root / "Annotations" / "MOS and Image attribute scores.xlsx", "Sheet1", rows)
    return Miniature(root, scores, dict.fromkeys(names), dict.fromkeys(names), names[-1], names[0], path)


def live_fb(root: Path) -> Miniature:
    names = [f"voc_emotic_ava/AVA__{i}.jpg" for i in range(12)] + [f"blur_dataset/motion{i:04d}.jpg" for i in range(8)]
    scores = photographs(root, names, "database", 40.0, 2.5)
    path = table(root / "labels_image.csv", ["name", "mos"], scores.items())
    official = {name: "val" if i in (3, 14) else "test" if i >= 16 else "train" for i, name in enumerate(names)}
    small = [[n, scores[n], p == "val"] for n, p in official.items() if p != "test"]
    table(root / "labels=640_padded.csv", ["name_image", "mos_image", "is_valid"], small)
    large = [[n, scores[n]] for n, p in official.items() if p == "test"]
    table(root / "labels640.csv", ["name_image", "mos_image"], large)
    return Miniature(root, scores, dict.fromkeys(names), dict.fromkeys(names), names[-1], names[0], path, official)


def cid(root: Path) -> Miniature:
    roman = {1: "I", 2: "II", 6: "VI"}
    rows: list[list[object]] = [["Image set", "Source_ID", "Image set specific  MOS", "Realigned MOS"]]
    scores, contents = {}, {}
    for number, digits in roman.items():
        for scene in range(1, 9):
            for camera in (1, 2):
                name = f"IS_{digits}_C{scene:02d}_D{camera:02d}"
                picture(root / f"IS{number}" / f"co{scene}" / f"{name}.jpg")
                scores[name], contents[name] = 20.0 * camera + scene + number / 8, f"c{scene:02d}"
                rows.append([f"IS{number}", name, 50.0, scores[name]])
    path = workbook(root / "CID2013 data - version 12112014.xlsx", "CID2013 MOS", rows, before=["General"])
    return Miniature(root, scores, contents, dict.fromkeys(scores), "IS_I_C01_D02", "IS_I_C01_D01", path)


def biq(root: Path) -> Miniature:
    names = [f"ss0{1 + i % 3} ({i}).jpg" for i in range(1, 31)]
    scores = photographs(root, names, "Images", 0.1, 0.025)
    train, test = names[:20], names[20:]
    path = table(root / "Train.csv", ["Image Name", "MOS"], ([n, f"{scores[n]:.5f}"] for n in train))
    table(root / "Test.csv", ["Image Name", "MOS"], ([n, f"{scores[n]:.5f}"] for n in test))
    official = {name: "train" if name in train else "test" for name in names}
    return Miniature(root, scores, dict.fromkeys(names), dict.fromkeys(names), names[-1], names[0], path, official)


def agiqa(root: Path) -> Miniature:
    prompts = [f"a Castle, {i} towers, anime  style" for i in range(10)]
    models = ("AttnGAN", "sd1.5", "xl2.2")
    scores, contents, stds, rows = {}, {}, {}, []
    for m, model in enumerate(models):
        for i, prompt in enumerate(prompts):
            name = f"{model}_normal_{i:03d}.jpg"
            picture(root / "images" / name)
            scores[name], stds[name] = 0.5 + 1.25 * m + i / 16, 0.5 + i / 32
            contents[name] = f"a castle, {i} towers, anime style"
            rows.append([name, prompt, "", "", "anime style", scores[name], stds[name], 4.5 - m, 0.5])
    header = ["name", "prompt", "adj1", "adj2", "style", "mos_quality", "std_quality", "mos_align", "std_align"]
    path = table(root / "data.csv", header, rows)
    return Miniature(root, scores, contents, stds, "xl2.2_normal_000.jpg", "AttnGAN_normal_000.jpg", path)


def piq(root: Path) -> Miniature:
    scenes = [f"Indoor_Scene_{i}" for i in (0, 1, 2, 3, 12, 13)] + [f"Outdoor_Scene_{i}" for i in (33, 35, 36, 37, 38)]
    scores, contents, stds, rows = {}, {}, {}, []
    for s, scene in enumerate(scenes):
        for i in range(3):
            image = f"{10 * s + i}_{scene}.{'JPG' if i else 'jpg'}"
            name = f"Overall/{image}"
            picture(root / "Overall" / image)
            scores[name], contents[name], stds[name] = -1.5 + 1.25 * i, scene, 0.375 + i / 8
            ends = [scores[name] - 1, scores[name] + 1, 2, 0, -1.0, 143.0]
            place = [image, scene, "Overall", scene.rsplit("_", 1)[1], scene.split("_")[0]]
            rows.append([f"Overall\\{image}", scores[name], stds[name], *ends, *place])
    header = [
        "IMAGE PATH",
        "JOD",
        "JOD STD",
        "CI LOW",
        "CI HIGH",
        "CI RANGE",
        "QUALITY LEVEL",
        "CLUSTER",
        "TOTAL COMPARISONS",
    ]
    path = table(root / "Scores_Overall.csv", [*header, "IMAGE", "SCENE", "ATTRIBUTE", "SCENE IDX", "CONDITION"], rows)
    official = {n: "test" if c in ("Indoor_Scene_1", "Outdoor_Scene_33") else "train" for n, c in contents.items()}
    return Miniature(
        root, scores, contents, stds, "Overall/2_Indoor_Scene_0.JPG", "Overall/0_Indoor_Scene_0.jpg", path, official
    )


def uhd(root: Path) -> Miniature:
    parts = ["training"] * 9 + ["validation"] * 3 + ["test"] * 4
    scores, rows = {}, []
    for i, part in enumerate(parts, 1):
        picture(root / part / f"{i}.jpg")
        scores[f"{i}.jpg"] = 0.3 + i / 32
        rows.append([f"{i}.jpg", scores[f"{i}.jpg"], part, "", 5515, 3375])
    header = ["image_name", "quality_mos", "set", "subset", "orig_width", "orig_height"]
    path = table(root / "uhd-iqa-metadata.csv", header, rows)
    official = {"training": "train", "validation": "val", "test": "test"}
    return Miniature(
        root, scores, dict.fromkeys(scores), dict.fromkeys(scores), "16.jpg", "1.jpg", path,
        {f"{i}.jpg": official[part] for i, part in enumerate(parts, 1)},
    )  # fmt: skip


BUILDERS: dict[str, Callable[[Path], Miniature]] = {
    "live": live,
    "live-md": live_md,
    "csiq": csiq,
    "tid2008": lambda root: tid(root, 3, 4),
    "tid2013": lambda root: tid(root, 3, 5),
    "kadid10k": kadid,
    "pipal": pipal,
    "bid": bid,
    "clive": clive,
    "koniq10k": koniq,
    "spaq": spaq,
    "live-fb": live_fb,
    "cid2013": cid,
    "biq2021": biq,
    "agiqa3k": agiqa,
    "piq23": piq,
    "uhd-iqa": uhd,
}


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Miniature]:
    """One miniature a set, made once; tests must not change them."""
    return {name: build(tmp_path_factory.mktemp("sets") / name) for name, build in BUILDERS.items()}


@pytest.fixture
def build_miniature(tmp_path: Path) -> Callable[[str], Miniature]:
    """Makes a miniature that a test may damage."""
    return lambda name: BUILDERS[name](tmp_path / name)
