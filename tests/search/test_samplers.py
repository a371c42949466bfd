"""Every sampler of the table, on real studies in a real database whose runs come from a script."""

import functools
import itertools
import random
import sqlite3
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from tiny_studies import EPOCHS, Played, epoch, started

from harness.analysis.study_reader import open_space
from harness.config.axes import Axis, Choice
from harness.config.search_methods import SAMPLERS as TRAITS
from harness.config.study import SamplerName
from harness.models.spec.network import NetworkSpec
from harness.search.events import RunStarted, StudyEnded, TrialStarted
from harness.search.samplers import SAMPLERS, build_sampler
from harness.search.trial import distribution_of, recorded_params, suggest
from harness.storage import Store, open_study, optuna_storage, widen_distributions
from harness.training.run import Ended, Job, Measured, Record, RunState

Script = Callable[[Job], Iterator[Record]]

KERNELS = [3, 7, 13, 31]
BEST = (13, 7, 31, 3)
ORDERED: dict[str, Any] = {
    "axes": {**{f"K[{i}]": KERNELS for i in range(4)}, "ffn_ratio": {"low": 1, "high": 6}},
    "when": {},
}
"""1,536 networks; every axis has an order, and the kernels are choices, because their steps differ."""
MIXED: dict[str, Any] = {
    "axes": {"K": [[k] * 4 for k in KERNELS], "reparam": [None, 5], "shortcut": [True, False], "C[3]": [64, 96, 320]},
    "when": {"reparam": "max(K) > 5"},
    "rules": ["K[0] < 31 or C[3] < 320"],
    "budgets": {"macs": 4.8e7},
}
"""An axis with a condition, a rule and a budget."""
BY_MODEL = ("tpe", "gp", "nsga2", "cmaes")
ALL = tuple(sorted(SAMPLERS.keys() - {"grid"}))
BRIEFLY = [pytest.param(name, marks=() if name in ("qmc", "tpe") else pytest.mark.long) for name in ALL]
"""All samplers, of which `make test` takes two."""


def score(spec: NetworkSpec) -> float:
    """The accuracy of a network of the ordered space, without noise; the more steps from the best one, the lower."""
    apart = sum(abs(KERNELS.index(k) - KERNELS.index(best)) for k, best in zip(spec.K, BEST, strict=True))
    return float(80.0 - 4.0 * apart - 2.0 * abs(spec.at("ffn_ratio", 0) - 3))


def scored(job: Job) -> Iterator[Record]:
    """A run of the ordered space, with noise that configuration and seed decide."""
    value = score(job.run.spec) + random.Random(job.run.id).gauss(0, 1)
    yield started()
    for n in range(1, EPOCHS + 1):
        yield epoch(n, value * n / EPOCHS)
    yield Measured("latency_ms_p50", float(job.run.spec.K[0]))
    yield Ended(RunState.COMPLETE, wall_s=1.0)


def widest(job: Job) -> Iterator[Record]:
    """A run of the mixed space: wide networks are better; two in five diverge."""
    spec = job.run.spec
    yield started()
    yield epoch(1, 20.0)
    if int(spec.fingerprint(), 16) % 5 < 2 and spec.C[3] == 96:
        yield Ended(RunState.DIVERGED, wall_s=1.0, cause="the training loss is nan")
        return
    for n in range(2, EPOCHS + 1):
        yield epoch(n, 50.0 + spec.C[3] / 10 + spec.K[0] / 10)
    yield Measured("latency_ms_p50", float(spec.K[0]))
    yield Ended(RunState.COMPLETE, wall_s=1.0)


def search_with(sampler: str, *, trials: int = 60, seed: int = 0) -> dict[str, Any]:
    return {"sampler": sampler, "trials": max(trials, TRAITS[sampler].least_trials), "seeds": 1, "seed": seed}


def proposals(study: Played, script: Script, slots: int = 1, count: int | None = None) -> list[NetworkSpec]:
    """The first networks of a study, in the order in which they are proposed; by default all, to its end."""
    with closing(study.events(script, slots=slots)) as events:
        specs = (event.spec for event, _, _ in events if isinstance(event, TrialStarted))
        return list(itertools.islice(specs, count))


def trials_of(study: Played) -> list[optuna.trial.FrozenTrial]:
    with Store.open(study.workspace.database) as store:
        return open_study(store, "question", directions=["maximize"]).get_trials()


def test_the_tables_and_the_study_file_have_the_same_samplers() -> None:
    assert list(TRAITS) == list(SAMPLERS) == list(get_args(SamplerName))


