"""A race gives further seeds to the configurations that may be the best, and the best is chosen on its bound."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_studies import EPOCHS, Played, called, epoch, started, text_of

from harness.analysis.effect_observations import read_configurations
from harness.analysis.plateau import plateau_gain
from harness.analysis.racing import RACE_ROUND
from harness.analysis.results import StudyResults, study_results
from harness.analysis.study_reader import open_study_reader
from harness.config.formula import Formula
from harness.config.study_file import load_study
from harness.errors import StudyError
from harness.executors.scripted import ScriptedExecutor
from harness.report.study import results_view
from harness.search.events import RunEnded, StudyEnded
from harness.training.run import Ended, Job, Measured, Record, RunState

KERNELS = [3, 5, 7, 9, 11, 13]
WIDE: dict[str, Any] = {"axes": {"K[0]": KERNELS, "K[3]": KERNELS[:4]}, "when": {}}
GRID: dict[str, Any] = {"sampler": "grid", "seeds": 1, "racing": {"most": 3}}
SEED_EFFECTS = {1: 1.5, 2: -1.0, 3: 0.7}


def true_value(first: int, last: int) -> float:
    return 50.0 + 0.3 * first - 0.2 * last


def script(job: Job) -> Iterator[Record]:
    """Larger first and smaller last kernels are better; noise follows from the run, and seeds add to all networks."""
    run = job.run
    noise = random.Random(f"noise 6 {run.id}").gauss(0, 0.9)
    top1 = true_value(run.spec.K[0], run.spec.K[3]) + noise + SEED_EFFECTS.get(run.seed, 0.0)
    yield started()
    for n in range(1, EPOCHS + 1):
        yield epoch(n, top1 * n / EPOCHS)
    yield Measured("latency_ms_p50", 1.0)
    yield Ended(RunState.COMPLETE, wall_s=1.0)


class Raced(Played):
    """A study with racing."""

    def __init__(self, folder: Path, search: dict[str, Any] = GRID, **keys: Any) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder, **(WIDE | keys), search=search)

    def run(self, *, slots: int = 1, stop_after: int | None = None, by: Any = script) -> list[tuple[int, int, int]]:
        """Drive the study, to the end or until a number of runs have ended; gives the runs that were submitted."""
        self.reason: str | None = None
        self.executor = None
        ended = 0
        events = self.events(by, slots=slots)
        for event, _, _ in events:
            ended += isinstance(event, RunEnded)
            if isinstance(event, StudyEnded):
                self.reason = event.reason
            if ended == stop_after:
                break
        events.close()
        executor: Any = self.executor
        assert executor is None or isinstance(executor, ScriptedExecutor)
        jobs = executor.submitted if executor else []
        return [(job.run.spec.K[0], job.run.spec.K[3], job.run.seed) for job in jobs]

    def results(self) -> StudyResults:
        with open_study_reader(self.path, self.workspace) as reader:
            return reader.results()

    def rounds(self) -> list[tuple[int, tuple[int, int]]]:
        """Round and kernels of each trial of the race."""
        with open_study_reader(self.path, self.workspace) as reader:
            raced = [trial for trial in reader.trials if RACE_ROUND in trial.user_attrs]
        return sorted((trial.user_attrs[RACE_ROUND], (trial.params["K[0]"], trial.params["K[3]"])) for trial in raced)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Raced, list[tuple[int, int, int]]]:
    study = Raced(tmp_path_factory.mktemp("whole"))
    return study, study.run()


def test_further_seeds_are_those_of_good_configurations(whole: tuple[Raced, list[tuple[int, int, int]]]) -> None:
    study, runs = whole
    assert [seed for _, _, seed in runs[:24]] == [0] * 24, "first the grid"
    assert len(runs) == len(set(runs)) and max(seed for _, _, seed in runs) == 2
    seeds = Counter((first, last) for first, last, _ in runs)
    raced = [true_value(*kernels) for kernels, n in seeds.items() if n > 1]
    others = [true_value(*kernels) for kernels, n in seeds.items() if n == 1]
    assert len(runs) < 0.7 * 72 and sum(raced) / len(raced) > sum(others) / len(others) + 0.5
    results = study.results()
    race, best = results.race, results.best
    assert race is not None and race.is_decided and best is not None and best.bound is not None
    assert (race.runs, race.runs_of_all) == (len(runs), 72)
    assert len(best.values) == 3 and best.fingerprint == race.best
    bounds = [row.bound or 0.0 for row in results.complete]
    assert bounds == sorted(bounds, reverse=True), "the table is in the order of the bounds"
    assert best.mean is not None and best.bound < best.mean - min(SEED_EFFECTS[1], SEED_EFFECTS[2])


def test_workers_and_interruptions_change_no_decision(
    whole: tuple[Raced, list[tuple[int, int, int]]], tmp_path: Path
) -> None:
    study, runs = whole
    several = Raced(tmp_path / "several")
    assert sorted(several.run(slots=3)) == sorted(runs)
    parts, trained = Raced(tmp_path / "parts"), []
    for stop_after in (25, 2, 3, None):
        trained += parts.run(slots=2, stop_after=stop_after)
    assert set(trained) == set(runs)
    for other in (several, parts):
        assert other.rounds() == study.rounds()
        assert [(row.params, row.bound) for row in other.results().complete] == [
            (row.params, row.bound) for row in study.results().complete
        ]
    assert parts.run() == [], "the race is decided"


def test_every_view_names_the_winner_of_the_race(whole: tuple[Raced, list[tuple[int, int, int]]]) -> None:
    study, runs = whole
    results = study.results()
    best = results.best
    assert best is not None and results.race is not None
    text = text_of(results_view(results), width=1000)
    assert "Chosen by racing, on its pessimistic bound: top1 at least" in text
    assert f"Racing used {len(runs)} runs; 3 seeds of every configuration would have taken 72." in text
    assert "simulated studies like this one (24 configurations" in text and "at least" in text.splitlines()[2]
    values = results.to_dict()
    assert values["best_trial"] == best.trials[0]
    assert values["racing"]["runs"] == len(runs) and values["racing"]["simulated"]["studies"] == 400
    assert values["configurations"][0]["bound"] == best.bound
    folder = study.path.parent
    status = called("status", study.path, "--results", folder / "results", "--json", cwd=folder)
    shown = json.loads(status.stdout)
    assert shown["is_finished"] and shown["racing"]["is_decided"] and shown["best"]["bound"] == best.bound
    lines = called("status", study.path, "--results", folder / "results", cwd=folder).stdout.splitlines()
    rivals = len(results.race.rivals)
    ended = f"ended with all seeds, {rivals} others not ruled out" if rivals else "decided"
    assert [line.split(maxsplit=1)[1] for line in lines if line.startswith("race ")] == [
        f"{ended} after {len(runs)} runs"
    ]
    named = called("best", study.path, "--results", folder / "results", cwd=folder)
    assert yaml.safe_load(named.stdout)["K"] == list(best.spec.K)
    plan = called("run", study.path, "--dry-run", "--results", folder / "results", cwd=folder)
    assert "then a race gives further seeds, up to 3" in plan.stdout


def test_means_elsewhere_are_those_of_the_first_seeds(whole: tuple[Raced, list[tuple[int, int, int]]]) -> None:
    study, _ = whole
    with open_study_reader(study.path, study.workspace) as reader:
        observed = read_configurations(reader.file.study, reader.space(), reader.store, reader.trials, Formula("top1"))
        results = study_results(reader.file.study, reader.store, reader.trials, {})
    first = {row.trials[0]: row.values[0] for row in results.complete}
    assert {one.trial: one.value for one in observed} == first


def test_a_search_is_raced_at_its_end_and_samplers_do_not_see_it(tmp_path: Path) -> None:
    search = {"sampler": "tpe", "trials": 14, "seeds": 1}
    plain, raced = Raced(tmp_path / "plain", search), Raced(tmp_path / "raced", search | {"racing": {"most": 2}})
    proposed = plain.run()
    assert raced.run()[:14] == proposed and len(raced.rounds()) >= 4
    for study in (plain, raced):
        grown = dict(search, trials=20) | ({"racing": {"most": 2}} if study is raced else {})
        more = Raced(study.path.parent, grown).run()
        proposed = [run for run in more if run[2] == 0]
        if study is plain:
            expected = proposed
    assert proposed == expected, "the proposals after a race are those of a study without one"


def test_a_pruner_screens_first_and_a_plateau_ends_the_search_before_the_race(tmp_path: Path) -> None:
    search = {"sampler": "random", "trials": 12, "seeds": 1, "pruner": "median", "racing": {"most": 3}}
    study = Raced(tmp_path / "pruned", search)
    study.run()
    results = study.results()
    states = Counter(row.state for row in results.rows)
    assert states["pruned"] and states["complete"]
    assert all(len(row.values) <= 1 for row in results.rows if row.state == "pruned")
    assert max(len(row.values) for row in results.complete) == 3
    keys = {"axes": {"K[0]": KERNELS, "K[3]": KERNELS, "K[2]": KERNELS}, "when": {}}
    search = {"sampler": "random", "trials": 60, "seeds": 2, "plateau": 50.0, "racing": {"most": 3}}
    level = Raced(tmp_path / "plateau", search, **keys)
    level.run()
    assert level.reason is not None and "search.plateau" in level.reason
    assert level.rounds() and max(len(row.values) for row in level.results().complete) == 3
    with open_study_reader(level.path, level.workspace) as reader:
        searched = [trial for trial in reader.trials if RACE_ROUND not in trial.user_attrs]
        assert plateau_gain(reader.file.study, reader.trials) == plateau_gain(reader.file.study, searched)


def test_a_budget_ends_the_race_early_and_a_larger_one_continues_it(
    whole: tuple[Raced, list[tuple[int, int, int]]], tmp_path: Path
) -> None:
    study, runs = whole
    limited = Raced(tmp_path / "s", GRID | {"budget": {"runs": 29}})
    trained = limited.run()
    assert trained == runs[:29]
    assert limited.reason is not None and "the next run of the race" in limited.reason
    results = limited.results()
    assert results.is_out_of_budget and results.race is not None and not results.race.is_decided
    assert "so far, since the race is not decided" in text_of(results_view(results), width=1000)
    larger = Raced(tmp_path / "s", GRID | {"budget": {"runs": 500}})
    trained += larger.run()
    assert sorted(trained) == sorted(runs) and larger.rounds() == study.rounds()
    few = Raced(tmp_path / "few", GRID | {"budget": {"runs": 20}})
    few.run()
    assert "the noise is not known" in text_of(results_view(few.results()), width=1000)


def searched_by(study: Raced) -> int:
    """Number of trials that are none of the race."""
    with open_study_reader(study.path, study.workspace) as reader:
        return sum(RACE_ROUND not in trial.user_attrs for trial in reader.trials)


def test_a_share_of_a_budget_is_kept_for_the_race(tmp_path: Path) -> None:
    search = {
        "sampler": "random",
        "trials": 40,
        "seeds": 1,
        "racing": {"most": 3, "share": 0.4},
        "budget": {"runs": 20},
    }
    study = Raced(tmp_path / "s", search)
    first = study.run(slots=3)
    assert searched_by(study) == 12 and 12 < len(first) <= 20 and study.rounds()
    assert study.reason is not None and "the next run of the race: 20 of 20 runs" in study.reason
    decided = Raced(tmp_path / "decided", search | {"racing": {"most": 2, "share": 0.5, "level": 0.5}})
    decided.run()
    assert decided.reason is not None and ", and 0.5 of the budget was kept for the race; at most" in decided.reason
    assert searched_by(decided) == 10 and decided.rounds()
    larger = Raced(tmp_path / "s", search | {"budget": {"runs": 40}})
    larger.run(slots=3)
    assert searched_by(larger) > 12, "the search continues"
    whole = Raced(tmp_path / "whole", search | {"racing": {"most": 3, "share": 0}})
    assert len(whole.run()) == 20 and not whole.rounds()


def test_failed_and_diverged_seeds_do_not_hold_a_race_up(tmp_path: Path) -> None:
    def failing(job: Job) -> Iterator[Record]:
        kernels, seed = (job.run.spec.K[0], job.run.spec.K[3]), job.run.seed
        if seed == 1 and kernels in ((13, 3), (11, 3)):
            yield started()
            state = RunState.DIVERGED if kernels == (13, 3) else RunState.FAILED
            yield Ended(state, wall_s=1.0, cause="the training loss is nan")
            return
        yield from script(job)

    study = Raced(tmp_path / "s")
    runs = study.run(by=failing)
    results = study.results()
    states = {(row.spec.K[0], row.spec.K[3]): row for row in results.rows}
    assert states[13, 3].state == "diverged" and states[13, 3].bound is None
    assert results.best is not None and results.best.state == "complete"
    tried = Counter((first, last) for first, last, _ in runs)
    assert max(tried.values()) <= 3
    assert states[11, 3].state == "complete" and len(states[11, 3].values) < tried[11, 3]
    assert len(study.run(by=failing)) <= 1, "what failed is tried once more, and no other seed is due"


def test_objectives_that_are_minimized_have_upper_bounds(tmp_path: Path) -> None:
    def losses(job: Job) -> Iterator[Record]:
        for record in script(job):
            yield epoch(record.epoch, 50.0) if isinstance(record, type(epoch(1, 1.0))) else record

    study = Raced(tmp_path / "s", objectives={"val_loss": "minimize"})
    study.run(by=losses)
    results = study.results()
    assert results.race is not None and results.race.is_decided
    assert results.race.rivals == () and results.race.noise == 0, "equal values: nothing is better, and the race ends"
    assert results.best is not None and results.best.macs == min(row.macs for row in results.complete)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"search": GRID | {"seeds": 3}}, "racing.most` must be more than the 3 `seeds`"),
        ({"search": GRID | {"seeds": 1, "racing": {"most": 1}}}, "most"),
        ({"search": GRID | {"seeds": 6, "pruner": "wilcoxon", "racing": {"most": 9}}}, "wilcoxon"),
        ({"search": GRID, "objectives": {"macs": "minimize"}}, "of which further seeds show nothing"),
        ({"search": GRID, "objectives": {"latency_ms_p50": "minimize"}}, "of which further seeds show nothing"),
        (
            {
                "search": GRID,
                "claims": [
                    {
                        "name": "a",
                        "says": "a",
                        "expect": "> 0",
                        "contrast": {"K[0]=13, K[3]=3": 1, "K[0]=3, K[3]=3": -1},
                    }
                ],
            },
            "tests of claims are not valid",
        ),
    ],
)
def test_what_a_race_cannot_be_combined_with_is_refused(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        Played(tmp_path, **(WIDE | keys))


def test_a_race_may_be_added_and_extended_but_not_left_out(tmp_path: Path) -> None:
    search = {"sampler": "grid", "seeds": 1}
    Raced(tmp_path / "s", search).run()
    Raced(tmp_path / "s", GRID | {"racing": {"most": 2}}).run()
    wider = Raced(tmp_path / "s", GRID | {"racing": {"most": 3, "level": 0.9}})
    wider.run()
    assert max(len(row.values) for row in wider.results().complete) == 3
    with pytest.raises(StudyError, match="means alone must not rank them"):
        Raced(tmp_path / "s", search).run()
    assert load_study(wider.path).study.search.racing is None, "the file of the last study, which was refused"
