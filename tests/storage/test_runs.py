"""The store's questions and changes: the life of a run, links, events, forgetting."""

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete

from harness.config.recipes.proxy import Augmentation, Optimizer, ProxyRecipe, Schedule
from harness.errors import NotFound, StoreError
from harness.models.spec.presets import PRESETS, preset
from harness.storage import RunRow, Store, delete_study, open_study
from harness.storage.tables import EpochTable
from harness.training.run import Ended, Epoch, Measured, Run, RunState, Started

pytest_plugins = ["postgres"]

NANO = preset("replknet_nano")
RECIPE = ProxyRecipe(epochs=3)
RUN = Run(NANO, RECIPE, seed=0)
STARTED = Started("node1", 4711, "cpu (x, 1 thread)", 1, {"python": "3.11", "torch": "2.15"}, epochs=3)
FINAL = tuple(state for state in RunState if state not in (RunState.QUEUED, RunState.RUNNING))


def epoch(number: int, top1: float = 50.0) -> Epoch:
    return Epoch(number, 1.5 / number, 1.25 / number, top1, 0.1, 2.0, 1000.0)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with Store.open(database) as opened:
        yield opened


def train(store: Store, run: Run, study: str = "s", state: RunState = RunState.COMPLETE) -> RunRow:
    """A run from asking for it to its end."""
    store.ensure_run(run)
    assert store.claim(run.id, study, Path("/results") / study)
    store.record(run.id, [STARTED, epoch(1), epoch(2), epoch(3), Measured("top1", 50.0), Ended(state, 6.5)])
    return store.run(run.id)


def test_a_run_comes_back_as_it_was(store: Store) -> None:
    recipe = ProxyRecipe(
        train_size=500,
        optimizer=Optimizer(name="adamw", lr=1e-3, clip_norm=None),
        schedule=Schedule(name="constant", warmup_epochs=0.5),
        augmentation=Augmentation(randaugment="rand-m9", mixup=0.2),
    )
    for seed, spec in enumerate(PRESETS.values()):
        run = Run(spec, recipe, seed=2**40 + seed)
        row = store.ensure_run(run)
        assert (row.id, row.run, row.state, row.attempts) == (run.id, run, RunState.QUEUED, 0)
        assert store.run(run.id) == row
        assert row.run.id == run.id


def test_asking_again_gives_the_same_run(store: Store) -> None:
    first = store.ensure_run(RUN)
    train(store, RUN)
    again = store.ensure_run(Run(NANO.replace(K=list(NANO.K)), ProxyRecipe(epochs=3), seed=0))
    assert again == store.run(RUN.id)
    assert (again.created, again.state) == (first.created, RunState.COMPLETE)


def test_a_run_from_start_to_end(store: Store) -> None:
    store.ensure_run(RUN)
    assert store.claim(RUN.id, "s", Path("/results/s"))
    store.record(RUN.id, [STARTED])
    running = store.run(RUN.id)
    assert (running.state, running.attempts, running.owner) == (RunState.RUNNING, 1, "s")
    assert (running.host, running.pid, running.device) == ("node1", 4711, "cpu (x, 1 thread)")
    assert (running.threads, running.versions) == (1, {"python": "3.11", "torch": "2.15"})
    assert running.started is not None
    assert running.finished is None
    store.record(RUN.id, [epoch(1)])
    store.record(RUN.id, [epoch(2), epoch(3), Measured("top1", 50.0), Measured("latency_ms_p50", 1.25)])
    store.record(RUN.id, [Ended(RunState.COMPLETE, 6.5)])
    row = store.run(RUN.id)
    assert (row.state, row.cause, row.owner, row.wall_s) == (RunState.COMPLETE, None, None, 6.5)
    assert row.finished is not None
    assert row.created <= running.started <= row.finished
    assert row.finished.utcoffset() is not None
    assert store.epochs(RUN.id) == [epoch(1), epoch(2), epoch(3)]
    assert store.metrics(RUN.id) == {"latency_ms_p50": 1.25, "top1": 50.0}


@pytest.mark.parametrize("state", [RunState.COMPLETE, RunState.DIVERGED])
def test_settled_runs_stay_as_they_are(store: Store, state: RunState) -> None:
    row = train(store, RUN, state=state)
    before = (row, store.epochs(RUN.id), store.metrics(RUN.id))
    assert store.claim(RUN.id, "s", Path("/elsewhere")) is None
    for record in (STARTED, epoch(1, 99.0), Measured("top1", 99.0), Ended(RunState.COMPLETE, 1.0)):
        with pytest.raises(StoreError, match=f"a run that is {state} must stay as it is"):
            store.record(RUN.id, [record])
    assert store.mark_lost_runs("s") == []
    assert (store.run(RUN.id), store.epochs(RUN.id), store.metrics(RUN.id)) == before


