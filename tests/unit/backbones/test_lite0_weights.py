from __future__ import annotations

import collections

import pytest
import timm
import torch

from iqakit.backbones.lite0_weights import lite0_file, read_legacy_checkpoint, read_lite0, timm_name
from iqakit.backbones.timm_backbone import create_timm
from iqakit.errors import FileFormatError, IqakitError, StorageError


def test_the_package_is_read_as_torch_reads_it():
    ours = read_legacy_checkpoint(lite0_file())
    theirs = torch.load(lite0_file(), weights_only=True)  # the reference; the product itself never loads a pickle
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor), name


def test_names_are_timms_one_to_one():
    network = timm.create_model("tf_efficientnet_lite0")
    tensors = read_lite0(lite0_file())
    assert tensors.keys() == network.state_dict().keys()
    assert all(tensors[name].shape == own.shape for name, own in network.state_dict().items())


def test_the_default_backbone_holds_exactly_these_tensors():
    backbone = create_timm("tf_efficientnet_lite0", "pretrained")
    tensors = read_lite0(lite0_file())
    own = backbone.module.state_dict()
    assert all(torch.equal(own[name], tensors[name]) for name in own)
    assert backbone.fingerprint() == create_timm("tf_efficientnet_lite0.in1k", "pretrained").fingerprint()
    assert backbone.weights == "pretrained"


def test_another_file_is_refused_before_it_is_read(tmp_path):
    file = tmp_path / "lite0.pth"
    content = bytearray(lite0_file().read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"is not the EfficientNet-Lite0 checkpoint .*; reinstall the package"):
        read_lite0(file)
    with pytest.raises(StorageError, match="cannot read"):
        read_lite0(tmp_path / "none.pth")


@pytest.mark.parametrize("name", ["_blocks.16._bn0.weight", "_blocks.0._expand_conv.weight", "what.ever", "_fc2.weight"])
def test_unknown_names_are_refused(name):
    with pytest.raises(FileFormatError, match="EfficientNet-Lite0 has no tensor"):
        timm_name(name)


def legacy(tmp_path, value):
    file = tmp_path / "old.pth"
    torch.save(value, file, _use_new_zipfile_serialization=False)
    return file


def test_views_and_counters_of_an_old_checkpoint(tmp_path):
    base = torch.arange(12.0)
    tensors = collections.OrderedDict(
        transposed=base.reshape(3, 4).t(), offset=base[3:7].clone(), count=torch.tensor(5), shared=base[8:10]
    )
    read = read_legacy_checkpoint(legacy(tmp_path, tensors))
    assert {name: tensor.tolist() for name, tensor in read.items()} == {n: t.tolist() for n, t in tensors.items()}


def test_truncated_long_and_foreign_files_are_refused(tmp_path):
    whole = legacy(tmp_path, {"a": torch.ones(64)}).read_bytes()
    file = tmp_path / "x.pth"
    for content in (*(whole[:cut] for cut in range(0, len(whole), 7)), whole + b"x", b"", b"text"):
        file.write_bytes(content)
        with pytest.raises(FileFormatError, match="not a checkpoint in torch's old format"):
            read_legacy_checkpoint(file)


class Boom:
    """A pickle of it would run code in whoever loads it."""

    called = False

    def __reduce__(self):
        return (setattr, (Boom, "called", True))


@pytest.mark.parametrize("value", [{"a": Boom()}, Boom(), {"a": torch.ones(2), "b": Boom()}, {"a": [1, 2]}])
def test_a_hostile_pickle_runs_nothing(tmp_path, value):
    with pytest.raises(IqakitError):
        read_legacy_checkpoint(legacy(tmp_path, value))
    assert not Boom.called
