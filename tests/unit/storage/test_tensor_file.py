from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from iqakit.errors import FileFormatError, IqakitError, StorageError
from iqakit.storage.tensor_file import read_tensors

WHOLE = save({"a": torch.arange(6.0).reshape(2, 3), "h": torch.ones(2, dtype=torch.float16)})


def test_tensors_come_back_to_the_bit(tmp_path):
    file = tmp_path / "t.safetensors"
    file.write_bytes(WHOLE)
    tensors = read_tensors(str(file))
    assert set(tensors) == {"a", "h"}
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3))
    assert tensors["h"].dtype == torch.float16


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".PTH"])
def test_a_pickle_is_refused_by_its_suffix_unopened(tmp_path, suffix):
    with pytest.raises(FileFormatError, match="convert it to safetensors; pickles are never opened"):
        read_tensors(tmp_path / f"weights{suffix}")


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_in_disguise_is_refused(tmp_path, legacy):
    file = tmp_path / "t.safetensors"
    torch.save({"a": torch.ones(2)}, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(FileFormatError, match="pickled checkpoint; convert it to safetensors; pickles are never opened"):
        read_tensors(file)


def test_missing_empty_directory_and_truncated_files_say_so(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "cut").write_bytes(WHOLE[:-3])
    (tmp_path / "text").write_text("hello, this is no tensor")
    with pytest.raises(StorageError, match=r"no tensor file at .*none; check the path"):
        read_tensors(tmp_path / "none")
    with pytest.raises(StorageError, match="is a directory"):
        read_tensors(tmp_path)
    with pytest.raises(FileFormatError, match="is empty"):
        read_tensors(tmp_path / "empty")
    for name in ("cut", "text"):
        with pytest.raises(FileFormatError, match=rf"{name} is not a whole safetensors file \(\d+ bytes: .*\); fetch"):
            read_tensors(tmp_path / name)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=64), st.integers(0, len(WHOLE) - 1).map(lambda n: WHOLE[:n])))
def test_no_bytes_raise_anything_but_one_clear_line(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("bytes") / "t.safetensors"
    file.write_bytes(content)
    with pytest.raises(IqakitError) as caught:
        read_tensors(file)
    assert "\n" not in str(caught.value)
