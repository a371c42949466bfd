"""The results of a study: its rows, the conclusions from them, its tables."""

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_studies import EPOCHS, Played, epoch, started, text_of, well

from harness.analysis.conclusions import conclusions, conditions_text
from harness.analysis.formatting import format_params
from harness.analysis.results import StudyResults
from harness.report.configurations import ConfigurationTables
from harness.report.study import results_view
from harness.training.run import Ended, Job, Measured, Record, RunState

Script = Callable[[Job], Iterator[Record]]


def scored(value: Callable[[Job], float]) -> Script:
    """Runs whose accuracy is a function of the job."""

    def script(job: Job) -> Iterator[Record]:
        yield started()
        for n in range(1, EPOCHS + 1):
            yield epoch(n, value(job))
        yield Measured("latency_ms_p50", 1.0)
        yield Ended(RunState.COMPLETE, wall_s=10.0)

    return script


# The answer


def test_rows_are_configurations_best_first_with_mean_spread_n_and_seeds(played_results: StudyResults) -> None:
    assert [format_params(configuration.params) for configuration in played_results.rows] == [
        "K=31-29-27-13 reparam=5",
        "K=31-29-27-13 reparam=none",
        "K=13-13-13-13 reparam=5",
        "K=13-13-13-13 reparam=none",
        "K=3-3-3-3",
    ]
    best = played_results.rows[0]
    values = [93.0, 93.2, 93.4]
    assert best.mean == pytest.approx(statistics.fmean(values))
    assert best.spread == pytest.approx(statistics.stdev(values))
    assert (best.seeds, len(best.values), best.state, best.reason) == ((0, 1, 2), 3, "complete", None)
    assert best.latency_ms == 15.5 and best.wall_s == 12.0
    assert played_results.devices == ("cpu (test, 1 thread)",) and played_results.versions["torch"] == ("2.15.0",)


def test_front_holds_what_nothing_beats_in_both_accuracy_and_macs(played_results: StudyResults) -> None:
    assert [format_params(configuration.params) for configuration in played_results.front] == [
        "K=3-3-3-3",
        "K=13-13-13-13 reparam=5",
        "K=31-29-27-13 reparam=5",
    ]
    for configuration in played_results.front:
        others = [other for other in played_results.complete if other is not configuration]
        assert not any(o.macs <= configuration.macs and (o.mean or 0) > (configuration.mean or 0) for o in others)


def test_front_of_an_objective_that_is_minimized(tmp_path: Path) -> None:
    study = Played(tmp_path, objectives={"val_loss": "minimize"}, axes={"K": [[3, 3, 3, 3], [7, 7, 7, 7]]}, when={})
    results = study.answer()  # all losses are alike, so the cheaper network is on the front alone
    assert [format_params(configuration.params) for configuration in results.front] == ["K=3-3-3-3"]
    assert results.rows[0].mean == 2.5 / EPOCHS


@pytest.mark.long
@pytest.mark.parametrize("metric", ["params", "macs"])
def test_costs_may_be_the_objective(tmp_path: Path, metric: str) -> None:
    results = Played(tmp_path, objectives={metric: "minimize"}, search={"seeds": 1}).answer()
    assert results.best is not None and results.best.params == {"K": [3, 3, 3, 3]}
    assert results.best.values == (getattr(results.best, "params_count" if metric == "params" else "macs"),)


def test_a_configuration_over_the_latency_budget_is_not_the_best(tmp_path: Path) -> None:
    results = Played(tmp_path, budgets={"latency_ms": 10}).answer()
    assert {configuration.state for configuration in results.rows if configuration.params["K"][0] == 31} == {
        "over budget"
    }
    assert results.best is not None and results.best.params == {"K": [13, 13, 13, 13], "reparam": 5}
    assert all(configuration.params["K"][0] != 31 for configuration in results.front)
    assert "over budget" in text_of(ConfigurationTables(results))


def test_what_rules_and_budgets_leave_out_is_counted(tmp_path: Path) -> None:
    results = Played(tmp_path, budgets={"params": 300_000}, rules=["max(K) < 31"]).answer()
    assert results.rejected == {"rules[0]": 2, "params": 2}
    assert "2 configurations ruled out by rules[0]" in text_of(results_view(results))


def test_pruned_and_failed_configurations_keep_their_reason(tmp_path: Path) -> None:
    def script(job: Job) -> Iterator[Record]:
        if job.run.spec.K[0] == 13:
            yield started()
            yield Ended(RunState.OUT_OF_MEMORY, wall_s=1.0, cause="[bold]the device\x1b[31m had too little memory")
        elif job.run.spec.K[0] == 3:
            yield from well(job)
        else:
            yield started()
            yield epoch(1, 10.0)
            yield Ended(RunState.DIVERGED, wall_s=1.0, cause="the training loss is nan")

    results = Played(tmp_path).answer(script)
    assert [configuration.state for configuration in results.rows] == [
        "complete",
        "failed",
        "failed",
        "failed",
        "failed",
    ]
    text = text_of(results_view(results))
    assert "[bold]the device" in text and "\x1b" not in text
    assert "diverged: the training loss is nan" in text


