"""Studies with several objectives: what a file may have, what trials store, resumption, and the answer."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_driver import Bench, epoch, make_study, quality, started, well

from harness.analysis.claims import evaluate_claims
from harness.analysis.conclusions import conclusions
from harness.analysis.results import StudyResults, study_results
from harness.config.study_file import build_space, resolved_yaml
from harness.config.study_growth import compare_studies
from harness.errors import StudyError
from harness.search.session import check_sampler
from harness.search.trial import FURTHER_OBJECTIVES
from harness.storage import Store, load_study
from harness.training.run import Ended, Job, Measured, Record, RunState

BOTH = {"top1": "maximize", "macs": "minimize"}
KERNELS = [3, 7, 13, 21, 31]


def study_of(folder: Path, objectives: dict[str, str] | None = None, **keys: Any) -> Bench:
    axes = {"axes": {"K": KERNELS}} | keys
    return Bench(folder, make_study(folder, objectives=objectives or BOTH, **axes))


def answer(bench: Bench, rejected: dict[str, int] | None = None) -> StudyResults:
    with Store.open(bench.folder / "studies.db") as store:
        trials = load_study(store, bench.study.study).get_trials(deepcopy=False)
        return study_results(bench.study, store, trials, rejected or {})


@pytest.mark.parametrize("sampler", ["grid", "random", "qmc", "tpe", "gp", "nsga2"])
def test_samplers_take_several_objectives_and_trials_store_the_mean_of_each(tmp_path: Path, sampler: str) -> None:
    trials = {"grid": None, "gp": 13, "nsga2": 40}.get(sampler, 12)
    search = {"sampler": sampler, "seeds": 2} | ({} if trials is None else {"trials": trials})
    bench = study_of(tmp_path, search=search)
    list(bench.drive())
    done = bench.trials()
    assert len(done) == (trials or len(KERNELS)) and all(trial.state.name == "COMPLETE" for trial in done)
    for trial in done:
        top1 = trial.user_attrs["values"]
        assert trial.values == [sum(top1) / len(top1), trial.user_attrs["macs"]]
        assert trial.user_attrs[FURTHER_OBJECTIVES] == {"macs": [trial.user_attrs["macs"]] * len(top1)}


@pytest.mark.parametrize(
    ("search", "rule", "remedy"),
    [
        ({"sampler": "cmaes", "trials": 30}, "one objective for the sampler cmaes", "tpe, gp or nsga2"),
        ({"sampler": "tpe", "trials": 9, "pruner": "median"}, "`search.pruner` must be none", "keep one objective"),
        ({"sampler": "tpe", "trials": 9, "pruner": "hyperband"}, "`search.pruner` must be none", "keep one objective"),
        ({"seeds": 5, "pruner": "wilcoxon"}, "`search.pruner` must be none", "keep one objective"),
        ({"seeds": 1, "racing": {"most": 3}}, "`search.racing` must be left out for 2 objectives", "`budgets`"),
        ({"sampler": "tpe", "trials": 30, "plateau": 0.1}, "`search.plateau` must be left out", "`budgets`"),
    ],
)
def test_what_needs_one_value_is_refused_with_its_line(
    tmp_path: Path, search: dict[str, Any], rule: str, remedy: str
) -> None:
    with pytest.raises(StudyError) as refused:
        study_of(tmp_path, search=search)
    assert rule in str(refused.value) and remedy in str(refused.value) and "study.yaml:" in str(refused.value)


@pytest.mark.parametrize(
    ("objectives", "rule"),
    [
        ({}, "must hold 1 to 6 objectives"),
        (dict.fromkeys(["top1", *(f"m{i}" for i in range(6))], "maximize"), "must hold 1 to 6 objectives"),
        ({"top1": "maximize", "macs": "least"}, "must be one of"),
        ({"macs": "minimize", "top1": "minimize"}, "`objectives.top1` must be maximize"),
        ({"top1": "maximize", "miou": "maximize"}, "`objectives.miou` must be a metric that runs of this recipe yield"),
    ],
)
def test_every_objective_must_be_one_that_runs_yield(tmp_path: Path, objectives: dict[str, str], rule: str) -> None:
    with pytest.raises(StudyError, match=rule):
        make_study(tmp_path, objectives=objectives)


def test_curves_among_the_objectives_need_training(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"where `proxy\.epochs` is 0"):
        study_of(tmp_path, {"macs": "minimize", "top1": "maximize"}, proxy={"epochs": 0})


def test_the_order_of_the_objectives_stays_that_of_the_stored_values(tmp_path: Path) -> None:
    first = resolved_yaml(make_study(tmp_path, objectives={"params": "minimize", "macs": "minimize"}))
    other = resolved_yaml(make_study(tmp_path, objectives={"macs": "minimize", "params": "minimize"}))
    assert not compare_studies(first, first).refused
    assert "their order stays the same" in compare_studies(first, other).refused[0]


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_a_resumed_study_has_the_trials_of_an_undisturbed_one(tmp_path: Path, sampler: str) -> None:
    search = {"sampler": sampler, "seeds": 2} | ({} if sampler == "grid" else {"trials": 9})
    stored = []
    for name, stops in (("whole", ()), ("parts", (5, 9, 14))):
        (tmp_path / name).mkdir()
        bench = study_of(tmp_path / name, search=search)
        for after in stops:
            events = bench.drive()
            list(itertools.islice(events, after))
            events.close()
        list(bench.drive())
        trials = [trial for trial in bench.trials() if trial.state.name == "COMPLETE"]
        stored.append([(trial.params, trial.values, trial.user_attrs["values_by_seed"]) for trial in trials])
    whole, parts = stored
    assert len(whole) == len(parts) > 0
    if sampler == "grid":  # a sampler that is built again has other random numbers, as with one objective
        assert sorted(map(str, whole)) == sorted(map(str, parts))


def test_a_plug_in_for_one_objective_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for name, is_taken in (("CmaEsSampler", False), ("NSGAIISampler", True)):
        bench = study_of(tmp_path, search={"sampler": f"optuna.samplers:{name}", "trials": 4})
        space = build_space(bench.file, classes=8, channels=1)
        if is_taken:
            check_sampler(bench.file, space)
            continue
        with pytest.raises(StudyError, match="must take the 2 objectives of the study") as refused:
            check_sampler(bench.file, space)
        assert "study.yaml:" in str(refused.value)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2"])
def test_several_workers_and_a_budget_of_latency(tmp_path: Path, sampler: str) -> None:
    search = {"sampler": sampler, "trials": 40 if sampler == "nsga2" else 14, "seeds": 1}
    bench = study_of(tmp_path, search=search, budgets={"latency_ms": 15})
    list(bench.drive(slots=3))
    over = {trial.params["K"] for trial in bench.trials() if max(trial.constraints.values(), default=0) > 0}
    assert over <= {21, 31} and not over & {row.params["K"] for row in answer(bench).front}


def test_claims_have_their_own_metric(tmp_path: Path) -> None:
    claim = {"name": "larger", "says": "Larger is better.", "contrast": {"K=3": -1, "K=31": 1}, "expect": "> 0"}
    bench = study_of(tmp_path, {"macs": "minimize", "top1": "maximize"}, claims=[claim], search={"seeds": 3})
    list(bench.drive())
    with Store.open(bench.folder / "studies.db") as store:
        (result,) = evaluate_claims(bench.study, build_space(bench.file, classes=8, channels=1), store)
    assert result.values == pytest.approx([28.0] * 3), "of top1, the second objective"


def test_a_finished_study_is_not_trained_again(tmp_path: Path) -> None:
    bench = study_of(tmp_path)
    list(bench.drive())
    list(bench.drive())
    assert bench.executor is None


def test_a_run_without_one_of_the_objectives_fails_with_its_name(tmp_path: Path) -> None:
    def script(job: Job) -> Iterator[Record]:
        if job.run.spec.K[0] != 7:
            yield from well(job)
            return
        yield started()
        yield from (epoch(n, quality(job)) for n in range(1, 7))
        yield Ended(RunState.COMPLETE, wall_s=1.0)

    bench = study_of(tmp_path, {"top1": "maximize", "latency_ms_p50": "minimize"})
    list(bench.drive(script))
    failed = next(trial for trial in bench.trials() if trial.params["K"] == 7)
    assert failed.state.name == "FAIL"
    assert set(failed.user_attrs["failures"].values()) == {"no metric is called `latency_ms_p50`"}


def accuracy(by_kernel: dict[int, float]) -> Any:
    """A script whose runs end with these accuracies, whatever their seed."""

    def script(job: Job) -> Iterator[Record]:
        yield started()
        yield from (epoch(n, by_kernel[job.run.spec.K[0]]) for n in range(1, 7))
        yield Measured("latency_ms_p50", float(job.run.spec.K[0]))
        yield Ended(RunState.COMPLETE, wall_s=12.0)

    return script


def test_the_answer_names_front_knee_hypervolume_and_uncertainty(tmp_path: Path) -> None:
    bench = study_of(tmp_path)
    list(bench.drive(accuracy({3: 60, 7: 75, 13: 74, 21: 80, 31: 81})))
    results = answer(bench)
    assert results.pareto is not None and results.best is not None
    assert [row.params["K"] for row in results.front] == [31, 21, 7, 3], "13 costs more than 7 and is worse"
    assert results.best.params["K"] == 7 and results.pareto.knee == results.best.trials[0]
    text = " ".join(conclusions(results))
    assert "4 of 5 complete configurations are on the Pareto front of top1 (maximize) and macs (minimize)" in text
    assert "The best is the knee of the front, K=7 (top1 75.00" in text and "Hypervolume 0." in text
    values = json.loads(json.dumps(results.to_dict()))
    assert values["pareto"]["front"] == values["pareto_front"] and values["best_trial"] == values["pareto"]["knee"]
    assert values["configurations"][0]["further_objectives"]["macs"]["mean"] == values["configurations"][0]["macs"]
    assert [one["hypervolume"] for one in values["pareto"]["hypervolume_by_trial"]] == sorted(
        one["hypervolume"] for one in values["pareto"]["hypervolume_by_trial"]
    )


def test_a_configuration_within_the_spread_of_another_one_is_named(tmp_path: Path) -> None:
    def script(job: Job) -> Iterator[Record]:
        noisy = {3: 60, 7: 75, 13: 75.5, 21: 90, 31: 95}[job.run.spec.K[0]] + 2 * job.run.seed
        yield from accuracy({job.run.spec.K[0]: noisy})(job)

    bench = study_of(tmp_path)
    list(bench.drive(script))
    assert any(
        "within the spread between seeds only, so perhaps by chance: K=13." in line
        for line in conclusions(answer(bench))
    )


def test_without_a_knee_the_best_of_the_first_objective_is_the_best(tmp_path: Path) -> None:
    bench = study_of(tmp_path, axes={"K": [3, 31]})
    list(bench.drive())
    results = answer(bench)
    assert results.best is not None and results.best.params["K"] == 31
    assert any("There is no knee, since the front has 2 different points" in line for line in conclusions(results))


def test_a_budget_that_keeps_a_configuration_off_the_front_binds(tmp_path: Path) -> None:
    bench = study_of(tmp_path, budgets={"latency_ms": 25, "params": 10_000_000})
    list(bench.drive())
    results = answer(bench)
    assert 31 not in [row.params["K"] for row in results.front] and results.pareto is not None
    latency, params = (
        next(one for one in results.pareto.budgets if one.name == name) for name in ("latency_ms", "params")
    )
    assert (latency.binds, latency.excluded, latency.largest) == (True, 1, 21.0)
    assert not params.binds
    text = " ".join(conclusions(results))
    assert "The budget of 25 ms binds: 1 configuration over it would be on the front; the front has up to 21." in text
    assert "The budget of 10.0M parameters does not bind: nothing was ruled out" in text


def test_configurations_at_chance_are_not_on_the_front(tmp_path: Path) -> None:
    bench = study_of(tmp_path, {"macs": "minimize", "top1": "maximize"})
    list(bench.drive(accuracy({3: 12.5, 7: 75, 13: 74, 21: 80, 31: 81})))
    assert [row.params["K"] for row in answer(bench).front] == [7, 21, 31]
