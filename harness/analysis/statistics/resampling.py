"""What resampling says beside the t test: scipy's BCa bootstrap and sign-flip permutations, with fixed random numbers.

Both look at all values once, as if there had been one look; they are shown, and decide nothing.
"""

import warnings
from collections.abc import Sequence
from typing import Any

MIN_VALUES = 4
"""Values below which the bootstrap has too few distinct samples to mean anything."""
RESAMPLES = 9999


def bootstrap_interval(values: Sequence[float], alpha: float) -> tuple[float, float] | None:
    """The BCa interval of the mean (Efron 1987); None for fewer than 4 values, and where all are equal."""
    import numpy as np
    from scipy.stats import bootstrap

    if len(values) < MIN_VALUES or min(values) == max(values):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a degenerate distribution; it gives NaN, hence None
        found = bootstrap(
            (np.array(values),),
            np.mean,
            confidence_level=1 - alpha,
            n_resamples=RESAMPLES,
            method="BCa",
            rng=np.random.default_rng(0),
        )
    low, high = (float(end) for end in found.confidence_interval)
    return (low, high) if np.isfinite([low, high]).all() else None


def sign_flip_p(values: Sequence[float], bound: float) -> float | None:
    """The two-sided p of the mean against a bound, were signs about it a matter of chance; exact for up to 13 values.

    None for one value.
    """
    import numpy as np
    from scipy.stats import permutation_test

    if len(values) < 2:
        return None
    found: Any = permutation_test(
        (np.array(values) - bound,),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)
