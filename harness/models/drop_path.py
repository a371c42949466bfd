"""Stochastic depth over the blocks of a network."""

from harness.models.spec.network import NetworkSpec


def drop_path_by_stage(spec: NetworkSpec) -> list[list[float]]:
    """Drop probabilities, one per block and stage: linear from 0 at the first block to `drop_path` at the last."""
    last = max(1, sum(spec.B) - 1)
    starts = [sum(spec.B[:i]) for i in range(len(spec.B))]
    return [
        [spec.drop_path * j / last for j in range(start, start + b)] for start, b in zip(starts, spec.B, strict=True)
    ]
