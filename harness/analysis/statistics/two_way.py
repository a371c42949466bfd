"""Values of configurations by seed, where what a seed adds to all configurations alike is no noise."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def residual_variance(values: "npt.NDArray[np.float64]") -> float:
    """The variance of a value that neither its configuration nor its seed explains (two-way analysis of variance).

    `values` is (configurations, seeds), with two or more of each.
    """
    configurations, seeds = values.shape
    assert configurations >= 2 and seeds >= 2, "two configurations with two seeds"
    residuals = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + values.mean()
    return float((residuals**2).sum() / ((configurations - 1) * (seeds - 1)))
