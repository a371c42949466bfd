"""The closed form of the cost against a count, module by module, of the network that is built."""

from collections.abc import Iterator

import torch

from harness.diagnostics.verify.counting import count
from harness.diagnostics.verify.findings import Finding
from harness.models.build import build
from harness.models.cost import Cost, network_cost
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS

SIZE = (224, 160)
"""Height and width of the image: two numbers, so that neither stands for the other."""
FEW = 2
"""Blocks of a stage that can differ, the first and any other: more of them only multiply."""
COUNTED = "counted on the network, module by module"


def short_in_training() -> Iterator[Finding]:
    """Every preset in its training form, with few blocks."""
    for name, spec in PRESETS.items():
        yield _agreement(name, _short(spec), merged=False)


def short_merged() -> Iterator[Finding]:
    """The same in the merged form."""
    for name, spec in PRESETS.items():
        yield _agreement(name, _short(spec), merged=True)


def whole() -> Iterator[Finding]:
    """Every preset with all its blocks, in both forms."""
    for name, spec in PRESETS.items():
        for merged in (False, True):
            yield _agreement(name, spec, merged=merged)


def _short(spec: NetworkSpec) -> NetworkSpec:
    return spec.replace(B=tuple(min(FEW, blocks) for blocks in spec.B))


def _agreement(name: str, spec: NetworkSpec, *, merged: bool) -> Finding:
    with torch.device("meta"):
        network = build(spec, merged=merged)
    expected = _said(count(network, spec.in_channels, SIZE))
    form = f"{name}, {sum(spec.B)} blocks, {'merged' if merged else 'in training'}"
    return Finding(form, expected, _said(network_cost(spec, SIZE, merged)), COUNTED)


def _said(cost: Cost) -> str:
    """Every figure of a cost, to the unit."""
    return (
        f"{cost.params:,} params, {cost.params_saved:,} of batch norms, {cost.macs:,} MACs, "
        f"{cost.macs_in_bounds:,} in bounds, {cost.activations:,} activations"
    )
