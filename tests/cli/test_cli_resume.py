"""Runs that are cut, killed, short of disk space, and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqakit.cli.kept_rows import KeptRows, read_kept
from iqakit.cli.score_file import TextSink, check_settings
from iqakit.cli.score_rows import FlatCells, JsonLines
from iqakit.errors import FileFormatError, MismatchError, StorageError
from iqakit.storage.run_record import RunRecord, record_path

Limit = Callable[[int], AbstractContextManager[None]]
ROOT = Path(__file__).resolve().parents[2]


def lines(path: str | Path) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.fixture
def some(pictures: Path, tmp_path: Path) -> Path:
    """Five pictures of one's own, to be changed."""
    directory = tmp_path / "some"
    directory.mkdir()
    for index in (1, 5, 9, 13, 17):
        shutil.copy(pictures / f"{index:02d}.png", directory)
    return directory


KILLER = """
import os, signal, sys, time
from pathlib import Path
import iqakit.pipeline.model
from iqakit.cli.app import main

pictures, model = sys.argv[1:]
real = os.write
# Whoever started the tests in the background has had interrupts ignored, and that is inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)


def score(name, *more):
    return main(["-q", "score", pictures, "--model", model, "-o", name, "--workers", "1", *more])


def child(name, *more, at=None, by=signal.SIGKILL):
    pid = os.fork()
    if pid:
        return pid
    try:
        writes = 0

        def write(descriptor, data):
            # Half of what is to be written, and then the process is no more; or it is interrupted after a write.
            nonlocal writes
            writes += 1
            if at is not None and writes == at and by == signal.SIGKILL:
                real(descriptor, bytes(data[: len(data) // 2]))
                os.kill(os.getpid(), signal.SIGKILL)
            written = real(descriptor, data)
            if writes == at:
                os.kill(os.getpid(), by)
            return written

        os.write = write
        code = score(name, *more)
    except BaseException as error:
        code = 99
    os._exit(code)


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def wait_for(path, size):
    while not path.exists() or path.stat().st_size < size:
        time.sleep(0.0002)


for form in ("jsonl", "csv"):
    whole = f"whole.{form}"
    assert score(whole) == 0
    size = Path(whole).stat().st_size
    moments = [("at", 2), ("at", 3), ("at", 4), ("at", 5), ("at", 12), ("at", 18)]
    moments += [("size", share) for share in (0.2, 0.6)]
    for kind, value in moments:
        cut = Path(f"cut-{kind}-{value}.{form}")
        if kind == "at":
            pid = child(str(cut), at=value)
        else:
            pid = child(str(cut))
            wait_for(cut, int(size * value))
            os.kill(pid, signal.SIGKILL)
        assert ended(pid) == -signal.SIGKILL, (kind, value)
        left = cut.read_bytes() if cut.exists() else b""
        print(form, kind, value, len(left))
        assert left == Path(whole).read_bytes()[: len(left)]
        assert score(str(cut), "--resume") == 0
        assert cut.read_bytes() == Path(whole).read_bytes()
    twice = f"twice.{form}"  # killed again and again, while it goes on
    for at in (6, 7):
        assert ended(child(twice, "--resume", at=at)) == -signal.SIGKILL
    assert score(twice, "--resume") == 0
    assert Path(twice).read_bytes() == Path(whole).read_bytes()

stopped = Path("stopped.json")
assert ended(child(str(stopped), at=5, by=signal.SIGINT)) == 130
"""


def test_a_killed_run_leaves_whole_rows_and_goes_on_to_the_same_file(pictures: Path, model: Path, tmp_path: Path) -> None:
    eight = tmp_path / "eight"
    eight.mkdir()
    for index in range(8):
        shutil.copy(pictures / f"{3 * index:02d}.png", eight)
    environ = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", KILLER, pictures, model],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    sizes = {int(line.split()[-1]) for line in done.stdout.splitlines()}
    assert len(sizes) > 6  # they were cut in many places
    assert done.stderr == "error: interrupted\n"  # by the one that was interrupted, and by no other
    assert 0 < len(json.loads(Path("stopped.json").read_text())) < 8


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_changed_image_is_scored_again_and_its_row_replaced(
    run, some: Path, model: Path, pictures: Path, form: str
) -> None:
    arguments = ["score", some, "--model", model]
    run(*arguments, "-o", f"rows.{form}")
    before = Path(f"rows.{form}").read_bytes()
    shutil.copy(pictures / "23.png", some / "05.png")  # changed
    shutil.copy(pictures / "20.png", some / "07.png")  # new, in between
    (some / "17.png").write_bytes(b"no picture")  # no longer one
    done = run(*arguments, "-o", f"rows.{form}", "--resume")
    assert done.code == 1
    assert f"5 images are in rows.{form} already" in done.err
    assert f"2 images had changed since rows.{form} was written; scored again" in done.err
    assert "5 images scored, 1 failed" in done.err
    run(*arguments, "-o", f"anew.{form}")
    assert Path(f"rows.{form}").read_bytes() == Path(f"anew.{form}").read_bytes() != before
    again = run(*arguments, "-o", f"rows.{form}", "--resume")
    assert "changed" not in again.err
    assert "images/s" not in again.err  # nothing was scored
    assert Path(f"rows.{form}").read_bytes() == Path(f"anew.{form}").read_bytes()


