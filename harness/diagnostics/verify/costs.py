"""Checks of parameters and multiply-accumulates in closed form: against papers, released code, and a count.

`count` sums the cost of a network on one image, module by module, on the meta device.
"""

import copy
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.diagnostics.verify.findings import Finding, Plain
from harness.models.batchnorm_folding import Foldable
from harness.models.build import build
from harness.models.cost import Cost, network_cost, network_parts
from harness.models.large_kernels.peripheral import SharedConv2d
from harness.models.spec.presets import PRESETS
from harness.models.spec.published import COUNTED, GROWTH, IN_BOUNDS, PUBLISHED, CountedCost, Published

PARAMS_ROUNDING, WHOLE_PARAMS_ROUNDING = 0.1, 0.5
"""Tolerance in millions, for published values with and without a decimal: table 5 has 79.3 for 79.389."""
GMACS_ROUNDING = 0.06
"""Tolerance in giga-MACs: table 5 has 15.3 for 15.354."""
IN_BOUNDS_SOURCE = "RepLKNet's released code, tap by tap"
SIZE = (224, 160)
"""Height and width of the image; they differ, so that mixing them up is noticed."""
FEW_BLOCKS = 2
"""Number of blocks of a stage that can differ, the first and any other: more blocks are copies of these."""
BY_MODULE = "counted on the network, module by module"


def count(network: nn.Module, channels: int, size: tuple[int, int]) -> Cost:
    """Parameters as registered, and after folding; the rest is summed by hooks on convolutions and linear layers.

    Changes the network: batch norms, whose MACs don't count and which are slow on the meta device, are removed.
    """
    layer_costs: list[Cost] = []
    params, saved = params_of(network), params_of(network) - params_of(_folded(network))

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        layer_costs.append(_layer(module, inputs[0], output))

    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.Conv2d | nn.Linear):
                child.register_forward_hook(hook)
    with torch.no_grad():
        network(torch.empty(1, channels, *size, device="meta"))
    return sum(layer_costs, Cost(params=params, params_saved=saved))


def params_of(network: nn.Module) -> int:
    """All parameters, as registered."""
    return sum(p.numel() for p in network.parameters())


def _folded(network: nn.Module) -> nn.Module:
    """A copy with folded batch norms in the network's own form; `harness.models.build.fold` would also merge it."""
    folded = copy.deepcopy(network)
    for module in list(folded.modules()):
        if isinstance(module, Foldable):
            module.fold()
    return folded


def _layer(module: nn.Module, x: Tensor, output: Tensor) -> Cost:
    if isinstance(module, nn.Linear):
        macs = module.weight.numel() * output[..., 0].numel()
        return Cost(0, macs, macs, output.numel())
    assert isinstance(module, nn.Conv2d)
    weight = module.kernel() if isinstance(module, SharedConv2d) else module.weight
    kernel = weight.shape[2:]
    per_tap = weight.shape[0] * weight.shape[1]
    taps = _taps_on_the_map(x.shape[2:], kernel, module.stride, module.padding, module.dilation)
    return Cost(0, per_tap * kernel.numel() * output[0, 0].numel(), per_tap * taps, output.numel())


