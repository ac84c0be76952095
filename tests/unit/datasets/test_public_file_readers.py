from __future__ import annotations

import builtins
import random
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from iqakit.datasets.mat_structure import check
from iqakit.datasets.readers import mat_floats, mat_texts, read_csv, read_fields, read_mat, read_xlsx
from iqakit.errors import DataError, MissingExtraError


def book(path: Path, rows: list[list[Any]], sheet: str = "Sheet1") -> Path:
    made = openpyxl.Workbook()
    made.active.title = sheet  # type: ignore[union-attr]
    for row in rows:
        made.active.append(row)  # type: ignore[union-attr]
    made.save(path)
    return path


def test_csv_columns_are_found_whatever_their_case_and_spacing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbfImage  Name, MOS \r\n\r\na.png,1.5\r\n"b,c.png",-2e1\r\n')
    table = read_csv(path, ["image name", "mos"])
    assert table.text("Image Name") == ["a.png", "b,c.png"]
    assert table.floats("MOS") == [1.5, -20.0]
    assert table.numbers == (3, 4)


def test_csv_in_latin_1_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("name,prompt\na.png,caf\xe9 \x85 bar\n".encode("latin-1"))
    assert read_csv(path, ["name"]).text("prompt") == ["café \x85 bar"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.csv is empty; it must have the columns 'name', 'mos'"),
        ("name,score\na,1\n", "t.csv has no column 'mos'; its columns are 'name', 'score'"),
        ("x\na\n", "t.csv has no column 'name', 'mos'; its columns are 'x'"),
        ("name,mos\n", "t.csv has a header and no rows; is the file cut short?"),
        ("name,mos\na,1\nb\n", "t.csv: row 3 has 1 cells instead of 2; is the file cut short?"),
        ("name,mos,x\na,1,2\nb,1\n", "t.csv: row 3, the last, has 2 cells instead of 3; is it cut short?"),
        ("name,mos\na,1\nb,\n", "t.csv: row 3 has nothing under 'mos'; is the file cut short?"),
        ("name,mos\na,1\nb,good\n", "t.csv: row 3 has 'good' under 'mos', which is not a number"),
        ("name,mos\na,nan\n", "t.csv: row 2 has 'nan' under 'mos', which is not a number"),
        ("name,mos\na,inf\n", "t.csv: row 2 has 'inf' under 'mos', which is not a number"),
        ("name,mos\na,1\0\n", "t.csv is not a text file; is it the score file that came with the set?"),
    ],
)
def test_csv_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)

    def read() -> None:
        table = read_csv(path, ["name", "mos"])
        table.text("name")
        table.floats("mos")

    with pytest.raises(DataError) as caught:
        read()
    assert str(caught.value).endswith(message)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for read in (lambda p: read_csv(p, ["a"]), lambda p: read_xlsx(p, ["a"]), lambda p: read_mat(p, ["a"])):
        with pytest.raises(DataError, match="cannot"):
            read(tmp_path / "none.xlsx")


def test_fields_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("5.5 a.bmp\n\n  4.25\tb.bmp  \n")
    assert read_fields(path, 2) == [(1, ["5.5", "a.bmp"]), (3, ["4.25", "b.bmp"])]
    path.write_text("a.bmp, 1400.5\n")
    assert read_fields(path, 2, ",") == [(1, ["a.bmp", "1400.5"])]
    path.write_text("5.5 a.bmp\n4.25\n")
    with pytest.raises(DataError, match=r"line 2 has 1 fields instead of 2: '4\.25'"):
        read_fields(path, 2)
    path.write_text("\n")
    with pytest.raises(DataError, match="is empty; each line must have 2 fields"):
        read_fields(path, 2)


def test_xlsx_header_may_stand_lower_and_numbers_may_be_names(tmp_path: Path) -> None:
    path = book(tmp_path / "t.xlsx", [[None], ["notes"], [None, "image", "dmos"], [None, 1600, 0.5], [None, "swan", 1]])
    table = read_xlsx(path, ["image", "dmos"])
    assert table.text("image") == ["1600", "swan"]
    assert table.floats("dmos") == [0.5, 1.0]
    assert table.numbers == (4, 5)


def test_xlsx_with_a_wrong_size_written_in_it_is_read_whole(tmp_path: Path) -> None:
    path = book(tmp_path / "t.xlsx", [["image", "mos"], ["a", 1], ["b", 2]])
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    parts["xl/worksheets/sheet1.xml"] = parts["xl/worksheets/sheet1.xml"].replace(b'ref="A1:B3"', b'ref="A1"')
    with zipfile.ZipFile(path, "w") as target:
        for name, data in parts.items():
            target.writestr(name, data)
    assert read_xlsx(path, ["image", "mos"]).text("image") == ["a", "b"]


def test_xlsx_says_what_is_wrong(tmp_path: Path) -> None:
    path = book(tmp_path / "t.xlsx", [["image", "mos"], ["a", 1], ["b", "x"]])
    with pytest.raises(DataError, match=r"has no sheet 'scores'; its sheets are 'Sheet1'"):
        read_xlsx(path, ["image"], sheet="scores")
    with pytest.raises(DataError, match=r"no row that names the columns 'dmos'; its first row is 'image', 'mos'"):
        read_xlsx(path, ["dmos"])
    with pytest.raises(DataError, match="row 3 has 'x' under 'mos', which is not a number"):
        read_xlsx(path, ["mos"]).floats("mos")
    with pytest.raises(DataError, match=r"old \.xls format; save it as \.xlsx"):
        read_xlsx(tmp_path / "t.xls", ["mos"])
    (tmp_path / "u.xlsx").write_text("image,mos\n")
    with pytest.raises(DataError, match=r"u\.xlsx cannot be read as an \.xlsx workbook"):
        read_xlsx(tmp_path / "u.xlsx", ["mos"])


