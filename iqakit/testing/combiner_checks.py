"""What every combiner promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from iqakit.contracts import Combiner, CombinerEntry, FaultCombiner, ShiftCombiner
from iqakit.errors import ConfigurationError, IqakitError
from iqakit.plugins.catalog import catalog
from iqakit.storage.tensor_bytes import decode_tensors, encode_tensors
from iqakit.testing import settings_checks
from iqakit.testing.checks import Check, CheckSkippedError, Once, Suite, expect, expect_error
from iqakit.testing.watching import copies, expect_same_tensors, global_state_untouched

if TYPE_CHECKING:
    from collections.abc import Iterator

    State = Mapping[str, Tensor]
    LearnMore = Callable[[State, str, Sequence[Tensor]], State]

TASKS = ("lab", "phone", "web")
TRUE = ("lab", "web", "phone") * 3
_IMAGES, _WIDTHS = 9, (6, 10)
_SLACK = 1e-5
"""How far a row may be from summing to 1: float32 sums are not exact."""


def gate_features(images: int, seed: int, centre: int = 0) -> list[Tensor]:
    """Gate features of two stages: unit vectors around a direction of their own.

    Args:
        images: N.
        seed: Seed of what differs between images.
        centre: The direction; another one is another kind of image.

    Returns:
        Two tensors, (N, 6) and (N, 10), rows of length 1.
    """
    rng = Generator().manual_seed(seed)
    return [normalize(torch.eye(width)[centre] + 0.3 * torch.randn(images, width, generator=rng)) for width in _WIDTHS]


@dataclass
class CombinerSubject:
    """A combiner under test.

    Attributes:
        entry: Its record.
        settings: Settings to make it with.
    """

    entry: CombinerEntry
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.made = Once(self.make, "creates")
        self.weighed = Once(self.weigh, "weights-have-their-shape")

    def make(self) -> Combiner:
        """A new combiner."""
        made = self.entry.create(settings_checks.with_settings(self.entry, self.settings))
        expect(isinstance(made, Combiner), f"create gave {type(made).__name__}, which lacks fit_task or weights")
        return made

    def learn(self, tasks: Sequence[str] = TASKS) -> State:
        """State after some tasks."""
        self.made.needed()
        state: State = {}
        for task in tasks:
            number = TASKS.index(task)
            state = self.make().fit_task(state, task, gate_features(30, seed=number, centre=number))
        return state

    def weigh(self, state: State | None = None) -> Tensor:
        """Weights of nine images for the three tasks."""
        known = self.learn() if state is None else state
        return self.make().weights(known, TASKS, gate_features(_IMAGES, seed=9, centre=1), TRUE)


SUITE: Suite[CombinerSubject] = Suite("combiner")


def check_combiner(part: CombinerEntry | str, *, settings: Mapping[str, Any] | None = None) -> Iterator[Check]:
    """Checks of a combiner.

    Args:
        part: Its record, or its name in the catalog.
        settings: Settings to make it with; its defaults where left out.

    Yields:
        One check a promise; nothing is done before ``run``.

    Raises:
        UnknownNameError: No combiner has that name.
    """
    entry = catalog().combiner(part) if isinstance(part, str) else part
    yield from SUITE.of(entry.name, CombinerSubject(entry, dict(settings or {})))


@SUITE.check
def config_is_a_frozen_dataclass(subject: CombinerSubject) -> None:
    """Its config is a frozen dataclass with defaults."""
    settings_checks.check_config_is_frozen(subject.entry)


@SUITE.check
def defaults_are_plain(subject: CombinerSubject) -> None:
    """Its defaults are plain JSON."""
    settings_checks.check_defaults_are_plain(subject.entry)


@SUITE.check
def settings_round_trip_as_text(subject: CombinerSubject) -> None:
    """Each setting can be typed as --set key=value."""
    settings_checks.check_settings_as_text(subject.entry)


@SUITE.check
def wrong_settings_get_one_line(subject: CombinerSubject) -> None:
    """Wrong settings are refused in one line."""
    settings_checks.check_wrong_settings(subject.entry)


@SUITE.check
def creates(subject: CombinerSubject) -> None:
    """What create gives is a combiner."""
    subject.made.tried()


@SUITE.check
def weights_have_their_shape(subject: CombinerSubject) -> None:
    """Weights of N images and T tasks are float32 (N, T)."""
    weights = subject.weighed.tried()
    shape = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
    expect(shape == (_IMAGES, len(TASKS)), f"weights of {_IMAGES} images and {len(TASKS)} tasks are {shape}")
    expect(weights.dtype == torch.float32, f"weights are {weights.dtype}; they must be float32")


@SUITE.check
def weights_are_not_negative(subject: CombinerSubject) -> None:
    """Weights are finite and not negative."""
    weights = subject.weighed.needed()
    expect(bool(torch.isfinite(weights).all()), "some weights are not finite")
    expect(bool((weights >= 0).all()), f"the smallest weight is {float(weights.min()):g}; none may be below 0")


@SUITE.check
def rows_sum_to_one(subject: CombinerSubject) -> None:
    """The weights of an image sum to 1."""
    rows = subject.weighed.needed().double().sum(dim=1)
    low, high = float(rows.min()), float(rows.max())
    expect(bool(((rows - 1).abs() <= _SLACK).all()), f"rows sum to {low:g} to {high:g}; each must sum to 1")


@SUITE.check
def one_task_has_weight_one(subject: CombinerSubject) -> None:
    """With a single task every weight is 1."""
    images = gate_features(_IMAGES, seed=9, centre=1)
    weights = subject.made.needed().weights(subject.learn(("lab",)), ["lab"], images, ["lab"] * _IMAGES)
    one = tuple(weights.shape) == (_IMAGES, 1) and bool(((weights - 1).abs() <= _SLACK).all())
    expect(one, f"with one task the weights are {weights.flatten().tolist()[:3]}...; they must be (N, 1), all 1")


@SUITE.check
def rows_do_not_depend_on_the_batch(subject: CombinerSubject) -> None:
    """An image's weights are the same alone and among others, to the bit."""
    whole, state = subject.weighed.needed(), subject.learn()
    images = gate_features(_IMAGES, seed=9, centre=1)
    for row in range(_IMAGES):
        alone = subject.make().weights(state, TASKS, [stage[row : row + 1] for stage in images], TRUE[row : row + 1])
        expect(
            torch.equal(alone, whole[row : row + 1]),
            f"image {row} is weighed {alone.flatten().tolist()} alone and {whole[row].tolist()} among others",
        )


