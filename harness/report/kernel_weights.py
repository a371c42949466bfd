"""The weights of large kernels as a table for people and as values for programs."""

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
    "Magnitude is |w| summed over the channels, batch norms folded; before the small kernel is added to the large one, "
    "and after. The ratio is that of after to before, each rescaled to a maximum of 1, on the taps that the small "
    "kernel leaves alone: one number in a layer. The centre is raised by its inverse."
)
KERNELS_PAPER_NOTE = f"The paper's: {PUBLISHED_KERNEL.network} ({KERNEL_SOURCE})."
STRIDED = ("mobilenet_v2",)
"""Families whose large kernels have the stride of their stage, and so see the map before it."""


def kernels_view(network: LoadedNetwork, kernels: Sequence[LargeKernel]) -> RenderableType:
    """A row per layer, and the paper's beside those that a small kernel was added to."""
    title = Text(f"Large kernels of {network.name}", style="bold").append(f"  {network.about}", style="not bold")
    papers = [Text(KERNELS_PAPER_NOTE, style="dim")] if _has_any_before(kernels) else []
    notes = [Text(note) for note in notes_on(network, kernels)]
    return Group(title, _table(network, kernels), Text(), Text(KERNELS_NOTE, style="dim"), *papers, *notes)


def kernels_values(network: LoadedNetwork, kernels: Sequence[LargeKernel]) -> dict[str, Any]:
    """The same for JSON, maps included, each rescaled to a maximum of 1."""
    return {
        "network": network.name,
        "spec": network.spec.canonical(),
        "weights": network.about,
        "layers": [_values(network, kernel) for kernel in kernels],
        "notes": notes_on(network, kernels),
    }


def notes_on(network: LoadedNetwork, kernels: Sequence[LargeKernel]) -> list[str]:
    """What must be known to read the figures."""
    notes = []
    if network.origin == WeightsOrigin.RANDOM:
        notes.append(
            "Random weights say nothing of trained kernels. Train the network, or give a checkpoint or weights."
        )
    if any(_is_lost(network, kernel) for kernel in kernels):
        notes.append("The file has the network in its merged form, in which the large kernels alone are lost.")
    return [*notes, *_untrained(network)]


def _untrained(network: LoadedNetwork) -> Iterator[str]:
    """The stages of a run whose maps were too small for all taps: those farther out met nothing but padding."""
    if network.recipe is None:
        return
    spec, px = network.spec, network.recipe.resolution
    maps = {part.name: part.size[0] for part in network_parts(spec, px)}
    strides = FAMILIES[spec.family].strides if spec.family in STRIDED else (1,) * len(spec.K)
    for stage, stride in enumerate(strides, start=1):
        kernel, side = spec.kernel_of(stage - 1), maps[f"stage {stage}"] * stride
        met = 2 * side - 1
        if kernel.kind == "plain" and kernel.dilation == 1 and kernel.k > met:
            yield (
                f"Stage {stage} was trained on maps of {side} x {side} (images of {px} px): taps beyond the central "
                f"{met} x {met} never met one, and are what they were at first, but for the decay."
            )


def size(network: LoadedNetwork, kernel: LargeKernel) -> str:
    """As 31+5, with the small kernel that was trained beside it, or 31."""
    of_stage = network.spec.kernel_of(kernel.stage - 1)
    return f"{of_stage.k}" if of_stage.s is None else f"{of_stage.k}+{of_stage.s}"


def _has_any_before(kernels: Sequence[LargeKernel]) -> bool:
    return any(kernel.before is not None for kernel in kernels)


def _is_lost(network: LoadedNetwork, kernel: LargeKernel) -> bool:
    """Whether a small kernel was added to it before anybody looked."""
    of_stage = network.spec.kernel_of(kernel.stage - 1)
    return kernel.before is None and (of_stage.s is not None or of_stage.kind == "dilated_reparam")


def _table(network: LoadedNetwork, kernels: Sequence[LargeKernel]) -> Table:
    table = plain_table()
    for name in ("\nstage", "\nblock"):
        table.add_column(name, no_wrap=True)
    for name in ("\nK", "% in 3x3\nbefore", "\nafter", "ratio\noutside", "centre\nraised"):
        table.add_column(name, justify="right", no_wrap=True)
    for kernel in kernels:
        before = DASH if kernel.before is None else _percent(central_share(kernel.before))
        place = (str(kernel.stage), str(kernel.block), size(network, kernel))
        table.add_row(*place, before, _percent(central_share(kernel.after)), *_ratio(kernel))
    if _has_any_before(kernels):
        row = PUBLISHED_KERNEL
        figures = (f"{row.before_pct:.1f}", f"{row.after_pct:.1f}", f"{row.ratio:.3f}", f"{1 / row.ratio:.1f}x")
        table.add_row("paper", "", row.kernel, *figures, style="dim")
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
