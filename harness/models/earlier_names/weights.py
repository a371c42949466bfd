"""`harness.weights`, which model cards of earlier versions import, is `harness.models.weights`."""

from harness.models.weights import load_weights

__all__ = ["load_weights"]
