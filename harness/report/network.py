"""The cost of a network by stage and by form, with the published values; and the same for all presets."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.analysis.formatting import DASH, PREFIXES, format_value, join_words, si
from harness.models.cost import Cost, Part, network_parts
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS
from harness.models.spec.published import Published, preset_of, published, resolutions
from harness.report.console import plain_table


class NetworkCosts(NamedTuple):
    """The costs of a network for one image of this resolution, in both forms."""

    spec: NetworkSpec
    resolution: int
    training: tuple[Part, ...]
    merged: tuple[Part, ...]

    @property
    def forms(self) -> dict[str, Cost]:
        """The cost of the whole network, by form."""
        return {"in training": _total(self.training), "merged": _total(self.merged)}

    def merged_rows(self) -> list[tuple[str, ...]]:
        """Part, map, B, C, K, params and MACs of the merged network, a row per part; the last row is the total."""
        rows = [
            (part.name, _map(part), *_alphabet(self.spec, part.name), si(part.cost.params), si(part.cost.macs))
            for part in self.merged
        ]
        total = self.forms["merged"]
        return [*rows, ("all", "", "", "", "", si(total.params), si(total.macs))]


def network_costs(spec: NetworkSpec, resolution: int) -> NetworkCosts:
    """The costs of a network by part."""
    forms = (network_parts(spec, resolution, merged) for merged in (False, True))
    return NetworkCosts(spec, resolution, *forms)


def network_view(spec: NetworkSpec, resolution: int) -> RenderableType:
    """A network's costs by stage and by form, with the published values."""
    costs = network_costs(spec, resolution)
    head = Text(f"{preset_of(spec) or spec.family} at {resolution} px", style="bold")
    head.append(f"  {spec.in_channels} channels in, {spec.classes} classes", style="not bold")
    sizes = [px for px in resolutions(spec) if px != resolution and published(spec)]
    note = [Text(f"published at {join_words(map(str, sizes))} px, too", style="dim")] if sizes else []
    return Group(head, stages_table(costs), Text(), forms_table(costs), *note)


def stages_table(costs: NetworkCosts) -> Table:
    """A row per part: its output map, blocks, channels, kernels, what else differs by stage, and its costs."""
    costs_of = ("params\ntrain", "\nmerged", "MACs\ntrain", "\nmerged", "in\nbounds", "large\nkernel")
    differing = costs.spec.differing_fields
    table = plain_table(("\npart",), ("\nmap", "\nB", "\nC", "\nK", *(f"\n{name}" for name in differing), *costs_of))
    for train, merged in zip(costs.training, costs.merged, strict=True):
        stage = _stage_of(merged.name)
        values = ["" if stage is None else format_value(costs.spec.at(name, stage)) for name in differing]
        table.add_row(train.name, _map(merged), *_alphabet(costs.spec, merged.name), *values, *_costs(train, merged))
    train, merged = (
        Part("all", (0, 0), _total(parts), sum((part.large_kernels for part in parts), Cost()))
        for parts in (costs.training, costs.merged)
    )
    table.add_row("all", "", "", "", "", *("" for _ in differing), *_costs(train, merged), style="bold")
    return table


def forms_table(costs: NetworkCosts) -> Table:
    """The exact cost of the whole network in each of its forms, followed by the published values."""
    table = plain_table(("form",), ("params", "MACs", "top-1 %"))
    table.add_column("trained on")
    for name, cost in costs.forms.items():
        table.add_row(name, f"{cost.params:,}", _fine(cost.macs), "", "")
    cost = costs.forms["merged"]
    table.add_row("batch norms folded", f"{cost.params_folded:,}", _fine(cost.macs), "", "")
    for row in published(costs.spec):
        if row.resolution == costs.resolution:
            table.add_row(row.source, *_printed(row), f"{row.top1:.2f}", row.training)
    return table