def test_touching_an_image_scores_it_again_and_a_missing_one_is_tried_again(run, some: Path, model: Path) -> None:
    late = some.parent / "late.png"
    arguments = ["score", some, late, "--model", model, "-o", "rows.jsonl"]
    assert run(*arguments).code == 1
    os.utime(some / "09.png", ns=(1, 1))
    shutil.copy(some / "01.png", late)
    done = run(*arguments, "--resume")
    assert done.code == 0
    assert "2 images had changed" in done.err
    assert [row["status"] for row in lines("rows.jsonl")] == ["ok"] * 6


def test_rows_of_images_that_are_not_named_stay_in_front(run, some: Path, model: Path) -> None:
    one, two, three = (some / name for name in ("01.png", "05.png", "09.png"))
    run("score", three, two, "--model", model, "-o", "rows.csv")
    done = run("score", one, two, "--model", model, "-o", "rows.csv", "--resume")
    assert "1 row in rows.csv of images that were not named this time; kept, before the others" in done.err
    run("score", three, one, two, "--model", model, "-o", "anew.csv")
    assert Path("rows.csv").read_bytes() == Path("anew.csv").read_bytes()


def test_an_image_that_is_named_twice_has_two_rows(run, some: Path, model: Path) -> None:
    arguments = ["score", some / "01.png", some / "01.png", "--model", model]
    run(*arguments, "-o", "whole.jsonl")
    whole = Path("whole.jsonl").read_bytes()
    Path("rows.jsonl").write_bytes(whole[: whole.index(b"\n") + 9])
    run(*arguments, "-o", "rows.jsonl", "--resume")
    assert Path("rows.jsonl").read_bytes() == whole
    run("score", some / "01.png", "--model", model, "-o", "rows.jsonl", "--resume")
    assert len(lines("rows.jsonl")) == 1


@pytest.mark.parametrize(
    ("more", "found", "asked"),
    [
        (["--combiner", "average"], "--combiner kmeans", "--combiner average"),
        (["--set", "temperature=3"], "--set none", "--set temperature=3"),
        (["--task", "blur"], "--combiner kmeans", "--combiner oracle"),
        (["--task", "blur", "--combiner", "kmeans"], "--task none", "--task blur"),
    ],
)
def test_other_settings_are_refused(run, some: Path, model: Path, more: list[str], found: str, asked: str) -> None:
    arguments = ["score", some, "--model", model, "-o", "rows.csv"]
    run(*arguments)
    before = Path("rows.csv").read_bytes()
    done = run("-q", *arguments, *more, "--resume")
    assert done.code == 2
    assert done.err == (
        f"error: rows.csv was scored with {found}, but {asked} is asked for now; give another -o, or leave out --resume "
        "to score all again\n"
    )
    assert Path("rows.csv").read_bytes() == before
    assert run(*arguments, "--combiner", "kmeans", "--resume").code == 0  # the default, said aloud


def test_another_model_and_adaptation_are_refused() -> None:
    with pytest.raises(MismatchError, match=r"with model a@1, but model b@2 is asked for now"):
        check_settings(Path("rows.csv"), {"model": "a@1"}, {"model": "b@2"})
    with pytest.raises(MismatchError, match=r"with --tta none, but --tta auto is asked for now"):
        check_settings(Path("rows.csv"), {"model": "a@1", "tta": "none"}, {"model": "a@1", "tta": "auto"})
    with pytest.raises(MismatchError, match=r"with --adapter none, but --adapter x is asked"):
        check_settings(Path("rows.csv"), {"model": "a@1"}, {"model": "a@1", "adapter": "x"})


def test_without_a_record_an_image_older_than_the_file_is_done(run, some: Path, model: Path, pictures: Path) -> None:
    arguments = ["score", some, "--model", model, "-o", "rows.jsonl"]
    run(*arguments)
    record_path(Path("rows.jsonl")).unlink()
    late = Path("rows.jsonl").stat().st_mtime_ns + 10**9
    shutil.copy(pictures / "23.png", some / "05.png")
    os.utime(some / "05.png", ns=(late, late))
    done = run(*arguments, "--resume")
    assert "1 image had changed" in done.err
    assert lines("rows.jsonl")[1]["score"] == lines("rows.jsonl")[1]["score"]
    assert [Path(row["path"]).name for row in lines("rows.jsonl")] == ["01.png", "05.png", "09.png", "13.png", "17.png"]
    # From now on there is a record, and a change shows whatever the times are.
    shutil.copy(pictures / "22.png", some / "01.png")
    os.utime(some / "01.png", ns=(1, 1))
    assert "1 image had changed" in run(*arguments, "--resume").err


