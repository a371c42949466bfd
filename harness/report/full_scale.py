"""A training at full scale in words: its cost before it begins, and how it goes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.text import Text

from harness.cost import network_cost
from harness.full_recipe import FullRecipe, FullTraining
from harness.paper import preset_of
from harness.report.layout import plain_table
from harness.report.ticker import Ticker, ticker
from harness.report.words import amount, counted, duration, score, value
from harness.run import Started
from harness.scale_up.pace import Pace
from harness.scale_up.records import FullEpoch, FullJob, FullRecord, Note, Pulse, Scores
from harness.spec import NetworkSpec

BACKWARD = 2
"""MACs of the backward pass for one of the forward pass: towards the images, and towards the weights."""
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


def job_view(job: FullJob[FullRecipe], pace: Pace, name: str) -> RenderableType:
    """What is trained, how, and what that costs."""
    spec, recipe = job.run.spec, job.run.recipe
    cost = network_cost(spec, recipe.resolution, merged=False)
    seen = recipe.epochs * pace.steps * pace.batch
    rows = {
        "network": f"{network_text(spec)}, {spec.classes:,} classes",
        "recipe": recipe.about,
        "cost": f"{amount(cost.params)} parameters, {amount(cost.macs)} MACs for an image of {recipe.resolution} px; "
        f"in all {amount(float((1 + BACKWARD) * cost.macs * seen))} MACs, forward and backward",
        "steps": steps_text(recipe, pace),
        "arithmetic": arithmetic_text(recipe),
        "folder": str(job.folder),
    }
    return facts_view(name, rows)


def steps_text(recipe: FullTraining, pace: Pace) -> str:
    """The budget, and how a step is shared."""
    share = f"{counted(pace.workers, 'worker')} with {pace.micro} images at once"
    gathered = f", gathered {pace.parts} times" if pace.parts > 1 else ""
    rounds = "epochs" if not recipe.is_endless else "parts, each with a validation behind it,"
    return (
        f"{recipe.rounds} {rounds} of {pace.steps:,} steps of {pace.batch:,} images ({pace.images:,} in all), "
        f"{share}{gathered}"
    )


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


def estimate_line(image_s: float, pace: Pace, rounds: int) -> str:
    """How long it takes, from the measured seconds per image in one worker."""
    seconds = rounds * pace.steps * pace.batch / pace.workers * image_s
    return (
        f"estimated time: {duration(seconds)} with {counted(pace.workers, 'worker')}, from a measured step "
        f"({1 / image_s:.3g} images/s); validation and waiting for images come on top"
    )


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
