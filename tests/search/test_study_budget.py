"""A study with a budget (`search.budget`) ends well when it is used up, over all of its calls, and can be continued."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Group
from tiny_studies import (
    EPOCHS,
    FOUR,
    INLINE,
    TINY,
    Played,
    called,
    epoch,
    noisy,
    quality,
    started,
    text_of,
    well,
    write_study,
)

from harness.analysis.claims import evaluate_claims
from harness.analysis.effect_observations import read_configurations
from harness.analysis.results import StudyResults, study_results
from harness.analysis.study_budget import read_spending
from harness.analysis.study_reader import open_space, open_study_reader
from harness.config.formula import Formula
from harness.config.study_file import load_study, resolved_yaml
from harness.config.study_growth import identity, study_values
from harness.errors import StudyError
from harness.executors.scripted import ScriptedExecutor
from harness.report.study import results_view
from harness.search.events import RunStarted, StudyEnded, TrialStarted
from harness.storage import Store
from harness.training.run import Ended, Job, Measured, Record, Run, RunState

TPE: dict[str, Any] = {"sampler": "tpe", "trials": 40, "seeds": 2}
AXES = {"K[0]": [3, 5, 7, 9, 11, 13], "K[3]": [3, 5, 7, 9, 11, 13]}
WIDE: dict[str, Any] = {"axes": AXES, "when": {}}


class Budgeted:
    """A study that is run again and again, with other budgets."""

    def __init__(self, folder: Path, **keys: Any) -> None:
        self.folder, self.keys = folder, keys

    def run(
        self, budget: dict[str, Any] | None, script: Any = well, *, slots: int = 1, **search: Any
    ) -> list[tuple[int, int]]:
        """Run the study with a budget; gives first kernel and seed of what was trained."""
        search = self.keys.get("search", {}) | search | ({} if budget is None else {"budget": budget})
        self.played = Played(self.folder, **(self.keys | {"search": search}))
        self.events = [event for event, _, _ in self.played.events(script, slots=slots)]
        executor = self.played.executor
        assert executor is None or isinstance(executor, ScriptedExecutor)
        return [(job.run.spec.K[0], job.run.seed) for job in executor.submitted] if executor else []

    @property
    def reason(self) -> str | None:
        (ended,) = [event for event in self.events if isinstance(event, StudyEnded)]
        return ended.reason

    def answer(self) -> StudyResults:
        with open_study_reader(self.played.path, self.played.workspace) as reader:
            claims = evaluate_claims(reader.file.study, open_space(reader.file), reader.store)
            return study_results(reader.file.study, reader.store, reader.trials, {}, claims)

    def used(self) -> tuple[int, int, float]:
        with Store.open(self.played.workspace.database) as store:
            spent = read_spending("question", store)
        return spent.runs, spent.epochs, spent.core_s


def test_a_grid_ends_with_the_seeds_that_the_budget_allowed_and_a_larger_one_continues(tmp_path: Path) -> None:
    study = Budgeted(tmp_path, **FOUR, search={"seeds": 3})
    assert study.run({"runs": 6}) == [(3, 0), (7, 0), (13, 0), (31, 0), (3, 1), (7, 1)]
    assert (
        study.reason is not None and "6 of 6 runs, 24 epochs" in study.reason and "6 of 12 runs remain" in study.reason
    )
    results = study.answer()
    assert results.is_out_of_budget and results.ended == study.reason
    assert {row.spec.K[0]: row.seeds for row in results.complete} == {3: (0, 1), 7: (0, 1), 13: (0,), 31: (0,)}
    assert results.best is not None and results.best.spec.K[0] == 31
    text = text_of(results_view(results), width=400)
    assert f"The search ended: {study.reason}." in text and "Configurations have 1 to 2 seeds" in text
    with open_study_reader(study.played.path, study.played.workspace) as reader:
        formula = Formula("top1")
        observed = read_configurations(reader.file.study, reader.space(), reader.store, reader.trials, formula)
    of_first_seed = {row.trials[0]: row.values[0] for row in results.complete}
    assert {one.trial: one.value for one in observed} == of_first_seed, "the seed that all of them have"
    assert study.run({"runs": 6}) == [] and not any(isinstance(event, TrialStarted) for event in study.events)
    assert sorted(study.run({"runs": 20})) == sorted([(3, 2), (7, 2), (13, 1), (13, 2), (31, 1), (31, 2)])
    assert study.reason is None
    results = study.answer()
    assert not results.is_out_of_budget and results.ended is None
    assert all(row.seeds == (0, 1, 2) for row in results.complete)
    assert study.used() == (12, 12 * EPOCHS, 12 * 12.0)


@pytest.mark.long
def test_a_study_whose_budget_grows_has_the_runs_of_one_without(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("whole", "parts")]
    for folder in folders:
        folder.mkdir()
    whole, parts = (Budgeted(folder, **FOUR, search={"seeds": 2}) for folder in folders)
    whole.run(None)
    trained = [run for runs in (1, 5, 8) for run in parts.run({"runs": runs})]
    assert sorted(trained) == sorted({(k, seed) for k in (3, 7, 13, 31) for seed in (0, 1)})
    assert [(row.spec.K[0], row.values) for row in parts.answer().rows] == [
        (row.spec.K[0], row.values) for row in whole.answer().rows
    ]


@pytest.mark.parametrize("slots", [1, pytest.param(3, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("budget", "runs"), [({"runs": 7}, 6), ({"epochs": 4 * EPOCHS + 3}, 4), ({"hours": 60.5 / 3600}, 4)]
)
def test_a_search_opens_only_configurations_that_the_budget_allows_with_all_seeds(
    tmp_path: Path, budget: dict[str, Any], runs: int, slots: int
) -> None:
    """A run takes 12 core-seconds; before the first has ended, hours limit nothing."""
    study = Budgeted(tmp_path, **WIDE, search=TPE)
    trained = study.run(budget, slots=slots)
    is_early = "hours" in budget and slots > 1  # three were opened before the first run was timed
    assert len(trained) == runs + is_early
    results = study.answer()
    assert results.is_out_of_budget and study.reason is not None and "remain" in study.reason
    assert [row.state for row in results.rows if len(row.seeds) < 2] == ["waiting"] * is_early
    again = study.run(budget)
    assert again == []
    study.run({"runs": 12})
    assert 11 <= study.used()[0] <= 12  # a configuration that is proposed again gets one run, and leaves one over


def test_what_an_open_trial_leaves_of_its_share_is_used(tmp_path: Path) -> None:
    """Two workers; the budget is for the second trial only because the first one ends after its screening run."""
    good = {"search": {"sampler": "random", "trials": 4, "seeds": 3, "pruner": "median"}}

    def failing(_: Job) -> Iterator[Record]:
        yield started()
        yield epoch(1, 1.0)
        yield Ended(RunState.DIVERGED, wall_s=1.0, cause="the training loss is nan")

    study = Budgeted(tmp_path, **WIDE, **good)
    study.run({"runs": 5}, failing, slots=2)
    ended = [row for row in study.answer().rows if row.state not in ("waiting", "running")]
    assert len(ended) == 2 and study.used()[0] == 2 and study.reason is not None and "2 of 5 runs" in study.reason


@pytest.mark.long
def test_a_budget_is_kept_by_trainings_and_a_larger_one_continues(tmp_path: Path) -> None:
    path = write_study(tmp_path, TINY, search={"seeds": 2, "budget": {"runs": 3}})
    ran = called("run", path, *INLINE, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "`search.budget` does not allow the next run: 3 of 3 runs, 6 epochs" in " ".join(ran.stdout.split())
    write_study(tmp_path, TINY, search={"seeds": 2, "budget": {"epochs": 8}})
    again = called("run", path, *INLINE, cwd=tmp_path)
    assert again.returncode == 0 and "The search ended" not in again.stdout, again.stdout + again.stderr
    values = json.loads(called("status", path, "--json", cwd=tmp_path).stdout)
    assert values["budget"]["used"]["runs"] == 4 and values["budget"]["used"]["epochs"] == 8
    assert values["is_finished"] and values["budget"]["used"]["hours"] > 0


@pytest.mark.long
def test_with_a_pruner_screening_runs_count_at_the_epochs_that_they_trained(tmp_path: Path) -> None:
    study = Budgeted(tmp_path, **WIDE, search=TPE | {"pruner": "successive_halving"})
    study.run({"epochs": 60}, noisy(3))
    runs, epochs, _ = study.used()
    assert epochs <= 60 and study.answer().is_out_of_budget
    with Store.open(study.played.workspace.database) as store:
        ids = {run_id for ids in store.trial_runs("question").values() for run_id in ids}
        rows = [row for row in store.runs(ids).values() if row.attempts]
        assert runs == len(rows) and epochs == sum(len(store.epochs(row.id)) for row in rows)
    assert any(row.state == RunState.STOPPED for row in rows)
    study.run({"epochs": 200}, noisy(3))
    assert 60 < study.used()[1] <= 200


def test_an_interrupted_study_counts_what_it_trained_once(tmp_path: Path) -> None:
    study = Budgeted(tmp_path, **FOUR, search={"seeds": 1})
    played = Played(tmp_path, **FOUR, search={"seeds": 1, "budget": {"runs": 3}})
    events = played.events(well)
    for event, _, _ in events:
        if isinstance(event, RunStarted) and event.trial == 1:
            break
    next(events)  # the first epoch of the second run
    events.close()
    assert [row.run.spec.K[0] for row in rows_of(played) if row.state == RunState.STOPPED] == [7]

    def resumed(job: Job) -> Iterator[Record]:
        first = 2 if job.run.spec.K[0] == 7 else 1
        yield started(first)
        for n in range(first, EPOCHS + 1):
            yield epoch(n, quality(job) * n / EPOCHS)
        yield Measured("latency_ms_p50", 1.0)
        yield Ended(RunState.COMPLETE, wall_s=2.0 * (EPOCHS + 1 - first))

    assert study.run({"runs": 3}, resumed) == [(7, 0), (13, 0)]
    assert study.used()[:2] == (3, 3 * EPOCHS)
    assert study.answer().is_out_of_budget


def test_a_study_that_was_continued_and_interrupted_has_not_ended_by_its_budget(tmp_path: Path) -> None:
    study = Budgeted(tmp_path, **FOUR, search={"seeds": 1})
    study.run({"runs": 2})
    assert study.answer().is_out_of_budget
    events = Played(tmp_path, **FOUR, search={"seeds": 1, "budget": {"runs": 4}}).events(well)
    for event, _, _ in events:
        if isinstance(event, RunStarted):
            break
    events.close()
    assert not study.answer().is_out_of_budget and study.answer().ended is None


def rows_of(played: Played) -> list[Any]:
    with Store.open(played.workspace.database) as store:
        ids = {run_id for ids in store.trial_runs("question").values() for run_id in ids}
        return list(store.runs(ids).values())


def test_what_a_killed_driver_had_trained_counts(tmp_path: Path) -> None:
    """Its run is still RUNNING in the database, as after a power failure."""
    played = Played(tmp_path, **FOUR, search={"seeds": 1, "budget": {"epochs": 11}})
    with Store.open(played.workspace.database) as store:
        file = load_study(played.path)
        space = open_space(file)
        run = next(iter(space.grid()))
        job = Run(*run.trained, 0)
        store.ensure_run(job)
        store.link("question", 0, job.id, 0)
        assert store.claim(job.id, "question", tmp_path / "results" / "question") is not None
        store.record(job.id, [started(), epoch(1, 50.0), epoch(2, 50.0), epoch(3, 50.0)])
        assert read_spending("question", store).epochs == 3
    study = Budgeted(tmp_path, **FOUR, search={"seeds": 1})
    assert study.run({"epochs": 11}) == [(3, 0), (7, 0)]
    assert study.used()[:2] == (2, 3 + 2 * EPOCHS)


def test_runs_of_other_studies_cost_nothing_and_come_first(tmp_path: Path) -> None:
    other = {"study": "other", "axes": {"K": [[13] * 4, [31, 29, 27, 13]]}, "when": {}, "search": {"seeds": 2}}
    for _ in Played(tmp_path, **other).events():
        pass
    study = Budgeted(tmp_path, **FOUR, search={"seeds": 2})
    assert study.run({"runs": 2}) == [(3, 0), (7, 0)]
    results = study.answer()
    assert {row.spec.K[0]: row.seeds for row in results.complete} == {3: (0,), 7: (0,), 13: (0, 1), 31: (0, 1)}
    assert study.used()[0] == 2


CLAIM: dict[str, Any] = {"name": "large", "says": "K=13 is ahead", "contrast": {"K=13": 1, "K=3": -1}, "expect": "> 0"}


@pytest.mark.long
def test_further_seeds_for_claims_count_and_a_claim_that_stays_open_states_why(tmp_path: Path) -> None:
    keys = {"axes": {"K": [[3] * 4, [13] * 4]}, "when": {}, "claims": [CLAIM]}
    study = Budgeted(tmp_path, **keys, search={"seeds": 2, "max_seeds": 8})
    trained = study.run({"runs": 8}, noisy(5))
    assert Counter(seed for _, seed in trained) == {0: 2, 1: 2, 2: 2, 3: 2}
    results = study.answer()
    assert str(results.claims[0].verdict) == "undecided" and results.open_by_budget == {"large"}
    text = text_of(Group(results_view(results)), width=200)
    assert "Undecided after 4 seeds because the budget of the study is used up" in text
    assert results.to_dict()["claims"][0]["is_undecided_by_budget"] is True
    study.run({"runs": 100}, noisy(5))
    results = study.answer()
    assert not results.open_by_budget and not results.is_out_of_budget
    assert results.claims[0].pairs > 4


def test_the_commands_show_the_budget_and_the_end_and_exit_with_0(tmp_path: Path) -> None:
    keys = {"axes": {"K": [[3] * 4, [5, 5, 3, 3], [7, 5, 3, 3]]}, "objectives": {"params": "minimize"}}
    small = {"dataset": "shapes", "epochs": 0, "resolution": 16, "val_size": 8, "train_size": 16, "batch_size": 8}
    path = write_study(
        tmp_path,
        {"study": "costs", "base": "replknet_nano"} | keys,
        proxy=small,
        search={"seeds": 1, "budget": {"runs": 2, "hours": 5}},
    )
    planned = called("run", path, "--dry-run", cwd=tmp_path)
    assert planned.returncode == 0 and not (tmp_path / "results").exists()
    line = "0 of 2 runs, 0 epochs, 0 of 5 core-hours are used; what is left allows about 2 runs, of at most 3"
    assert f"budget of the study: {line}" in " ".join(planned.stdout.split())
    ran = called("run", path, "--executor", "inline", cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "`search.budget` does not allow the next run: 2 of 2 runs" in ran.stdout
    status = called("status", path, "--json", cwd=tmp_path)
    values = json.loads(status.stdout)
    assert values["budget"]["used"]["runs"] == 2 and values["budget"]["is_used_up"] and not values["is_finished"]
    assert "1 of 3 runs remain" in values["ended"]
    shown = called("status", path, cwd=tmp_path)
    assert "budget          2 of 2 runs" in shown.stdout and "was raised" in shown.stdout
    assert "The search ended: `search.budget`" in called("show", path, cwd=tmp_path).stdout
    summary = json.loads((tmp_path / "results" / "costs" / "summary.json").read_text())
    assert summary["budget"]["limits"] == {"hours": 5.0, "runs": 2, "epochs": None}
    assert "1 of 3 runs remain" in summary["search_ended"]


def test_a_quick_profile_has_a_budget_and_no_plateau_rule_that_it_cannot_have(tmp_path: Path) -> None:
    search = TPE | {"plateau": 0.1, "budget": {"hours": 3, "runs": 90}}
    quick = {"search": {"seeds": 1, "trials": 4, "budget": {"runs": 5}}}
    path = write_study(tmp_path, {"study": "q", "base": "replknet_nano", "axes": AXES}, search=search, quick=quick)
    file = load_study(path, is_quick=True)
    assert file.study.search.budget is not None and file.study.search.budget.runs == 5
    assert file.study.search.budget.hours == 3 and file.study.search.plateau is None
    assert any("search.plateau: null" in note for note in file.notes)


def test_budget_and_plateau_are_no_part_of_a_studys_identity(tmp_path: Path) -> None:
    keys = {"study": "q", "base": "replknet_nano", "axes": AXES}
    files = [
        load_study(write_study(tmp_path, keys, search=TPE | more))
        for more in ({}, {"budget": {"runs": 5}, "plateau": 0.5})
    ]
    plain, limited = (identity(study_values(resolved_yaml(file))) for file in files)
    assert plain == limited and not any("budget" in key and "search" in key for key in plain)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"budget": {}}, "`search.budget` must have a limit: `hours`, `runs` or `epochs`"),
        ({"budget": {"hours": 0}}, "`search.budget.hours` must be above 0"),
        ({"budget": {"runs": 1.5}}, "`search.budget.runs` must be a whole number"),
        ({"budget": {"minutes": 3}}, "`minutes` is no key of `search.budget`"),
        ({"sampler": "grid", "plateau": 1}, "`search.plateau` must be left out for the sampler grid"),
        (TPE | {"seeds": 1, "plateau": 1}, "`search.plateau` needs `seeds: 2` or more"),
        (TPE | {"trials": 20, "plateau": 1}, "`search.plateau` needs more than 20 `trials`"),
        (TPE | {"plateau": -1}, "`search.plateau` must be above 0"),
        (TPE | {"budget": {"runs": 1}}, "`search.budget.runs` must allow a configuration, which has 2 runs"),
        (
            TPE | {"budget": {"runs": 2}, "pruner": "median"},
            "which has 2 runs (`seeds`) and a screening run, but got 2",
        ),
        (
            TPE | {"budget": {"runs": 2}, "racing": {"most": 3}},
            "but got 2, of which `racing.share` leaves 0.75 to the search",
        ),
        (TPE | {"budget": {"epochs": 19}}, "`search.budget.epochs` must allow a configuration, which takes 20 epochs"),
        ({"budget": {"epochs": 3}}, "`search.budget.epochs` must allow a run, which takes 10 epochs, but got 3"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(tmp_path: Path, search: dict[str, Any], message: str) -> None:
    path = write_study(tmp_path, {"study": "q", "base": "replknet_nano", "axes": AXES}, search=search)
    with pytest.raises(StudyError) as refused:
        load_study(path)
    assert message in str(refused.value), str(refused.value)
    assert "study.yaml:" in str(refused.value)