@lru_cache(maxsize=512)
def _taps_on_the_map(size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> int:
    """The number of taps on the map: a convolution of a map of ones with a kernel of ones, summed."""
    ones = torch.ones(1, 1, *size, dtype=torch.float64), torch.ones(1, 1, *kernel, dtype=torch.float64)
    return int(F.conv2d(*ones, stride=stride, padding=padding, dilation=dilation).sum())


def params(*, merged: bool) -> Iterator[Finding]:
    """Parameters of a form, exactly."""
    for row in _networks():
        expected = row.params_merged if merged else row.params
        counted = _cost(row, merged=merged).params
        yield from _known(row, f"params {'merged' if merged else 'in training'}", expected, counted)


def params_folded() -> Iterator[Finding]:
    """Parameters merged, with all batch norms folded, as the paper counts them, with more digits than it prints."""
    for row in COUNTED:
        params = round(_cost(row, merged=True).params_folded / 1e6, 3)
        yield from _known(row, "million params, batch norms folded", row.params_m_folded, params)


def macs() -> Iterator[Finding]:
    """MACs of both forms, to three decimals."""
    for row in COUNTED:
        for form, expected, merged in (("training", row.gmacs, False), ("merged", row.gmacs_merged, True)):
            gmacs = round(_cost(row, merged=merged).macs / 1e9, 3)
            yield from _known(row, f"giga-MACs {form} at {row.resolution} px", expected, gmacs)


def published_params() -> Iterator[Finding]:
    """Parameters as printed in published tables."""
    for row in PUBLISHED:
        if row.params_m is not None:
            cost = network_cost(PRESETS[row.preset], row.resolution)
            tolerance = PARAMS_ROUNDING if row.params_m % 1 > 0 else WHOLE_PARAMS_ROUNDING
            yield _published(row, "million params", row.params_m, cost.params_folded / 1e6, tolerance)


def published_macs() -> Iterator[Finding]:
    """MACs as printed in published tables."""
    for row in PUBLISHED:
        if row.gmacs is not None:
            gmacs = network_cost(PRESETS[row.preset], row.resolution).macs / 1e9
            yield _published(row, "giga-MACs", row.gmacs, gmacs, GMACS_ROUNDING)


def growth(metric: str, title: str) -> Iterator[Finding]:
    """Guideline 1: large depth-wise kernels add few MACs and few parameters."""
    before, after = (getattr(network_cost(PRESETS[name], 224), metric) for name in (GROWTH.base, GROWTH.large))
    name = f"{GROWTH.base} to {GROWTH.large}: % more {title}"
    increase = round(100 * (after / before - 1), 2)
    yield Finding(name, getattr(GROWTH, metric), increase, GROWTH.source, GROWTH.tolerance)


def in_bounds() -> Iterator[Finding]:
    """The share of the large kernels' taps that fall on the map, for the network and its stages."""
    for row in IN_BOUNDS:
        parts = network_parts(PRESETS[row.preset], row.resolution)
        stages = [part.large_kernels for part in parts if part.large_kernels.macs]
        name = f"{row.preset} at {row.resolution} px: % of taps in bounds"
        yield Finding(name, row.whole, _share(sum(stages, Cost())), IN_BOUNDS_SOURCE)
        for i, (expected, stage) in enumerate(zip(row.stages or (), stages, strict=False), start=1):
            yield Finding(f"{name}, stage {i}", expected, _share(stage), IN_BOUNDS_SOURCE)


def _networks() -> Iterable[CountedCost]:
    """The first row of every network; parameters don't depend on the resolution."""
    first: dict[str, CountedCost] = {}
    for row in COUNTED:
        first.setdefault(row.preset, row)
    return first.values()


def _cost(row: CountedCost, *, merged: bool) -> Cost:
    return network_cost(PRESETS[row.preset], row.resolution, merged)


def _known(row: CountedCost, metric: str, expected: Plain | None, counted: Plain) -> Iterator[Finding]:
    if expected is not None:
        yield Finding(f"{row.preset}: {metric}", expected, counted, row.source)


def _published(row: Published, metric: str, expected: float, counted: float, tolerance: float) -> Finding:
    return Finding(f"{row.preset} at {row.resolution} px: {metric}", expected, round(counted, 3), row.source, tolerance)


def _share(cost: Cost) -> float:
    return round(100 * cost.macs_in_bounds / cost.macs, 1)


def agreement(*forms: bool, most_blocks: int = FEW_BLOCKS) -> Iterator[Finding]:
    """The closed form against a count, for every preset in these forms (merged or not), up to this many blocks."""
    for name, whole in PRESETS.items():
        spec = whole.replace(B=tuple(min(most_blocks, blocks) for blocks in whole.B))
        for merged in forms:
            with torch.device("meta"):
                network = build(spec, merged=merged)
            expected = _cost_text(count(network, spec.in_channels, SIZE))
            form = f"{name}, {sum(spec.B)} blocks, {'merged' if merged else 'in training'}"
            yield Finding(form, expected, _cost_text(network_cost(spec, SIZE, merged)), BY_MODULE)


def _cost_text(cost: Cost) -> str:
    """All fields of a cost as text, without rounding."""
    return (
        f"{cost.params:,} params, {cost.params_saved:,} of batch norms, {cost.macs:,} MACs, "
        f"{cost.macs_in_bounds:,} in bounds, {cost.activations:,} activations"
    )
