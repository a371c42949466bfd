"""Which effects a space has, and over which networks each is averaged: compared with sums over all of them."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_driver import make_study

from harness.analysis.effect_cells import SpaceCells
from harness.analysis.effect_terms import CellContrast, TermKind, effect_terms, main_levels
from harness.config.effects import EffectEntry, as_levels, is_ordered, level_index, reference_index
from harness.config.space import Space
from harness.config.study_file import build_space
from harness.errors import StudyError

AXES: dict[str, Any] = {
    "K[0]": {"low": 3, "high": 13, "step": 2},
    "K[2]": {"low": 3, "high": 13, "step": 2},
    "shortcut": [True, False],
    "reparam": [None, 3, 5],
    "B[2]": [1, 2],
}
SEARCH = {"sampler": "random", "trials": 9, "seeds": 1}


def make_space(folder: Path, **keys: Any) -> Space:
    return build_space(make_study(folder, search=SEARCH, **{"axes": AXES} | keys), classes=8, channels=1)


def names(space: Space, *entries: EffectEntry) -> list[str]:
    return [term.name for term in effect_terms(space, entries)]


def one(axis: str, levels: set[int], against: set[int]) -> CellContrast:
    return CellContrast(({axis: as_levels(levels)}, {axis: as_levels(against)}), (1, -1))


# Terms


def test_the_effects_of_a_space_are_those_of_its_levels_halves_stages_and_of_the_pairs_of_the_guidelines(
    tmp_path: Path,
) -> None:
    space = make_space(tmp_path)
    assert names(space) == [
        *(f"K[0]: {k} against 3" for k in (5, 7, 9, 11, 13)),
        "K[0]: 9 to 13 against 3 to 7",
        *(f"K[2]: {k} against 3" for k in (5, 7, 9, 11, 13)),
        "K[2]: 9 to 13 against 3 to 7",
        "shortcut: true against false",
        "reparam: 3 against none",
        "reparam: 5 against none",
        "B[2]: 2 against 1",
        "K: 9 to 13 against 3 to 7, mean of 2 stages",
        "shortcut x K: true against false, at 9 to 13 less at 3 to 7, mean of 2",
        "reparam x K: 3 or 5 against none, at 9 to 13 less at 3 to 7, mean of 2",
        "K x stage: 9 to 13 against 3 to 7, K[2] less K[0]",
    ]


def test_entries_replace_the_pairs_and_are_attached_to_the_effects_that_they_name(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    entries = [
        EffectEntry(axis="shortcut", guideline=2),
        EffectEntry(axis="K[2]", level=[11, 13], against=3),
        EffectEntry(axis="K", guideline=5),
        EffectEntry(pair=["shortcut", "B[2]"]),
    ]
    terms = effect_terms(space, entries)
    named = {term.name: term.entry for term in terms if term.entry is not None}
    assert named == {
        "shortcut: true against false": entries[0],
        "K[2]: 11 or 13 against 3": entries[1],
        "K: 9 to 13 against 3 to 7, mean of 2 stages": entries[2],
        "shortcut x B[2]: true against false, at 2 less at 1": entries[3],
    }
    assert not any(term.kind == TermKind.STAGES_COMPARED for term in terms)


def test_pairs_of_two_fields_with_an_axis_per_stage_are_taken_stage_by_stage(tmp_path: Path) -> None:
    axes = {"K[0]": [3, 13], "K[3]": [3, 13], "reparam[0]": [None, 3], "reparam[3]": [None, 3]}
    space = make_space(tmp_path, axes=axes)
    (pair,) = (term for term in effect_terms(space, ()) if term.subject == "reparam x K")
    assert [sorted(part.cells[0]) for _, part in pair.parts] == [["K[0]", "reparam[0]"], ["K[3]", "reparam[3]"]]


def test_a_long_axis_has_four_groups_and_one_of_a_million_values_takes_no_time(tmp_path: Path) -> None:
    space = make_space(tmp_path, axes={"C[0]": {"low": 8, "high": 8_000_000, "step": 8}, "shortcut": [True, False]})
    terms = effect_terms(space, ())
    assert [term.compared for term in terms if term.subject == "C[0]"] == [
        "2000008 to 4000000 against 8 to 2000000",
        "4000008 to 6000000 against 8 to 2000000",
        "6000008 to 8000000 against 8 to 2000000",
        "4000008 to 8000000 against 8 to 4000000",
    ]
    cells = SpaceCells(space)
    assert cells.encode([{"C[0]": 16, "shortcut": True}]).values.shape[0] == 1


def test_references_and_order_follow_from_the_values(tmp_path: Path) -> None:
    axes = {"K": [3, 5, 13], "shortcut": [True, False], "reparam": [5, None], "ffn_ratio": [4, 2]}
    space = make_space(tmp_path, axes=axes)
    assert [reference_index(axis) for axis in space.axes.values()] == [0, 1, 1, 0]
    assert [is_ordered(axis) for axis in space.axes.values()] == [True, False, False, False]
    assert level_index(space.axes["K"], 13) == 2 and level_index(space.axes["shortcut"], False) == 1
    assert main_levels(space.axes["K"]) == (range(2, 3), range(1))
    with pytest.raises(StudyError, match="one of"):
        level_index(space.axes["K"], 7)


@pytest.mark.parametrize(
    ("entry", "texts"),
    [
        ({"axis": "kernel"}, ("`effects[0].axis`", "an axis of the study", '"kernel"', "Axes: ")),
        ({"pair": ["shortcut", "dw_ratio"]}, ("`effects[0].pair[1]`", '"dw_ratio"')),
        ({"axis": "K[0]", "level": 4}, ("`effects[0].axis`", "4")),
        ({"axis": "K[0]", "level": 3, "against": [3, 5]}, ("must be different values",)),
        ({"axis": "K[0]", "pair": ["K[0]", "shortcut"]}, ("either `axis` or `pair`",)),
        ({"axis": "K[0]", "recorded": "kernel_size"}, ("a study and a claim",)),
        ({"axis": "K[0]", "guideline": 6}, ("at most 5",)),
    ],
)
def test_entries_that_name_nothing_are_refused_with_their_line(
    tmp_path: Path, entry: dict[str, Any], texts: tuple[str, ...]
) -> None:
    with pytest.raises(StudyError) as caught:
        make_study(tmp_path, axes=AXES, search=SEARCH, effects=[entry])
    assert all(text in str(caught.value) for text in (*texts, "study.yaml")), str(caught.value)


# Cells


def mean_difference(space: Space, axis: str, high: Any, low: Any) -> float:
    """The mean difference in MACs of two values of an axis over all networks for which both are feasible."""
    others = {name: other for name, other in space.axes.items() if name != axis}
    differences = []
    for values in itertools.product(*(other.values for other in others.values())):
        rest = dict(zip(others, values, strict=True))
        candidates = [
            space.candidate({name: {**rest, axis: value}[name] for name in space.axes}) for value in (high, low)
        ]
        if all(candidate.is_feasible for candidate in candidates):
            costs = [candidate.cost for candidate in candidates]
            assert costs[0] is not None and costs[1] is not None
            differences.append(costs[0].macs - costs[1].macs)
    return float(np.mean(differences))


def test_the_effect_on_a_cost_is_the_mean_over_all_networks_whose_counterpart_is_feasible(tmp_path: Path) -> None:
    space = make_space(tmp_path, budgets={"macs": 34_000_000.0})
    assert 0.2 < sum(cell.is_feasible for cell in space.grid()) / space.size < 0.9
    cells = SpaceCells(space)
    cells.sample([])
    assert cells.is_whole
    for axis, high, low in (("K[0]", 13, 3), ("B[2]", 2, 1), ("reparam", 5, None)):
        levels = (level_index(space.axes[axis], value) for value in (high, low))
        contrast = one(axis, {next(levels)}, {next(levels)})
        means = cells.value_means(contrast, lambda cost: float(cost.macs))
        assert float(means.means @ contrast.signs) == pytest.approx(mean_difference(space, axis, high, low))
        assert means.variance(np.array(contrast.signs, float)) == 0
        assert 0 < means.share <= 1
    assert cells.value_means(one("K[0]", {5}, {0}), lambda cost: float(cost.macs)).share < 1


def test_a_level_that_adds_an_axis_is_weighted_by_the_share_of_its_completions(tmp_path: Path) -> None:
    """K=3 has no small kernel; K=13 has two choices of one, of which a rule excludes one."""
    axes = {"K": [3, 13], "reparam": [3, 5], "shortcut": [True, False]}
    space = make_space(
        tmp_path, axes=axes, when={"reparam": "max(K) > 5"}, rules=["not (reparam[0] == 5 and shortcut)"]
    )
    cells = SpaceCells(space)
    cells.sample([])
    contrast = one("K", {1}, {0})
    small: list[dict[str, Any]] = [{"K": 3, "shortcut": shortcut} for shortcut in (True, False)]
    assert cells.memberships(contrast, small).tolist() == [[0.0, 0.5], [0.0, 1.0]]
    large: list[dict[str, Any]] = [
        {"K": 13, "reparam": s, "shortcut": shortcut} for s, shortcut in ((3, True), (3, False), (5, False))
    ]
    assert cells.memberships(contrast, large).tolist() == [[1.0, 0.0]] * 3
    means = cells.value_means(contrast, lambda cost: float(cost.params)).means
    params = [cells.space.candidate(choices).cost for choices in (*small, *large)]
    counts = [0.0 if cost is None else float(cost.params) for cost in params]
    # the shortcut has the same share in both cells: half of its completions exist, so 1/3 against 2/3
    assert means[1] == pytest.approx(counts[0] / 3 + 2 * counts[1] / 3)
    assert means[0] == pytest.approx(counts[2] / 3 + 2 * (counts[3] + counts[4]) / 2 / 3)


@pytest.mark.long
def test_a_sample_of_a_larger_space_agrees_with_all_of_it_and_states_its_error(tmp_path: Path) -> None:
    axes = AXES | {"B[1]": [1, 2], "B[0]": [1, 2], "B[3]": [1, 2]}
    space = make_space(tmp_path, axes=axes, budgets={"macs": 50_000_000.0})
    contrast = one("K[0]", {3, 4, 5}, {0, 1, 2})
    sampled, whole = SpaceCells(space), SpaceCells(space)
    whole.is_whole = True
    results = []
    for cells in (sampled, whole):
        cells.sample([contrast])
        results.append(cells.value_means(contrast, lambda cost: float(cost.macs)))
    signs = np.array([1.0, -1.0])
    apart = float((results[0].means - results[1].means) @ signs)
    error = results[0].variance(signs) ** 0.5
    assert not sampled.is_whole and sampled.size < whole.size
    assert error > 0 and abs(apart) < 4 * error
    assert results[0].share == pytest.approx(results[1].share, abs=0.05)


def test_a_pair_has_networks_with_all_four_combinations(tmp_path: Path) -> None:
    space = make_space(
        tmp_path, axes={"K": [3, 13], "shortcut": [True, False], "B[2]": [1, 2]}, rules=["K[0] < 13 or B[2] < 2"]
    )
    (pair,) = (term for term in effect_terms(space, ()) if term.kind == TermKind.PAIR)
    cells = SpaceCells(space)
    cells.sample([])
    ((_, contrast),) = pair.parts
    members = cells.memberships(contrast, [{"K": 3, "shortcut": True, "B[2]": b} for b in (1, 2)])
    assert members[0].tolist() == [0.0, 0.0, 1.0, 0.0] and not members[1].any()