@pytest.mark.parametrize("state", [state for state in FINAL if state not in (RunState.COMPLETE, RunState.DIVERGED)])
def test_other_runs_resume_where_they_were(store: Store, state: RunState) -> None:
    store.ensure_run(RUN)
    store.claim(RUN.id, "s", Path("/results/s"))
    store.record(RUN.id, [STARTED, epoch(1), epoch(2), epoch(3), Ended(state, 6.0, "because")])
    assert (store.run(RUN.id).cause, store.run(RUN.id).owner) == ("because", None)
    claimed = store.claim(RUN.id, "t", Path("/results/t"))
    assert claimed is not None
    assert (claimed.state, claimed.owner, claimed.folder) == (RunState.QUEUED, "t", Path("/results/s"))
    store.record(RUN.id, [replace(STARTED, first_epoch=3), epoch(3, 70.0), Ended(RunState.COMPLETE, 2.5)])
    row = store.run(RUN.id)
    assert (row.state, row.cause, row.attempts, row.wall_s) == (RunState.COMPLETE, None, 2, 8.5)
    assert store.epochs(RUN.id) == [epoch(1), epoch(2), epoch(3, 70.0)]


def test_an_attempt_from_the_start_leaves_nothing_of_the_one_before(store: Store) -> None:
    store.ensure_run(RUN)
    store.claim(RUN.id, "s", Path("/results/s"))
    store.record(RUN.id, [STARTED, epoch(1), epoch(2), Measured("top1", 1.0), Ended(RunState.LOST, 4.0, "gone")])
    store.claim(RUN.id, "s", Path("/results/s"))
    store.record(RUN.id, [STARTED, epoch(1, 60.0), Ended(RunState.DIVERGED, 1.0, "nan")])
    assert store.epochs(RUN.id) == [epoch(1, 60.0)]
    assert store.metrics(RUN.id) == {}


@pytest.mark.parametrize("seen", [[], [1, 2], [2, 3], [1, 3], [3]])
def test_a_run_without_all_of_its_epochs_is_not_complete(store: Store, seen: list[int]) -> None:
    store.ensure_run(RUN)
    store.claim(RUN.id, "s", Path("/results/s"))
    accepted = store.record(RUN.id, [replace(STARTED, first_epoch=3), *map(epoch, seen), Ended(RunState.COMPLETE, 1.0)])
    row = store.run(RUN.id)
    assert row.state == RunState.FAILED and row.cause is not None
    missing = sorted({1, 2, 3} - set(seen))
    assert f"lacks {len(missing)} of 3 epochs ({', '.join(map(str, missing))})" in row.cause
    assert accepted[-1] == Ended(RunState.FAILED, 1.0, row.cause), "the driver acts on what was written"
    assert store.claim(RUN.id, "s", Path("/results/s")), "it may be trained again"
    store.record(RUN.id, [replace(STARTED, first_epoch=4), epoch(1), epoch(2), epoch(3)])
    store.record(RUN.id, [Ended(RunState.COMPLETE, 0.5)])
    row = store.run(RUN.id)
    assert (row.state, store.epochs(RUN.id)) == (RunState.COMPLETE, [epoch(1), epoch(2), epoch(3)])
    assert row.wall_s == 6.0, "at least the time of its epochs, which another database may have seen"


def test_a_complete_run_of_an_earlier_version_that_lacks_an_epoch_is_trained_again(store: Store) -> None:
    train(store, RUN)
    with store.session() as session:
        session.execute(delete(EpochTable).where(EpochTable.epoch == 2))
    assert store.run(RUN.id).state == RunState.COMPLETE
    assert store.ensure_run(RUN).state == RunState.FAILED
    assert store.claim(RUN.id, "s", Path("/results/s")) is not None


def test_one_driver_trains_a_run(store: Store) -> None:
    store.ensure_run(RUN)
    assert store.claim(RUN.id, "s", Path("/results/s"))
    assert store.claim(RUN.id, "t", Path("/results/t")) is None
    assert store.claim(RUN.id, "s", Path("/results/s")), "claiming one's own queued run again is harmless"
    store.record(RUN.id, [STARTED])
    assert store.claim(RUN.id, "s", Path("/results/s")) is None, "it is being trained"


