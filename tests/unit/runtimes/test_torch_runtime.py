from __future__ import annotations

import pytest
import torch

from iqakit.backbones.tiny_backbone import create_tiny
from iqakit.errors import ConfigurationError, ImageError
from iqakit.functional.overlay import trainable_overlay
from iqakit.runtimes.torch_runtime import TorchRuntime, resolve_device


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 48, 64, generator=torch.Generator().manual_seed(seed))


def test_no_image_depends_on_its_neighbours_to_the_bit() -> None:
    runtime = TorchRuntime(create_tiny("", "random:0"))
    together = runtime.passes(images(5), [{}])[0]
    for index in range(5):
        alone = runtime.passes(images(5)[index : index + 1], [{}])[0]
        assert torch.equal(alone.embedding[0], together.embedding[index])
        assert all(torch.equal(a[0], b[index]) for a, b in zip(alone.stages, together.stages, strict=True))
        assert all(torch.equal(a[0], b[index]) for a, b in zip(alone.deviations, together.deviations, strict=True))


def test_an_empty_overlay_is_the_bare_backbone_and_another_is_not() -> None:
    backbone = create_tiny("", "random:0")
    runtime = TorchRuntime(backbone)
    overlay = {
        name: tensor.detach() for name, tensor in trainable_overlay(backbone.module, backbone.norm_tensor_names()).items()
    }
    overlay = {name: tensor * 1.5 if name.endswith("weight") else tensor for name, tensor in overlay.items()}
    bare, same, other = runtime.passes(images(2), [{}, {}, overlay])
    with torch.no_grad():
        assert torch.allclose(bare.embedding, backbone.forward(images(2)).embedding, atol=1e-6)
    assert torch.equal(bare.embedding, same.embedding)
    assert not torch.allclose(bare.embedding, other.embedding)


@pytest.mark.parametrize("device", ["gpu", "cpu:0", "cpu:abc", "cuda:-1", "", "cuda:"])
def test_unknown_devices(device: str) -> None:
    with pytest.raises(ConfigurationError, match="device must be auto, cpu, cuda or mps, but it is"):
        resolve_device(device)


def test_devices_that_are_not_here() -> None:
    with pytest.raises(ConfigurationError, match=r"device cuda:900 was asked for, but torch finds .* of that kind here"):
        resolve_device("cuda:900")


def test_auto_is_a_device_that_is_here() -> None:
    assert resolve_device("auto") in ("cpu", "cuda", "mps")
    assert resolve_device("cpu") == "cpu"


class SmallMemory(torch.nn.Module):
    """A network on a device whose memory holds so many images, and no more."""

    def __init__(self, network: torch.nn.Module, room: int) -> None:
        super().__init__()
        self.network, self.room = network, room
        self.seen: list[int] = []

    def forward(self, batch: torch.Tensor) -> object:
        self.seen.append(len(batch))
        if len(batch) > self.room:
            raise torch.OutOfMemoryError("no more memory")
        return self.network(batch)


def on_small_device(room: int, monkeypatch: pytest.MonkeyPatch) -> tuple[TorchRuntime, SmallMemory]:
    backbone = create_tiny("", "random:0")
    runtime = TorchRuntime(backbone)
    memory = SmallMemory(backbone.module, room)
    backbone.module = memory
    monkeypatch.setattr(backbone, "forward", memory.forward)
    # Any device that is not the CPU batches images; torch's own stand-in for one needs no hardware.
    runtime.device = "small"
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *_, **__: self)
    return runtime, memory


def test_a_batch_too_large_for_memory_is_halved_until_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, memory = on_small_device(3, monkeypatch)
    found = runtime.passes(images(7), [{}])[0]
    assert memory.seen == [7, 3, 3, 1]
    alone = TorchRuntime(create_tiny("", "random:0")).passes(images(7), [{}])[0]
    assert torch.allclose(found.embedding, alone.embedding, atol=1e-5)
    memory.seen.clear()
    runtime.passes(images(7), [{}])
    assert memory.seen == [3, 3, 1], "later batches are no larger than what has fitted"


def test_an_image_too_large_for_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, _ = on_small_device(0, monkeypatch)
    with pytest.raises(ImageError, match="an image of 64x48 is too large for the memory of small; use the CPU"):
        runtime.passes(images(2), [{}])


def test_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="precision must be float32, bfloat16, float16, but it is 'float8'"):
        TorchRuntime(create_tiny("", "random:0"), "cpu", "float8")
    with pytest.raises(ConfigurationError, match="precision bfloat16 is for a GPU; leave it out on cpu"):
        TorchRuntime(create_tiny("", "random:0"), "cpu", "bfloat16")
