"""Views of trainings at full scale: their cost, their progress, and the trainings of a study's networks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from harness.analysis.configuration_result import seeds_text
from harness.analysis.formatting import (
    DASH,
    epochs_done,
    format_duration,
    format_mean_and_spread,
    format_metric,
    format_params,
    format_value,
    plural,
    si,
)
from harness.analysis.summary import full_scale_status
from harness.config.recipes.full_scale import ClassificationRecipe, FullScaleRecipe
from harness.data.batching import BatchPlan
from harness.data.image_sources import ExpectedImages
from harness.models.cost import network_cost
from harness.models.spec.network import NetworkSpec
from harness.models.spec.published import preset_of
from harness.report.console import StatusLine, indented, plain_table
from harness.storage import FullScaleRow
from harness.training.environment import UNKNOWN_ENVIRONMENT, describe_difference
from harness.training.full_scale.folder import WEIGHTS
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.messages import FullScaleEpoch, FullScaleMessage, Message, Scores, StepProgress
from harness.training.run import Started

if TYPE_CHECKING:
    from harness.analysis.results import StudyResults

BACKWARD = 2
"""MACs of the backward pass per MAC of the forward pass: gradients of the inputs and of the weights."""
PER_IMAGES = 10_000
"""Number of training images for which the time is estimated if their real number is unknown."""
SCORE_TITLES = {
    "top1": "top-1",
    "top5": "top-5",
    "miou": "mIoU",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "mask_ap": "mask AP",
    "mask_ap50": "mask AP50",
    "mask_ap75": "mask AP75",
}
"""Titles of metrics that are not written as their names."""
FULL_SCALE_TEXTS = ("at full scale", "recipe")
"""Columns of text in the table of trainings."""
PROXY_NOTE = "a proxy's metrics are of its own images and epochs: only the order of networks can agree between the two"


def job_view(
    job: FullScaleJob[ClassificationRecipe], batch_plan: BatchPlan, name: str, expected: ExpectedImages | None = None
) -> RenderableType:
    """What is trained, how, and its cost; `expected` describes its images if they have not been read."""
    spec, recipe = job.run.spec, job.run.recipe
    cost = network_cost(spec, recipe.resolution, merged=False)
    costs = f"{si(cost.params)} parameters, {si(cost.macs)} MACs for an image of {recipe.resolution} px"
    if expected is None or expected.images is not None:
        images = recipe.epochs * batch_plan.steps * batch_plan.batch_size
        costs += f"; in all {si(float((1 + BACKWARD) * cost.macs * images))} MACs, forward and backward"
    rows = {
        "network": f"{network_text(spec)}, {spec.classes:,} classes",
        "recipe": recipe.about,
        "cost": costs,
        **schedule_rows(job, batch_plan, expected),
    }
    return properties_view(name, rows)


def schedule_rows(job: FullScaleJob[Any], batch_plan: BatchPlan, expected: ExpectedImages | None) -> dict[str, str]:
    """The steps, their arithmetic, the folder and, if the images have not been read, their expected layout."""
    recipe = job.run.recipe
    arithmetic = (
        f"{recipe.precision}, {'channels last' if recipe.channels_last else 'channels first'}"
        f"{', checkpointing' if recipe.checkpointing else ''}{', compiled' if recipe.compile else ''}"
    )
    rows = {"steps": _steps_text(recipe, batch_plan, expected), "arithmetic": arithmetic}
    if expected is None:
        return rows | {"folder": str(job.folder)}
    missing = "no `--data`" if job.root is None else f"no folder {job.root}"
    return rows | {
        "folder": f"in {job.folder.parent}; its name depends on network, recipe and initial weights",
        "images": f"not read ({missing}); nothing is downloaded",
        "expected": expected.layout,
    }


def _steps_text(recipe: FullScaleRecipe, batch_plan: BatchPlan, expected: ExpectedImages | None) -> str:
    """The number of steps, and how a batch is divided among workers, as text."""
    share = f"{plural(batch_plan.workers, 'worker')} with {batch_plan.micro_batch} images at once"
    gathered = f", accumulated {batch_plan.accumulation_steps} times" if batch_plan.accumulation_steps > 1 else ""
    rounds = "epochs" if not recipe.is_iteration_based else "parts, each followed by a validation,"
    step = f"steps of {batch_plan.batch_size:,} images"
    if expected is not None and expected.images is None and not recipe.is_iteration_based:
        return f"{recipe.intervals} {rounds} of {step}, their number depends on the images, {share}{gathered}"
    source = "" if expected is None or expected.name is None else f", as {expected.name} has"
    return (
        f"{recipe.intervals} {rounds} of {batch_plan.steps:,} {step} ({batch_plan.images:,} in all{source}), "
        f"{share}{gathered}"
    )


def network_text(spec: NetworkSpec) -> str:
    """A network as one line, without its classes."""
    return (
        f"{preset_of(spec) or spec.family}, B={format_value(spec.B)} C={format_value(spec.C)} "
        f"K={format_value(spec.K)}, "
        f"small kernel {format_value(spec.reparam)}, drop path {spec.drop_path:g}"
    )


def properties_view(name: str, rows: Mapping[str, str]) -> RenderableType:
    """A heading, followed by a table of names and values."""
    table = plain_table()
    table.show_header = False
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for key, text in rows.items():
        table.add_row(key, text)
    return Group(Text(name, style="bold"), table)


def estimate_line(image_s: float, batch_plan: BatchPlan, rounds: int, expected: ExpectedImages | None = None) -> str:
    """The estimated time, from the measured seconds per image of one worker, as one line."""
    images = rounds * batch_plan.steps * batch_plan.batch_size
    workers, not_counted = plural(batch_plan.workers, "worker"), "without validation and waiting for images"
    if expected is not None and expected.images is None:
        seconds = rounds * PER_IMAGES / batch_plan.workers * image_s
        total = f"{format_duration(seconds)} with {workers} for every {PER_IMAGES:,} training images"
    else:
        total = f"{format_duration(images / batch_plan.workers * image_s)} with {workers}"
    of = "" if expected is None else " on noise in place of the images"
    return f"estimated time: {total}, from a measured step{of} ({1 / image_s:.3g} images/s); {not_counted}"


def show_message(record: FullScaleMessage, status_line: StatusLine) -> None:
    """Show a message of a training."""
    match record:
        case Message():
            status_line.print_line(record.text)
        case Started():
            status_line.print_line(f"on {record.device}, {record.host}")
        case FullScaleEpoch():
            status_line.print_line(epoch_line(record))
        case StepProgress():
            status_line.update(step_line(record))


def epoch_line(epoch: FullScaleEpoch) -> str:
    """One epoch as one line."""
    parts = [f"epoch {epoch.epoch}/{epoch.epochs}", f"loss {format_metric(epoch.train_loss, 'loss')}"]
    parts += [_scores(name, scores) for name, scores in (("val", epoch.val), ("EMA", epoch.ema)) if scores is not None]
    parts += [
        f"lr {epoch.lr:.3g}",
        f"{epoch.images_per_s:,.0f} images/s",
        f"waiting {100 * epoch.waiting:.1f} %",
        format_duration(epoch.wall_s),
    ]
    if epoch.unreadable:
        parts.append(f"{plural(epoch.unreadable, 'unreadable image')} replaced")
    if epoch.val is not None and epoch.val.unreadable:
        parts.append(f"{plural(epoch.val.unreadable, 'unreadable image')} not validated on, {_of(epoch.val.images)}")
    return "  ".join([*parts, *(["best"] if epoch.is_best else [])])


def _of(images: int | None) -> str:
    return "the scores are of the others" if images is None else f"the scores are of {plural(images, 'image')}"


def step_line(progress: StepProgress) -> str:
    """The progress within an epoch, as one line."""
    return (
        f"epoch {progress.epoch}, step {progress.step:,}/{progress.steps:,}  loss "
        f"{format_metric(progress.loss, 'loss')}  "
        f"lr {progress.lr:.3g}  {progress.images_per_s:,.0f} images/s  waiting {100 * progress.waiting:.1f} %  "
        f"{format_duration(progress.left_s)} left"
    )


def _scores(name: str, scores: Scores) -> str:
    texts = [
        f"{SCORE_TITLES.get(metric, metric.replace('_', ' '))} "
        f"{format_metric(value, metric) if metric == 'loss' else f'{value:.2f}'}"
        for metric, value in scores.metrics.items()
    ]
    return " ".join([name, *texts])


def full_scale_runs_view(results: "StudyResults") -> list[RenderableType]:
    """A table of proxy and full-scale results, a row for each training at full scale; empty without any."""
    if not results.full_scale:
        return []
    table = plain_table()
    for name in ("#", f"proxy {results.metric}", "n", *FULL_SCALE_TEXTS, "epochs", "best", ""):
        table.add_column(name, justify="left" if name in ("", *FULL_SCALE_TEXTS) else "right", no_wrap=True)
    for row in results.full_scale:
        table.add_row(*_full_run_cells(row, results))
    parts = [indented(f"{_full_run_head(row, results)}{_full_run_place(row)}") for row in results.full_scale]
    return [Text("Full scale", style="bold").append(f"  {PROXY_NOTE}", style="dim"), table, Text(), *parts, Text()]


def _full_run_cells(row: FullScaleRow, results: "StudyResults") -> list[str | Text]:
    proxy = None if row.trial is None else results.row_of(row.trial)
    mean = DASH if proxy is None else format_mean_and_spread(proxy.mean, proxy.spread, results.metric)
    side = row.recipe.get("resolution")
    return [
        DASH if row.trial is None else str(row.trial),
        mean,
        DASH if proxy is None else seeds_text(len(proxy.values), proxy.missing),
        Text(f"{preset_of(row.spec) or row.spec.family}{f', {side} px' if side else ''}"),
        Text(row.recipe_name),
        epochs_done(row.epochs_done, row.epochs),
        f"{row.metric} {format_metric(row.best, row.metric)}",
        full_scale_status(row),
    ]


def _full_run_head(row: FullScaleRow, results: "StudyResults") -> str:
    proxy = None if row.trial is None else results.row_of(row.trial)
    return f"{row.name}: " if proxy is None else f"#{row.trial} {format_params(proxy.params)}: "


def _full_run_place(row: FullScaleRow) -> str:
    """The file of the weights, and the conditions of their training, as text."""
    best = row.folder / WEIGHTS["best"]
    weights = str(best) if best.exists() else f"no weights yet in {row.folder}"
    when = "" if row.best_epoch is None else f", of epoch {row.best_epoch}"
    versions = ", ".join(f"{name} {version}" for name, version in (row.versions or {}).items())
    now = row.environment
    differences = (
        UNKNOWN_ENVIRONMENT if now is None else describe_difference(environment, now) for environment in row.earlier
    )
    earlier = "; ".join(differences)
    resumed = f"; its first epochs of another environment: {earlier}" if earlier else ""
    return f"{weights}{when}{f'; on {row.device}, {versions}' if row.device else ''}{resumed}"