def test_unclaimed_runs_take_no_records(store: Store) -> None:
    store.ensure_run(RUN)
    for record in (STARTED, epoch(1), Measured("top1", 1.0), Ended(RunState.FAILED, 1.0)):
        with pytest.raises(StoreError, match="a run must be claimed"):
            store.record(RUN.id, [record])
    assert store.run(RUN.id).state == RunState.QUEUED


def test_a_batch_is_recorded_whole_or_not_at_all(store: Store) -> None:
    store.ensure_run(RUN)
    store.claim(RUN.id, "s", Path("/results/s"))
    with pytest.raises(StoreError, match="to take this record, but got 'Epoch'"):
        store.record(RUN.id, [STARTED, epoch(1), Ended(RunState.STOPPED, 2.0), epoch(2)])
    assert (store.run(RUN.id).state, store.run(RUN.id).attempts) == (RunState.QUEUED, 0)
    assert store.epochs(RUN.id) == []


def test_a_run_may_end_before_it_starts(store: Store) -> None:
    store.ensure_run(RUN)
    store.claim(RUN.id, "s", Path("/results/s"))
    store.record(RUN.id, [Ended(RunState.LOST, 0.0, "no worker came up")])
    row = store.run(RUN.id)
    assert (row.state, row.attempts, row.cause) == (RunState.LOST, 0, "no worker came up")


def test_a_dead_driver_is_reaped(store: Store) -> None:
    runs = [Run(NANO, RECIPE, seed) for seed in range(4)]
    for run, study in zip(runs, ["s", "s", "other", "s"], strict=True):
        store.ensure_run(run)
        store.claim(run.id, study, Path("/results") / study)
    store.record(runs[0].id, [STARTED, epoch(1), epoch(2)])
    store.record(runs[2].id, [STARTED])
    store.record(runs[3].id, [STARTED, epoch(1), epoch(2), epoch(3), Ended(RunState.COMPLETE, 1.0)])
    assert [row.id for row in store.mark_lost_runs("s")] == [runs[0].id]
    lost, queued, other, complete = (store.run(run.id) for run in runs)
    assert (lost.state, lost.owner, lost.wall_s) == (RunState.LOST, None, 4.0)
    assert lost.cause == "its driver ended without a word"
    assert (queued.state, queued.owner) == (RunState.QUEUED, None)
    assert (other.state, other.owner) == (RunState.RUNNING, "other")
    assert complete.state == RunState.COMPLETE
    assert store.mark_lost_runs("s") == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_kept(store: Store, value: float) -> None:
    store.ensure_run(RUN)
    store.claim(RUN.id, "s", Path("/results/s"))
    store.record(RUN.id, [STARTED, replace(epoch(1), train_loss=value), Measured("m", value)])
    stored = (store.epochs(RUN.id)[0].train_loss, store.metrics(RUN.id)["m"])
    assert all(number == value or (math.isnan(number) and math.isnan(value)) for number in stored)


def test_many_runs_at_once(store: Store) -> None:
    runs = [Run(NANO, RECIPE, seed) for seed in range(3)]
    for run in runs[:2]:
        train(store, run)
    ids = [runs[1].id, "0" * 16, runs[2].id, runs[0].id] + [f"{i:016x}" for i in range(1, 1200)]
    store.ensure_run(runs[2])
    assert list(store.runs(ids)) == [runs[1].id, runs[2].id, runs[0].id]
    assert store.epochs_of_runs(ids) == {run.id: [epoch(1), epoch(2), epoch(3)] for run in runs[:2]}
    assert store.metrics_of_runs(ids) == {run.id: {"top1": 50.0} for run in runs[:2]}


def test_wall_times_are_of_complete_runs(store: Store) -> None:
    small, other = NANO.replace(K=3, reparam=None), ProxyRecipe(epochs=2)
    train(store, RUN)
    train(store, Run(small, RECIPE, 0))
    train(store, Run(small, RECIPE, 1), state=RunState.FAILED)
    train(store, Run(small, other, 1))
    assert store.wall_times(RECIPE) == [6.5, 6.5]
    assert store.wall_times(RECIPE, small) == [6.5]
    assert store.wall_times(ProxyRecipe(epochs=4)) == []


def test_what_was_not_recorded_is_not_found(store: Store) -> None:
    store.save_study("known", fingerprint="f", resolved="study: known")
    for ask in (store.run, lambda run_id: store.record(run_id, [STARTED])):
        with pytest.raises(NotFound, match="the run must have been recorded, but got 'ffff'"):
            ask("ffff")
    with pytest.raises(NotFound, match="must have been recorded"):
        store.claim("ffff", "s", Path("/results/s"))
    with pytest.raises(NotFound, match=r"must have been started, but got 'unknown' .* Studies: known\."):
        store.study("unknown")
    assert (store.epochs("ffff"), store.metrics("ffff"), store.trial_runs("x"), store.events("x")) == ([], {}, {}, [])


