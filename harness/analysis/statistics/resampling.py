"""Resampling in addition to the t test: scipy's BCa bootstrap and sign-flip permutations, with fixed random numbers.

Both use all values in a single look; they are shown, and decide nothing.
"""

import warnings
from collections.abc import Sequence
from typing import Any

MIN_VALUES = 4
"""Minimum number of values for the bootstrap, which has too few distinct samples below."""
RESAMPLES = 9999


def bootstrap_interval(values: Sequence[float], alpha: float) -> tuple[float, float] | None:
    """The BCa interval of the mean (Efron 1987); None for fewer than 4 values, and if all are equal."""
    import numpy as np
    from scipy.stats import bootstrap

    if len(values) < MIN_VALUES or min(values) == max(values):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a degenerate distribution yields NaN, hence None
        result = bootstrap(
            (np.array(values),),
            np.mean,
            confidence_level=1 - alpha,
            n_resamples=RESAMPLES,
            method="BCa",
            rng=np.random.default_rng(0),
        )
    low, high = (float(end) for end in result.confidence_interval)
    return (low, high) if np.isfinite([low, high]).all() else None


def sign_flip_p(values: Sequence[float], bound: float) -> float | None:
    """The two-sided p of the mean against a bound under random signs around the bound; exact for up to 13 values.

    None for one value.
    """
    import numpy as np
    from scipy.stats import permutation_test

    if len(values) < 2:
        return None
    result: Any = permutation_test(
        (np.array(values) - bound,),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)
