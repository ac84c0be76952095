from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iqakit.contracts import Adapter, Calibration, Preprocessing
from iqakit.errors import IqakitError
from iqakit.storage.adapter_file import adapter_bytes, parse_adapter

Make = Callable[..., Adapter]
Content = Callable[[Adapter], tuple[Any, ...]]

NAMES = st.text(st.sampled_from(string.ascii_letters + string.digits + "._-ü/"), min_size=1, max_size=20)
TEXT = st.text(min_size=1, max_size=20)
JSON = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)
FLOAT = st.floats(-1e6, 1e6)


@st.composite
def random_tensors(draw: st.DrawFn, shape: tuple[int, ...] | None = None) -> torch.Tensor:
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3))) if shape is None else shape
    count = int(torch.Size(shape).numel())
    values = draw(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=count, max_size=count))
    return torch.tensor(values, dtype=torch.float32).reshape(shape)


@st.composite
def random_adapters(draw: st.DrawFn) -> Adapter:
    kind = draw(st.sampled_from(["linear", "cosine"]))
    count = st.integers(1, 2**31 - 1)
    names = draw(st.lists(NAMES.filter(lambda name: not name.endswith("num_batches_tracked")), max_size=4, unique=True))
    low = draw(st.floats(0, 49))
    return Adapter(
        task=draw(st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", fullmatch=True)),
        method=draw(TEXT),
        backbone_id=draw(TEXT),
        backbone_fingerprint=draw(TEXT),
        tensors={name: draw(random_tensors()) for name in names},
        head_kind=kind,
        head_weight=draw(random_tensors((1, draw(st.integers(1, 5))))),
        head_bias=draw(random_tensors((1,))) if kind == "linear" else None,
        features=draw(st.sampled_from(["embedding", "all-stages"])),
        preprocessing=Preprocessing(
            mean=draw(st.tuples(FLOAT, FLOAT, FLOAT)),
            std=draw(st.tuples(*[st.floats(1e-6, 10)] * 3)),
            interpolation=draw(st.sampled_from(["bilinear", "bicubic"])),
            shorter_side=draw(st.none() | count),
            smallest_side=draw(count),
            multiple=draw(count),
            fixed_size=draw(st.none() | st.tuples(count, count)),
            max_pixels=draw(count),
        ),
        calibration=draw(
            st.none()
            | st.builds(
                Calibration,
                st.just(low),
                st.floats(50, 100),
                FLOAT,
                st.floats(1e-6, 1e6),
                st.floats(0, 100),
                tilt=st.floats(0, 0.5),
                residual_kind=st.sampled_from(["constant", "bounded"]),
            )
            | st.builds(
                lambda inner, width: Calibration(
                    low, 100.0, 0.0, width, 5.0, "isotonic", ((-1.5, low), *inner, (9.0, 100.0)), 1e-4
                ),
                # Shares a hundredth apart: nearer ones may give one and the same number of points.
                st.lists(st.integers(1, 99), max_size=4, unique=True).map(
                    lambda shares: tuple((share / 100, 50 + 0.49 * share) for share in sorted(shares))
                ),
                st.floats(1e-6, 1e6),
            )
        ),
        config=draw(JSON),
        provenance=draw(JSON),
    )


@settings(max_examples=60, deadline=None)
@given(adapter=random_adapters())
def test_any_adapter_comes_back_exactly(adapter: Adapter, content: Content) -> None:
    data = adapter_bytes(adapter)
    back = parse_adapter(data, "x")
    assert content(back) == content(adapter)
    assert adapter_bytes(back) == data


@settings(max_examples=300, deadline=None)
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
@example(flips=[(0.0, 255)])
def test_flipped_bytes_are_noticed_or_harmless(
    flips: list[tuple[float, int]], make_adapter: Make, content: Content
) -> None:
    adapter = make_adapter()
    data = bytearray(adapter_bytes(adapter))
    for place, mask in flips:
        data[int(place * len(data))] ^= mask
    check_noticed_or_harmless(bytes(data), adapter, content)


def test_every_single_byte_is_guarded(make_adapter: Make, content: Content) -> None:
    adapter = make_adapter()
    whole = adapter_bytes(adapter)
    noticed = 0
    for index in range(len(whole)):
        data = bytearray(whole)
        data[index] ^= 1 << index % 8
        noticed += check_noticed_or_harmless(bytes(data), adapter, content)
    assert noticed > 0.97 * len(whole)  # the rest is padding and the escaping of text


def test_cut_anywhere_is_noticed(make_adapter: Make, content: Content) -> None:
    adapter = make_adapter()
    whole = adapter_bytes(adapter)
    for length in range(len(whole)):
        assert check_noticed_or_harmless(whole[:length], adapter, content)


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200), start=st.booleans())
def test_any_bytes_give_one_clear_error(data: bytes, start: bool) -> None:
    framed = len(data).to_bytes(8, "little") + b"{" + data if start else data
    with pytest.raises(IqakitError) as caught:
        parse_adapter(framed, "x")
    assert "\n" not in str(caught.value)


def check_noticed_or_harmless(data: bytes, adapter: Adapter, content: Content) -> bool:
    """True if the damage was noticed; any other error than iqakit's own fails the test."""
    try:
        back = parse_adapter(data, "x")
    except IqakitError:
        return True
    assert content(back) == content(adapter)
    return False
