"""The row of a training at full scale in the results database, as far as that can be written.

What counts is in the training's folder: a database that is busy, full or gone holds up no training. As soon as it can
be written again, also when the same command is typed again, it gets all that the folder knows.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from harness.errors import Diverged, HarnessError, OutOfMemory, Stopped, StoreError, one_line
from harness.storage import FullRow, FullRuns, Store
from harness.training.full_scale.environments import earlier_environments, read_environments
from harness.training.full_scale.folder import EPOCHS
from harness.training.full_scale.logger import read_epochs
from harness.training.full_scale.messages import VALIDATED, FullEpoch, FullRecord, to_plain
from harness.training.run import RunState, Started

AGAIN = "the same command typed again writes it there, too."
BUSY_S = 5.0
"""How long a training waits for a database that another process writes to."""
LEFT_OUT = ("kind", "epoch", "epochs", "is_best", *VALIDATED)
"""Of an epoch in plain values: what is no figure of its own."""
STATES: tuple[tuple[type[BaseException], RunState], ...] = (
    (Stopped, RunState.STOPPED),
    (KeyboardInterrupt, RunState.STOPPED),
    (Diverged, RunState.DIVERGED),
    (OutOfMemory, RunState.OUT_OF_MEMORY),
)
"""How a training stands that was ended by these; by any other error, it failed."""


@contextmanager
def recorded(row: FullRow, database: str | Path) -> Iterator["Recorder"]:
    """Keep the row of a training up to date; what ends the block tells how the training ends."""
    recorder = Recorder(row, database)
    recorder.write()
    try:
        yield recorder
    except BaseException as error:
        state = next((state for kind, state in STATES if isinstance(error, kind)), RunState.FAILED)
        kind = "" if isinstance(error, HarnessError | KeyboardInterrupt) else f"{type(error).__name__}: "
        recorder.end(state, f"{kind}{one_line(error)}" or None)
        raise
    recorder.end(RunState.COMPLETE, None)


class Recorder:
    """Writes what a training says; the only writer of its row."""

    def __init__(self, row: FullRow, database: str | Path) -> None:
        self._row, self._database = _with_environments(row), database
        self._is_behind = False
        """Whether the database lacks something that the folder has."""

    def take(self, record: FullRecord) -> None:
        """Note a record."""
        if isinstance(record, Started):
            self._row = replace(
                self._row,
                host=record.host,
                device=record.device,
                threads=record.threads,
                versions=record.versions,
            )
            self._row = _with_environments(self._row)
            self.write()
        elif isinstance(record, FullEpoch):
            self.write(is_whole=False)

    def end(self, state: RunState, cause: str | None) -> None:
        """Note how it ends."""
        self._row = replace(self._row, state=state, cause=cause)
        self.write(is_whole=False)
        if self._is_behind:
            print(f"the database lacks what {self._row.folder / EPOCHS} has; {AGAIN}", file=sys.stderr)

    def write(self, *, is_whole: bool = True) -> None:
        """Bring the row up to date, and the figures of all epochs or of the last one; say where that cannot be done."""
        epochs = read_epochs(self._row.folder)
        figures = {epoch.epoch: figures_of(epoch) for epoch in epochs}
        try:
            with Store.open(self._database, busy_s=BUSY_S) as store:
                FullRuns(store).put(_standing(self._row, epochs), figures, is_whole=is_whole or self._is_behind)
        except StoreError as error:
            if not self._is_behind:
                print(f"warning: {error} The training goes on without; {AGAIN}", file=sys.stderr)
            self._is_behind = True
        else:
            self._is_behind = False


def _with_environments(row: FullRow) -> FullRow:
    """The row with what has computed the training, as its folder has it: that is there before a worker starts."""
    known = read_environments(row.folder)
    if not known:
        return row
    return replace(row, environment=known[-1][1], earlier=tuple(earlier_environments(row.folder)))


def _standing(row: FullRow, epochs: list[FullEpoch]) -> FullRow:
    """The row with how far the training is, and its best epoch."""
    best = next((epoch for epoch in reversed(epochs) if epoch.is_best and epoch.value is not None), None)
    row = replace(row, epochs_done=epochs[-1].epoch if epochs else 0, best=None, best_epoch=None)
    if best is None or best.val is None:
        return row
    return replace(row, metric=best.val.main, best=best.value, best_epoch=best.epoch)


def figures_of(epoch: FullEpoch) -> dict[str, float]:
    """All figures of an epoch by name, as `lr` and `ema_top1`."""
    plain = to_plain(epoch)
    figures = {name: float(value) for name, value in plain.items() if name not in LEFT_OUT}
    for kind in VALIDATED:
        found = getattr(epoch, kind)
        if found is not None:
            figures |= {f"{kind}_{name}": value for name, value in found.figures.items()}
            figures[f"{kind}_unreadable"] = float(found.unreadable)
    return figures
