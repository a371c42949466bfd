"""Position-dependent seeding: random numbers for an image or a step depend only on its indices and the seed.

Therefore a checkpoint contains no random state, and the number of data workers does not affect the result. The global
generators are seeded temporarily, because timm and torchvision use Python's and numpy's.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded_numpy_and_python(seed: int) -> Iterator[None]:
    """Seed Python's and numpy's global generators (from 0 to 2**32 - 1); restore them at the end."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def mix_seed(*numbers: int) -> int:
    """A seed from 0 to 2**32 - 1, derived from a sequence of numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@contextmanager
def seeded_streams(*numbers: int) -> Iterator[None]:
    """Seed Python's, numpy's and torch's global generators (on the CPU); restore them at the end."""
    seed = mix_seed(*numbers)
    with seeded_numpy_and_python(seed), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
