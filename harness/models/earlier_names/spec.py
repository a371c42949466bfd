"""`harness.spec`, from which scripts import `NetworkSpec`, is `harness.models.spec.network`."""

from harness.models.spec.network import NetworkSpec

__all__ = ["NetworkSpec"]
