"""Simulated searches: those of the driver on a database, at equal compute, with regrets that are known."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from curve_tables import EPOCHS, space_file, synthetic_table, true_mean

from harness.analysis.curve_table import CurveTable
from harness.analysis.racing import RACE_ROUND
from harness.analysis.results import study_results
from harness.analysis.study_reader import open_space
from harness.config.policies import DEFAULT, FIRST_EPOCH, Policy, default_policies, read_policies
from harness.config.study_file import StudyFile
from harness.errors import StudyError, UserError
from harness.executors.scripted import ScriptedExecutor
from harness.search.rehearsal import RehearsalResult, rehearse
from harness.search.replay import ReplayedRuns
from harness.search.session import open_for_driving
from harness.search.simulation import Rehearsal, SimulatedSearch, seed_order
from harness.storage.workspace import Workspace

TOTAL = 96 * 3 * EPOCHS


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> StudyFile:
    return space_file(tmp_path_factory.mktemp("space"))


def rehearsal(file: StudyFile, table: CurveTable, *, workers: int = 4, share: float = 0.2) -> Rehearsal:
    return Rehearsal.of(table, open_space(file), file.study.objectives, workers=workers, share=share)


def policy(file: StudyFile, name: str, trials: int = 200) -> Policy:
    return read_policies(file, [name], trials)[0]


def best_network(table: CurveTable) -> int:
    return int(table.curves("top1")[:, :, -1].mean(axis=1).argmax())


def compared(
    file: StudyFile, table: CurveTable, *names: str, repetitions: int = 4, share: float = 0.2
) -> RehearsalResult:
    prepared = rehearsal(file, table, share=share)
    return rehearse(prepared, read_policies(file, names, prepared.budget), repetitions)


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_the_whole_grid_with_all_seeds_has_no_regret(file: StudyFile, noise: float) -> None:
    table = synthetic_table(file, noise=noise)
    result = compared(file, table, "grid+none+3", share=1.0)
    assert result.outcomes[0].regrets[0][-1] == 0 and result.outcomes[0].wrong == 0
    searches = result.outcomes[0].searches
    assert {search.epochs for search in searches} == {TOTAL} and {search.trials for search in searches} == {96}
    assert all(search.repeated == 0 for search in searches)


@pytest.mark.long
def test_one_seed_of_the_whole_grid_leaves_the_regret_of_the_noise(file: StudyFile) -> None:
    exact = compared(file, synthetic_table(file, noise=0.0), "grid+none+1", share=0.34)
    noisy = compared(file, synthetic_table(file, noise=3.0), "grid+none+1", share=0.34)
    assert exact.outcomes[0].at(-1).median == 0
    assert noisy.outcomes[0].at(-1).median > 0 and noisy.outcomes[0].wrong > 0


@pytest.mark.parametrize("name", ["random+none+1", DEFAULT, "tpe+hyperband+2", "nsga2+median+1", FIRST_EPOCH])
def test_every_policy_uses_the_same_computing(file: StudyFile, name: str) -> None:
    prepared = rehearsal(file, synthetic_table(file))
    one = policy(file, name, prepared.budget)
    search = prepared.first_epoch(0, prepared.budget) if one.file is None else prepared.simulate(one, 0)
    unused = 0 if one.file is not None else EPOCHS - 1  # what is left is less than the rest of a run
    assert prepared.budget - unused <= search.epochs <= prepared.budget == int(0.2 * TOTAL)
    assert all(one.epochs <= prepared.budget for one in search.recommendations)


@pytest.mark.parametrize("name", ["random+none+1", DEFAULT, "tpe+median+2"])
def test_a_simulation_is_the_search_that_the_driver_does_on_a_database(
    file: StudyFile, tmp_path: Path, name: str
) -> None:
    table = synthetic_table(file, noise=1.0)
    prepared = rehearsal(file, table, workers=1, share=1.0)
    one = policy(file, name, trials=30)
    assert one.file is not None
    simulated = prepared.simulate(one, 0)
    order = seed_order(3, 0)
    has_spare = one.seeds + (name != "random+none+1") < 3
    seen = order[:-1] if has_spare else order
    script = ReplayedRuns(prepared.curves, seen, seen[-1], first_seed=0)
    workspace, space = Workspace(tmp_path), open_space(file)
    with open_for_driving(one.file, space, workspace, lambda: ScriptedExecutor(script)) as driven:
        for _ in driven.driver.events():
            pass
        results = study_results(one.study, driven.store, driven.trials(), {})
    assert results.best is not None
    assert simulated.at(TOTAL) == _position(table, dict(results.best.params))
    assert simulated.trials == len(driven.trials()) == 30
    assert simulated.pruned == sum(trial.state.name == "PRUNED" for trial in driven.trials())


def test_a_race_keeps_a_share_of_the_computing_and_has_the_winner_of_the_driver(
    file: StudyFile, tmp_path: Path
) -> None:
    table = synthetic_table(file, noise=1.0)
    prepared = rehearsal(file, table, workers=1, share=0.2)
    one = policy(file, "random+none+1-3", prepared.budget)
    assert one.file is not None
    simulated = prepared.simulate(one, 0)
    order = seed_order(3, 0)
    script = ReplayedRuns(prepared.curves, order, order[-1], first_seed=0)
    workspace, space = Workspace(tmp_path), open_space(file)
    with open_for_driving(one.file, space, workspace, lambda: ScriptedExecutor(script)) as driven:
        for _ in driven.driver.events():
            pass
        trials = driven.trials()
        results = study_results(one.study, driven.store, trials, {})
    assert results.best is not None and results.race is not None and results.race.has_bounds
    assert simulated.at(TOTAL) == _position(table, dict(results.best.params))
    raced = [trial for trial in trials if RACE_ROUND in trial.user_attrs]
    searched = len(trials) - len(raced)
    assert searched == int(0.75 * prepared.budget) // EPOCHS and simulated.trials == len(trials)
    assert len({trial.user_attrs["fingerprint"] for trial in raced}) < searched / 2


def _position(table: CurveTable, params: dict[str, object]) -> int:
    return next(i for i, entry in enumerate(table.configurations) if dict(entry.params) == params)


def test_the_search_without_noise_finds_the_best_network_and_beats_random_draws(file: StudyFile) -> None:
    table = synthetic_table(file, noise=0.2)
    result = compared(file, table, "tpe+none+1", "random+none+1", repetitions=8, share=0.15)
    tpe, drawn = result.outcomes
    assert tpe.at(-1).median <= 0.5 < drawn.at(-1).median
    assert result.difference(drawn).mean > 0
    assert [outcome.held_out_mean is not None for outcome in result.outcomes] == [True, True]


def test_more_workers_end_earlier_and_compute_as_much(file: StudyFile) -> None:
    table = synthetic_table(file)
    searches = [
        rehearsal(file, table, workers=workers).simulate(policy(file, "random+none+1"), 0) for workers in (1, 4, 16)
    ]
    assert len({search.epochs for search in searches}) == 1
    clocks = [search.clock_s for search in searches]
    assert clocks[0] > 3.5 * clocks[1] > 3 * clocks[2]


def test_repetitions_differ_and_are_repeated_exactly_in_any_number_of_processes(file: StudyFile) -> None:
    prepared = rehearsal(file, synthetic_table(file, noise=1.0), share=0.1)
    policies = read_policies(file, ["random+none+1", FIRST_EPOCH], prepared.budget)
    alone, together = (rehearse(prepared, policies, 4, processes=count) for count in (1, 2))
    for one, other in zip(alone.outcomes, together.outcomes, strict=True):
        assert one.searches == other.searches and one.regrets == other.regrets
    assert len({search.recommendations for search in alone.outcomes[0].searches}) == 4


def test_the_baseline_resumes_the_networks_that_are_best_after_one_epoch(file: StudyFile) -> None:
    table = synthetic_table(file, noise=1.0)
    prepared, top1, seed = rehearsal(file, table, share=1.0), table.curves("top1"), seed_order(3, 5)[0]
    search = prepared.first_epoch(5, 96 + 3 * 10)  # half of it is less than all networks
    assert search.trials == 63 and search.trials - search.pruned == 21 and search.epochs == 63 + 3 * 21
    search = prepared.first_epoch(5, 2 * 96 + 3 * 10)
    assert search.trials == 96 and search.trials - search.pruned == 42
    best_first = sorted(range(96), key=lambda network: -top1[network, seed, 0])[:42]
    assert search.at(TOTAL) == max(best_first, key=lambda network: top1[network, seed, -1])


def test_a_seed_that_the_policy_does_not_need_is_held_out(file: StudyFile) -> None:
    prepared = rehearsal(file, synthetic_table(file, noise=1.0))
    held_out = {name: prepared.simulate(policy(file, name), 0).held_out for name in (DEFAULT, "tpe+median+2")}
    assert held_out == {DEFAULT: seed_order(3, 0)[-1], "tpe+median+2": None}


def test_runs_beyond_the_seeds_of_the_table_are_counted(tmp_path: Path) -> None:
    few = space_file(tmp_path, axes={"K[0]": [7, 15]}, when={})
    search = rehearsal(few, synthetic_table_of_two(few), share=1.0).simulate(policy(few, "random+none+1"), 0)
    assert isinstance(search, SimulatedSearch) and search.repeated >= 2 and search.epochs == 2 * 3 * EPOCHS


def synthetic_table_of_two(file: StudyFile) -> CurveTable:
    """The entries of the two networks of a space, from the table of the whole one."""
    from dataclasses import replace

    whole = synthetic_table(space_file(file.path.parent / "whole"))
    cells = {cell.fingerprint: cell for cell in open_space(file).grid()}
    base = whole.configurations[:2]
    entries = [replace(entry, fingerprint=name) for entry, name in zip(base, cells, strict=True)]
    return replace(whole, configurations=tuple(entries))


def test_policies_are_read_and_checked_as_a_study_is(file: StudyFile) -> None:
    assert default_policies(file)[0] == DEFAULT
    assert policy(file, "tpe+none").study.search.seeds == 1
    assert policy(file, "gp+none+1", 5000).study.search.trials == 500
    for name, rule in (
        ("tpe", "must have the form SAMPLER"),
        ("tpe+none+0", "must have the form SAMPLER"),
        ("tpe+none+1-", "must have the form SAMPLER"),
        ("tpe+medain+1", "Did you mean `median`"),
    ):
        with pytest.raises(UserError, match=rule):
            policy(file, name)
    for name, rule in (
        ("gp+median+1", r"In the policy gp\+median\+1: `search.pruner` must be none or wilcoxon"),
        ("tpe+none+2-2", r"In the policy tpe\+none\+2-2: `search.racing.most` must be more than the 2 `seeds`"),
        ("tpo+none+1", r"In the policy tpo\+none\+1: `search.sampler`"),
        ("tpe+wilcoxon+3", r"In the policy tpe\+wilcoxon\+3: `search.seeds` must be at least 5"),
    ):
        with pytest.raises(StudyError, match=rule):
            policy(file, name)
    with pytest.raises(UserError, match="must be different ones"):
        read_policies(file, ["tpe+none+1", "tpe+none+1"], 10)


def test_the_policy_of_the_file_has_its_keys(tmp_path: Path) -> None:
    search = {"sampler": "tpe", "trials": 10, "seeds": 2, "space_filling": 0.3}
    file = space_file(tmp_path, search=search)
    assert default_policies(file)[0] == "file"
    own = policy(file, "file", 70).study.search
    assert (own.seeds, own.space_filling, own.trials) == (2, 0.3, 70)


def test_a_budget_below_one_run_is_refused(file: StudyFile) -> None:
    with pytest.raises(UserError, match="must allow one run of 4 epochs, of 1,152"):
        rehearsal(file, synthetic_table(file), share=0.001)


def test_the_synthetic_table_has_the_means_that_are_meant(file: StudyFile) -> None:
    table, cells = synthetic_table(file), list(_cells(file))
    assert cells[best_network(table)] == max(cells)


def _cells(file: StudyFile) -> Iterator[float]:
    return (true_mean(cell) for cell in open_space(file).grid() if cell.is_feasible)
