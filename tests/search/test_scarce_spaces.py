"""A space in which few networks are within budget is searched; one in which none is is refused with its nearest."""

import json
import re
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from scripted_driver import Bench, make_study, of
from tiny_studies import BRIEF, TINY, Played, called, files_of, write_study

from harness.analysis.study_reader import open_space
from harness.config.census import take_census
from harness.config.study_file import build_space, load_study
from harness.errors import StudyError
from harness.search.events import RunStarted, StudyEnded, TrialStarted
from harness.search.trial import suggest
from harness.storage import Store

AXES: dict[str, Any] = {
    "K[0]": [3, 5, 7],
    "K[3]": [3, 5, 7, 9, 13],
    "C[0]": {"low": 8, "high": 120, "step": 8},
    "C[1]": {"low": 8, "high": 72, "step": 32},
    "C[2]": {"low": 16, "high": 80, "step": 16},
}
"""3,375 combinations."""
FEWER: dict[str, Any] = {name: AXES[name] for name in ("K[0]", "K[3]", "C[0]")}


def scarce(folder: Path, params: int, **search: Any) -> Any:
    keys = {"axes": AXES, "budgets": {"params": params}}
    return make_study(folder, search={"sampler": "tpe", "trials": 6, "seeds": 1} | search, **keys)


@pytest.fixture(scope="module")
def limit(tmp_path_factory: pytest.TempPathFactory) -> int:
    """A budget that two of the networks are within."""
    file = scarce(tmp_path_factory.mktemp("limit"), 10**9)
    costs = sorted(
        candidate.cost.params for candidate in build_space(file, classes=8, channels=1).grid() if candidate.cost
    )
    assert len(costs) == 3_375 and costs[1] < costs[2]
    return costs[1]


@pytest.mark.long
def test_both_feasible_networks_are_trained_and_the_study_states_why_it_ends(tmp_path: Path, limit: int) -> None:
    bench = Bench(tmp_path, scarce(tmp_path, limit))
    events = list(bench.drive())
    assert len(of(events, TrialStarted)) == 2
    (ended,) = of(events, StudyEnded)
    assert ended.reason is not None
    assert "2 of 3,375 networks are within rules and budgets, and all are tried" in ended.reason
    assert ended.reason.endswith("4 of 6 trials are left")
    rejected = [trial for trial in bench.trials() if "rejected" in trial.user_attrs]
    assert len(rejected) < 40
    again = list(bench.drive())
    assert of(again, StudyEnded)[0].reason == ended.reason
    assert len(bench.trials()) == len(rejected) + 2  # and nothing is proposed in vain again


def test_the_answer_states_why_the_search_ended_however_it_is_shown(tmp_path: Path) -> None:
    search = {"sampler": "random", "trials": 3, "seeds": 1}
    path = write_study(tmp_path, TINY, axes={"K[0]": [3, 5]}, search=search, proxy=BRIEF)
    run_result = called("run", path, "--quiet", "--executor", "inline", cwd=tmp_path)
    assert run_result.returncode == 0, run_result.stderr
    reason = "1 proposal repeated a known network, for a further seed of it"
    assert f"The search ended: {reason}." in " ".join(run_result.stdout.split())
    summary = tmp_path / "results" / "tiny" / "summary.json"
    assert json.loads(summary.read_text())["search_ended"] == reason
    for command in ("run", "show"):
        more = ("--quiet", "--executor", "inline") if command == "run" else ()
        result = called(command, path, *more, cwd=tmp_path)
        assert " ".join(result.stdout.split()).count(reason) == 1, result.stdout + result.stderr
    with Store.open(tmp_path / "results" / "studies.db") as store:
        store.event("tiny", "trial complete", "", trial=3)
    assert reason not in called("show", path, cwd=tmp_path).stdout, "another trial has ended since"


@pytest.mark.long
def test_a_study_that_gave_up_before_resumes(tmp_path: Path, limit: int) -> None:
    bench = Bench(tmp_path, scarce(tmp_path, limit))
    with Store.open(tmp_path / "studies.db") as store:
        study = bench.open_trials(store)
        space = build_space(bench.file, classes=8, channels=1)
        for _ in range(125):
            trial = study.ask()
            candidate = space.sample(suggest(trial))
            if candidate.is_feasible:
                study.tell(trial, state=TrialState.FAIL)
            else:
                trial.set_user_attr("rejected", candidate.reason)
                study.tell(trial, state=TrialState.PRUNED)
    assert len({event.spec for event in of(list(bench.drive()), TrialStarted)}) == 2


@pytest.mark.long
def test_a_proposal_in_vain_is_replaced_by_the_nearest_network_that_fits(tmp_path: Path) -> None:
    space = build_space(scarce(tmp_path, 213_000), classes=8, channels=1)
    census = take_census(space)
    assert census.is_complete and census.is_scarce and len(census.feasible) > 3
    target = census.feasible[2]
    far = {**target.params, "C[0]": 120}
    assert census.nearest_to(far, space.axes, set()) is not None
    assert census.nearest_to(target.params, space.axes, set()) == target
    assert census.nearest_to(target.params, space.axes, {target.fingerprint}) != target