def test_a_study_file_is_kept_as_it_was_last_saved(store: Store) -> None:
    first = store.save_study("s", fingerprint="1", resolved="study: s")
    second = store.save_study("s", fingerprint="2", resolved="study: s\nbase: x")
    assert store.study("s") == second
    assert (second.fingerprint, second.resolved, second.created) == ("2", "study: s\nbase: x", first.created)
    assert second.updated >= first.updated
    store.save_study("a", fingerprint="3", resolved="")
    assert [study.name for study in store.studies()] == ["a", "s"]


def test_links_are_kept_in_order(store: Store) -> None:
    runs = [store.ensure_run(Run(NANO, RECIPE, seed)).id for seed in range(3)]
    for trial, position, run_id in [(1, 0, runs[2]), (0, 1, runs[1]), (0, 0, runs[0]), (0, 1, runs[1])]:
        store.link("s", trial, run_id, position)
    store.link("t", 0, runs[0], 0)
    assert store.trial_runs("s") == {0: [runs[0], runs[1]], 1: [runs[2]]}
    store.unlink("s")
    assert (store.trial_runs("s"), store.trial_runs("t")) == ({}, {0: [runs[0]]})


def test_events_come_back_last_ones_first_to_last(store: Store) -> None:
    for i in range(5):
        store.event("s", "kind", f"{i}", trial=i, run_id="r")
    store.event("t", "kind", "other")
    assert [event.message for event in store.events("s", limit=3)] == ["2", "3", "4"]
    (event,) = store.events("t")
    assert (event.study, event.kind, event.trial, event.run_id) == ("t", "kind", None, None)


def test_fresh_keeps_what_others_have(store: Store) -> None:
    mine, shared, taken, free = (Run(NANO, RECIPE, seed) for seed in range(4))
    for name in "st":
        study = open_study(store, name, directions=["maximize"])
        asked_trial = study.ask()
        asked_trial.set_user_attr("a", 1)
        asked_trial.report(0.5, 1)
        study.tell(asked_trial, 1.0)
    for trial, run in enumerate((mine, shared)):
        train(store, run)
        store.link("s", trial, run.id, 0)
    store.link("t", 0, shared.id, 0)
    store.ensure_run(taken)
    store.claim(taken.id, "t", Path("/results/t"))
    store.link("s", 2, taken.id, 0)
    store.ensure_run(free)
    store.save_study("s", fingerprint="1", resolved="")
    store.event("s", "kind", "message")
    gone = delete_study(store, "s")
    assert [row.id for row in gone] == [mine.id]
    assert list(store.runs(run.id for run in (mine, shared, taken, free))) == [shared.id, taken.id, free.id]
    assert (store.epochs(mine.id), len(store.epochs(shared.id))) == ([], 3)
    assert (store.trial_runs("s"), store.events("s"), store.studies()) == ({}, [], [])
    assert [len(open_study(store, name, directions=["maximize"]).trials) for name in "st"] == [0, 1]
    assert delete_study(store, "s") == []


def test_a_results_folder_can_be_moved(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    with Store.open(here / "studies.db") as store:
        for seed, folder in enumerate((here / "s", tmp_path / "outside")):
            store.ensure_run(Run(NANO, RECIPE, seed))
            store.claim(Run(NANO, RECIPE, seed).id, "s", folder)
    here.rename(there)
    with Store.open(there / "studies.db") as store:
        folders = [store.run(Run(NANO, RECIPE, seed).id).folder for seed in range(2)]
    assert folders == [there / "s", tmp_path / "outside"]


def test_readers_see_whole_batches_while_a_driver_writes(database: str) -> None:
    runs = [Run(NANO, RECIPE, seed) for seed in range(12)]
    torn: list[str] = []
    seen: set[int] = set()
    is_over = threading.Event()

    def read() -> None:
        with Store.open(database, read_only=True) as reader:
            while not is_over.is_set():
                curves = reader.epochs_of_runs(run.id for run in runs)
                torn.extend(run_id for run_id, curve in curves.items() if len(curve) != 3)
                seen.add(len(curves))

    with Store.open(database) as writer:
        reader = threading.Thread(target=read)
        reader.start()
        for run in runs:
            train(writer, run)
        is_over.set()
        reader.join()
    assert not torn
    assert seen