# Studies


@pytest.mark.parametrize("sampler", BRIEFLY)
def test_a_study_with_conditions_rules_and_budgets_runs_to_its_end(tmp_path: Path, sampler: str) -> None:
    study = Played(tmp_path, **MIXED, search=search_with(sampler, trials=16))
    assert len(proposals(study, widest, slots=3)) == study.file.study.search.trials
    trials = [trial for trial in trials_of(study) if "fingerprint" in trial.user_attrs]
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
    assert all(("reparam" in trial.params) == (trial.params["K"] != "[3, 3, 3, 3]") for trial in trials)
    assert all(trial.params["K"] != "[31, 31, 31, 31]" or trial.params["C[3]"] < 320 for trial in trials)


def interrupted(folder: Path, sampler: str) -> list[dict[str, Any]]:
    """The proposals of a study whose driver is interrupted amid three trials, and resumed."""
    study = Played(folder, **ORDERED, search=search_with(sampler, trials=16))
    runs = []
    with closing(study.events(scored, slots=3)) as events:
        runs += [event.run_id for event, _, _ in itertools.islice(events, 60) if isinstance(event, RunStarted)]
    before = [trial.params for trial in trials_of(study)]
    runs += [event.run_id for event, _, _ in study.events(scored) if isinstance(event, RunStarted)]
    trials = trials_of(study)
    assert [trial.params for trial in trials[: len(before)]] == before and len(before) > 3
    assert len(trials) == study.file.study.search.trials
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    assert max(Counter(runs).values()) <= 2  # at most once before the interruption and once to complete it
    return [trial.params for trial in trials]


@pytest.fixture(scope="module")
def interrupted_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[dict[str, Any]]]:
    return functools.cache(lambda sampler: interrupted(tmp_path_factory.mktemp("once"), sampler))


