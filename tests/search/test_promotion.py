"""Pause and promote: which trial is promoted, and that a study with pauses is the same after any interruption."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial
from properties import examples
from test_deterministic import Searched
from tiny_studies import BRIEF, EPOCHS, TINY, Played, called, epoch, started, write_study

from harness.analysis.run_status import PAUSED
from harness.analysis.study_reader import open_space
from harness.config.study_file import load_study
from harness.errors import StudyError
from harness.executors.base import WorkerRequest
from harness.executors.inline import InlineExecutor
from harness.executors.simulated import SimulatedExecutor
from harness.search.events import StudyEvent, TrialEnded, TrialStarted
from harness.search.promotion import RUNGS_PASSED, next_promotion, paused_trials
from harness.search.reopening import REOPENED
from harness.search.samplers import SCREENING_SEEDS
from harness.search.session import open_for_driving
from harness.storage import Store
from harness.storage import load_study as load_trials
from harness.storage.workspace import Workspace
from harness.training.run import Ended, Job, Measured, Record, RunState

KERNELS = [3, 5, 7, 9, 11, 13, 15, 17, 19]
GRID: dict[str, Any] = {"axes": {"K[0]": KERNELS}, "when": {}, "search": {"seeds": 1, "pruner": "asha"}}
RUNGS = (1,)
"""Of runs of `EPOCHS` epochs."""


@st.composite
def values(draw: st.DrawFn) -> list[dict[int, float]]:
    """Values at up to three rungs; what has reached a rung has reached the one before."""
    number = st.integers(0, 50).map(lambda tenths: tenths / 10)
    reached = draw(st.sets(st.integers(0, 30), max_size=25))
    rungs = []
    for _ in range(draw(st.integers(1, 3))):
        rungs.append({trial: draw(number) for trial in sorted(reached)})
        reached = draw(st.sets(st.sampled_from(sorted(reached)))) if reached else reached
    return rungs


@given(rungs=values(), drop=st.integers(0, 3))
@examples(200)
def test_the_promoted_trial_is_the_best_of_the_highest_rung_that_has_one(
    rungs: list[dict[int, float]], drop: int
) -> None:
    passed = {trial: sum(trial in rung for rung in rungs) - 1 for trial in rungs[0]}
    paused = {trial for trial in rungs[0] if trial % 4 != drop}
    chosen = next_promotion(rungs, passed, paused)
    allowed = [
        [
            trial
            for trial in paused
            if passed[trial] == rung
            and 3 * (1 + sum((-other, i) < (-at[trial], trial) for i, other in at.items())) <= len(at)
        ]
        for rung, at in enumerate(rungs)
    ]
    if chosen is None:
        assert not any(allowed)
        return
    rung = passed[chosen]
    assert chosen in allowed[rung] and not any(allowed[rung + 1 :])
    assert all((-rungs[rung][chosen], chosen) <= (-rungs[rung][other], other) for other in allowed[rung])


def by_kernel(*order: int, epochs: int = EPOCHS) -> Any:
    """Runs whose accuracy at every epoch is the place of their first kernel in an order."""

    def script(job: Job) -> Iterator[Record]:
        yield started()
        for n in range(1, epochs + 1):
            yield epoch(n, 50.0 + order.index(job.run.spec.K[0]) + n)
        yield Measured("latency_ms_p50", 1.0)
        yield Ended(RunState.COMPLETE, wall_s=1.0)

    return script


def test_a_trial_that_was_paused_is_promoted_after_worse_ones_have_come(tmp_path: Path) -> None:
    """Four of the nine are better than the first, and a third of nine is promoted: it waits until all are there."""
    played = Played(tmp_path, **GRID)
    happened = [event for event, _, _ in played.events(by_kernel(11, 13, 15, 17, 19, 7, 3, 5, 9))]
    started_order = [event.trial for event in happened if isinstance(event, TrialStarted)]
    assert started_order == list(range(len(KERNELS)))
    complete = [event for event in happened if isinstance(event, TrialEnded) and event.state == "complete"]
    assert len(complete) >= len(KERNELS) // 3
    late = next(event for event in complete if event.trial < 3)
    opened_before = [event.trial for event in happened[: happened.index(late)] if isinstance(event, TrialStarted)]
    assert max(opened_before) > late.trial + 1


def test_paused_trials_reserve_nothing_of_the_budget_and_are_shown_as_paused(tmp_path: Path) -> None:
    """The budget allows the screenings of all nine, and no run of those that are promoted."""
    search = GRID["search"] | {"budget": {"epochs": len(KERNELS) + 2}}
    played = Played(tmp_path, **GRID | {"search": search})
    begun = 0
    for event, _, _ in played.events(by_kernel(*KERNELS)):
        begun += isinstance(event, TrialStarted)
        if begun == 2:
            break
    output = called("status", "study.yaml", cwd=played.path.parent).stdout
    assert "1 paused, 1 waiting" in output or "1 waiting, 1 paused" in output, output
    again = Played(tmp_path, **GRID | {"search": search})
    assert sum(isinstance(event, TrialStarted) for event, _, _ in again.events(by_kernel(*KERNELS))) == len(KERNELS)


def states(folder: Path) -> list[tuple[Any, ...]]:
    workspace = Workspace(folder / "results")
    with Store.open(workspace.database, read_only=True) as store:
        trials = load_trials(store, "question").get_trials(deepcopy=False)
    return sorted((str(trial.params), trial.state.name, trial.values, *progress_of(trial)) for trial in trials)


def progress_of(trial: FrozenTrial) -> tuple[Any, ...]:
    attributes = trial.user_attrs
    return attributes.get(PAUSED), attributes.get(RUNGS_PASSED), attributes.get("failures"), trial.intermediate_values


@pytest.mark.parametrize("every", [12, pytest.param(5, marks=pytest.mark.long)])
def test_an_interrupted_study_ends_as_the_undisturbed_one(tmp_path: Path, every: int) -> None:
    script = by_kernel(11, 13, 15, 3, 5, 7, 17, 19, 9)
    undisturbed = Played(tmp_path, **GRID)
    count = sum(1 for _ in undisturbed.events(script))
    expected = states(tmp_path)
    assert {state for _, state, *_ in expected} == {"COMPLETE", "PRUNED"}
    for stop in range(1, count, every):
        folder = tmp_path / str(stop)
        folder.mkdir()
        for _ in itertools.islice(Played(folder, **GRID).events(script), stop):
            pass
        for _ in Played(folder, **GRID).events(script):
            pass
        assert states(folder) == expected, stop


def test_a_study_that_grows_promotes_what_had_ended_paused(tmp_path: Path) -> None:
    """The workers of the second call have no checkpoint of the first one, which is noted."""
    first = [{"K[0]": k} for k in (19, 17, 15)]
    search: dict[str, Any] = {"sampler": "random", "seeds": 1, "pruner": "asha", "enqueue": first}
    script = by_kernel(*KERNELS)
    Searched(tmp_path, script, slots=1, search=search | {"trials": 3}, axes={"K[0]": KERNELS})
    workspace = Workspace(tmp_path / "results")
    with Store.open(workspace.database) as store:
        before = load_trials(store, "question").get_trials(deepcopy=False)
    assert [trial.state.name for trial in before] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert paused_trials(before) == [1, 2]
    assert before[2].user_attrs["failures"].popitem()[1] == (
        "paused after 1 epoch, 3 of 3 there, and not promoted by the end"
    )
    Searched(tmp_path, script, slots=1, search=search | {"trials": 30}, axes={"K[0]": KERNELS})
    with Store.open(workspace.database) as store:
        after = load_trials(store, "question").get_trials(deepcopy=False)
        events = store.events("question", limit=1000)
    assert [event.trial for event in events if event.kind == REOPENED] == [1, 2]
    assert [after[number].state.name for number in (1, 2)] == ["COMPLETE", "COMPLETE"]
    assert sum("fingerprint" in trial.user_attrs for trial in after) == 30
    assert all(trial.state.is_finished() for trial in after)


def test_a_run_that_is_promoted_without_its_checkpoint_is_trained_again_and_noted(tmp_path: Path) -> None:
    longer = {"proxy": {"epochs": 6, "schedule": {"warmup_epochs": 0}}, "axes": {"K[0]": KERNELS}, "when": {}}
    happened = [event for event, _, _ in Played(tmp_path, **GRID | longer).events(by_kernel(*KERNELS, epochs=6))]
    promoted = {event.trial for event in happened if isinstance(event, TrialEnded) and event.state == "complete"}
    with Store.open(tmp_path / "results" / "studies.db", read_only=True) as store:
        notes = [event for event in store.events("question", limit=1000) if event.kind == "checkpoint"]
    assert promoted and {event.trial for event in notes} >= promoted
    assert {event.message for event in notes} == {
        "promoted without a checkpoint, so it is trained again from its first epoch"
    }


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"sampler": "tpe", "trials": 30, "deterministic": True}, "asha"),
        ({"sampler": "gp", "trials": 30}, "asha"),
    ],
)
def test_what_it_cannot_be_combined_with_is_refused(tmp_path: Path, search: dict[str, Any], words: str) -> None:
    with pytest.raises(StudyError, match=words):
        load_study(write_study(tmp_path, TINY, search={"pruner": "asha", "seeds": 1} | search))


def start_inline() -> InlineExecutor:
    return InlineExecutor(WorkerRequest())


def trained(folder: Path, **keys: Any) -> list[StudyEvent]:
    """Drive a tiny study with real training in this process."""
    file = load_study(write_study(folder, TINY, **keys))
    with open_for_driving(file, open_space(file), Workspace(folder / "results"), start_inline) as driven:
        return list(driven.driver.events())


REAL: dict[str, Any] = {
    "axes": {"K[0]": [3, 5, 7], "K[1]": [3, 5]},
    "proxy": BRIEF | {"epochs": 6},
    "search": {"seeds": 1, "pruner": "asha"},
}


def test_a_promoted_run_resumes_from_its_checkpoint_with_the_bits_of_an_undisturbed_one(tmp_path: Path) -> None:
    trained(tmp_path, **REAL)
    plain = tmp_path / "plain"
    plain.mkdir()
    trained(plain, **REAL | {"search": {"seeds": 1, "seed": SCREENING_SEEDS}})
    curves = {}
    for folder in (tmp_path, plain):
        with Store.open(folder / "results" / "studies.db", read_only=True) as store:
            trials = load_trials(store, "tiny").get_trials(deepcopy=False)
            runs = store.runs(run for ids in store.trial_runs("tiny").values() for run in ids)
            curves[folder] = {
                run_id: [replace(one, wall_s=0.0, images_per_s=0.0) for one in store.epochs(run_id)]
                for run_id, row in runs.items()
                if row.run.seed == SCREENING_SEEDS
            }
            attempts = [row.attempts for row in runs.values() if row.run.seed == SCREENING_SEEDS]
            notes = [event for event in store.events("tiny", limit=1000) if event.kind == "checkpoint"]
        if folder == tmp_path:
            assert not notes
            assert max(attempts) > 1 and any(trial.user_attrs.get(RUNGS_PASSED) == 2 for trial in trials)
    assert {len(curve) for curve in curves[plain].values()} == {6}
    assert any(len(curve) >= 3 for curve in curves[tmp_path].values())
    for run_id, curve in curves[tmp_path].items():
        assert curve == curves[plain][run_id][: len(curve)]


def test_a_simulated_run_that_is_submitted_again_resumes(tmp_path: Path) -> None:
    executor = SimulatedExecutor(by_kernel(*KERNELS), slots=1)
    keys = GRID | {"search": {"seeds": 1, "pruner": "asha"}}
    file = load_study(write_study(tmp_path, TINY, **keys, proxy=TINY["proxy"] | {"epochs": EPOCHS}))
    with open_for_driving(file, open_space(file), Workspace(tmp_path / "results"), lambda: executor) as driven:
        for _ in driven.driver.events():
            pass
        store = driven.store
        runs = [run for ids in store.trial_runs("tiny").values() for run in ids]
        stored = sum(len(curve) for curve in store.epochs_of_runs(runs).values())
    assert executor.epochs == stored
