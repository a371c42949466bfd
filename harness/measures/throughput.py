"""Images per second through the merged network in full batches, with the threads that the run was trained with."""

from collections.abc import Iterator

import torch

from harness.errors import OutOfMemory
from harness.measures.base import Trained, deployed
from harness.measures.timing_cache import Metrics, kept_times
from harness.ops.timing import Patience, interleave

BATCHES = {"cpu": 32, "cuda": 128}
"""Images at once, by kind of device; the figure's name says which it was."""
DISTURBED = "throughput_disturbed"
PATIENCE = Patience(least=3, most=10, seconds=2.0, once_s=5.0)


@torch.no_grad()
def throughput(trained: Trained) -> Iterator[tuple[str, float]]:
    """Images per second in float32, at the median time of 3 to 10 forward passes; of one where a pass takes 5 s.

    `disturbed` (1.0) where other work of ours did not make room.
    """
    batch = BATCHES[trained.device.type]
    model, images = deployed(trained, batch)

    def measure() -> Metrics:
        times = interleave({"merged": lambda: model(images)}, trained.device, PATIENCE)["merged"]
        if times is None:
            raise OutOfMemory(f"the measure `throughput` needs memory for {batch} images at once")
        return {f"throughput_images_per_s_batch{batch}": batch / times.median}

    metrics, is_quiet = kept_times(trained, "throughput", model, images, measure)
    yield from (metrics if is_quiet else metrics | {DISTURBED: 1.0}).items()
