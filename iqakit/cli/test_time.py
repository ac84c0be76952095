"""Test-time adaptation on the command line: options in common, and windows of images for a run that goes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING

from iqakit.cli.run_rows import RunRows
from iqakit.cli.score_run import Tally
from iqakit.errors import ConfigurationError

if TYPE_CHECKING:
    from iqakit.pipeline.adaptation_request import AdaptationRequest
    from iqakit.pipeline.test_time_batches import Window

WHEN_IT_HELPS = (
    "With the default model, over twelve pairs of tasks, auto gained .005 SRCC on average and lost at most .004; other "
    "methods gained up to .14, lost up to .27, and lose most where the images are like those learned from: compare with "
    "source_score."
)
"""One sentence that ends the help of ``--tta``."""
BATCH_HELP = "With --tta: images that the model adapts to together, at most."
MODE_HELP = "With --tta: every batch starts from the source (episodic), or where the one before ended (online)."
ORDER_HELP = (
    "With --tta: images are mixed before they are cut into batches (rows keep their order), or taken as they come. A "
    "batch of one scene or of one distortion has its quality normalised away."
)
SEED_HELP = "With --tta: seed of the mixing and of what the method draws."
RESET_HELP = "With --tta-mode online: start from the source again every N batches; 0: never."
ADAPTER_HELP = "An adapter that iqakit adapt made from this model, used in place of its task's."


class TtaMode(StrEnum):
    """What a batch starts from."""

    EPISODIC = "episodic"
    ONLINE = "online"


class TtaOrder(StrEnum):
    """Which images go into a batch."""

    SHUFFLED = "shuffled"
    GIVEN = "given"


def divided(
    settings: Mapping[str, str], combiner: str | None, task: str | None, adapting: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """The combiner's settings and the test-time method's, of what ``--set`` gave."""
    from iqakit.pipeline.adaptation_request import divide_settings
    from iqakit.pipeline.model import DEFAULT_COMBINER
    from iqakit.plugins.catalog import catalog

    if not settings:
        return {}, {}
    return divide_settings(settings, combiner or ("oracle" if task else DEFAULT_COMBINER), catalog().combiners, adapting)


def check_goes_on(request: AdaptationRequest, resuming: bool) -> None:
    """See that a run whose batches depend on those before it is not gone on with.

    Raises:
        ConfigurationError: It would have to be.
    """
    if resuming and request.carries:
        why = "--tta-mode online" if request.mode == "online" else "mode=published"
        raise ConfigurationError(
            f"--resume cannot go on with {why}: a batch depends on those before it; leave out --resume to score all again"
        )


def windows_to_go(paths: Iterable[str], size: int, out: RunRows, tally: Tally) -> Iterator[Window]:
    """Windows of images, with those whose rows are missing yet.

    Windows are cut from all images, those of an earlier run included, so that an image meets the same others in its batch
    however often a run was cut.

    Args:
        paths: All images.
        size: Images of one window.
        out: Knows which rows are there.
        tally: Told of the rows that hold still.
    """
    from iqakit.pipeline.test_time_batches import Window

    rest = iter(paths)
    while window := list(islice(rest, size)):
        place = -1

        def each(images: list[str] = window) -> Iterator[str]:
            nonlocal place
            for place, image in enumerate(images):  # noqa: B007 - read where a row is missing
                yield image

        # The sink asks for one image at a time, so the place is that of the image it gives back.
        wanted = [place for _ in out.remaining(each(), tally)]
        yield Window(window, wanted)