def cell_array(values: list[Any]) -> Any:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def test_mat_numbers_and_names_however_they_are_wrapped(tmp_path: Path) -> None:
    names = cell_array(["a.bmp", cell_array(["b.bmp"]), cell_array([cell_array(["c.bmp"])])])
    savemat(tmp_path / "t.mat", {"mos": np.array([[1, 2, 3]], dtype=np.uint8), "names": names})
    found = read_mat(tmp_path / "t.mat", ["mos", "names"])
    assert mat_floats(tmp_path, "mos", found["mos"]) == [1.0, 2.0, 3.0]
    assert mat_texts(tmp_path, "names", found["names"]) == ["a.bmp", "b.bmp", "c.bmp"]


def test_mat_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "t.mat"
    savemat(path, {"mos": np.array([1.0, np.nan]), "names": cell_array(["a", 5.0])})
    with pytest.raises(DataError, match=r"has no variable dmos; it has mos, names"):
        read_mat(path, ["dmos"])
    found = read_mat(path, ["mos", "names"])
    with pytest.raises(DataError, match="value 2 of mos is nan, which is not a number"):
        mat_floats(path, "mos", found["mos"])
    with pytest.raises(DataError, match="variable names is not a numeric array"):
        mat_floats(path, "names", found["names"])
    with pytest.raises(DataError, match="variable names is not a list of names"):
        mat_texts(path, "names", found["names"])
    path.write_bytes(
        b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" + bytes(64)
    )
    with pytest.raises(DataError, match=r"is a MATLAB 7\.3 \(HDF5\) file; save it in MATLAB with -v7"):
        read_mat(path, ["mos"])
    path.write_text("image,mos\na.png,1\n" * 20)
    with pytest.raises(DataError, match="cannot be read as a MATLAB file"):
        read_mat(path, ["mos"])


def test_files_of_real_matlab_pass_the_check_of_structure() -> None:
    import scipy.io
    import scipy.io.matlab

    folder = Path(scipy.io.matlab.__file__).parent / "tests" / "data"  # what scipy tests its reader with
    files = [path for path in sorted(folder.glob("test*.mat")) if b"MATLAB 5.0 MAT-file" in path.read_bytes()[:128]]
    if not files:
        pytest.skip("scipy is installed without its test files")
    checked = 0
    for path in files:
        plain = [
            name for name, _, kind in scipy.io.whosmat(path) if kind in ("double", "single", "cell", "char", "logical")
        ]
        check(path.read_bytes(), plain)
        checked += len(plain)
    assert checked > 30


def test_mat_variables_that_are_not_asked_for_may_be_anything(tmp_path: Path) -> None:
    path = tmp_path / "t.mat"
    savemat(path, {"notes": {"who": "us", "scale": [0.0, 100.0]}, "mos": np.array([1.0, 2.0])})
    assert mat_floats(path, "mos", read_mat(path, ["mos"])["mos"]) == [1.0, 2.0]
    with pytest.raises(DataError, match="array of class 2, which is neither numbers nor text nor cells"):
        read_mat(path, ["notes"])


def test_bytes_on_which_scipy_ends_the_process_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.mat"
    savemat(path, {"mos": np.arange(40.0)})
    data = bytearray(path.read_bytes())
    tag = data.index((40 * 8).to_bytes(4, "little"))  # the size of the values
    data[tag : tag + 4] = (10**9).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match="it ends in the middle of an array"):
        read_mat(path, ["mos"])
    savemat(path, {"mos": np.arange(40.0)})
    data = bytearray(path.read_bytes())
    size = data.index((40).to_bytes(4, "little"), 128)  # the number of columns
    data[size : size + 4] = (-40 & 0xFFFFFFFF).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match="an array has a negative size"):
        read_mat(path, ["mos"])


@pytest.mark.parametrize("package", ["scipy", "openpyxl"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *rest, **named)

    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without)
    read: Callable[[], object] = {
        "scipy": lambda: read_mat(tmp_path / "t.mat", ["mos"]),
        "openpyxl": lambda: read_xlsx(tmp_path / "t.xlsx", ["mos"]),
    }[package]
    with pytest.raises(MissingExtraError, match=rf'needs {package}; install it with: pip install "iqakit\[sets\]"'):
        read()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["mat", "xlsx", "csv"]), cut=st.booleans())
def test_damaged_files_end_in_one_line(tmp_path: Path, seed: int, kind: str, cut: bool) -> None:
    path = tmp_path / f"t.{kind}"
    if kind == "mat":
        savemat(
            path,
            {"mos": np.arange(40.0), "names": cell_array([f"{i}.bmp" for i in range(40)])},
            do_compression=seed % 2 == 0,
        )
    elif kind == "xlsx":
        book(path, [["name", "mos"], *([f"{i}.bmp", i / 3] for i in range(20))])
    else:
        path.write_text("name,mos\n" + "".join(f"{i}.bmp,{i / 3}\n" for i in range(20)))
    data = bytearray(path.read_bytes())
    draw = random.Random(seed)
    if cut:
        del data[draw.randrange(len(data)) :]
    else:
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
    path.write_bytes(data)

    def read() -> str:
        try:
            if kind == "mat":
                found = read_mat(path, ["mos", "names"])
                mat_floats(path, "mos", found["mos"])
                mat_texts(path, "names", found["names"])
            else:
                table = read_csv(path, ["name", "mos"]) if kind == "csv" else read_xlsx(path, ["name", "mos"])
                table.text("name")
                table.floats("mos")
        except DataError as error:
            return str(error)
        return str(path)

    said = read()
    assert "\n" not in said
    assert str(path) in said
