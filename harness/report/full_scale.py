"""A training at full scale in words: its cost before it begins, and how it goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.status import Status
from rich.text import Text

from harness.cost import network_cost
from harness.paper import preset_of
from harness.report.layout import plain_table
from harness.report.words import amount, counted, duration, score, value
from harness.scale_up.pace import Pace
from harness.scale_up.records import FullEpoch, FullJob, FullRecord, Note, Pulse, Scores

QUIET_S = 60.0
"""How often it is said how it goes where lines cannot be drawn over."""
BACKWARD = 2
"""MACs of the backward pass for one of the forward pass: towards the images, and towards the weights."""


def job_view(job: FullJob, pace: Pace, name: str) -> RenderableType:
    """What is trained, how, and what that costs."""
    spec, recipe = job.run.spec, job.run.recipe
    cost = network_cost(spec, recipe.resolution, merged=False)
    seen = recipe.epochs * pace.steps * pace.batch
    share = f"{counted(pace.workers, 'worker')} with {pace.micro} images at once"
    gathered = f", gathered {pace.parts} times" if pace.parts > 1 else ""
    rows = {
        "network": f"{preset_of(spec) or spec.family}, B={value(spec.B)} C={value(spec.C)} K={value(spec.K)}, "
        f"small kernel {value(spec.reparam)}, drop path {spec.drop_path:g}, {spec.classes:,} classes",
        "recipe": recipe.about,
        "cost": f"{amount(cost.params)} parameters, {amount(cost.macs)} MACs for an image of {recipe.resolution} px; "
        f"in all {amount(float((1 + BACKWARD) * cost.macs * seen))} MACs, forward and backward",
        "steps": f"{recipe.epochs} epochs of {pace.steps:,} steps of {pace.batch:,} images ({pace.images:,} in all), "
        f"{share}{gathered}",
        "arithmetic": f"{recipe.precision}, {'channels last' if recipe.channels_last else 'channels first'}"
        f"{', checkpointing' if recipe.checkpointing else ''}{', compiled' if recipe.compile else ''}",
        "folder": str(job.folder),
    }
    table = plain_table()
    table.show_header = False
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for key, text in rows.items():
        table.add_row(key, text)
    return Group(Text(name, style="bold"), table)


def estimate_line(image_s: float, pace: Pace, epochs: int) -> str:
    """How long it takes, from the measured seconds per image in one worker."""
    seconds = epochs * pace.steps * pace.batch / pace.workers * image_s
    return (
        f"estimated time: {duration(seconds)} with {counted(pace.workers, 'worker')}, from a measured step "
        f"({1 / image_s:.3g} images/s); validation and waiting for images come on top"
    )


class FullView:
    """Shows the records of a training."""

    def __init__(self, console: Console, status: Status | None) -> None:
        self._console, self._status, self._last = console, status, time.monotonic()

    def show(self, record: FullRecord) -> None:
        """Show one record."""
        match record:
            case Note():
                self._console.print(Text(record.text))
            case FullEpoch():
                self._console.print(Text(epoch_line(record)))
            case Pulse() if self._status is not None:
                self._status.update(Text(pulse_line(record)))
            case Pulse() if time.monotonic() - self._last >= QUIET_S:
                self._last = time.monotonic()
                self._console.print(Text(pulse_line(record)))


@contextmanager
def full_view(console: Console, *, is_live: bool) -> Iterator[FullView]:
    """A view that fits where the output goes: `is_live` is whether lines can be drawn over there."""
    if not is_live:
        yield FullView(console, None)
        return
    with console.status(Text("starting")) as status:
        yield FullView(console, status)


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
        parts.append(f"{counted(epoch.val.unreadable, 'unreadable image')} not validated on")
    return "  ".join([*parts, *(["best"] if epoch.is_best else [])])


def pulse_line(pulse: Pulse) -> str:
    """How it goes, in a line."""
    return (
        f"epoch {pulse.epoch}, step {pulse.step:,}/{pulse.steps:,}  loss {score(pulse.loss, 'loss')}  "
        f"lr {pulse.lr:.3g}  {pulse.images_per_s:,.0f} images/s  waiting {100 * pulse.waiting:.1f} %  "
        f"{duration(pulse.left_s)} left"
    )


def _scores(name: str, found: Scores) -> str:
    return f"{name} loss {score(found.loss, 'loss')} top-1 {found.top1:.2f} top-5 {found.top5:.2f}"
