"""What a sampler cannot take is refused when the study is read: with rule, value, place and remedy."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from tiny_studies import SCRIPTED, called, files_of, write_study

from harness.config.problems import FileErrors
from harness.config.sampler_checks import check_sampler
from harness.config.search_methods import MAX_GP_TRIALS, SAMPLERS, cmaes_population
from harness.config.study_file import build_space, load_study
from harness.config.yaml_file import read_document
from harness.errors import StudyError

KERNELS: dict[str, Any] = {"axes": {f"K[{i}]": [3, 7, 13, 31] for i in range(4)}, "when": {}}
CLAIM: dict[str, Any] = {"name": "c", "says": "s", "contrast": {"K=3": 1, "K=5": -1}, "expect": "> 0"}
REFUSED: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("no trials", {"sampler": "qmc"}, ("`search.trials` must be given for the sampler qmc",)),
    ("few gp", {"sampler": "gp", "trials": 10}, ("at least 11", "gp", "draws 10 networks at random", "`trials: 11`")),
    ("many gp", {"sampler": "gp", "trials": 501}, ("at most 500", "501", "cube of the trials", "search with tpe")),
    (
        "gp pruner",
        {"sampler": "gp", "trials": 20, "pruner": "median"},
        ("`search.pruner` must be none or wilcoxon", 'got "median"'),
    ),
    ("few nsga2", {"sampler": "nsga2", "trials": 39}, ("at least 40", "39", "first generation of 20", "`trials: 40`")),
    ("few cmaes", {"sampler": "cmaes", "trials": 12}, ("at least 30", "12", "generation of up to 15")),
]


@pytest.mark.parametrize(("search", "messages"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_search_that_the_sampler_cannot_make_is_refused(
    tmp_path: Path, search: dict[str, Any], messages: tuple[str, ...]
) -> None:
    path = write_study(tmp_path, SCRIPTED, **KERNELS, search=search)
    before = files_of(tmp_path)
    for flags in (["--dry-run"], ["--executor", "inline"]):
        result = called("run", path, *flags, cwd=tmp_path)
        assert result.returncode == 2 and not result.stdout
        assert all(message in result.stderr for message in messages), result.stderr
        assert re.search(r"study\.yaml:\d+", result.stderr) and "Traceback" not in result.stderr
        assert files_of(tmp_path) == before


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "gp", "nsga2", "cmaes"])
def test_claims_need_a_grid(tmp_path: Path, sampler: str) -> None:
    search = {"sampler": sampler, "trials": 60}
    path = write_study(tmp_path, SCRIPTED, axes={"K": [3, 5]}, when={}, search=search, claims=[CLAIM])
    with pytest.raises(StudyError, match=f"`search.sampler` must be grid where there are claims, but got {sampler}"):
        load_study(path)


@pytest.mark.parametrize(
    ("values", "is_taken"),
    [
        ([3, 7, 31], True),
        ([[3, 3, 3, 3], [13, 13, 13, 13], [31, 29, 27, 13]], True),
        ([[3, 3, 3, 3], [13, 13, 13, 13], [31, 3, 13, 3]], False),
        ([[3, 3, 3, 3], [3, 13, 3, 13]], True),
        ([3, 7, [31, 29, 27, 13]], False),
    ],
)
def test_cmaes_needs_ordered_values(tmp_path: Path, values: list[Any], is_taken: bool) -> None:
    keys: dict[str, Any] = {"axes": {"K": values, "shortcut": [True, False]}, "when": {}}
    path = write_study(tmp_path, SCRIPTED, **keys, search={"sampler": "cmaes", "trials": 40})
    if is_taken:
        load_study(path)
        return
    with pytest.raises(
        StudyError, match=r"`axes\.K` must be a range, or numbers, or two values, for the sampler cmaes"
    ):
        load_study(path)


def test_cmaes_needs_a_budget_that_is_known_before_the_training(tmp_path: Path) -> None:
    search = {"sampler": "cmaes", "trials": 40}
    path = write_study(tmp_path, SCRIPTED, **KERNELS, search=search, budgets={"latency_ms": 5})
    with pytest.raises(StudyError, match=r"`budgets\.latency_ms` must be left out for the sampler cmaes") as refusal:
        load_study(path)
    assert "Limit `macs`" in str(refusal.value) and "study.yaml:" in str(refusal.value)


def test_cmaes_needs_a_space_in_which_networks_are_feasible(tmp_path: Path) -> None:
    search = {"sampler": "cmaes", "trials": 40}
    path = write_study(tmp_path, SCRIPTED, **KERNELS, search=search)
    cells = build_space(load_study(path), classes=8, channels=1).grid()
    macs = sorted(cell.cost.macs for cell in cells if cell.cost is not None)
    write_study(tmp_path, SCRIPTED, **KERNELS, search=search, budgets={"macs": macs[len(macs) // 20]})
    result = called("run", path, "--dry-run", cwd=tmp_path)
    assert result.returncode == 2, result.stdout
    assert "at least 10% of the networks must be within rules and budgets for the sampler cmaes" in result.stderr
    assert re.search(r"study\.yaml:\d+\)\. Here \d+ of 256 networks are within rules and budgets\.", result.stderr)
    write_study(tmp_path, SCRIPTED, **KERNELS, search=search, budgets={"macs": macs[len(macs) // 5]})
    assert called("run", path, "--dry-run", cwd=tmp_path).returncode == 0


def test_a_missing_package_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study(tmp_path, SCRIPTED, **KERNELS, search={"sampler": "cmaes", "trials": 40})
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(StudyError, match=r"the package cmaes must be installed for the sampler cmaes.*make setup"):
        load_study(path)


def test_a_long_axis_is_refused_by_the_gaussian_process(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"axes": {"drop_path": {"low": 0, "high": 0.5, "step": 0.00001}}, "when": {}}
    search = {"sampler": "gp", "trials": 40}
    with pytest.raises(StudyError, match=r"`axes.drop_path` must have at most 10,000 values.*50001"):
        load_study(write_study(tmp_path, SCRIPTED, **keys, search=search))


def test_cmaes_takes_one_objective(tmp_path: Path) -> None:
    path = write_study(tmp_path, SCRIPTED, **KERNELS, search={"sampler": "cmaes", "trials": 40})
    file = load_study(path)
    two = file.study.model_copy(update={"objectives": {"top1": "maximize", "macs": "minimize"}})
    problems = FileErrors(read_document(path))
    check_sampler(two, build_space(file, classes=8, channels=1), problems)
    assert [error.rule for error in problems.errors] == ["`objectives` must hold one objective for the sampler cmaes"]


@pytest.mark.parametrize("sampler", ["cmaes", "tpe"])
def test_the_axes_of_a_study_with_cmaes_do_not_grow(tmp_path: Path, sampler: str) -> None:
    from harness.config.study_file import resolved_yaml
    from harness.config.study_growth import compare_studies

    search = {"sampler": sampler, "trials": 40}
    before = resolved_yaml(load_study(write_study(tmp_path, SCRIPTED, **KERNELS, search=search)))
    grown: dict[str, Any] = {"axes": {**KERNELS["axes"], "K[0]": [3, 7, 13, 25, 31]}, "when": {}}
    changes = compare_studies(
        before, resolved_yaml(load_study(write_study(tmp_path, SCRIPTED, **grown, search=search)))
    )
    text = "`axes.K[0]` from [3, 7, 13, 31] to [3, 7, 13, 25, 31]"
    if sampler == "tpe":
        assert changes.added == (text,) and not changes.refused
    else:
        assert changes.refused == (f"{text} (cmaes has learned the earlier values)",)


def test_a_quick_profile_with_few_trials_draws_them_at_random_and_states_it(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"search": {"sampler": "nsga2", "trials": 60}, "quick": {"search": {"trials": 6}}}
    file = load_study(write_study(tmp_path, SCRIPTED, **KERNELS, **keys), is_quick=True)
    assert file.study.search.sampler == "random"
    assert file.notes == (
        "the quick profile has `search.sampler: random` in place of nsga2, to fit `search.trials: 6`",
    )


def test_a_generation_of_cmaes_grows_with_the_axes_and_two_fit_the_least_trials(tmp_path: Path) -> None:
    path = write_study(tmp_path, SCRIPTED, **KERNELS, search={"sampler": "cmaes", "trials": 30})
    space = build_space(load_study(path), classes=8, channels=1)
    assert cmaes_population(space.axes.values()) == 8
    assert 2 * cmaes_population(space.axes.values()) <= SAMPLERS["cmaes"].least_trials
    assert SAMPLERS["gp"].most_trials == MAX_GP_TRIALS


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_has_a_dry_run(tmp_path: Path, sampler: str) -> None:
    search = {"sampler": sampler} | ({} if sampler == "grid" else {"trials": 60})
    path = write_study(tmp_path, SCRIPTED, **KERNELS, search=search | {"seeds": 1})
    before = files_of(tmp_path)
    result = called("run", path, "--dry-run", "--executor", "inline", cwd=tmp_path)
    count = "256 configurations, 256 runs" if sampler == "grid" else "at most 60 configurations, 60 runs"
    assert result.returncode == 0 and count in result.stdout, result.stderr + result.stdout
    assert files_of(tmp_path) == before
