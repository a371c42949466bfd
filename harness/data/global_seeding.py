"""Python's and numpy's global random streams, from which timm's and torchvision's parts draw."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def global_streams(seed: int) -> Iterator[None]:
    """Seed both (from 0 to 2**32 - 1); put them back at the end."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
