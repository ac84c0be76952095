"""What batching gains on this processor, and whether it changes a bit.

    python benchmarks/batch_size.py [--backbone NAME] [--side 512] [--rounds 5]

Times forward passes of 8 random images, one at a time and in batches of 4 and 8, in turns within one run, so that the
ratios hold whatever else the machine does. Prints a table and writes ``benchmarks/results/batch-size.json``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from iqakit.pipeline.fitting import DEFAULT_BACKBONE
from iqakit.plugins.catalog import make_backbone
from iqakit.storage.results import write_json

SIZES = (1, 4, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    backbone = make_backbone(options.backbone, "pretrained")
    images = torch.randn(8, 3, options.side, options.side, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    seconds: dict[int, list[float]] = {size: [] for size in SIZES}
    outputs: dict[int, torch.Tensor] = {}
    with torch.inference_mode():
        for turn in range(options.rounds + 1):
            for size in SIZES:
                began = time.perf_counter()
                outputs[size] = torch.cat([backbone.forward(part).embedding for part in images.split(size)])
                if turn:  # the first turn warms up
                    seconds[size].append((time.perf_counter() - began) / len(images))
    medians = {size: statistics.median(times) for size, times in seconds.items()}
    result = {
        "backbone": options.backbone,
        "side": options.side,
        "threads": torch.get_num_threads(),
        "milliseconds_an_image": {str(size): round(1000 * value, 1) for size, value in medians.items()},
        "ratio_to_one_at_a_time": {str(size): round(value / medians[1], 3) for size, value in medians.items()},
        "same_bits_as_one_at_a_time": {str(size): bool(torch.equal(outputs[1], outputs[size])) for size in SIZES},
    }
    write_json(Path(__file__).parent / "results" / "batch-size.json", result)
    for size in SIZES:
        same = "same bits" if result["same_bits_as_one_at_a_time"][str(size)] else "other bits"
        print(f"batch {size}: {1000 * medians[size]:7.1f} ms an image, x{medians[size] / medians[1]:.2f}, {same}")


if __name__ == "__main__":
    main()
