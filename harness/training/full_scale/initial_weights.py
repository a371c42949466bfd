"""Initial weights of a training: random, or from a file."""

from pathlib import Path

from torch import nn

from harness.errors import UserError
from harness.models.build import build
from harness.models.spec.network import NetworkSpec
from harness.models.weights import Weights, read_weights


def load_training_weights(path: Path, spec: NetworkSpec | None = None, *, place: str = "--weights") -> Weights:
    """Load the weights of a file, which must be in training form: merged weights cannot be trained well.

    Raises `UserError`; `place` is the command line option that names the file.
    """
    weights = read_weights(path, spec)
    if weights.is_merged:
        raise UserError(
            "the weights must be in training form, whose batch norms and small kernels can be trained",
            value=str(path),
            place=place,
            remedy="Use the un-merged weights that these were merged from; merging comes last.",
        )
    return weights


def initialize_network(spec: NetworkSpec, weights: Path | None, seed: int) -> nn.Module:
    """Build the network in training form, with random weights, or with those of a file including its classifier."""
    if weights is None:
        return build(spec, seed=seed)
    loaded = load_training_weights(weights, spec)
    network = build(loaded.spec, seed=seed)
    network.load_state_dict(loaded.entries)
    return network