def test_a_large_space_is_described_by_an_interval(tmp_path: Path) -> None:
    axes = AXES | {"C[3]": {"low": 16, "high": 256, "step": 8}, "ffn_ratio": [1, 2, 3, 4]}
    file = make_study(tmp_path, axes=axes, budgets={"params": 200_000}, search={"sampler": "tpe", "trials": 2})
    census = take_census(build_space(file, classes=8, channels=1))
    low, high = census.interval()
    assert not census.is_complete and 0 < low < census.feasible_draws / census.draws < high < 1
    assert "of 418,500 combinations are within rules and budgets (95 % interval" in census.text()


@pytest.mark.long
def test_a_needle_in_a_large_space_is_found_downhill(tmp_path: Path) -> None:
    axes = AXES | {"C[3]": {"low": 16, "high": 2048, "step": 8}, "ffn_ratio": [1, 2, 3, 4]}
    file = make_study(tmp_path, axes=axes, budgets={"params": 36_200}, search={"sampler": "tpe", "trials": 2})
    census = take_census(build_space(file, classes=8, channels=1))
    assert (
        census.feasible_draws == 0 and census.feasible and all(candidate.is_feasible for candidate in census.feasible)
    )


@pytest.mark.parametrize("flags", [["--dry-run"], []])
def test_an_empty_space_names_the_budget_and_the_nearest_network(tmp_path: Path, flags: list[str]) -> None:
    path = write_study(
        tmp_path,
        {"study": "empty", "base": "replknet_nano", "axes": FEWER, "proxy": {"epochs": 6}},
        budgets={"params": 1000},
        search={"sampler": "tpe", "trials": 6},
    )
    before = files_of(tmp_path)
    result = called("run", path, *flags, "--executor", "inline", cwd=tmp_path)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "At least one configuration must be within rules and budgets" in result.stderr
    assert "Of 225, 225 break `budgets.params`" in result.stderr
    assert "The nearest, K[0]=3, K[3]=3, C[0]=8, has" in result.stderr
    assert files_of(tmp_path) == before


@pytest.mark.long
def test_a_dry_run_tells_how_many_networks_are_within_budget(tmp_path: Path, limit: int) -> None:
    scarce(tmp_path, limit)
    result = called("run", tmp_path / "study.yaml", "--dry-run", cwd=tmp_path)
    assert "2 of 3,375 networks are within rules and budgets" in result.stdout
    assert "2 configurations, 2 runs" in result.stdout


def test_a_million_trials_are_planned_at_once(tmp_path: Path) -> None:
    scarce(tmp_path, 10**9, trials=1_000_000, seeds=2)
    start = time.monotonic()
    result = called("run", tmp_path / "study.yaml", "--dry-run", cwd=tmp_path)
    assert time.monotonic() - start < 20 and result.returncode == 0
    assert "at most 3375 configurations, 1003375 runs" in re.sub(r"(?<=\d),(?=\d)", "", result.stdout)
    assert "996,625 trials can only repeat a configuration" in result.stdout


def test_a_dry_run_counts_the_trials_that_are_finished_and_those_that_can_only_repeat_a_network(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"axes": {"K": [3, 7]}, "when": {}}
    study = Played(tmp_path, **keys, search={"sampler": "random", "trials": 6, "seeds": 2})
    before = planned(study)
    assert "at most 2 configurations, 8 runs, of which the store has 0; 8 to train" in before
    assert "4 trials can only repeat a configuration, for a further seed of it" in before
    study.answer()
    assert "6 trials are finished; at most 0 new configurations, 0 runs" in planned(study)
    study = Played(tmp_path, **keys, search={"sampler": "random", "trials": 8, "seeds": 7})
    text = planned(study)
    assert "6 trials are finished; at most 0 new configurations, 8 runs" in text
    assert "estimated time: 48 s" in text
    (ended,) = [event for event, _, _ in study.events() if isinstance(event, StudyEnded)]
    assert ended.trained == 8


def planned(study: Played) -> str:
    """What the dry run prints."""
    return called("run", study.path, "--dry-run", *study.workspace.options, cwd=study.path.parent).stdout


def test_a_repeated_network_is_reported(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(axes={"K": [3, 7]}, search={"sampler": "random", "trials": 6, "seeds": 1})
    events = list(bench.drive())
    assert sum(event.is_repeat for event in of(events, TrialStarted)) == 4
    assert of(events, StudyEnded)[0].reason == "4 proposals repeated a known network, for a further seed of it"


def test_a_grid_repeats_nothing_and_neither_does_a_study_that_is_resumed(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(axes={"K": [3, 7]}, search={"seeds": 2})
    with closing(bench.drive()) as events:
        for event in events:
            if isinstance(event, RunStarted):
                break
    again = list(bench.drive())
    assert of(again, StudyEnded)[0].reason is None


@pytest.fixture
def bench_of(tmp_path: Path) -> Callable[..., Bench]:
    return lambda **overrides: Bench(tmp_path, make_study(tmp_path, **overrides))


@pytest.mark.long
def test_every_opener_refuses_the_empty_space(tmp_path: Path) -> None:
    make_study(tmp_path, axes=FEWER, budgets={"params": 1000}, search={"sampler": "tpe", "trials": 6, "seeds": 1})
    with pytest.raises(StudyError, match="At least one configuration"):
        open_space(load_study(tmp_path / "study.yaml"))
