"""How accurate a network is on given images: as a table, with all conditions, and for JSON."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from harness.analysis.formatting import format_duration, format_metric, plural, si
from harness.models.spec.network import NetworkSpec
from harness.models.spec.published import PublishedAccuracy, preset_of
from harness.report.console import plain_table
from harness.training.accuracy_results import AccuracyProgress, AccuracyResult
from harness.training.environment import describe_environment
from harness.training.run import Started


@dataclass(frozen=True, slots=True)
class AccuracyReport:
    """A result with its conditions."""

    name: str
    weights: str
    """Where they come from, in words."""
    spec: NetworkSpec
    data: str
    """Which images, in words."""
    preprocessing: Mapping[str, Any]
    """How they were shown, as plain values."""
    preprocessing_text: str
    """The same in words."""
    result: AccuracyResult
    known: tuple[PublishedAccuracy, ...]
    """What is published for this network, this side and these images."""
    started: Started
    loaders: int
    labels: str = ""
    """How the images' labels were found."""
    normalized: str = ""
    """Mean and standard deviation of the images, and where they are known from."""


def progress_line(progress: AccuracyProgress) -> str:
    """How far it is, in a line."""
    return (
        f"{progress.images:,} of {progress.total_images:,} images  top-1 {progress.top1:.2f} so far  "
        f"{progress.images_per_s:,.0f} images/s  "
        f"{format_duration(progress.left_s)} left"
    )


def evaluation_view(found: AccuracyReport) -> RenderableType:
    """The table of the forms, then the rest in lines."""
    head = Text(f"{found.name} at {found.preprocessing['resolution']} px", style="bold")
    kind = preset_of(found.spec) or found.spec.family
    head.append(f"  {kind}, {found.spec.classes:,} classes, {found.weights}", style="not bold")
    table = plain_table()
    table.add_column("form", no_wrap=True)
    for name in ("top-1 %", "top-5 %", "loss", "n", "unreadable", "images/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, form in found.result.forms.items():
        scores = form.scores
        table.add_row(
            name,
            *(f"{scores[each]:.2f}" for each in ("top1", "top5")),
            format_metric(scores["loss"], "loss"),
            f"{found.result.images:,}",
            f"{found.result.unreadable:,}",
            si(form.images_per_s),
        )
    return Group(head, table, Text(), *(Text(line) for line in _lines(found)))


def evaluation_values(found: AccuracyReport) -> dict[str, Any]:
    """The same for JSON."""
    result, difference = found.result, found.result.difference
    return {
        "network": found.name,
        "weights": found.weights,
        "preset": preset_of(found.spec),
        "data": found.data,
        "labels": found.labels,
        "notes": list(result.notes),
        "images": result.images,
        "unreadable": result.unreadable,
        "viewing": dict(found.preprocessing),
        "forms": {
            name: {**form.scores.figures, "images_per_s": form.images_per_s} for name, form in result.forms.items()
        },
        "difference": None
        if difference is None
        else {
            "predictions": difference.predictions,
            "logits_max_abs": difference.logits,
            "top1": difference.top1,
        },
        "published": [row._asdict() for row in found.known],
        "wall_s": result.wall_s,
        "waiting": result.waiting,
        "host": found.started.host,
        "device": found.started.device,
        "threads": found.started.threads,
        "loaders": found.loaders,
        "versions": found.started.versions,
        "environment": None if found.started.environment is None else found.started.environment.values(),
        "spec": found.spec.canonical(),
    }


def _lines(found: AccuracyReport) -> Iterator[str]:
    result, difference = found.result, found.result.difference
    if difference is not None:
        yield (
            f"merged     {difference.predictions:,} of {result.images:,} predictions differ from those of the training "
            f"form, logits by at most {difference.logits:.2g}, top-1 by {difference.top1:+.2f} points"
        )
    first = next(iter(result.forms.values())).scores["top1"]
    for row in found.known:
        among = "" if row.top5 is None else f", top-5 {row.top5:.2f}"
        yield f"published  {row.top1:.2f}{among} ({row.training}; {row.source}): here {first - row.top1:+.2f} points"
    yield from (f"warning    {note}" for note in result.notes)
    yield f"images     {found.data}; {found.preprocessing_text}"
    yield f"labels     {found.labels}"
    yield f"normalized by mean and std {found.normalized}"
    versions = ", ".join(f"{name} {version}" for name, version in found.started.versions.items())
    batches = f"{found.preprocessing['batch_size']} at once, {plural(found.loaders, 'loader')}"
    yield f"here       {found.started.device}, {batches}; {versions}"
    yield f"computed   by {describe_environment(found.started.environment)}"
    yield f"time       {format_duration(result.wall_s)}, {100 * result.waiting:.1f} % of it waiting for images"
