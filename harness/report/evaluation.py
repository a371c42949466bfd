"""The accuracy of a network on validation images, with all conditions: as a table and for JSON."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from harness.analysis.formatting import format_duration, format_metric, plural, si
from harness.models.spec.published import PublishedAccuracy, preset_of
from harness.report.console import plain_table
from harness.training.accuracy_results import AccuracyProgress, AccuracyResult
from harness.training.environment import describe_environment
from harness.training.run import Started

if TYPE_CHECKING:
    from harness.data.preprocessing import Preprocessing
    from harness.storage.load_network import LoadedNetwork


@dataclass(frozen=True, slots=True)
class AccuracyReport:
    """The accuracy of a network with its conditions."""

    network: "LoadedNetwork"
    data: str
    """Description of the images, as text."""
    preprocessing: "Preprocessing"
    result: AccuracyResult
    published: tuple[PublishedAccuracy, ...]
    """Published accuracies for this network, resolution and images."""
    started: Started
    loaders: int
    labels: str = ""
    """How the images' labels were matched with the network's classes, as text."""
    normalized: str = ""
    """Mean and standard deviation of the normalization, and their source, as text."""


def progress_line(progress: AccuracyProgress) -> str:
    """The progress as one line."""
    return (
        f"{progress.images:,} of {progress.total_images:,} images  top-1 {progress.top1:.2f} so far  "
        f"{progress.images_per_s:,.0f} images/s  "
        f"{format_duration(progress.left_s)} left"
    )


def evaluation_view(report: AccuracyReport) -> RenderableType:
    """The table of the forms, followed by the conditions."""
    spec = report.network.spec
    head = Text(f"{report.network.name} at {report.preprocessing.resolution} px", style="bold")
    kind = preset_of(spec) or spec.family
    head.append(f"  {kind}, {spec.classes:,} classes, {report.network.about}", style="not bold")
    table = plain_table(("form",), ("top-1 %", "top-5 %", "loss", "n", "unreadable", "images/s"))
    for name, form in report.result.forms.items():
        scores = form.scores
        table.add_row(
            name,
            *(f"{scores[metric]:.2f}" for metric in ("top1", "top5")),
            format_metric(scores["loss"], "loss"),
            f"{report.result.images:,}",
            f"{report.result.unreadable:,}",
            si(form.images_per_s),
        )
    return Group(head, table, Text(), *(Text(line) for line in _lines(report)))


def evaluation_values(report: AccuracyReport) -> dict[str, Any]:
    """The report for JSON."""
    result, difference = report.result, report.result.difference
    return {
        "network": report.network.name,
        "weights": report.network.about,
        "preset": preset_of(report.network.spec),
        "data": report.data,
        "labels": report.labels,
        "notes": list(result.notes),
        "images": result.images,
        "unreadable": result.unreadable,
        "viewing": report.preprocessing.values(),
        "forms": {
            name: {**form.scores.metrics, "images_per_s": form.images_per_s} for name, form in result.forms.items()
        },
        "difference": None
        if difference is None
        else {
            "predictions": difference.predictions,
            "logits_max_abs": difference.logits,
            "top1": difference.top1,
        },
        "published": [row._asdict() for row in report.published],
        "wall_s": result.wall_s,
        "waiting": result.waiting,
        "host": report.started.host,
        "device": report.started.device,
        "threads": report.started.threads,
        "loaders": report.loaders,
        "versions": report.started.versions,
        "environment": None if report.started.environment is None else report.started.environment.values(),
        "spec": report.network.spec.canonical(),
    }


def _lines(report: AccuracyReport) -> Iterator[str]:
    result, difference = report.result, report.result.difference
    if difference is not None:
        yield (
            f"merged     {difference.predictions:,} of {result.images:,} predictions differ from those of the training "
            f"form, logits by at most {difference.logits:.2g}, top-1 by {difference.top1:+.2f} points"
        )
    first = next(iter(result.forms.values())).scores["top1"]
    for row in report.published:
        among = "" if row.top5 is None else f", top-5 {row.top5:.2f}"
        yield f"published  {row.top1:.2f}{among} ({row.training}; {row.source}): here {first - row.top1:+.2f} points"
    yield from (f"warning    {note}" for note in result.notes)
    yield f"images     {report.data}; {report.preprocessing.about}"
    yield f"labels     {report.labels}"
    yield f"normalized by mean and std {report.normalized}"
    versions = ", ".join(f"{name} {version}" for name, version in report.started.versions.items())
    batches = f"{report.preprocessing.batch_size} at once, {plural(report.loaders, 'loader')}"
    yield f"here       {report.started.device}, {batches}; {versions}"
    yield f"computed   by {describe_environment(report.started.environment)}"
    yield f"time       {format_duration(result.wall_s)}, {100 * result.waiting:.1f} % of it waiting for images"