@SUITE.check
def no_image_gives_no_row(subject: CombinerSubject) -> None:
    """No image gives weights (0, T)."""
    none = [stage[:0] for stage in gate_features(1, seed=9)]
    shape = tuple(subject.made.needed().weights(subject.learn(), TASKS, none, []).shape)
    expect(shape == (0, len(TASKS)), f"weights of no image are {shape}; they must be (0, {len(TASKS)})")


@SUITE.check
def a_task_adds_only_its_own_state(subject: CombinerSubject) -> None:
    """fit_task adds tensors named <task>/<what>, and what was known comes back unchanged."""
    before = subject.learn(TASKS[:2])
    known = copies(before)
    after = subject.make().fit_task(before, "web", gate_features(30, seed=2, centre=2))
    expect(set(known) <= set(after), f"it forgot {', '.join(sorted(set(known) - set(after)))}")
    expect_same_tensors(known, {name: after[name] for name in known}, "learning one more task changes earlier state")
    foreign = sorted(name for name in set(after) - set(known) if not name.startswith("web/"))
    expect(not foreign, f"learning task 'web' adds {', '.join(foreign)}; its tensors must be named web/<what>")


@SUITE.check
def faults_add_only_their_own_state(subject: CombinerSubject) -> None:
    """Where it learns faults, fit_copies adds tensors of that task alone, and weights stay weights."""
    combiner = subject.made.needed()
    if not isinstance(combiner, FaultCombiner):
        raise CheckSkippedError("it learns no faults")
    _expect_only_more(subject, combiner.fit_copies, gate_features(5, seed=7, centre=3), "faults")


@SUITE.check
def shifts_add_only_their_own_state(subject: CombinerSubject) -> None:
    """Where it learns shifts, fit_shifts adds tensors of that task alone, and weights stay weights."""
    combiner = subject.made.needed()
    if not isinstance(combiner, ShiftCombiner):
        raise CheckSkippedError("it learns no shifts")
    pairs = zip(gate_features(5, seed=7, centre=3), gate_features(5, seed=8, centre=3), strict=True)
    _expect_only_more(subject, combiner.fit_shifts, [copy - image for copy, image in pairs], "shifts")


