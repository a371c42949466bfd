"""Successive halving by Pareto rank: its decisions against a definition by hand, what is stored, and resumption."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_driver import EPOCHS, Bench, epoch, make_study, started

from harness.errors import StudyError
from harness.search.pareto_pruner import RUNGS, is_in_best_third, was_stopped
from harness.search.samplers import SCREENING_SEEDS
from harness.training.run import Ended, Job, Measured, Record, RunState

BOTH: Mapping[str, Any] = {"top1": "maximize", "macs": "minimize"}
KERNELS = [13, 3, 31, 7, 21, 5, 25, 9, 17, 11]
RUNG = 2
"""The only rung of screening runs of `EPOCHS` epochs."""

values = st.fixed_dictionaries({"top1": st.integers(0, 4).map(float), "macs": st.integers(0, 4).map(float)})


def rank(one: Mapping[str, float], others: list[Mapping[str, float]]) -> int:
    """The non-dominated rank by removing one front after another."""
    left, number = [one, *others], 0
    while True:
        front = [a for a in left if not any(b["top1"] >= a["top1"] and b["macs"] <= a["macs"] and a != b for b in left)]
        if one in front:
            return number
        left, number = [a for a in left if a not in front], number + 1


@settings(max_examples=150, deadline=None)
@given(values, st.lists(values, max_size=8))
def test_the_best_third_by_rank_passes(one: dict[str, float], others: list[dict[str, float]]) -> None:
    everyone: list[Mapping[str, float]] = [one, *others]
    ranks = [rank(each, everyone) for each in everyone]
    most = max(1, len(everyone) // 3)
    better, equal = (sum(each < ranks[0] for each in ranks), ranks.count(ranks[0]))
    passes = is_in_best_third(one, others, BOTH)
    if better + equal <= most:
        assert passes
    if better >= most:
        assert not passes
    of_front = [each for each, number in zip(everyone, ranks, strict=True) if number == ranks[0]]
    is_extreme = one["top1"] in (max(a["top1"] for a in of_front), min(a["top1"] for a in of_front))
    if better < most and is_extreme:
        assert passes, "extremes have the largest crowding distance"


def test_ties_of_crowding_pass_together_and_a_value_that_is_no_number_does_not() -> None:
    row = {"top1": 1.0, "macs": 1.0}
    assert is_in_best_third(row, [row] * 5, BOTH)
    assert not is_in_best_third({"top1": float("nan"), "macs": 2.0}, [row] * 5, BOTH)
    assert is_in_best_third({"top1": float("nan"), "macs": 2.0}, [], BOTH), "the first one has no rival"


def script(job: Job) -> Iterator[Record]:
    """Larger kernels are better up to 13, and only cost more above."""
    best = 40.0 + min(job.run.spec.K[0], 13) + (job.run.seed % 7) / 100
    yield started()
    yield from (epoch(n, best * n / EPOCHS) for n in range(1, EPOCHS + 1))
    yield Measured("latency_ms_p50", float(job.run.spec.K[0]))
    yield Ended(RunState.COMPLETE, wall_s=12.0)


def study_of(folder: Path, objectives: Mapping[str, Any] = BOTH, **search: Any) -> Bench:
    folder.mkdir(exist_ok=True)
    keys = {"pruner": "successive_halving", "seeds": 2} | search
    return Bench(folder, make_study(folder, objectives=dict(objectives), axes={"K": KERNELS}, search=keys))


def decisions(bench: Bench) -> list[tuple[int, str, Any]]:
    return [(t.params["K"], t.state.name, t.user_attrs.get(RUNGS)) for t in bench.trials()]


def test_configurations_that_are_dominated_at_the_rung_get_no_seed(tmp_path: Path) -> None:
    bench = study_of(tmp_path)
    list(bench.drive(script))
    states = {t.params["K"]: t.state.name for t in bench.trials()}
    assert (states[13], states[3]) == ("COMPLETE", "COMPLETE")
    stopped = {kernel for kernel, state in states.items() if state == "PRUNED"}
    assert {31, 21, 25, 17} <= stopped, "they cost more than 13 and are no better"
    seeds = {kernel: [seed for k, seed in bench.trained() if k == kernel] for kernel in KERNELS}
    assert all(seeds[kernel] == [SCREENING_SEEDS] for kernel in stopped)
    assert seeds[13] == [SCREENING_SEEDS, 0, 1], "its screening run is in no mean"
    for trial in bench.trials():
        stored = trial.user_attrs[RUNGS][str(RUNG)]
        assert stored["values"]["macs"] == trial.user_attrs["macs"]
        assert stored["values"]["top1"] == trial.intermediate_values[RUNG]
        assert was_stopped(trial.user_attrs) == (trial.state.name == "PRUNED")
        assert trial.state.name == "COMPLETE" or trial.user_attrs["failures"].popitem()[1] == (
            "not in the best third by Pareto rank after epoch 2"
        )


def test_what_is_measured_after_training_is_not_compared(tmp_path: Path) -> None:
    bench = study_of(tmp_path, {"latency_ms_p50": "minimize", "macs": "minimize", "top1": "maximize"})
    list(bench.drive(script))
    assert all(set(t.user_attrs[RUNGS]["2"]["values"]) == {"macs", "top1"} for t in bench.trials())


@pytest.mark.parametrize("stops", [(3,), (8,), (13, 9), (21,), (30, 4)])
def test_a_resumed_driver_decides_as_an_undisturbed_one(tmp_path: Path, stops: tuple[int, ...]) -> None:
    whole = study_of(tmp_path / "whole", sampler="grid")
    list(itertools.islice(whole.drive(script), 1000))
    parts = study_of(tmp_path / "parts", sampler="grid")
    for after in stops:
        events = parts.drive(script)
        list(itertools.islice(events, after))
        events.close()
    list(itertools.islice(parts.drive(script), 1000))
    assert sorted(map(str, decisions(whole))) == sorted(map(str, decisions(parts)))


def test_a_decision_to_stop_holds_if_the_driver_ends_before_the_run(tmp_path: Path) -> None:
    whole = study_of(tmp_path / "whole")
    list(itertools.islice(whole.drive(script), 1000))
    stopped = next(t for t in whole.trials() if t.state.name == "PRUNED")
    parts = study_of(tmp_path / "parts")
    events = parts.drive(script)
    for _ in itertools.islice(events, 1000):
        trials = parts.trials()
        if stopped.number < len(trials) and was_stopped(trials[stopped.number].user_attrs):
            break
    events.close()
    list(itertools.islice(parts.drive(script), 1000))
    assert parts.trials()[stopped.number].state.name == "PRUNED"
    assert [seed for k, seed in parts.trained() if k == stopped.params["K"]] == []


def test_the_same_decisions_with_several_workers_in_a_deterministic_search(tmp_path: Path) -> None:
    found = []
    for slots in (1, 3):
        bench = study_of(tmp_path / str(slots), sampler="random", trials=14, seeds=1, deterministic=True)
        list(itertools.islice(bench.drive(script, slots=slots), 1000))
        found.append(decisions(bench))
    assert found[0] == found[1]


def test_a_pruner_needs_an_objective_that_epochs_have(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="which only finished runs have"):
        study_of(tmp_path, {"macs": "minimize", "latency_ms_p50": "minimize"})
