"""Building a timm network with its weights: from a package, a seed, a file or the hub. Never from a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models import get_pretrained_cfg, is_model
from torch import Tensor, nn

from iqakit.backbones.frozen_backbone import PRETRAINED, random_seed, seeded
from iqakit.backbones.hub import fetch
from iqakit.backbones.lite0_weights import lite0_file, read_lite0
from iqakit.errors import ConfigurationError, FileFormatError, MismatchError, UnknownNameError
from iqakit.storage.tensor_file import PICKLE_SUFFIXES, read_tensors

LITE0 = ("tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k")
HUB_PREFIXES = ("hf-hub:", "hf_hub:")
_CONFIG = "config.json"
_SAFE_FILE = "model.safetensors"
_SHOWN = 4


def build_timm(name: str, weights: str) -> nn.Module:
    """A timm network without its classifier.

    Args:
        name: timm's own name, or ``hf-hub:ORG/NAME``.
        weights: ``"pretrained"``, ``"random:SEED"`` or the path of a safetensors file whose tensors are named as timm
            names them; a classifier in it is ignored, half precision becomes float32.

    Raises:
        UnknownNameError: Neither timm nor the hub has that network.
        ConfigurationError: The seed is missing, or there are no pretrained weights that may be opened.
        OfflineError: Something would have to be downloaded and cannot be.
        StorageError: The file cannot be read, or is not safetensors.
        MismatchError: The file holds other tensors than the network.
    """
    seed = random_seed(weights)
    prefix = next((prefix for prefix in HUB_PREFIXES if name.startswith(prefix)), None)
    repository = None if prefix is None else name.removeprefix(prefix)
    if repository is None:
        _check_name(name)
    if weights == PRETRAINED and name not in LITE0:
        return _from_hub(name, repository)
    # A file is read before the network is built: a wrong one should cost no time.
    tensors: Mapping[str, Tensor] | None = None
    if seed is None:
        tensors = read_lite0(lite0_file()) if weights == PRETRAINED else read_tensors(weights)
    network = _build(_model_name(name, repository), seed or 0)
    if tensors is not None:
        load_strictly(network, tensors, "its package" if weights == PRETRAINED else weights, name)
    return network


def load_strictly(network: Any, tensors: Mapping[str, Tensor], source: str, name: str) -> None:
    """Load tensors into a timm network in place; only its classifier may be missing or too much.

    Args:
        network: The network.
        tensors: Its tensors, by timm's names, of any floating-point precision where the network has floats.
        source: Where they are from; for the message.
        name: The network's name; for the message.

    Raises:
        MismatchError: Names, shapes or kinds of numbers differ.
    """
    own: dict[str, Tensor] = network.state_dict()
    classifier = network.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    prefixes = tuple(f"{head}." for head in heads)
    kept = {key: tensor for key, tensor in tensors.items() if key in own or not key.startswith(prefixes)}
    # num_batches_tracked changes no output, and converters often leave it out.
    problems = [f"{key} is missing" for key in own if key not in kept and not key.endswith("num_batches_tracked")]
    problems += [f"{key} is unknown" for key in kept if key not in own]
    for key in own.keys() & kept.keys():
        if own[key].shape != kept[key].shape:
            problems.append(f"{key} is {tuple(kept[key].shape)}, not {tuple(own[key].shape)}")
        elif own[key].is_floating_point() != kept[key].is_floating_point():
            problems.append(f"{key} is {kept[key].dtype}, not {own[key].dtype}")
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise MismatchError(
            f"the weights in {source} do not fit {name!r}: {'; '.join(sorted(problems)[:_SHOWN])}{more}; "
            "give a file saved for this network, its tensors named as timm names them"
        )
    network.load_state_dict(kept, strict=False)  # names were compared above; what may be missing is


def _check_name(name: str) -> None:
    if name.startswith("local-dir:"):
        raise ConfigurationError(
            f"{name!r} is a directory, and pickles in it are never opened; name the network, e.g. resnet50, "
            "and give --weights FILE.safetensors"
        )
    if not is_model(name):
        raise UnknownNameError.of("timm network", name, timm.list_models(), "Or write hf-hub:ORG/NAME.")
    architecture, _, tag = name.partition(".")
    tagged = [known for known in timm.list_pretrained(f"{architecture}.*") if known.partition(".")[0] == architecture]
    if tag and name not in tagged:
        raise UnknownNameError.of("timm network", name, tagged, "The part after the dot names its weights.")


def _model_name(name: str, repository: str | None) -> str:
    """What timm is to build: the name itself, or the directory where the hub's description of it was put."""
    if repository is None:
        return name
    config = fetch(name, repository, _CONFIG)
    if config is None:
        raise UnknownNameError(
            f"the hub repository {repository!r} holds no {_CONFIG}, so it is no timm network; check the name"
        )
    return f"local-dir:{config.parent}"