def test_rows_may_be_edited_by_hand(run, some: Path, model: Path) -> None:
    arguments = ["score", some, "--model", model]
    run(*arguments, "-o", "rows.csv")
    whole = Path("rows.csv").read_bytes()
    heading, *rows = whole.splitlines(keepends=True)
    Path("rows.csv").write_bytes(heading + b"".join([rows[3], rows[0], rows[4]]))
    done = run(*arguments, "-o", "rows.csv", "--resume")
    assert "changed" not in done.err
    assert Path("rows.csv").read_bytes() == whole


def test_a_file_that_was_being_replaced_is_gone_on_with(run, some: Path, model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    run("score", some, "--model", model, "-o", "rows.jsonl")
    old = Path("rows.jsonl").read_bytes()
    arguments = ["score", some, broken, "--model", model, "--combiner", "average", "-o", "rows.jsonl"]
    done = run(*arguments, "--on-error", "fail")
    assert done.code == 2
    assert (
        "the rows so far are in rows.partial.jsonl; rows.jsonl was not touched; the same command with --resume goes on"
        in done.err
    )
    assert Path("rows.jsonl").read_bytes() == old
    done = run(*arguments, "--resume")
    assert "5 images are in rows.partial.jsonl already" in done.err
    assert len(lines("rows.jsonl")) == 6
    assert sorted(path.name for path in Path().glob("*rows*")) == [".rows.jsonl.resume", "rows.jsonl"]
    assert run(*arguments, "--resume").code == 1  # with the record of the new rows


def test_a_run_that_is_cut_before_its_first_row_leaves_nothing_beside(run, model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    Path("rows.jsonl").write_text("what was there\n")
    assert run("score", broken, "--model", model, "-o", "rows.jsonl", "--on-error", "fail").code == 2
    assert [path.name for path in Path().glob("*rows*")] == ["rows.jsonl"]


def test_two_runs_do_not_write_to_one_file(run, some: Path, model: Path) -> None:
    arguments = ["score", some, "--model", model, "-o", "rows.jsonl"]
    run(*arguments)
    record = RunRecord(Path("rows.jsonl"))
    assert record.go_on() is not None
    try:
        done = run("-q", *arguments, "--resume")
    finally:
        record.close()
    assert done.code == 2
    assert done.err == (
        "error: another iqakit is writing rows to rows.jsonl right now; wait until it is done or give another -o\n"
    )


@pytest.mark.parametrize("form", ["jsonl", "csv", "json"])
def test_a_full_disk_is_one_line_and_whole_rows(
    run, pictures: Path, model: Path, form: str, file_size_limit: Limit
) -> None:
    arguments = ["score", pictures, "--model", model, "-o"]
    run(*arguments, f"whole.{form}")
    whole = Path(f"whole.{form}").read_bytes()
    with file_size_limit(2000):
        done = run("-q", *arguments, f"rows.{form}")
    assert done.code == 2
    assert done.err == (
        f"error: could not write rows to rows.{form}: File too large; raise the limit on file sizes or write elsewhere\n"
    )
    left = Path(f"rows.{form}").read_bytes()
    if form == "json":
        assert left.startswith(b"[\n{")
        return
    assert 0 < len(left) <= 2000
    assert left == whole[: len(left)]
    assert left.endswith(b"\n")
    assert run(*arguments, f"rows.{form}", "--resume").code == 0
    assert Path(f"rows.{form}").read_bytes() == whole


def test_what_cannot_be_written_is_one_line(run, some: Path, model: Path) -> None:
    for name, reason in (
        ("/dev/full", "could not write rows to /dev/full: No space left on device; free some space or write elsewhere"),
        ("nowhere/rows.csv", "nowhere/rows.csv: No such file or directory; create the directory first"),
        ("some", "some: Is a directory; choose a file name, not a directory"),
    ):
        done = run("-q", "score", some, "--model", model, "--format", "csv", "-o", name)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert reason in done.err


def test_a_run_that_cannot_begin_leaves_no_file(run, some: Path, model: Path) -> None:
    for name in ("rows.csv", "rows.jsonl", "rows.json"):
        done = run("score", some, "--model", model, "--combiner", "nobody", "-o", name)
        assert done.code == 2
        assert "the rows so far" not in done.err
        assert run("score", some, "--model", model, "--set", "x=1", "--resume", "-o", "new.csv").code == 2
    assert list(Path().glob("*rows*")) == list(Path().glob("*new*")) == []


def test_a_record_that_is_none_is_one_line(run, some: Path, model: Path) -> None:
    arguments = ["score", some, "--model", model, "-o", "rows.jsonl"]
    run(*arguments)
    record = record_path(Path("rows.jsonl"))
    head, *rest = record.read_bytes().splitlines(keepends=True)
    assert json.loads(head)["settings"]["combiner"] == "kmeans"
    assert len(rest) == 5
    for damaged in (b"[]\n", head.replace(b'"format_version":1', b'"format_version":2'), head + b"?" * 34, b"\n"):
        record.write_bytes(damaged)
        done = run("-q", *arguments, "--resume")
        assert done.code == 2
        assert done.err == (
            "error: .rows.jsonl.resume is no record of a run that this iqakit can read; delete .rows.jsonl.resume to go on "
            "by paths alone\n"
        )
    record.write_bytes(head + b"".join(rest)[:-20])  # cut in the middle of a line
    assert "changed" not in run(*arguments, "--resume").err


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"path": "a", "status": "ok", "model": "m@1"}\nnot json\n', "row 2, is no row of jsonl scores"),
        ("b.jsonl", '{"image": "a"}\n', "row 1, is no row of jsonl scores: it has no path and status; repair it or"),
        ("c.jsonl", "my notes", "holds no jsonl scores: it begins with 'my notes'; give another -o"),
        ("d.csv", "image,mos\na.jpg,3\n", "has the columns image, mos, but this model's rows have path, status"),
        ("e.csv", "image,m", "holds no csv scores: it begins with 'image,m'"),
        ("f.csv", ",".join(FlatCells(["blur"]).columns) + "\na,ok\n", "row 2, is no row of csv scores: it has 2 cells"),
    ],
)
def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    form = path.suffix[1:]
    with pytest.raises((FileFormatError, MismatchError)) as caught:
        TextSink(path, JsonLines() if form == "jsonl" else FlatCells(["blur"]), settings={"model": "m@1"}, resuming=True)
    assert message in str(caught.value)
    assert path.read_text() == text


