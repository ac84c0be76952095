from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from iqakit.errors import FileFormatError, StorageError
from iqakit.storage.atomic import atomic_file, read_file_bytes, write_bytes_atomic, write_text_atomic

resource = pytest.importorskip("resource")  # not on Windows

CHILD = """
import sys
from iqakit.errors import StorageError
from iqakit.storage.atomic import write_bytes_atomic
try:
    write_bytes_atomic(sys.argv[1], b"n" * int(sys.argv[2]), "adapter file")
except StorageError as error:
    print(error)
    raise SystemExit(3)
"""


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes_atomic(path, b"one")
    write_bytes_atomic(str(path), b"two")
    assert path.read_bytes() == b"two"
    write_text_atomic(path, "ü\r\n")
    assert path.read_bytes() == "ü\r\n".encode()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_a_failing_block_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with atomic_file(path) as stream:
            stream.write(b"half" * 100_000)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_permissions_follow_the_umask_and_then_the_old_file(tmp_path: Path) -> None:
    path, plain = tmp_path / "a.bin", tmp_path / "b.bin"
    plain.write_bytes(b"")
    write_bytes_atomic(path, b"one")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    path.chmod(0o640)
    write_bytes_atomic(path, b"two")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_writes_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.bin").write_bytes(b"old")
    (tmp_path / "link.bin").symlink_to("real.bin")
    write_bytes_atomic(tmp_path / "link.bin", b"new")
    assert (tmp_path / "real.bin").read_bytes() == b"new"
    assert (tmp_path / "link.bin").is_symlink()


def test_never_replaces_a_device_or_a_directory(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"could not write /dev/null: it is not an ordinary file; choose another path"):
        write_bytes_atomic("/dev/null", b"x")
    assert not Path("/dev/null").is_file()
    with pytest.raises(StorageError, match=r"could not write card .*: Is a directory; choose a file name"):
        write_bytes_atomic(tmp_path, b"x", "card")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "missing/a.bin",
            r"could not write adapter file .*missing/a.bin: No such file or directory; create the directory first",
        ),
        ("file/a.bin", r"Not a directory; one part of the path is a file; choose another path"),
        ("x" * 300, r"File name too long; choose a shorter name"),
        ("lost", r"No such file or directory; create the directory first"),
        ("loop", r"Too many levels of symbolic links; check the disk or write elsewhere"),
    ],
)
def test_bad_places(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "lost").symlink_to("nowhere/else")
    with pytest.raises(StorageError, match=message) as caught:
        write_bytes_atomic(tmp_path / name, b"x", "adapter file")
    assert "\n" not in str(caught.value)


def run_child(path: Path, size: int, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, str(path), str(size)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_a_file_size_limit_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # noqa: E731
    done = run_child(path, 100_000, preexec_fn=limit)
    assert done.returncode == 3, done.stderr
    assert done.stdout.strip() == (
        f"could not write adapter file {path}: File too large; raise the limit on file sizes or write elsewhere"
    )
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


@pytest.fixture
def small_disk(tmp_path: Path) -> object:
    place = tmp_path / "disk"
    place.mkdir()
    try:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if made.returncode:
        pytest.skip("may not mount a small disk here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_the_old_content(small_disk: Path) -> None:
    path = small_disk / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(StorageError) as caught:
        write_bytes_atomic(path, b"n" * 200_000, "adapter file")
    assert str(caught.value) == (
        f"could not write adapter file {path}: No space left on device; free some space or write elsewhere"
    )
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in small_disk.iterdir()] == ["a.bin"]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "free some space or write elsewhere"),
        (errno.EROFS, "choose a place that you may write to"),
        (errno.EACCES, "choose a place that you may write to"),
        (errno.EIO, "check the disk or write elsewhere"),
    ],
)
def test_an_error_while_writing_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, advice: str
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def failing_sync(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", failing_sync)
    with pytest.raises(StorageError) as caught:
        write_bytes_atomic(path, b"new", "card")
    assert str(caught.value) == f"could not write card {path}: {os.strerror(code)}; {advice}"
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_a_read_only_disk_keeps_the_old_content(small_disk: Path) -> None:
    path = small_disk / "a.bin"
    path.write_bytes(b"old")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageError) as caught:
        write_bytes_atomic(path, b"new", "adapter file")
    assert str(caught.value) == (
        f"could not write adapter file {path}: Read-only file system; choose a place that you may write to"
    )
    assert path.read_bytes() == b"old"


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    empty, pipe = tmp_path / "empty", tmp_path / "pipe"
    empty.write_bytes(b"")
    os.mkfifo(pipe)
    with pytest.raises(StorageError, match=r"^adapter file .*gone does not exist; check the path$"):
        read_file_bytes(tmp_path / "gone", "adapter file")
    with pytest.raises(
        FileFormatError, match=r"^adapter file .*empty is empty; it was not written to the end, make or fetch"
    ):
        read_file_bytes(empty, "adapter file")
    with pytest.raises(StorageError, match=r"^adapter file .* is a directory; give the path of the file itself$"):
        read_file_bytes(tmp_path, "adapter file")
    with pytest.raises(StorageError, match="is not an ordinary file"):
        read_file_bytes(pipe, "adapter file")
    with pytest.raises(StorageError, match=r"could not read adapter file .*: Not a directory"):
        read_file_bytes(empty / "below", "adapter file")
