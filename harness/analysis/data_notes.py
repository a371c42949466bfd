"""The number of images that the runs of a study were trained and evaluated on, and notes on the data set."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.config.metrics import TRAIN_IMAGES, VAL_IMAGES
from harness.storage import Store

if TYPE_CHECKING:
    from harness.analysis.results import RunResult

COUNT_TITLES = {TRAIN_IMAGES: "training images", VAL_IMAGES: "validation images"}


def data_lines(store: Store, runs: Mapping[str, "RunResult"]) -> tuple[str, ...]:
    """The number of training and validation images of the runs, for data read from disk; then the notes."""
    counts = {name: _range([facts.measures.get(name) for facts in runs.values()]) for name in COUNT_TITLES}
    parts = [f"{count} {COUNT_TITLES[name]}" for name, count in counts.items() if count is not None]
    lines = [f"Every run uses {' and '.join(parts)}."] if parts else []
    return (*lines, *(_sentence(note) for note in store.notes_of(runs)))


def _range(counts: Sequence[float | None]) -> str | None:
    """Text such as `32`, or `30 to 32` if runs differ."""
    distinct = sorted({round(count) for count in counts if count is not None})
    if not distinct:
        return None
    return f"{distinct[0]:,}" if len(distinct) == 1 else f"{distinct[0]:,} to {distinct[-1]:,}"


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:].rstrip('.')}."
