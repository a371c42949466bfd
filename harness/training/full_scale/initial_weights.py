"""The weights that a training goes on from."""

from pathlib import Path

from torch import nn

from harness.errors import UserError
from harness.models.build import build
from harness.models.spec.network import NetworkSpec
from harness.models.weights import Weights, read_weights


def load_training_weights(path: Path, spec: NetworkSpec | None = None, *, place: str = "--weights") -> Weights:
    """The weights in a file, which must be in training form: what is merged has nothing left to be trained well.

    Raises `UserError`s; `place` is where the command line names the file.
    """
    weights = read_weights(path, spec)
    if weights.is_merged:
        raise UserError(
            "the weights must be in training form, whose batch norms and small kernels can be trained",
            value=str(path),
            place=place,
            remedy="Take the un-merged weights that these come from; merging comes last.",
        )
    return weights


def initialize_network(spec: NetworkSpec, weights: Path | None, seed: int) -> nn.Module:
    """The network in training form, with fresh weights or those of a file and the classifier that goes with them."""
    if weights is None:
        return build(spec, seed=seed)
    found = load_training_weights(weights, spec)
    network = build(found.spec, seed=seed)
    network.load_state_dict(found.entries)
    return network
