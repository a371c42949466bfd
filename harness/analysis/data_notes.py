"""How many images the runs of a study were trained and evaluated on, and what is missing from the data set."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.config.metrics import TRAIN_IMAGES, VAL_IMAGES
from harness.storage import Store

if TYPE_CHECKING:
    from harness.analysis.results import RunResult

COUNT_TITLES = {TRAIN_IMAGES: "training images", VAL_IMAGES: "validation images"}


def data_lines(store: Store, runs: Mapping[str, "RunResult"]) -> tuple[str, ...]:
    """How many images the runs were trained and judged on, where that was read from disk; then the notes."""
    counts = {name: _range([facts.measures.get(name) for facts in runs.values()]) for name in COUNT_TITLES}
    known = [f"{count} {COUNT_TITLES[name]}" for name, count in counts.items() if count is not None]
    lines = [f"Every run is of {' and '.join(known)}."] if known else []
    return (*lines, *(_sentence(note) for note in store.notes_of(runs)))


def _range(counts: Sequence[float | None]) -> str | None:
    """As `32`, or `30 to 32` where runs differ."""
    known = sorted({round(count) for count in counts if count is not None})
    if not known:
        return None
    return f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,} to {known[-1]:,}"


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:].rstrip('.')}."