def _expect_only_more(subject: CombinerSubject, learn: LearnMore, rows: Sequence[Tensor], what: str) -> None:
    """Learning more of a task leaves all that was known and given as it is, and weights depend on no other image."""
    before = dict(subject.learn())
    known, given = copies(before), copies(dict(zip("ab", rows, strict=True)))
    after = learn(before, "web", rows)
    expect_same_tensors(known, before, "the state handed in is changed")
    expect_same_tensors(given, dict(zip("ab", rows, strict=True)), f"the {what} handed in are changed")
    lost = sorted(set(known) - set(after))
    expect(not lost, f"it forgot {', '.join(lost)}")
    expect_same_tensors(known, {name: after[name] for name in known}, f"learning {what} changes earlier state")
    foreign = sorted(name for name in set(after) - set(known) if not name.startswith("web/"))
    expect(not foreign, f"learning {what} of 'web' adds {', '.join(foreign)}; its tensors must be named web/<what>")
    weights, images = subject.weigh(after), gate_features(_IMAGES, seed=9, centre=1)
    sums = weights.double().sum(dim=1)
    expect(
        bool(((sums - 1).abs() <= _SLACK).all()), f"with {what} learned, rows sum to {sums.tolist()}; each must sum to 1"
    )
    alone = [
        subject.make().weights(after, TASKS, [s[at : at + 1] for s in images], TRUE[at : at + 1]) for at in range(_IMAGES)
    ]
    expect(
        torch.equal(torch.cat(alone), weights), f"with {what} learned, weights of an image depend on the others beside it"
    )


@SUITE.check
def state_handed_in_stays(subject: CombinerSubject) -> None:
    """The state and the features handed in are not touched."""
    state = dict(subject.learn(TASKS[:2]))
    features = gate_features(30, seed=2, centre=2)
    before, given = copies(state), copies(dict(zip("ab", features, strict=True)))
    after = subject.make().fit_task(state, "web", features)
    subject.make().weights(after, TASKS, features, ["web"] * 30)
    expect_same_tensors(before, state, "the state handed in is changed")
    expect_same_tensors(given, dict(zip("ab", features, strict=True)), "the gate features handed in are changed")


@SUITE.check
def state_is_plain_tensors(subject: CombinerSubject) -> None:
    """State is finite tensors on the CPU that ask for no gradient."""
    state = subject.learn()
    wrong = [name for name, value in state.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
    expect(not wrong, f"no tensors by name: {', '.join(map(str, wrong))}")
    for name, tensor in state.items():
        expect(tensor.device.type == "cpu", f"{name} is on {tensor.device}; keep it on the CPU")
        expect(not tensor.requires_grad, f"{name} asks for a gradient; detach it")
        expect(bool(torch.isfinite(tensor).all()), f"{name} is not finite")


@SUITE.check
def learning_repeats(subject: CombinerSubject) -> None:
    """The same images give the same state and the same weights."""
    expect_same_tensors(subject.learn(), subject.learn(), "learned twice from the same images, these differ")
    again = subject.weigh()
    expect(torch.equal(subject.weighed.needed(), again), "weighed twice, the same images get other weights")


@SUITE.check
def state_survives_its_file(subject: CombinerSubject) -> None:
    """State that was written and read again gives the same weights."""
    state = subject.learn()
    if not state:
        raise CheckSkippedError("it keeps no state")
    read, _ = decode_tensors(encode_tensors(state, None, "the state"), "the state")
    expect_same_tensors(dict(state), read, "written and read again, these differ")
    expect(torch.equal(subject.weigh(read), subject.weigh(state)), "state read from its file gives other weights")


@SUITE.check
def global_state_stays(subject: CombinerSubject) -> None:
    """Random generators and torch's switches are left alone."""
    subject.made.needed()
    with global_state_untouched("it"):
        subject.weigh()


@SUITE.check
def bad_requests_get_one_line(subject: CombinerSubject) -> None:
    """No task, no stage, or stages of different length get a ConfigurationError of one line."""
    state, images = subject.learn(), gate_features(_IMAGES, seed=9)
    for what, tasks, features in (
        ("weighing no task", (), images),
        ("gate features without a stage", TASKS, []),
        ("gate features of 9 and 4 images", TASKS, [images[0], images[1][:4]]),
    ):
        expect_error(
            ConfigurationError,
            what,
            lambda t=tasks, f=features: subject.make().weights(state, t, f, TRUE),  # type: ignore[misc]
        )


@SUITE.check
def an_unknown_task_is_named(subject: CombinerSubject) -> None:
    """A task that it has not learned gets an error that names the task."""
    state, images = subject.learn(), gate_features(_IMAGES, seed=9)
    if not state:
        raise CheckSkippedError("it keeps no state, so it knows every task")
    tasks = (*TASKS, "nobody")
    expect_error(IqakitError, "task 'nobody'", lambda: subject.make().weights(state, tasks, images, TRUE), ["'nobody'"])