def test_a_study_that_is_over_budget_everywhere_states_it(tmp_path: Path) -> None:
    results = Played(tmp_path, budgets={"latency_ms": 0.001}).answer()
    text = text_of(results_view(results))
    assert "No configuration is complete and within the budgets (5 over budget), so there is no best one." in text
    assert "Not complete, over budget, or without all seeds" in text and " yet" not in text


def test_a_study_without_a_complete_configuration_has_no_best(tmp_path: Path) -> None:
    def script(_: Job) -> Iterator[Record]:
        yield started()
        yield Ended(RunState.DIVERGED, wall_s=1.0, cause="the training loss is nan")

    results = Played(tmp_path).answer(script)
    assert results.best is None and results.front == ()
    assert conclusions(results) == [
        "No configuration is complete and within the budgets (5 failed), so there is no best one."
    ]
    assert text_of(results_view(results))


# Conclusions


def test_one_seed_is_called_what_it_is(tmp_path: Path) -> None:
    results = Played(tmp_path, search={"seeds": 1}).answer()
    assert "both were trained with one seed: without a spread, this may be chance" in conclusions(results)[0]
    assert "±" not in text_of(ConfigurationTables(results)).replace("± val", "")


def test_a_difference_within_the_spread_is_not_called_one(tmp_path: Path) -> None:
    results = Played(tmp_path, when={}, axes={"K": [[3, 3, 3, 3], [7, 7, 7, 7]]}).answer(
        scored(lambda job: 80.0 + job.run.spec.K[0] / 10 + job.run.seed)
    )
    first, second = conclusions(results)
    assert first.startswith("Not separated by 3 seeds: the best is 0.40 ahead of the second, K=3-3-3-3")
    assert "standard deviations 1.00 and 1.00" in first
    assert "2 configurations that cannot be told apart, K=3-3-3-3 has the fewest MACs" in second


def test_a_difference_beyond_the_spread_is_given_with_the_spread(played_results: StudyResults) -> None:
    sentences = conclusions(played_results)
    assert sentences == [
        "The best is 2.00 ahead of the second, K=31-29-27-13 reparam=none; more than the spread between seeds "
        "(standard deviation 0.20, 3 seeds)."
    ]


def test_a_row_further_down_with_a_wide_spread_is_named(tmp_path: Path) -> None:
    def value(job: Job) -> float:
        k, seed = job.run.spec.K[0], job.run.seed
        return {3: 90.0 + 0.1 * seed, 7: 88.0 + 0.1 * seed, 13: 80.0 + 7.0 * seed}[k]

    axes = {"K": [[3, 3, 3, 3], [7, 7, 7, 7], [13, 13, 13, 13]]}
    results = Played(tmp_path, when={}, axes=axes).answer(scored(value))
    ahead, named = conclusions(results)
    assert ahead.startswith("The best is 2.00 ahead of the second, K=7-7-7-7; more than the spread")
    assert named == "Not separated from the best, because of their own spread: K=13-13-13-13."


def test_a_tie_goes_to_the_cheaper_network_and_is_called_level(tmp_path: Path) -> None:
    axes = {"K": [[13, 13, 13, 13], [7, 7, 7, 7], [3, 3, 3, 3]]}
    results = Played(tmp_path, when={}, axes=axes).answer(scored(lambda job: 80.0 + job.run.seed))
    assert [configuration.params["K"][0] for configuration in results.rows] == [3, 7, 13]
    assert conclusions(results)[0].startswith("Not separated by 3 seeds: the best is level with the second, K=7-7-7-7")


def test_one_configuration_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    results = Played(tmp_path, when={}, axes={"K": [[3, 3, 3, 3]]}).answer()
    assert conclusions(results) == ["Only one configuration is complete: there is nothing to compare it with."]


def test_conditions_name_device_versions_and_seeds(played_results: StudyResults) -> None:
    expected = "Trained on cpu (test, 1 thread); harness 0.1.0, python 3.11.9, torch 2.15.0; seeds 0, 1, 2."
    assert conditions_text(played_results) == expected


# Tables


def test_answer_fits_80_columns_and_cuts_nothing(played_results: StudyResults) -> None:
    text = text_of(results_view(played_results), width=80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    row = next(line for line in text.splitlines() if line.startswith("●  4"))
    assert row.split() == [
        "●",
        "4",
        "31-29-27-13",
        "5",
        "93.20",
        "±",
        "0.20",
        "3",
        "0.80",
        "437k",
        "44.5M",
        "15.5",
        "12",
    ]


def test_long_answers_list_what_they_leave_out(played_results: StudyResults) -> None:
    assert "and 3 more" in text_of(ConfigurationTables(played_results, most=2))
