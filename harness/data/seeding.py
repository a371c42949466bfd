"""Randomness as a function of place: what is drawn for an image or a step follows from its numbers and the seed alone.

So nothing random is kept in a checkpoint, and the number of processes that read images changes nothing. The global
streams are seeded for a while, because timm's and torchvision's parts draw from Python's and numpy's.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded_numpy_and_python(seed: int) -> Iterator[None]:
    """Seed Python's and numpy's global streams (from 0 to 2**32 - 1); put them back at the end."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def mix_seed(*numbers: int) -> int:
    """A seed from 0 to 2**32 - 1, another for every sequence of numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@contextmanager
def seeded_streams(*numbers: int) -> Iterator[None]:
    """Seed Python's, numpy's and torch's global streams (on the CPU); put them back at the end."""
    seed = mix_seed(*numbers)
    with seeded_numpy_and_python(seed), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
