"""The weights of large kernels, as a table and for JSON."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.analysis.formatting import DASH
from harness.measures.kernel_weights import LargeKernel, central_share, rescale_to_one
from harness.models.cost import network_parts
from harness.models.spec.family import FAMILIES
from harness.models.spec.published import KERNEL_SOURCE, PUBLISHED_KERNEL
from harness.report.console import plain_table
from harness.storage.load_network import LoadedNetwork, WeightsOrigin

KERNELS_NOTE = (
    "Magnitude is |w| summed over the channels, batch norms folded, before and after the small kernel is added to the "
    "large one. The ratio is that of after to before, each rescaled to a maximum of 1, on the taps outside the small "
    "kernel, where it is constant within a layer. The center is raised by its inverse."
)
KERNELS_PAPER_NOTE = f"The paper's: {PUBLISHED_KERNEL.network} ({KERNEL_SOURCE})."
STRIDED = ("mobilenet_v2",)
"""Families whose large kernels have the stride of their stage, so their input is the map before it."""


def kernels_view(network: LoadedNetwork, kernels: Sequence[LargeKernel]) -> RenderableType:
    """A table with a row per layer; with a row of the paper if any layer has a small kernel."""
    title = Text(f"Large kernels of {network.name}", style="bold").append(f"  {network.about}", style="not bold")
    papers = [Text(KERNELS_PAPER_NOTE, style="dim")] if _has_any_before(kernels) else []
    notes = [Text(note) for note in notes_on(network, kernels)]
    return Group(title, _table(network, kernels), Text(), Text(KERNELS_NOTE, style="dim"), *papers, *notes)


def kernels_values(network: LoadedNetwork, kernels: Sequence[LargeKernel]) -> dict[str, Any]:
    """The kernels for JSON, with their maps, each rescaled to a maximum of 1."""
    return {
        "network": network.name,
        "spec": network.spec.canonical(),
        "weights": network.about,
        "layers": [_values(network, kernel) for kernel in kernels],
        "notes": notes_on(network, kernels),
    }


def notes_on(network: LoadedNetwork, kernels: Sequence[LargeKernel]) -> list[str]:
    """Notes on the interpretation of the values."""
    notes = []
    if network.origin == WeightsOrigin.RANDOM:
        notes.append(
            "Random weights do not show how trained kernels look. Train the network, or name a checkpoint or weights."
        )
    if any(_is_lost(network, kernel) for kernel in kernels):
        notes.append("The file has the network in its merged form, in which the large kernels alone are lost.")
    return [*notes, *_untrained(network)]


def _untrained(network: LoadedNetwork) -> Iterator[str]:
    """Notes on the stages of a run whose maps were so small that the outer taps only met padding."""
    if network.recipe is None:
        return
    spec, px = network.spec, network.recipe.resolution
    maps = {part.name: part.size[0] for part in network_parts(spec, px)}
    strides = FAMILIES[spec.family].strides if spec.family in STRIDED else (1,) * len(spec.K)
    for stage, stride in enumerate(strides, start=1):
        kernel, side = spec.kernel_of(stage - 1), maps[f"stage {stage}"] * stride
        used = 2 * side - 1
        if kernel.kind == "plain" and kernel.dilation == 1 and kernel.k > used:
            yield (
                f"Stage {stage} was trained on maps of {side} x {side} (images of {px} px): taps outside the central "
                f"{used} x {used} only met padding, and have their initial values, except for weight decay."
            )


def size(network: LoadedNetwork, kernel: LargeKernel) -> str:
    """The size of a kernel, such as 31, or 31+5 with its parallel small kernel."""
    of_stage = network.spec.kernel_of(kernel.stage - 1)
    return f"{of_stage.k}" if of_stage.s is None else f"{of_stage.k}+{of_stage.s}"


def _has_any_before(kernels: Sequence[LargeKernel]) -> bool:
    return any(kernel.before is not None for kernel in kernels)


def _is_lost(network: LoadedNetwork, kernel: LargeKernel) -> bool:
    """Whether the large kernel alone is lost, because the file has the merged form."""
    of_stage = network.spec.kernel_of(kernel.stage - 1)
    return kernel.before is None and (of_stage.s is not None or of_stage.kind == "dilated_reparam")


def _table(network: LoadedNetwork, kernels: Sequence[LargeKernel]) -> Table:
    numbers = ("\nK", "% in 3x3\nbefore", "\nafter", "ratio\noutside", "center\nraised")
    table = plain_table(("\nstage", "\nblock"), numbers)
    for kernel in kernels:
        before = DASH if kernel.before is None else _percent(central_share(kernel.before))
        place = (str(kernel.stage), str(kernel.block), size(network, kernel))
        table.add_row(*place, before, _percent(central_share(kernel.after)), *_ratio(kernel))
    if _has_any_before(kernels):
        row = PUBLISHED_KERNEL
        cells = (f"{row.before_pct:.1f}", f"{row.after_pct:.1f}", f"{row.ratio:.3f}", f"{1 / row.ratio:.1f}x")
        table.add_row("paper", "", row.kernel, *cells, style="dim")
    return table


def _ratio(kernel: LargeKernel) -> tuple[str, str]:
    if kernel.ratio is None:
        return DASH, DASH
    least, most = kernel.ratio
    return (f"{least:.3f}" if most - least < 5e-4 else f"{least:.3f} to {most:.3f}"), f"{2 / (least + most):.1f}x"


def _percent(share: float) -> str:
    return DASH if share != share else f"{100 * share:.1f}"


def _values(network: LoadedNetwork, kernel: LargeKernel) -> dict[str, Any]:
    before = kernel.before
    return {
        "stage": kernel.stage,
        "block": kernel.block,
        "kernel": size(network, kernel),
        "central_share": {
            "before": None if before is None else central_share(before),
            "after": central_share(kernel.after),
        },
        "ratio_outside": None if kernel.ratio is None else list(kernel.ratio),
        "maps": {
            "before": None if before is None else rescale_to_one(before).tolist(),
            "after": rescale_to_one(kernel.after).tolist(),
        },
    }
