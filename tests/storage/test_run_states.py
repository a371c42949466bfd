"""Invariants of a run's rows, whatever is recorded of the run, in whatever order."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from harness.config.recipes.proxy import ProxyRecipe
from harness.errors import StoreError
from harness.models.spec.presets import preset
from harness.storage import Store
from harness.training.run import Ended, Epoch, Measured, Record, Run, RunState, Started

NANO = preset("replknet_nano")
STARTED = Started("node1", 4711, "cpu (x, 1 thread)", 1, {"torch": "2.15"}, epochs=3)
FINAL = tuple(state for state in RunState if state not in (RunState.QUEUED, RunState.RUNNING))


def epoch(number: int) -> Epoch:
    return Epoch(number, 1.5, 1.25, 50.0, 0.1, 2.0, 1000.0)


NAMED = ("claim", "steal", "reap")
UNUSED_SEEDS = itertools.count()
OPERATIONS = st.one_of(
    st.sampled_from(NAMED),
    st.just("claim"),
    st.lists(
        st.one_of(
            st.integers(1, 3).map(lambda first: replace(STARTED, first_epoch=first)),
            st.integers(1, 3).map(epoch),
            st.floats(allow_nan=False).map(lambda value: Measured("m", value)),
            st.tuples(st.sampled_from(FINAL), st.integers(0, 9)).map(lambda end: Ended(end[0], float(end[1]), "c")),
        ),
        min_size=1,
        max_size=4,
    ),
)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("shared") / "studies.db") as opened:
        yield opened


@examples(40)
@given(operations=st.lists(OPERATIONS, max_size=10))
def test_states_are_valid_whatever_is_recorded(shared_store: Store, operations: list[str | list[Record]]) -> None:
    store = shared_store
    run = Run(NANO, ProxyRecipe(epochs=3), next(UNUSED_SEEDS))
    row = store.ensure_run(run)
    for operation in operations:
        before, curve = row, store.epochs(run.id)
        accepted = _do(store, run, operation)
        row = store.run(run.id)
        if before.state in (RunState.COMPLETE, RunState.DIVERGED) or (operation not in NAMED and not accepted):
            assert (row, store.epochs(run.id)) == (before, curve)
        if row.state == RunState.COMPLETE:
            assert [e.epoch for e in store.epochs(run.id)] == [1, 2, 3]
        starts = sum(isinstance(record, Started) for record in accepted)
        assert row.attempts == before.attempts + starts
        assert row.wall_s >= before.wall_s
        assert (row.state == RunState.RUNNING) <= (row.owner is not None)
        assert (row.owner is not None) <= (row.state in (RunState.QUEUED, RunState.RUNNING))
        assert (row.finished is not None) <= (row.state != RunState.RUNNING)
        assert [e.epoch for e in store.epochs(run.id)] == sorted({e.epoch for e in store.epochs(run.id)})
        if starts:
            last = max(i for i, record in enumerate(accepted) if isinstance(record, Started))
            first_epoch = accepted[last].first_epoch  # type: ignore[union-attr]
            recorded = {record.epoch for record in accepted[last:] if isinstance(record, Epoch)}
            assert {e.epoch for e in store.epochs(run.id) if e.epoch >= first_epoch} <= recorded


def _do(store: Store, run: Run, operation: str | list[Record]) -> list[Record]:
    """The records that were accepted; for the other operations none."""
    if operation == "claim":
        store.claim(run.id, "s", Path("/results/s"))
    elif operation == "steal":
        before = store.run(run.id)
        stolen = store.claim(run.id, "thief", Path("/results/thief"))
        assert stolen is None or before.owner in (None, "thief")
    elif operation == "reap":
        store.mark_lost_runs("s")
    else:
        assert isinstance(operation, list)
        try:
            store.record(run.id, operation)
        except StoreError:
            return []
        return operation
    return []
