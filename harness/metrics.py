"""Which metrics describe the machine and not the network: times, throughput and memory."""

import re

IS_OF_MACHINE: dict[str, bool] = {
    "ap": False,
    "box_ap": False,
    "cue": False,
    "erf": False,
    "iou": False,
    "latency": True,
    "merge_error": False,
    "miou": False,
    "peak": True,
    "shape": False,
    "throughput": True,
    "train_step_gradients": False,
}
"""By the first words of a metric's name; what follows may be the name of a class of images."""
MACHINE_UNITS = re.compile(r"(?:^|_)(?:ns|us|ms|s|min|h|bytes|[kmg]i?b|per_s|fps|hz|j|joules?|watts?|w)(?:_|$)")
"""Units of time, throughput, memory and energy, by which every other metric is told: its name carries its unit."""


def is_of_machine(name: str) -> bool:
    """Whether a metric is a time, a throughput or memory, which hold for the environment alone that it was taken in."""
    first_words = [words for words in IS_OF_MACHINE if name == words or name.startswith(f"{words}_")]
    if first_words:
        return IS_OF_MACHINE[max(first_words, key=len)]
    return MACHINE_UNITS.search(name) is not None