def network_values(spec: NetworkSpec, resolution: int) -> dict[str, Any]:
    """The costs of a network for JSON, without rounding."""
    costs = network_costs(spec, resolution)
    return {
        "spec": spec.canonical(),
        "preset": preset_of(spec),
        "resolution": resolution,
        "parts": [
            {
                "name": merged.name,
                "map": list(merged.size),
                "training": _values(train.cost),
                "merged": _values(merged.cost),
                "large_kernels": {"training": _values(train.large_kernels), "merged": _values(merged.large_kernels)},
            }
            for train, merged in zip(costs.training, costs.merged, strict=True)
        ],
        "training": _values(costs.forms["in training"]),
        "merged": _values(costs.forms["merged"]),
        "published": [row._asdict() for row in published(spec)],
    }


def presets_view(resolution: int | None) -> RenderableType:
    """Parameters and MACs of all presets by form, with the published values; without `resolution`, at their own."""
    names = ("\npx", "params\ntrain", "\nmerged", "\nfolded", "\npaper", "MACs\ntrain", "\nmerged", "\npaper")
    table = plain_table(("\npreset",), names)
    for name, spec in PRESETS.items():
        for px in _sides(spec, resolution):
            train, merged = network_costs(spec, px).forms.values()
            params = (si(train.params), si(merged.params), si(merged.params_folded))
            paper_params, paper_macs = _published(spec, px)
            table.add_row(name, str(px), *params, paper_params, si(train.macs), si(merged.macs), paper_macs)
    note = "folded: merged, with all batch norms folded, as RepLKNet's tables count parameters"
    return Group(table, Text(), Text(note, style="dim"))


def presets_values(resolution: int | None) -> list[dict[str, Any]]:
    """All presets for JSON."""
    return [network_values(spec, px) for spec in PRESETS.values() for px in _sides(spec, resolution)]


def _sides(spec: NetworkSpec, resolution: int | None) -> tuple[int, ...]:
    return resolutions(spec) if resolution is None else (resolution,)


def _published(spec: NetworkSpec, resolution: int) -> tuple[str, str]:
    """Parameters and MACs as printed in the first published table that has parameters."""
    rows = [row for row in published(spec) if row.resolution == resolution and row.params_m is not None]
    return _printed(rows[0]) if rows else (DASH, DASH)


def _total(parts: Sequence[Part]) -> Cost:
    return sum((part.cost for part in parts), Cost())


def _map(part: Part) -> str:
    high, wide = part.size
    return str(high) if high == wide else f"{high}x{wide}"


def _alphabet(spec: NetworkSpec, part: str) -> tuple[str, str, str]:
    """B, C and K of a stage; K is 31+5 with a small kernel, and 3 d5 with a dilation. Empty for other parts."""
    stage = _stage_of(part)
    if stage is None:
        return "", "", ""
    kernel = spec.kernel_of(stage)
    small = "" if kernel.s is None else f"+{kernel.s}"
    dilation = "" if kernel.dilation == 1 else f" d{kernel.dilation}"
    return str(spec.B[stage]), str(spec.C[stage]), f"{kernel.k}{small}{dilation}"


def _stage_of(part: str) -> int | None:
    """The stage of a part, counted from 0; None for a part that is no stage."""
    kind, _, number = part.partition(" ")
    return int(number) - 1 if kind == "stage" else None


def _costs(train: Part, merged: Part) -> tuple[str, ...]:
    cost = merged.cost
    share = merged.large_kernels.macs / cost.macs if cost.macs else 0.0
    params, macs = (si(train.cost.params), si(cost.params)), (si(train.cost.macs), si(cost.macs))
    return (*params, *macs, si(cost.macs_in_bounds), f"{share:.1%}" if merged.large_kernels.params else "")


def _values(cost: Cost) -> dict[str, int]:
    values = asdict(cost) | {"params_folded": cost.params_folded}
    del values["params_saved"]
    return values


def _fine(number: int) -> str:
    """A number with three decimals and a prefix: 15.354G."""
    size, prefix = next(((size, prefix) for size, prefix in PREFIXES if number >= size), (1.0, ""))
    return f"{number / size:.3f}{prefix}"


def _printed(row: Published) -> tuple[str, str]:
    """Published parameters and MACs with their number of digits: 79.3M, 15.3G."""
    params = DASH if row.params_m is None else f"{row.params_m:g}M"
    if row.gmacs is None:
        return params, DASH
    return params, f"{row.gmacs:g}G" if row.gmacs >= 1 else f"{1000 * row.gmacs:g}M"
