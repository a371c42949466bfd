"""Of several proposals only the best by a score is trained: recorded, refused with a grid, never for uniform draws."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scripted_driver import Bench, make_study
from searches_in_memory import SearchInMemory

from harness.analysis.proposal_origin import FIRST_RUNG, PROPOSED_BY, is_space_filling
from harness.config.measures import SCORES
from harness.config.study_file import StudyFile, build_space
from harness.errors import StudyError
from harness.measures.zero_cost import ScoreInputs, blank_images, score
from harness.models.build import build
from harness.models.spec.network import NetworkSpec
from harness.search.first_rung import NetworkScorer
from harness.storage import Store

BASE = {"B": [1, 1, 1, 1], "C": [4, 4, 8, 8], "K": [3, 3, 3, 3], "stem_stride": 2, "ffn_ratio": 2}
AXES: dict[str, Any] = {"K[0]": [3, 5, 7, 9, 11, 13], "K[3]": [3, 5, 7, 9, 11, 13], "shortcut": [True, False]}
SEARCH = {"sampler": "tpe", "seeds": 1, "trials": 8, "first_rung": "receptive_field", "first_rung_proposals": 3}


def screened(folder: Path, **search: Any) -> StudyFile:
    folder.mkdir(exist_ok=True)
    return make_study(folder, base=BASE, axes=AXES, search=SEARCH | search)


def searched(folder: Path, **search: Any) -> SearchInMemory:
    folder.mkdir(exist_ok=True)
    return SearchInMemory(folder, base=BASE, axes=AXES, search=SEARCH | search)


def field(params: dict[str, Any]) -> float:
    """Of these networks: 2 pixels a step in the first stage, 16 in the last one."""
    return float(2 * (params["K[0]"] - 1) + 16 * (params["K[3]"] - 1))


def test_the_best_of_the_proposals_is_trained_and_the_record_has_their_scores(tmp_path: Path) -> None:
    trials = searched(tmp_path).trials
    opened = [trial for trial in trials if "fingerprint" in trial.user_attrs]
    others = [trial for trial in trials if "fingerprint" not in trial.user_attrs]
    assert len(opened) == 8 and len(others) == 16
    assert all(trial.state.name == "FAIL" and not trial.user_attrs.get("seeds") for trial in others)
    for n, trial in enumerate(opened):
        record = trial.user_attrs[FIRST_RUNG]
        rivals = [trials[number] for number in range(3 * n, 3 * n + 3) if number != trial.number]
        assert trial.user_attrs[PROPOSED_BY] == "first_rung" and record["score"] == "receptive_field"
        assert sorted(record["others"]) == sorted(rival.user_attrs[FIRST_RUNG]["value"] for rival in rivals)
        known = {json.dumps(before.params) for before in opened[:n]}
        new = [rival for rival in rivals if json.dumps(rival.params) not in known]
        if json.dumps(trial.params) not in known:
            assert all(field(trial.params) >= field(rival.params) for rival in new)
    best = max(opened, key=lambda trial: field(trial.params))
    assert best.user_attrs[FIRST_RUNG]["value"] - field(best.params) == pytest.approx(
        opened[0].user_attrs[FIRST_RUNG]["value"] - field(opened[0].params)
    )


@pytest.mark.long
def test_a_stopped_study_screens_as_before_and_counts_no_rejections(tmp_path: Path) -> None:
    bench = Bench(tmp_path, screened(tmp_path))
    events = bench.drive()
    for _ in range(20):
        next(events)
    events.close()
    list(bench.drive())
    trials = bench.trials()
    opened = [trial for trial in trials if "fingerprint" in trial.user_attrs]
    assert len(opened) == 8 and all(trial.state.name == "COMPLETE" for trial in opened)
    assert all(FIRST_RUNG in trial.user_attrs for trial in trials)
    assert not any("rejected" in trial.user_attrs for trial in trials)


def test_proposals_of_a_killed_driver_are_not_trained(tmp_path: Path) -> None:
    """What a driver leaves behind that is killed between the proposals of a rung: trials that are running."""
    bench = Bench(tmp_path, screened(tmp_path, trials=4))
    with Store.open(tmp_path / "studies.db") as store:
        study = bench.open_trials(store)
        for _ in range(2):
            study.ask()
    list(bench.drive())
    trials = bench.trials()
    assert [trial.state.name for trial in trials[:2]] == ["FAIL", "FAIL"]
    assert sum("fingerprint" in trial.user_attrs for trial in trials) == 4


def test_space_filling_draws_are_never_chosen_by_a_score(tmp_path: Path) -> None:
    """They are the same with a first rung and without."""
    drawn = []
    for folder, search in (("with", {}), ("without", {"first_rung": None, "first_rung_proposals": None})):
        done = searched(tmp_path / folder, space_filling=0.5, **search)
        trials = [t for t in done.trials if is_space_filling(t, done.study, done.space.fingerprint())]
        assert len(trials) == 4 and not any(FIRST_RUNG in trial.user_attrs for trial in trials)
        drawn.append([trial.params for trial in trials])
    assert drawn[0] == drawn[1]


def test_the_trials_of_a_random_search_with_a_first_rung_are_no_uniform_draws(tmp_path: Path) -> None:
    done = searched(tmp_path, sampler="random", trials=4, space_filling=0.25)
    fingerprint = done.space.fingerprint()
    assert sum(is_space_filling(trial, done.study, fingerprint) for trial in done.trials) == 1


@pytest.mark.long
@pytest.mark.parametrize("sampler", ["random", "qmc", "nsga2", "cmaes"])
def test_every_kind_of_sampler_can_have_a_first_rung(tmp_path: Path, sampler: str) -> None:
    axes = {"K[0]": [3, 5, 7, 9, 11, 13], "K[3]": [3, 5, 7, 9, 11, 13]}
    trials = {"nsga2": 40, "cmaes": 30}.get(sampler, 6)
    search = SEARCH | {"sampler": sampler, "trials": trials, "first_rung_proposals": 2}
    done = SearchInMemory(tmp_path, base=BASE, axes=axes, search=search)
    assert sum("fingerprint" in trial.user_attrs for trial in done.trials) == len(done.opened) == trials


@pytest.mark.long
def test_a_budget_is_kept_and_proposals_over_it_are_rejected(tmp_path: Path) -> None:
    study = screened(tmp_path)
    costs = sorted(cell.cost.macs for cell in build_space(study, classes=8, channels=1).grid() if cell.cost)
    trials = SearchInMemory(
        tmp_path, base=BASE, axes=AXES, search=SEARCH, budgets={"macs": costs[len(costs) // 2]}
    ).trials
    rejected = [trial for trial in trials if "rejected" in trial.user_attrs]
    assert rejected and not any(FIRST_RUNG in trial.user_attrs for trial in rejected)
    opened = [trial for trial in trials if "fingerprint" in trial.user_attrs]
    assert len(opened) == 8 and all(trial.user_attrs["macs"] <= costs[len(costs) // 2] for trial in opened)


@pytest.mark.parametrize("name", SCORES)
def test_the_driver_scores_as_a_run_does_and_leaves_the_random_state_alone(tmp_path: Path, name: Any) -> None:
    file = make_study(
        tmp_path,
        base=BASE,
        axes=AXES,
        search=SEARCH | {"seed": 3},
        proxy={"epochs": 2, "resolution": 16, "train_size": 64},
    )
    space = build_space(file, classes=8, channels=1)
    candidate = next(space.grid())
    scorer = NetworkScorer(name, file.study, None, tmp_path / "data")
    state = torch.get_rng_state()
    first = scorer(candidate)
    assert math.isfinite(first) and torch.equal(torch.get_rng_state(), state)
    assert NetworkScorer(name, file.study, None, tmp_path / "data")(candidate) == first
    if name not in ("grad_norm", "naswot"):
        images, labels = blank_images(candidate.trained[1], 1)
        assert score(name, ScoreInputs(build(candidate.trained[0], seed=3), images, labels)) == first


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"sampler": "grid", "first_rung": "synflow"}, "first_rung` must be left out for the sampler grid"),
        (
            {"sampler": "tpe", "trials": 9, "first_rung_proposals": 3},
            "must be left out where `first_rung` names no score",
        ),
        ({"sampler": "tpe", "trials": 9, "first_rung": "synfow"}, "synflow"),
        (
            {"sampler": "tpe", "trials": 9, "first_rung": "synflow", "first_rung_proposals": 1},
            "`search.first_rung_proposals` must be at least 2, but got 1",
        ),
    ],
)
def test_what_a_first_rung_cannot_be_is_refused(tmp_path: Path, search: dict[str, Any], words: str) -> None:
    with pytest.raises(StudyError) as error:
        make_study(tmp_path, base=BASE, axes=AXES, search=search)
    assert words in str(error.value) and "study.yaml:1" in str(error.value)


def test_a_first_rung_is_part_of_what_a_study_is(tmp_path: Path) -> None:
    from harness.config.study_file import resolved_yaml
    from harness.config.study_growth import compare_studies

    before = resolved_yaml(screened(tmp_path, first_rung=None, first_rung_proposals=None))
    after = resolved_yaml(screened(tmp_path))
    assert "`search.first_rung` from null" in compare_studies(before, after).refused[0]


def test_networks_of_the_study_are_those_that_are_scored(tmp_path: Path) -> None:
    """The field by hand: stem 11 pixels of step 2, 3x3 transitions of stride 2, and K - 1 of each stage's step."""
    file = screened(tmp_path)
    space = build_space(file, classes=8, channels=1)
    candidate = next(space.grid())
    spec: NetworkSpec = candidate.trained[0]
    expected, step = 11, 2
    for i, k in enumerate(spec.K):
        expected, step = (expected + 2 * step, 2 * step) if i else (expected, step)
        expected += (k - 1) * step
    assert NetworkScorer("receptive_field", file.study, None, tmp_path)(candidate) == expected
