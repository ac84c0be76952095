"""Fetching one file from the hub where timm keeps its weights, or saying in one line why it cannot be had."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from iqakit.errors import ConfigurationError, OfflineError, UnknownNameError

_SECONDS_TO_ANSWER = 5.0
_OFF = frozenset({"", "0", "false", "no", "off"})


def _forbidden() -> bool:
    """Whether the network must not be used, by iqakit's variable or by the hub client's own."""
    switches = ("IQAKIT_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(switch, "").strip().lower() not in _OFF for switch in switches)


def offline_message(name: str, reason: str) -> str:
    """What was asked, what was found, and the three ways out."""
    return (
        f"the weights of {name!r} must come from the Hugging Face hub: {reason}; "
        "use the default backbone tf_efficientnet_lite0, which needs no download, "
        "or give --weights random:SEED or a local FILE.safetensors, "
        "or connect once, or set HF_HOME to a filled cache or HF_ENDPOINT to a mirror"
    )


def fetch(name: str, repository: str, file: str) -> Path | None:
    """A file of a hub repository: from the cache where it is there, else from the hub.

    A file in the cache is used without asking the hub whether there is a newer one, so what worked once works offline.

    Args:
        name: What the user asked for; it appears in messages.
        repository: ``org/name`` or ``org/name@revision``.
        file: The file's name in it.

    Returns:
        The file in the hub's cache, or None where the repository has no such file.

    Raises:
        OfflineError: The hub cannot be reached or must not be, and the cache does not hold the file.
        UnknownNameError: The hub has no such repository or revision, or asks for leave to read it.
    """
    repository, _, revision = repository.partition("@")
    version = revision or None
    try:
        with contextlib.suppress(LocalEntryNotFoundError):
            return Path(hf_hub_download(repository, file, revision=version, local_files_only=True))
        if _forbidden():
            raise OfflineError(offline_message(name, "downloads are switched off and the cache lacks them"))
        # Asked once and briefly beforehand: the download itself retries for minutes where nobody answers.
        if (
            get_hf_file_metadata(hf_hub_url(repository, file, revision=version), timeout=_SECONDS_TO_ANSWER).commit_hash
            is None
        ):
            raise OfflineError(offline_message(name, "what answers at its address is no hub"))
        return Path(hf_hub_download(repository, file, revision=version))
    except OfflineError:
        raise
    except GatedRepoError as error:
        raise UnknownNameError(
            f"the hub repository {repository!r} of {name!r} is gated; ask its owners for access, then log in to the hub"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UnknownNameError(
            f"the hub has no repository {repository!r}{f' at {revision!r}' if revision else ''}, or it is private; "
            f"check the name {name!r}"
        ) from error
    except EntryNotFoundError:
        return None
    except HFValidationError as error:
        raise ConfigurationError(f"{name!r} is no name of a hub repository; write hf-hub:ORG/NAME") from error
    except Exception as error:  # what the transport raises (requests, httpx) differs between versions of the hub's client
        detail = " ".join(str(error).split())[:200]
        raise OfflineError(offline_message(name, f"it cannot be reached ({type(error).__name__}: {detail})")) from error
