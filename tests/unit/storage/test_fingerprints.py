from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iqakit.errors import FileFormatError, StorageError
from iqakit.storage.fingerprints import file_sha256, fingerprint_tensors


def test_fingerprint_is_sha256_over_header_and_bytes():
    tensors = {"b": torch.tensor([1.0, -2.0]), "a": torch.tensor([[3, 4]], dtype=torch.int64)}
    expected = hashlib.sha256(
        b'["a","torch.int64",[1,2]]\n'
        + (3).to_bytes(8, "little")
        + (4).to_bytes(8, "little")
        + b'["b","torch.float32",[2]]\n'
        + bytes.fromhex("0000803f000000c0")
    ).hexdigest()
    assert fingerprint_tensors(tensors) == expected


def test_nothing_has_a_fingerprint_too():
    assert fingerprint_tensors({}) == hashlib.sha256().hexdigest()


@settings(max_examples=25, deadline=None)
@given(st.permutations(["x", "y", "z", "é"]), st.integers(0, 2**16))
def test_order_of_the_mapping_does_not_matter(order, seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(2, 3, generator=generator) for name in ("x", "y", "z", "é")}
    assert fingerprint_tensors({name: tensors[name] for name in order}) == fingerprint_tensors(tensors)


def test_memory_layout_and_gradients_do_not_matter():
    values = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    same = [
        values.contiguous(memory_format=torch.channels_last),
        values.clone().requires_grad_(),
        values.repeat(1, 1, 1, 2)[..., :5],
        values.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    ]
    assert {fingerprint_tensors({"w": tensor}) for tensor in same} == {fingerprint_tensors({"w": values})}


@pytest.mark.parametrize(
    "other",
    [
        {"v": torch.zeros(4)},
        {"w": torch.zeros(2, 2)},
        {"w": torch.zeros(4, dtype=torch.int32)},
        {"w": torch.tensor([0.0, 0.0, 0.0, -0.0])},
        {"w": torch.zeros(4), "u": torch.zeros(0)},
    ],
    ids=["name", "shape", "dtype", "bits", "one more"],
)
def test_name_shape_dtype_and_every_bit_matter(other):
    assert fingerprint_tensors(other) != fingerprint_tensors({"w": torch.zeros(4)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.bool, torch.uint8, torch.complex64, torch.float64])
def test_every_dtype_and_a_scalar(dtype):
    one, zero = torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype)
    assert fingerprint_tensors({"s": one}) != fingerprint_tensors({"s": zero})


def test_file_sha256_of_more_than_one_block(tmp_path):
    content = bytes(range(256)) * 8193
    (tmp_path / "f").write_bytes(content)
    assert file_sha256(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def test_file_sha256_says_which_file_cannot_be_read(tmp_path):
    with pytest.raises(StorageError, match=r"cannot read .*nothing: No such file.*check the path") as caught:
        file_sha256(tmp_path / "nothing")
    assert not isinstance(caught.value, FileFormatError)
