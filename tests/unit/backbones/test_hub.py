"""The hub's path for real: a local server that speaks the hub's protocol, and an address where nobody answers."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import timm
import torch
from safetensors.torch import save

from iqakit.storage.fingerprints import fingerprint_tensors

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WAYS_OUT = ("tf_efficientnet_lite0", "--weights random:SEED or a local FILE.safetensors", "HF_HOME", "HF_ENDPOINT")

SCRIPT = """
import json, os, sys, time
from iqakit.backbones import iqakit_backbones
timm_entry = next(entry for entry in iqakit_backbones() if entry.name == "timm")
for name, weights, variables in json.loads(sys.argv[1]):
    os.environ.update(variables)
    start = time.perf_counter()
    try:
        backbone = timm_entry.create(name, weights)
        result = {"fingerprint": backbone.fingerprint(), "mean": backbone.input.mean}
    except Exception as error:
        result = {"error": type(error).__name__, "message": str(error)}
    for variable in variables:
        del os.environ[variable]
    print(json.dumps(result | {"seconds": time.perf_counter() - start}), flush=True)
"""


def create_elsewhere(endpoint, home, asked):
    """Make backbones in a process of its own, as the hub's client reads its variables once, when it is imported."""
    hub_variables = ("HF_", "HUGGINGFACE_", "IQAKIT_", "TRANSFORMERS_")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(hub_variables)}
    clean = {key: value for key, value in clean.items() if not key.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(asked)],
        env=clean | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


class Hub(BaseHTTPRequestHandler):
    files: dict[tuple[str, str], bytes]
    asked: list[str]

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        self.asked.append(self.path)
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path)
        content = self.files.get((match[1], match[2])) if match else None
        known = bool(match) and match[1] in {repository for repository, _ in self.files}
        self.send_response(200 if content is not None else 404)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if body and content:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


def pretrained_resnet():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return timm.create_model("test_resnet")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    network = pretrained_resnet()
    tensors = network.state_dict()
    config = {
        "architecture": "test_resnet",
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "classifier": "fc"},
    }
    partial = {name: tensor for name, tensor in tensors.items() if not name.startswith("layer3")}
    Hub.files = {
        ("timm/test_resnet.r160_in1k", "model.safetensors"): save(tensors),
        ("me/mine", "config.json"): json.dumps(config).encode(),
        ("me/mine", "model.safetensors"): save(tensors),
        ("me/partial", "config.json"): json.dumps(config).encode(),
        ("me/partial", "model.safetensors"): save(partial),
        ("me/pickled", "config.json"): json.dumps(config).encode(),
        ("me/pickled", "pytorch_model.bin"): b"\x80\x02 a pickle that must stay closed",
        ("me/broken", "config.json"): json.dumps(config).encode(),
        ("me/broken", "model.safetensors"): save(tensors)[:-5],
    }
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    asked = {
        "offline before": ("test_resnet", "pretrained", {"IQAKIT_OFFLINE": "1"}),
        "hub's own offline": ("test_resnet", "pretrained", {"HF_HUB_OFFLINE": "1"}),
        "registered": ("test_resnet", "pretrained", {}),
        "offline after": ("test_resnet", "pretrained", {"IQAKIT_OFFLINE": "1"}),
        "by repository": ("hf-hub:me/mine", "pretrained", {}),
        "random by repository": ("hf-hub:me/mine", "random:1", {}),
        "partial": ("hf-hub:me/partial", "pretrained", {}),
        "pickled": ("hf-hub:me/pickled", "pretrained", {}),
        "broken": ("hf-hub:me/broken", "pretrained", {}),
        "unknown": ("hf-hub:me/nobody", "pretrained", {}),
        "malformed": ("hf-hub:a/b/c", "pretrained", {}),
    }
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        answers = create_elsewhere(endpoint, tmp_path_factory.mktemp("home"), list(asked.values()))
    finally:
        server.shutdown()
        server.server_close()
    found = dict(zip(asked, answers, strict=True))
    bare = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    return found, fingerprint_tensors(bare)


def test_a_registered_name_is_downloaded_and_then_served_from_the_cache(results):
    found, fingerprint = results
    assert found["registered"]["fingerprint"] == fingerprint
    assert found["offline after"]["fingerprint"] == fingerprint


def test_a_repository_is_built_as_its_config_says(results):
    found, fingerprint = results
    assert found["by repository"]["fingerprint"] == fingerprint
    assert found["by repository"]["mean"] == [0.1, 0.2, 0.3]
    assert found["random by repository"]["fingerprint"] != fingerprint


@pytest.mark.parametrize("case", ["offline before", "hub's own offline"])
def test_a_switched_off_network_is_respected(results, case):
    answer = results[0][case]
    assert answer["error"] == "OfflineError"
    assert "downloads are switched off" in answer["message"]
    assert all(way in answer["message"] for way in WAYS_OUT)


def test_no_pickle_is_ever_asked_for(results):
    answer = results[0]["pickled"]
    assert answer["error"] == "ConfigurationError"
    assert "as safetensors (pickles are never opened); convert them" in answer["message"]
    assert not any(path.endswith((".bin", ".pth", ".pt")) for path in Hub.asked)


@pytest.mark.parametrize(
    ("case", "error", "message"),
    [
        ("partial", "MismatchError", r"do not fit 'hf-hub:me/partial': \d+ tensors are missing, e\.g\. layer3"),
        ("broken", "FileFormatError", r"is not a whole safetensors file"),
        ("unknown", "UnknownNameError", r"the hub has no repository 'me/nobody'"),
        ("malformed", "ConfigurationError", r"write hf-hub:ORG/NAME"),
    ],
)
def test_what_the_hub_cannot_give_is_said_in_one_line(results, case, error, message):
    answer = results[0][case]
    assert answer["error"] == error, answer
    assert re.search(message, answer["message"]), answer
    assert "\n" not in answer["message"]


def test_nobody_answers_and_it_fails_at_once(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    asked = [("test_resnet", "pretrained", {}), ("hf-hub:me/mine", "random:0", {})]
    answers = create_elsewhere(f"http://127.0.0.1:{port}", tmp_path, asked)
    assert time.monotonic() - started < 60
    for answer in answers:
        assert answer["error"] == "OfflineError"
        assert answer["seconds"] < 15  # importing timm is part of the first
        assert "it cannot be reached" in answer["message"]
        assert all(way in answer["message"] for way in WAYS_OUT)
        assert "\n" not in answer["message"]
