"""`harness.presets`, where scripts look up named networks, is `harness.models.spec.presets`."""

from harness.models.spec.presets import PRESETS, preset

__all__ = ["PRESETS", "preset"]