def _build(model_name: str, seed: int, **options: Any) -> nn.Module:
    """Build a network; one that is made for one size is asked to take others, if its family can."""
    attempts: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
    for attempt in attempts:
        try:
            with seeded(seed):
                return timm.create_model(model_name, num_classes=0, **attempt, **options)
        except TypeError as error:
            # Families refuse options that they do not know in this way alone.
            if not attempt or "unexpected keyword argument" not in str(error):
                raise
        except (KeyError, ValueError) as error:
            if not model_name.startswith("local-dir:"):
                raise
            raise FileFormatError(f"the hub's {_CONFIG} describes no timm network ({error!r}); check the name") from error
    raise AssertionError("unreachable: the last attempt returns or raises")


def _from_hub(name: str, repository: str | None) -> nn.Module:
    """A network with pretrained weights from the hub, by way of timm's own conversion of older files."""
    model_name = _model_name(name, repository)
    listed: str | None = None
    if repository is None:
        config = get_pretrained_cfg(name)
        repository = config.hf_hub_id if config else None
        listed = config.hf_hub_filename if config else None
        if not repository:
            raise ConfigurationError(
                f"timm offers no pretrained weights of {name!r} as safetensors (pickles are never opened); "
                "give --weights random:SEED or a local FILE.safetensors, or choose another backbone"
            )
    file = next((found for safe in _safe_files(listed) if (found := fetch(name, repository, safe))), None)
    if file is None:
        raise ConfigurationError(
            f"the hub repository {repository!r} holds no weights of {name!r} as safetensors (pickles are never opened); "
            "convert them and give --weights FILE.safetensors, or choose another backbone"
        )
    tensors = read_tensors(file)
    # Every other place where timm would look is blotted out: some of them lead to pickles.
    overlay = {"file": str(file), "source": "", "url": "", "hf_hub_id": None, "hf_hub_filename": None, "custom_load": False}
    try:
        network = _build(model_name, 0, pretrained=True, pretrained_cfg_overlay=overlay)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise MismatchError(f"the hub's weights do not fit {name!r}: {detail}; try a newer timm") from error
    if unset := _not_loaded(network, tensors, model_name):
        raise MismatchError(
            f"the hub's weights do not fit {name!r}: {len(unset)} tensors are missing, e.g. {unset[0]}; try a newer timm"
        )
    return network


def _safe_files(listed: str | None) -> tuple[str, ...]:
    """Safetensors files that may stand beside the file that timm lists for a network."""
    if not listed or listed == "pytorch_model.bin":
        return (_SAFE_FILE,)
    path = Path(listed)
    if path.suffix == ".safetensors":
        return (listed,)
    if path.suffix not in PICKLE_SUFFIXES:
        return ()
    return (str(path.with_suffix(".safetensors")), listed.replace("pytorch_model.bin", _SAFE_FILE))


def _not_loaded(network: nn.Module, tensors: Mapping[str, Tensor], model_name: str) -> list[str]:
    """Names of tensors that still have the values they were born with, as timm loads leniently without a classifier."""
    own = network.state_dict()
    # Tensors under the same name in the file were loaded; the others were renamed on the way, or are missing.
    doubtful = [key for key in own if key not in tensors and own[key].is_floating_point()]
    if not doubtful:
        return []
    fresh = _build(model_name, 0, pretrained=False).state_dict()
    return [key for key in doubtful if own[key].std() > 0 and own[key].equal(fresh[key])]
