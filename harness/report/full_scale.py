"""A training at full scale in words: its cost before it begins, and how it goes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from harness.analysis.formatting import amount, counted, duration, score, value
from harness.config.recipes.full_scale import FullRecipe, FullTraining
from harness.data.batching import Pace
from harness.data.expected_images import Expected
from harness.models.cost import network_cost
from harness.models.spec.network import NetworkSpec
from harness.models.spec.published import preset_of
from harness.report.console import plain_table
from harness.report.status_line import Ticker, ticker
from harness.training.full_scale.records import FullEpoch, FullJob, FullRecord, Note, Pulse, Scores
from harness.training.run import Started

BACKWARD = 2
"""MACs of the backward pass for one of the forward pass: towards the images, and towards the weights."""
PER_IMAGES = 10_000
"""Training images that a time is given for where their number is not known."""
SHOWN = {
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
"""Figures whose names are written otherwise."""


def job_view(job: FullJob[FullRecipe], pace: Pace, name: str, expected: Expected | None = None) -> RenderableType:
    """What is trained, how, and what that costs; `expected` are its images where they have not been read."""
    spec, recipe = job.run.spec, job.run.recipe
    cost = network_cost(spec, recipe.resolution, merged=False)
    costs = f"{amount(cost.params)} parameters, {amount(cost.macs)} MACs for an image of {recipe.resolution} px"
    if expected is None or expected.images is not None:
        seen = recipe.epochs * pace.steps * pace.batch
        costs += f"; in all {amount(float((1 + BACKWARD) * cost.macs * seen))} MACs, forward and backward"
    rows = {
        "network": f"{network_text(spec)}, {spec.classes:,} classes",
        "recipe": recipe.about,
        "cost": costs,
        "steps": steps_text(recipe, pace, expected),
        "arithmetic": arithmetic_text(recipe),
        **place_rows(job, expected),
    }
    return facts_view(name, rows)


def place_rows(job: FullJob[Any], expected: Expected | None) -> dict[str, str]:
    """Where the training is kept; where its images have not been read, the expected layout."""
    if expected is None:
        return {"folder": str(job.folder)}
    missing = "no `--data`" if job.root is None else f"no folder {job.root}"
    return {
        "folder": f"below {job.folder.parent}; its name follows from the network, the recipe, and what it begins from",
        "images": f"not looked at ({missing}); nothing is downloaded",
        "expected": expected.layout,
    }


def steps_text(recipe: FullTraining, pace: Pace, expected: Expected | None = None) -> str:
    """The budget, and how a step is shared."""
    share = f"{counted(pace.workers, 'worker')} with {pace.micro} images at once"
    gathered = f", gathered {pace.parts} times" if pace.parts > 1 else ""
    rounds = "epochs" if not recipe.is_endless else "parts, each with a validation behind it,"
    step = f"steps of {pace.batch:,} images"
    if expected is not None and expected.images is None and not recipe.is_endless:
        return f"{recipe.rounds} {rounds} of {step}, as many as the images give, {share}{gathered}"
    source = "" if expected is None or expected.name is None else f", as {expected.name} has"
    return f"{recipe.rounds} {rounds} of {pace.steps:,} {step} ({pace.images:,} in all{source}), {share}{gathered}"


def arithmetic_text(recipe: FullTraining) -> str:
    """The precision, and what else does not belong to the network."""
    return (
        f"{recipe.precision}, {'channels last' if recipe.channels_last else 'channels first'}"
        f"{', checkpointing' if recipe.checkpointing else ''}{', compiled' if recipe.compile else ''}"
    )


def network_text(spec: NetworkSpec) -> str:
    """A network in a line, without its classes."""
    return (
        f"{preset_of(spec) or spec.family}, B={value(spec.B)} C={value(spec.C)} K={value(spec.K)}, "
        f"small kernel {value(spec.reparam)}, drop path {spec.drop_path:g}"
    )


def facts_view(name: str, rows: Mapping[str, str]) -> RenderableType:
    """A heading, and facts with their names."""
    table = plain_table()
    table.show_header = False
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for key, text in rows.items():
        table.add_row(key, text)
    return Group(Text(name, style="bold"), table)


def estimate_line(image_s: float, pace: Pace, rounds: int, expected: Expected | None = None) -> str:
    """How long it takes, from the measured seconds per image in one worker."""
    images = rounds * pace.steps * pace.batch
    workers, on_top = counted(pace.workers, "worker"), "validation and waiting for images come on top"
    if expected is not None and expected.images is None:
        seconds = rounds * PER_IMAGES / pace.workers * image_s
        total = f"{duration(seconds)} with {workers} for every {PER_IMAGES:,} training images"
    else:
        total = f"{duration(images / pace.workers * image_s)} with {workers}"
    of = "" if expected is None else " of noise in place of the images"
    return f"estimated time: {total}, from a measured step{of} ({1 / image_s:.3g} images/s); {on_top}"


class FullView:
    """Shows the records of a training."""

    def __init__(self, ticker: Ticker) -> None:
        self._ticker = ticker

    def show(self, record: FullRecord) -> None:
        """Show one record."""
        match record:
            case Note():
                self._ticker.say(record.text)
            case Started():
                self._ticker.say(f"on {record.device}, {record.host}")
            case FullEpoch():
                self._ticker.say(epoch_line(record))
            case Pulse():
                self._ticker.tick(pulse_line(record))


@contextmanager
def full_view(console: Console, *, is_live: bool) -> Iterator[FullView]:
    """A view that fits where the output goes: `is_live` is whether lines can be drawn over there."""
    with ticker(console, is_live=is_live) as each:
        yield FullView(each)


def epoch_line(epoch: FullEpoch) -> str:
    """One epoch in a line."""
    parts = [f"epoch {epoch.epoch}/{epoch.epochs}", f"loss {score(epoch.train_loss, 'loss')}"]
    parts += [_scores(name, found) for name, found in (("val", epoch.val), ("EMA", epoch.ema)) if found is not None]
    parts += [
        f"lr {epoch.lr:.3g}",
        f"{epoch.images_per_s:,.0f} images/s",
        f"waiting {100 * epoch.waiting:.1f} %",
        duration(epoch.wall_s),
    ]
    if epoch.unreadable:
        parts.append(f"{counted(epoch.unreadable, 'unreadable image')} replaced")
    if epoch.val is not None and epoch.val.unreadable:
        parts.append(f"{counted(epoch.val.unreadable, 'unreadable image')} not validated on, {_of(epoch.val.images)}")
    return "  ".join([*parts, *(["best"] if epoch.is_best else [])])


def _of(images: int | None) -> str:
    return "the scores are of the others" if images is None else f"the scores are of {counted(images, 'image')}"


def pulse_line(pulse: Pulse) -> str:
    """How it goes, in a line."""
    return (
        f"epoch {pulse.epoch}, step {pulse.step:,}/{pulse.steps:,}  loss {score(pulse.loss, 'loss')}  "
        f"lr {pulse.lr:.3g}  {pulse.images_per_s:,.0f} images/s  waiting {100 * pulse.waiting:.1f} %  "
        f"{duration(pulse.left_s)} left"
    )


def _scores(name: str, found: Scores) -> str:
    figures = [
        f"{SHOWN.get(each, each.replace('_', ' '))} {score(value, each) if each == 'loss' else f'{value:.2f}'}"
        for each, value in found.figures.items()
    ]
    return " ".join([name, *figures])
