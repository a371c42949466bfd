"""With `search.deterministic`, proposals and answer are the same for any number of workers and any order of ending."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial
from tiny_studies import EPOCHS, SCRIPTED, epoch, started, write_study

from harness.analysis.results import study_results
from harness.analysis.study_reader import open_space
from harness.config.study_file import load_study
from harness.errors import StudyError
from harness.executors.simulated import Script, SimulatedExecutor
from harness.search.events import RunEnded
from harness.search.lag import HIDDEN
from harness.search.session import open_for_driving
from harness.storage.workspace import Workspace
from harness.training.run import Ended, Job, Measured, Record, RunState

KERNELS = [3, 5, 7, 9, 11, 13]
AXES: dict[str, Any] = {"K[0]": KERNELS, "K[3]": KERNELS, "shortcut": [True, False]}
TPE: dict[str, Any] = {"sampler": "tpe", "trials": 40, "seeds": 1, "deterministic": True}


def timed(timing: int, spread: float = 1.0) -> Script:
    """Runs whose values follow from the run alone; their times also from `timing`, from a third to three times."""

    def script(job: Job) -> Iterator[Record]:
        run = job.run
        top1 = 50.0 + run.spec.K[0] - run.spec.K[3] / 2 + random.Random(run.id).gauss(0, 2)
        wall_s = 10.0 * 3.0 ** (spread * random.Random(f"{timing} {run.id}").uniform(-1, 1))
        yield started()
        for n in range(1, EPOCHS + 1):
            yield replace(epoch(n, top1 * n / EPOCHS), wall_s=wall_s)
        yield Measured("latency_ms_p50", 1.0)
        yield Ended(RunState.COMPLETE, wall_s=wall_s * EPOCHS)

    return script


class Searched:
    """A study that was driven in simulated time."""

    def __init__(
        self,
        folder: Path,
        script: Script,
        *,
        slots: int,
        search: dict[str, Any],
        stop_after: int | None = None,
        **keys: Any,
    ) -> None:
        folder.mkdir(exist_ok=True)
        file = load_study(write_study(folder, SCRIPTED, **({"axes": AXES, "when": {}} | keys), search=search))
        executor = SimulatedExecutor(script, slots=slots)
        ended = 0
        with open_for_driving(file, open_space(file), Workspace(folder / "results"), lambda: executor) as driven:
            events = driven.driver.events()
            for event in events:
                ended += isinstance(event, RunEnded)
                if ended == stop_after:
                    events.close()
                    break
            trials = driven.trials()
            results = study_results(file.study, driven.store, trials, {})
        self.clock_s = executor.clock_s
        self.trials = [described(trial) for trial in trials]
        best = results.best
        self.answer = None if best is None else (dict(best.params), best.mean, best.seeds), results.ended


def described(trial: FrozenTrial) -> dict[str, Any]:
    names = ("fingerprint", "seeds", "screening", "proposed_by", "values_by_seed", "race_round")
    facts = {name: trial.user_attrs.get(name) for name in names}
    return {"params": trial.params, "state": trial.state.name, "values": trial.values, **facts}


def assert_same(folder: Path, search: dict[str, Any], workers: tuple[int, ...] = (3, 8), **keys: Any) -> Searched:
    alone = Searched(folder / "1", timed(0), slots=1, search=search, **keys)
    for slots in workers:
        others = Searched(folder / str(slots), timed(slots), slots=slots, search=search, **keys)
        assert others.trials == alone.trials and others.answer == alone.answer, slots
    return alone


@pytest.mark.parametrize(
    "changes",
    [
        {"pruner": "successive_halving", "space_filling": 0.2},
        *(
            pytest.param(changes, marks=pytest.mark.long)
            for changes in (
                {"pruner": "none", "seeds": 2, "trials": 25},
                {"pruner": "median", "sampler": "random", "trials": 25},
                {"sampler": "nsga2", "pruner": "successive_halving", "trials": 60},
                {"sampler": "qmc", "trials": 20},
                {"sampler": "cmaes", "trials": 30},
                {"sampler": "gp", "trials": 18},
            )
        ),
    ],
    ids=str,
)
def test_proposals_and_answer_do_not_depend_on_the_workers(tmp_path: Path, changes: dict[str, Any]) -> None:
    alone = assert_same(tmp_path, TPE | changes)
    assert sum(trial["fingerprint"] is not None for trial in alone.trials) == (TPE | changes)["trials"]


def test_without_it_they_do(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        assert_same(tmp_path, TPE | {"pruner": "successive_halving", "deterministic": False})


@pytest.mark.long
@pytest.mark.parametrize("seeds", [1, 2])
def test_pruned_networks_are_proposed_again_alike_in_a_small_space(tmp_path: Path, seeds: int) -> None:
    """Most proposals repeat a network, whose seeds depend on what came of the earlier ones."""
    axes = {"K[0]": KERNELS[:3], "K[3]": KERNELS[:2]}
    alone = assert_same(tmp_path, TPE | {"pruner": "successive_halving", "seeds": seeds}, axes=axes)
    assert any(trial["state"] == "PRUNED" for trial in alone.trials)
    assert len({trial["fingerprint"] for trial in alone.trials}) <= 6 < len(alone.trials)


@pytest.mark.long
def test_budgets_of_networks_races_and_plateaus_are_alike_too(tmp_path: Path) -> None:
    limited: dict[str, Any] = {"budgets": {"macs": 2.95e7}}
    search = TPE | {"racing": {"most": 3}, "pruner": "successive_halving"}
    raced = assert_same(tmp_path, search, **limited)
    assert any(trial["race_round"] for trial in raced.trials) and any(
        trial["fingerprint"] is None for trial in raced.trials
    )
    (tmp_path / "level").mkdir()
    level = assert_same(tmp_path / "level", TPE | {"seeds": 2, "trials": 200, "plateau": 1.0})
    assert "plateau" in str(level.answer[1]) and len(level.trials) < 200


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    search = TPE | {"pruner": "successive_halving"}
    return Searched(tmp_path_factory.mktemp("whole"), timed(0), slots=4, search=search)


@pytest.mark.long
@pytest.mark.parametrize("after", [9, 30, 31, 52])
def test_an_interrupted_study_is_that_of_an_undisturbed_one(tmp_path: Path, undisturbed: Searched, after: int) -> None:
    search = TPE | {"pruner": "successive_halving"}
    Searched(tmp_path / "s", timed(1), slots=4, search=search, stop_after=after)
    resumed = Searched(tmp_path / "s", timed(2), slots=2, search=search)
    assert resumed.trials == undisturbed.trials and resumed.answer == undisturbed.answer


def test_four_workers_wait_for_less_than_a_tenth_of_the_time(tmp_path: Path) -> None:
    search = TPE | {"trials": 80}
    waiting = Searched(tmp_path / "waiting", timed(0, spread=0.7), slots=4, search=search)
    free = Searched(tmp_path / "free", timed(0, spread=0.7), slots=4, search=search | {"deterministic": False})
    assert HIDDEN > 4 and waiting.clock_s < 1.1 * free.clock_s


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pruner": "hyperband"}, "`search.pruner` must be none, median or successive_halving with `deterministic`"),
        ({"budget": {"runs": 10}}, "`search.budget` must be left out with `deterministic`"),
    ],
)
def test_what_depends_on_times_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_study(tmp_path, SCRIPTED, axes=AXES, when={}, search=TPE | changes)
    with pytest.raises(StudyError, match=message):
        load_study(path)