@pytest.mark.parametrize("sampler", BRIEFLY)
def test_an_interrupted_study_resumes_and_does_not_start_over(
    interrupted_once: Callable[[str], list[dict[str, Any]]], sampler: str
) -> None:
    proposed = interrupted_once(sampler)
    later = proposed[len(proposed) // 2 :]
    assert sum(params in proposed[:6] for params in later) < len(later) / 3


@pytest.mark.long
@pytest.mark.parametrize("sampler", ALL)
def test_the_same_interruption_leads_to_the_same_study(
    tmp_path: Path, interrupted_once: Callable[[str], list[dict[str, Any]]], sampler: str
) -> None:
    assert interrupted(tmp_path, sampler) == interrupted_once(sampler)


@pytest.mark.parametrize("sampler", BRIEFLY)
def test_a_seed_decides_the_proposals(tmp_path: Path, sampler: str) -> None:
    def proposed(name: str, seed: int) -> list[str]:
        folder = tmp_path / name
        folder.mkdir()
        study = Played(folder, **ORDERED, search=search_with(sampler, seed=seed))
        return [spec.fingerprint() for spec in proposals(study, scored, count=24 if sampler == "nsga2" else 13)]

    first = proposed("first", 3)
    assert proposed("second", 3) == first
    assert proposed("third", 4) != first


@pytest.mark.parametrize(
    ("sampler", "slots"),
    [(sampler, 1) for sampler in BY_MODEL] + [pytest.param(sampler, 4, marks=pytest.mark.long) for sampler in BY_MODEL],
)
def test_a_sampler_with_a_model_finds_the_best_region(tmp_path: Path, sampler: str, slots: int) -> None:
    """A network drawn at random has 57 on average, and 3 in 100 have 72 or more."""
    study = Played(tmp_path, **ORDERED, search=search_with(sampler, trials=40 if sampler == "gp" else 60))
    scores = [score(spec) for spec in proposals(study, scored, slots)]
    assert statistics.fmean(scores[-20:]) > 62.5
    assert max(scores) >= 74.0


def test_a_random_network_of_the_ordered_space_is_as_the_docstring_above_has_it(tmp_path: Path) -> None:
    study = Played(tmp_path, **ORDERED, search=search_with("random"))
    scores = [score(cell.spec) for cell in open_space(study.file).grid() if cell.spec]
    assert statistics.fmean(scores) == pytest.approx(57.0, abs=0.1)
    assert 0.03 < sum(value >= 72 for value in scores) / len(scores) < 0.04


# Each sampler


@pytest.mark.long
def test_the_sobol_sequence_covers_the_space_and_continues_after_an_interruption(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    axes = {"axes": {f"K[{i}]": KERNELS for i in range(3)}, "when": {}}
    for folder in (whole, parts):
        folder.mkdir()
    study = Played(whole, **axes, search=search_with("qmc", trials=64))
    specs = proposals(study, scored)
    for i in range(3):
        assert Counter(spec.K[i] for spec in specs) == dict.fromkeys(KERNELS, 16)
    pairs = Counter((spec.K[0], spec.K[1]) for spec in specs)
    assert len(pairs) == 16 and max(pairs.values()) <= 6
    proposals(Played(parts, **axes, search=search_with("qmc", trials=20)), scored)
    proposals(Played(parts, **axes, search=search_with("qmc", trials=64)), scored)
    assert [trial.params for trial in trials_of(Played(parts, **axes, search=search_with("qmc", trials=64)))] == [
        trial.params for trial in trials_of(study)
    ]


@pytest.mark.long
def test_a_gaussian_process_that_has_converged_repeats_the_best_network_only(tmp_path: Path) -> None:
    """With several workers, the expected improvement is then 0 everywhere; the first of equals may be a bad network."""
    study = Played(tmp_path, **ORDERED, search=search_with("gp", trials=50))
    last = [score(spec) for spec in proposals(study, scored, slots=4)][-15:]
    assert max(last) == 80.0 and statistics.fmean(last) > 72


@pytest.mark.long
def test_a_gaussian_process_proposes_no_network_over_the_budget(tmp_path: Path) -> None:
    keys = ORDERED | {"budgets": {"macs": 1.65e7}}
    study = Played(tmp_path, **keys, search=search_with("gp", trials=24))
    proposals(study, scored)
    trials = trials_of(study)
    modeled = [trial for trial in trials if "gp:relative_params:0" in trial.system_attrs]
    rejected = [trial for trial in trials if "rejected" in trial.user_attrs]
    assert len(modeled) == 14 and rejected, "ten networks within the budget were drawn at random"
    assert not any("rejected" in trial.user_attrs for trial in modeled)


@pytest.mark.long
def test_a_gaussian_process_searches_where_few_networks_are_within_the_budget(tmp_path: Path) -> None:
    keys = ORDERED | {"budgets": {"macs": 1.0e7}}
    study = Played(tmp_path, **keys, search=search_with("gp", trials=14))
    assert len(proposals(study, scored)) == 14
    modeled = [trial for trial in trials_of(study) if "gp:relative_params:0" in trial.system_attrs]
    assert modeled and not any("rejected" in trial.user_attrs for trial in modeled)


def test_a_gaussian_process_takes_constraints_that_not_every_trial_has(tmp_path: Path) -> None:
    """Optuna's own raises a ValueError if a network of some, but not of all trials is over the latency budget."""

    def sometimes(job: Job) -> Iterator[Record]:
        is_timed = int(job.run.id, 16) % 3 > 0
        yield from (record for record in scored(job) if is_timed or not isinstance(record, Measured))

    keys = ORDERED | {"budgets": {"latency_ms": 10.0}}
    study = Played(tmp_path, **keys, search=search_with("gp", trials=20))
    assert len(proposals(study, sometimes)) == 20
    constraints = [trial.constraints.get("latency_ms") for trial in trials_of(study)]
    assert None in constraints and any(amount is not None and amount > 0 for amount in constraints)


@pytest.mark.long
def test_nsga2_breeds_generations(tmp_path: Path) -> None:
    study = Played(tmp_path, **ORDERED, search=search_with("nsga2", trials=45))
    proposals(study, scored)
    generations = Counter(trial.system_attrs["NSGAIISampler:generation"] for trial in trials_of(study))
    assert generations == {0: 20, 1: 20, 2: 5}


@pytest.mark.long
def test_nsga2_breeds_from_networks_that_replaced_infeasible_proposals(tmp_path: Path) -> None:
    """Where few networks are within the budget, most of a generation are the nearest ones to its proposals."""
    study = Played(tmp_path, **ORDERED, budgets={"macs": 1.0e7}, search=search_with("nsga2", trials=42))
    proposals(study, scored)
    trained = [trial for trial in trials_of(study) if "fingerprint" in trial.user_attrs]
    assert sum("fixed_params" in trial.system_attrs for trial in trained) > 5
    assert {trial.system_attrs["NSGAIISampler:generation"] for trial in trained} == {0, 1, 2}


def test_cmaes_learns_from_what_it_proposed_itself(tmp_path: Path) -> None:
    study = Played(tmp_path, **ORDERED, search=search_with("cmaes", trials=30))
    proposals(study, scored)
    assert Counter(trial.system_attrs["cmawm:generation"] for trial in trials_of(study)) == {0: 8, 1: 8, 2: 8, 3: 6}


@pytest.mark.parametrize("sampler", BRIEFLY)
def test_axes_of_one_value_do_no_harm(tmp_path: Path, sampler: str) -> None:
    keys: dict[str, Any] = {"axes": {"K[0]": [13], "K[1]": KERNELS, "K[2]": [31], "K[3]": [3]}, "when": {}}
    study = Played(tmp_path, **keys, search=search_with(sampler, trials=14))
    specs = proposals(study, scored)
    assert {spec.K[0] for spec in specs} == {13} and len({spec.K[1] for spec in specs}) > 2


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [("qmc", "hyperband"), ("tpe", "hyperband"), ("nsga2", "median"), ("cmaes", "successive_halving")],
)
def test_samplers_and_pruners_work_together(tmp_path: Path, sampler: str, pruner: str) -> None:
    study = Played(tmp_path, **ORDERED, search=search_with(sampler, trials=16) | {"pruner": pruner})
    proposals(study, scored)
    assert {trial.state.name for trial in trials_of(study)} == {"COMPLETE", "PRUNED"}


def test_what_is_stored_can_be_read_as_the_file_has_it(tmp_path: Path) -> None:
    study = Played(tmp_path, **ORDERED, search=search_with("cmaes", trials=16))
    proposals(study, scored)
    stored = optuna.load_study(study_name="question", storage=f"sqlite:///{study.workspace.database}").get_trials()
    assert all(trial.params["K[0]"] in KERNELS for trial in stored)
    assert all(trial.distributions["K[0]"] == CategoricalDistribution(KERNELS) for trial in stored)


# A database from before ordered axes were presented as numbers

BEFORE = Path(__file__).parent / "tpe_before_ordered_axes.sql"
ITS_AXES: dict[str, Axis] = {
    "K": Choice(((3, 3, 3, 3), (7, 7, 7, 7), (13, 13, 13, 13), (31, 29, 27, 13))),
    "C[3]": Choice((64, 96, 160, 320)),
    "shortcut": Choice((True, False)),
}


def test_a_study_of_an_earlier_version_is_read_and_resumed(tmp_path: Path) -> None:
    with Store.open(tmp_path / "studies.db") as store:
        optuna_storage(store)
    with closing(sqlite3.connect(tmp_path / "studies.db")) as database:
        database.executescript(BEFORE.read_text())
    study = Played(tmp_path, axes={"K": [list(k) for k in ITS_AXES["K"].values], "C[3]": [64, 96, 160, 320],  # type: ignore[arg-type]
                   "shortcut": [True, False]}, when={}, search=search_with("tpe"))  # fmt: skip
    space = open_space(study.file)
    with Store.open(tmp_path / "studies.db") as store:
        trials = open_study(store, "question", directions=["maximize"])
        before = [trial.params for trial in trials.get_trials()]
        widen_distributions(trials, {name: distribution_of(axis) for name, axis in space.axes.items()})
        trials.sampler = build_sampler(study.file.study.search, space, 5)
        read = [space.sample(recorded_params(params)) for params in before]
        assert [candidate.params["K"] for candidate in read] == [
            (7, 7, 7, 7), (31, 29, 27, 13), (3, 3, 3, 3), (7, 7, 7, 7), (13, 13, 13, 13)
        ]  # fmt: skip
        for _ in range(40):
            trial = trials.ask()
            candidate = space.sample(suggest(trial))
            assert candidate.spec is not None
            trials.tell(trial, 60 + candidate.spec.K[0] / 10)
        after = trials.get_trials()
        assert [trial.params for trial in after[:5]] == before
        assert after[4].value == 61.3, "the open trial was resumed with its parameters"
        assert Counter(trial.params["K"] for trial in after[-20:]).most_common(1)[0][0] == "[31, 29, 27, 13]"


def test_a_study_that_has_ended_is_not_searched_again(tmp_path: Path) -> None:
    study = Played(tmp_path, **ORDERED, search=search_with("gp", trials=12))
    proposals(study, scored)
    ends = [event for event, _, _ in study.events(scored) if isinstance(event, StudyEnded)]
    assert ends[0].trained == 0
