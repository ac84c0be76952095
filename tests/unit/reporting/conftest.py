"""Rows of made-up images, the page read back, and headless Chromium where it is installed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

NASTY = "<img src=x onerror=alert(1)>\"&'.png"
Row = dict[str, Any]


def make_row(path: str, score: float | None, **others: Any) -> Row:
    return {
        "path": path,
        "status": "ok",
        "score": score,
        "raw": (score or 0.0) / 100 - 0.5,
        "std": 8.0,
        "novelty": 0.5,
        "task_scores": {"day": 0.1, "night": 0.2},
        "weights": {"day": 0.75, "night": 0.25},
        "width": 64,
        "height": 48,
        "warnings": [],
        "model": "small@12345678",
        **others,
    }


def make_failure(path: str, reason: str) -> Row:
    return {"path": path, "status": "error", "error": f"{path} {reason}", "score": None, "model": "small@12345678"}


def make_adapted(rows: list[Row]) -> list[Row]:
    """The rows as ``score --tta`` writes them: of every three tens one keeps the source, for one of two reasons."""
    found = []
    for number, row in enumerate(rows):
        if row["status"] == "error":
            found.append({**row, "source_score": None, "adapted": False, "adaptation": None})
            continue
        lot = number // 10
        reason = f"the mean moved by 1.{lot} deviations; at most 1 is believed" if lot % 2 else "uniform batch"
        adapted = lot % 3 != 0
        source = row["score"] - 0.25 * (number % 7) + 0.5 if adapted else row["score"]
        note = "adapted task day" if adapted else reason
        found.append({**row, "source_score": source, "adapted": adapted, "adaptation": note})
    return found


@pytest.fixture
def adapted_rows(album: list[Row]) -> list[Row]:
    return make_adapted(album)


@pytest.fixture
def row() -> Callable[..., Row]:
    return make_row


@pytest.fixture
def failure() -> Callable[..., Row]:
    return make_failure


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    """A directory with images, and rows of 130 of them, scores 20.0 to 84.5 in an order of their own; some are odd."""
    directory = tmp_path_factory.mktemp("album")
    (directory / "shots").mkdir()
    rows = []
    for index in range(130):
        name = NASTY if index == 7 else "été 山 🙂.png" if index == 8 else f"shot{index:03d}.png"
        path = f"shots/{name}"
        Image.fromarray(np.full((48, 64, 3), index, np.uint8)).save(directory / path)
        score = 20.0 + (index * 37 % 130) / 2
        warnings = ["exif-rotated"] if index % 10 == 0 else ["icc-converted", "exif-rotated"] if index == 5 else []
        night = 0.9 if index % 13 == 0 else 0.25
        novelty = 0.97 if index % 40 == 3 else 0.01 * (index % 90)
        weights = {"day": 1 - night, "night": night}
        rows.append(make_row(path, score, warnings=warnings, weights=weights, novelty=novelty, std=5 + index % 7))
    rows.insert(60, make_failure("shots/<script>alert(1)</script>.jpg", "is a truncated JPEG: copy it again"))
    rows.append(make_failure("gone.png", "does not exist"))
    return directory, rows


@pytest.fixture
def album(shots: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """The rows, with the images below the current directory."""
    shutil.copytree(shots[0] / "shots", tmp_path / "shots")
    monkeypatch.chdir(tmp_path)
    return shots[1]


@dataclass
class Element:
    name: str
    attributes: dict[str, str | None]
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, name: str) -> Iterator[Element]:
        for child in self.children:
            if child.name == name:
                yield child
            yield from child.all(name)

    def id(self, wanted: str) -> Element:
        return next(element for element in self.everything() if element.attributes.get("id") == wanted)

    def everything(self) -> Iterator[Element]:
        yield self
        for child in self.children:
            yield from child.everything()


class _Reader(HTMLParser):
    """A tree of the page; complains of ends that fit no beginning."""

    VOID = frozenset({"meta", "link", "img", "input", "br"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("root", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in self.VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> ends <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def read_page(path: Path) -> Element:
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == [reader.root]
    return reader.root


@pytest.fixture
def page_of() -> Callable[[Path], Element]:
    return read_page


class Browser:
    """Headless Chromium over a pipe, in the DevTools protocol: no port, no package."""

    def __init__(self, program: str, profile: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()

        def place() -> None:
            reading, writing = os.dup(ours[0]), os.dup(theirs[1])
            os.dup2(reading, 3)
            os.dup2(writing, 4)

        arguments = [
            *(program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"),
            *("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
        ]
        self._process = subprocess.Popen(
            arguments, preexec_fn=place, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(ours[0])
        os.close(theirs[1])
        self._write, self._read = ours[1], theirs[0]
        self._buffer, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._read, 1 << 20)
            assert data, "Chromium ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def open(self, path: Path, fragment: str = "", *, width: int = 1440, height: int = 900, dark: bool = False) -> None:
        self.events = []
        self.send("Page.navigate", url="about:blank")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.media(dark=dark)
        address = path.absolute().as_uri() + fragment
        self.send("Page.navigate", url=address)
        self.until(f"location.href.startsWith({json.dumps(path.absolute().as_uri())}) && document.readyState == 'complete'")

    def go(self, fragment: str) -> None:
        """Follow a link within the page."""
        self.value(f"location.hash = {json.dumps(fragment)}; dispatchEvent(new HashChangeEvent('hashchange'))")

    def media(self, kind: str = "", *, dark: bool = False) -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", media=kind, features=features)

    def value(self, expression: str) -> Any:
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.02)

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=code,
                text=text if kind == "keyDown" else "",
            )

    def picture(self) -> bytes:
        return base64.b64decode(self.send("Page.captureScreenshot")["data"])

    def complaints(self) -> list[str]:
        """Errors, the policy's among them, and whatever was asked of the network."""
        logged = [event["params"] for event in self.events if event.get("method") == "Log.entryAdded"]
        thrown = [str(event["params"]) for event in self.events if event.get("method") == "Runtime.exceptionThrown"]
        found = thrown + [str(entry) for entry in logged if entry["entry"]["level"] == "error"]
        requests = [
            event["params"]["request"]["url"] for event in self.events if event.get("method") == "Network.requestWillBeSent"
        ]
        return found + [url for url in requests if not url.startswith(("file:", "data:", "about:"))]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._write)
        os.close(self._read)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if program is None or os.name != "posix":
        pytest.skip("Chromium is not on this machine")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        started = Browser(program, Path(profile))
        yield started
        started.close()
