"""Parameters and multiply-accumulates, in closed form, against papers and released code."""

from collections.abc import Iterable, Iterator

from harness.diagnostics.verify.findings import Finding, Plain
from harness.models.cost import Cost, network_cost, network_parts
from harness.models.spec.presets import PRESETS
from harness.models.spec.published import COUNTED, GROWTH, IN_BOUNDS, PUBLISHED, Counted, Published

PARAMS_ROUNDING, WHOLE_PARAMS_ROUNDING = 0.1, 0.5
"""In millions, of figures with a decimal and without: table 5 has 79.3 for 79.389."""
GMACS_ROUNDING = 0.06
"""In giga-MACs: table 5 has 15.3 for 15.354."""
TAPS = "RepLKNet's released code, tap by tap"


def params_in_training() -> Iterator[Finding]:
    """Of the training form, to the unit."""
    for row in _networks():
        yield _counted(row, "params in training", row.params, _cost(row, merged=False).params)


def params_merged() -> Iterator[Finding]:
    """Of the merged form, to the unit."""
    for row in _networks():
        yield from _known(row, "params merged", row.params_merged, _cost(row, merged=True).params)


def params_folded() -> Iterator[Finding]:
    """Merged, and all batch norms folded: how the paper counts, with more digits than it prints."""
    for row in COUNTED:
        found = round(_cost(row, merged=True).params_folded / 1e6, 3)
        yield from _known(row, "million params, batch norms folded", row.params_m_folded, found)


def macs() -> Iterator[Finding]:
    """Of both forms, to three digits behind the point."""
    for row in COUNTED:
        for form, known, merged in (("training", row.gmacs, False), ("merged", row.gmacs_merged, True)):
            found = round(_cost(row, merged=merged).macs / 1e9, 3)
            yield from _known(row, f"giga-MACs {form} at {row.resolution} px", known, found)


def published_params() -> Iterator[Finding]:
    """As the tables print them."""
    for row in PUBLISHED:
        if row.params_m is not None:
            cost = network_cost(PRESETS[row.preset], row.resolution)
            tolerance = PARAMS_ROUNDING if row.params_m % 1 > 0 else WHOLE_PARAMS_ROUNDING
            yield _published(row, "million params", row.params_m, cost.params_folded / 1e6, tolerance)


def published_macs() -> Iterator[Finding]:
    """As the tables print them."""
    for row in PUBLISHED:
        if row.gmacs is not None:
            found = network_cost(PRESETS[row.preset], row.resolution).macs / 1e9
            yield _published(row, "giga-MACs", row.gmacs, found, GMACS_ROUNDING)


def growth_of_macs() -> Iterator[Finding]:
    """Guideline 1: large depth-wise kernels cost little."""
    yield _growth("MACs", GROWTH.macs, *(cost.macs for cost in _grown()))


def growth_of_params() -> Iterator[Finding]:
    """Guideline 1, in parameters."""
    yield _growth("params", GROWTH.params, *(cost.params for cost in _grown()))


def in_bounds() -> Iterator[Finding]:
    """The share of the large kernels' taps that fall on the map, of the network and of its stages."""
    for row in IN_BOUNDS:
        parts = network_parts(PRESETS[row.preset], row.resolution)
        stages = [part.large_kernels for part in parts if part.large_kernels.macs]
        name = f"{row.preset} at {row.resolution} px: % of taps in bounds"
        yield Finding(name, row.whole, _share(sum(stages, Cost())), TAPS)
        for i, (expected, stage) in enumerate(zip(row.stages or (), stages, strict=False), start=1):
            yield Finding(f"{name}, stage {i}", expected, _share(stage), TAPS)


def _networks() -> Iterable[Counted]:
    """The first row of every network: parameters don't depend on the images."""
    first: dict[str, Counted] = {}
    for row in COUNTED:
        first.setdefault(row.preset, row)
    return first.values()


def _cost(row: Counted, *, merged: bool) -> Cost:
    return network_cost(PRESETS[row.preset], row.resolution, merged)


def _counted(row: Counted, what: str, expected: Plain, found: Plain) -> Finding:
    return Finding(f"{row.preset}: {what}", expected, found, row.source)


def _known(row: Counted, what: str, expected: Plain | None, found: Plain) -> Iterator[Finding]:
    if expected is not None:
        yield _counted(row, what, expected, found)


def _published(row: Published, what: str, expected: float, found: float, tolerance: float) -> Finding:
    return Finding(f"{row.preset} at {row.resolution} px: {what}", expected, round(found, 3), row.source, tolerance)


def _grown() -> tuple[Cost, Cost]:
    base, large = (network_cost(PRESETS[name], 224) for name in (GROWTH.base, GROWTH.large))
    return base, large


def _growth(what: str, expected: float, before: int, after: int) -> Finding:
    name = f"{GROWTH.base} to {GROWTH.large}: % more {what}"
    return Finding(name, expected, round(100 * (after / before - 1), 2), GROWTH.source, GROWTH.tolerance)


def _share(cost: Cost) -> float:
    return round(100 * cost.macs_in_bounds / cost.macs, 1)