def test_a_file_that_cannot_be_put_in_order_keeps_all_rows(tmp_path: Path, file_size_limit: Limit) -> None:
    kept = KeptRows()
    path = tmp_path / "rows.jsonl"
    path.write_text("b\na\n")
    for end, name in ((2, "b"), (4, "a")):
        kept.add(end, name, 7, 1.0, False)
    kept.all_found()
    assert kept.take("a", 7) is not None
    assert kept.take("b", 7) is not None
    with file_size_limit(2), pytest.raises(StorageError, match=r"rows\.jsonl: File too large"):
        kept.settle(path)
    assert path.read_text() == "b\na\n"
    assert kept.settle(path)
    assert path.read_text() == "a\nb\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]


NAMES = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 2)), max_size=8)


@settings(max_examples=60, deadline=None)
@given(old=NAMES, named=NAMES)
def test_rows_end_up_where_images_were_named(
    tmp_path_factory: pytest.TempPathFactory, old: list[tuple[str, int]], named: list[tuple[str, int]]
) -> None:
    """Each image is a name and a state that it is in; a row holds as long as the state is the same."""
    path = tmp_path_factory.mktemp("order") / "rows"
    text = "".join(f"{name}{facts} old\n" for name, facts in old)
    kept = KeptRows()
    for index, (name, facts) in enumerate(old):
        kept.add(7 * (index + 1), name, facts, 1.0, False)
    kept.all_found()
    left, expected = Counter(old), []
    for name, facts in named:
        taken = kept.take(name, facts) is not None
        assert taken == (left[name, facts] > 0)
        left[name, facts] -= taken
        expected.append(f"{name}{facts} {'old' if taken else 'new'}\n")
        if not taken:
            text += expected[-1]
            kept.wrote(len(text))
    path.write_text(text)
    kept.settle(path)
    names = {name for name, _ in named}
    front = [f"{name}{facts} old\n" for name, facts in old if name not in names]
    assert path.read_text() == "".join(front + expected)
    assert kept.unnamed == len(front)


def test_a_row_of_an_earlier_run_takes_few_bytes(tmp_path: Path) -> None:
    count = 5_000
    path = tmp_path / "rows.jsonl"
    row = '{"path": "some/where/photo-%06d.jpg", "status": "ok", "score": 51.25, "model": "m@1", "padding": "%s"}\n'
    path.write_text("".join(row % (index, "x" * 300) for index in range(count)))
    record = RunRecord(path)
    record.begin({"model": "m@1"})
    tracemalloc.start()
    try:
        kept = read_kept(path, "jsonl", (), "m@1", record, None)
        for index in range(count):
            kept.take(f"some/where/photo-{index:06d}.jpg", 2**64 - 1)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        record.close()
    assert kept.rows == count
    assert held / count < 70
    assert peak / count < 110
