"""A share of a search is drawn uniformly from the space, whatever sampler, pruner, results and number of workers."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from scripted_driver import EPOCHS, Bench, epoch, make_study, started

from harness.analysis.proposal_origin import PROPOSED_BY, PROPOSED_FROM, ProposedBy, is_space_filling
from harness.config.space import Space
from harness.config.study_file import StudyFile, build_space, load_study, resolved_yaml
from harness.config.study_growth import compare_studies, identity, study_values
from harness.errors import StudyError
from harness.search.samplers import SCREENING_SEEDS
from harness.search.space_filling import SpaceFilling, draw_feasible, draw_seed
from harness.storage import Store
from harness.storage.lock import DriverLock
from harness.training.run import Ended, Job, Record, RunState

AXES: dict[str, Any] = {"K[0]": [3, 5, 7, 9, 11, 13], "K[3]": [3, 5, 7, 9, 11, 13], "shortcut": [True, False]}
TPE = {"sampler": "tpe", "seeds": 1, "trials": 20, "space_filling": 0.25}


def mixed(folder: Path, **search: Any) -> StudyFile:
    return make_study(folder, axes=AXES, search=TPE | search)


def space_of(file: StudyFile) -> Space:
    return build_space(file, classes=8, channels=1)


def drawn(trials: list[optuna.trial.FrozenTrial]) -> list[dict[str, Any]]:
    return [trial.params for trial in trials if trial.user_attrs.get(PROPOSED_BY) == ProposedBy.SPACE_FILLING]


def test_every_fourth_trial_is_a_uniform_draw_and_all_state_who_proposed_them(tmp_path: Path) -> None:
    bench = Bench(tmp_path, mixed(tmp_path))
    list(bench.drive())
    trials = [trial for trial in bench.trials() if "fingerprint" in trial.user_attrs]
    by = [trial.user_attrs[PROPOSED_BY] for trial in trials]
    assert Counter(by) == {"sampler": 15, "space_filling": 5}
    assert [i for i, name in enumerate(by) if name == "space_filling"] == [3, 7, 11, 15, 19]
    fingerprint = space_of(bench.file).fingerprint()
    assert {trial.user_attrs[PROPOSED_FROM] for trial in trials} == {fingerprint}
    uniform = [trial for trial in trials if is_space_filling(trial, bench.study, fingerprint)]
    assert [trial.params for trial in uniform] == drawn(trials)
    assert not any(is_space_filling(trial, bench.study, "another space") for trial in trials)


@pytest.mark.long
def test_draws_are_the_same_for_several_workers_after_a_resumption_and_whatever_the_runs_yield(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "four", "resumed", "other")]
    for folder in folders:
        folder.mkdir()
    one, four, resumed, other = (Bench(folder, mixed(folder)) for folder in folders)
    list(one.drive())
    list(four.drive(slots=4))
    events = resumed.drive()
    for _ in range(60):
        next(events)
    events.close()
    list(resumed.drive())
    list(other.drive(reversed_script))
    expected = drawn(one.trials())
    assert len(expected) == 5
    assert expected == drawn(four.trials()) == drawn(resumed.trials()) == drawn(other.trials())


def test_a_draw_whose_run_is_trained_again_is_still_a_draw(tmp_path: Path) -> None:
    from harness.storage.reopening import replace_runs

    bench = Bench(tmp_path, mixed(tmp_path))
    list(bench.drive())
    before = drawn(bench.trials())
    with Store.open(tmp_path / "studies.db") as store, DriverLock(store, bench.study.study):
        links = store.trial_runs(bench.study.study)
        replace_runs(store, bench.study.study, {run_id for ids in links.values() for run_id in ids})
    assert {trial.state.name for trial in bench.trials() if "fingerprint" in trial.user_attrs} == {"WAITING"}
    assert drawn(bench.trials()) == before and len(before) == 5
    list(bench.drive())
    assert drawn(bench.trials()) == before


def reversed_script(job: Job) -> Iterator[Record]:
    """Runs in which smaller kernels are better, so that the sampler goes elsewhere."""
    yield started()
    for n in range(1, EPOCHS + 1):
        yield epoch(n, 90.0 - job.run.spec.K[0] - job.run.spec.K[3] + n)
    yield Ended(RunState.COMPLETE, wall_s=1.0)


def test_draws_are_uniform_on_every_axis_within_the_budget(tmp_path: Path) -> None:
    costs = sorted(cell.cost.macs for cell in space_of(mixed(tmp_path)).grid() if cell.cost)
    space = space_of(make_study(tmp_path, axes=AXES, search=TPE, budgets={"macs": costs[40]}))
    cells = [cell for cell in space.grid() if cell.is_feasible]
    assert 0.2 < len(cells) / space.size < 0.9
    counts = Counter(
        candidate.fingerprint for n in range(3_000) if (candidate := draw_feasible(space, draw_seed(0, n)))
    )
    assert counts.keys() == {cell.fingerprint for cell in cells}
    expected = 3_000 / len(cells)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < len(cells) + 4 * (2 * len(cells)) ** 0.5


def test_a_draw_is_not_pruned_and_has_no_screening_run(tmp_path: Path) -> None:
    bench = Bench(tmp_path, mixed(tmp_path, pruner="successive_halving"))
    list(bench.drive())
    trials = [trial for trial in bench.trials() if "fingerprint" in trial.user_attrs]
    uniform = [trial for trial in trials if trial.user_attrs[PROPOSED_BY] == "space_filling"]
    assert uniform and all(trial.state.name == "COMPLETE" for trial in uniform)
    assert not any("screening" in trial.user_attrs for trial in uniform)
    assert any(trial.state.name == "PRUNED" for trial in trials)
    with Store.open(tmp_path / "studies.db") as store:
        runs = store.trial_runs("question")
        seeds = {store.run(run_id).run.seed for trial in uniform for run_id in runs[trial.number]}
        assert max(seeds) < SCREENING_SEEDS


def test_all_trials_of_a_random_search_without_a_pruner_are_uniform_also_those_of_earlier_versions(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, make_study(tmp_path, axes=AXES, search={"sampler": "random", "seeds": 1, "trials": 4}))
    list(bench.drive())
    fingerprint, trials = space_of(bench.file).fingerprint(), bench.trials()
    assert all(is_space_filling(trial, bench.study, fingerprint) for trial in trials)
    for trial in trials:  # as an earlier version left them
        trial.user_attrs = {
            key: value for key, value in trial.user_attrs.items() if key not in (PROPOSED_BY, PROPOSED_FROM)
        }
    assert all(is_space_filling(trial, bench.study, fingerprint) for trial in trials)
    assert not any(is_space_filling(trial, bench.study, fingerprint, has_grown=True) for trial in trials)
    pruned = make_study(tmp_path, axes=AXES, search={"sampler": "random", "seeds": 1, "trials": 4, "pruner": "median"})
    assert not any(is_space_filling(trial, pruned.study, fingerprint) for trial in trials)


def test_a_study_without_the_key_has_the_identity_and_the_trials_that_it_had(tmp_path: Path) -> None:
    plain, mixed_folder = tmp_path / "plain", tmp_path / "mixed"
    plain.mkdir()
    mixed_folder.mkdir()
    without = make_study(plain, axes=AXES, search={key: TPE[key] for key in ("sampler", "seeds", "trials")})
    share = mixed(mixed_folder)
    assert identity(study_values(resolved_yaml(without))) == identity(study_values(resolved_yaml(share)))
    assert not any("space_filling" in key or "effects" in key for key in identity(study_values(resolved_yaml(share))))
    changes = compare_studies(resolved_yaml(without), resolved_yaml(share))
    assert not changes.refused
    bench = Bench(plain, without)
    list(bench.drive())
    assert not drawn(bench.trials())


def test_a_study_that_grows_by_the_share_draws_until_it_has_it(tmp_path: Path) -> None:
    without = make_study(tmp_path, axes=AXES, search={"sampler": "tpe", "seeds": 1, "trials": 12})
    list(Bench(tmp_path, without).drive())
    grown = Bench(tmp_path, mixed(tmp_path))
    list(grown.drive())
    assert len(drawn(grown.trials())) == 5


@pytest.mark.parametrize(
    ("search", "texts"),
    [
        ({"sampler": "grid", "space_filling": 0.2}, ("`search.space_filling` must be left out", "grid")),
        (
            {"sampler": "random", "trials": 9, "space_filling": 0.2},
            ("`search.space_filling` must be left out", "random"),
        ),
        ({"sampler": "tpe", "trials": 9, "space_filling": 1.0}, ("`search.space_filling` must be below 1", "1.0")),
        ({"sampler": "tpe", "trials": 9, "space_filling": -0.1}, ("`search.space_filling` must be at least 0",)),
    ],
)
def test_a_share_that_has_no_meaning_is_refused_with_its_line(
    tmp_path: Path, search: dict[str, Any], texts: tuple[str, ...]
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps({"study": "q", "base": "replknet_nano", "axes": AXES, "search": search}, indent=1))
    with pytest.raises(StudyError) as caught:
        load_study(path)
    message = str(caught.value)
    assert all(text in message for text in texts), message
    assert "study.yaml:" in message


def test_random_numbers_of_a_draw_follow_from_seed_and_count_alone(tmp_path: Path) -> None:
    file = mixed(tmp_path)
    space = space_of(file)
    first, second = (SpaceFilling(file.study, space) for _ in range(2))
    facts = {"fingerprint": "a", PROPOSED_BY: "sampler"}
    for _ in range(3):
        first.count(facts)
    for _ in range(11):
        second.count(facts)
    assert first.next_draw() == second.next_draw() == draw_feasible(space, draw_seed(file.study.search.seed, 0))
