"""Search spaces: what an axis takes, what a condition switches off, and that samples, grids and budgets agree."""

import copy
import itertools
import pickle
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from properties import examples

from harness.config.axes import Axis, Choice, Range, Sampler, random_sampler
from harness.config.expressions import Expression
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.space import Candidate, Space
from harness.errors import StudyError
from harness.models.cost import network_cost
from harness.models.spec.presets import PRESETS

NANO = PRESETS["replknet_nano"]
LADDER: dict[str, Axis] = {
    "K": Choice(((3, 3, 3, 3), (7, 7, 7, 7), (31, 29, 27, 13))),
    "reparam": Choice((None, 5)),
}


def space(
    axes: dict[str, Axis], when: dict[str, str] | None = None, rules: list[str] | None = None, **more: Any
) -> Space:
    conditions = {name: Expression(text, key=f"when.{name}") for name, text in (when or {}).items()}
    checks = tuple(Expression(text, key=f"rules[{i}]") for i, text in enumerate(rules or []))
    return Space(base=more.pop("base", NANO), axes=axes, when=conditions, rules=checks, **more)


# Axes


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        (Range(3, 31, 4), (3, 7, 11, 15, 19, 23, 27, 31)),
        (Range(3, 3), (3,)),
        (Range(1, 4), (1, 2, 3, 4)),
        (Range(0.0, 0.3, 0.1), (0.0, 0.1, 0.2, 0.3)),
        (Range(0.1, 0.7, 0.2), (0.1, 0.3, 0.5, 0.7)),
        (Range(2, 5, log=True), (2, 3, 4, 5)),
    ],
)
def test_the_values_of_a_range(axis: Range, values: tuple[float, ...]) -> None:
    assert axis.values == values
    assert len(axis) == len(values)
    assert [axis.member(value) for value in values] == list(values)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((3, 30, 4), r"`high` must be `low` \(3\) plus a whole number of steps of 4, but got 30. Try 27 or 31."),
        ((0.0, 0.25, 0.1), "Try 0.2 or 0.3"),
        ((5, 3, 1), r"`high` must be at least `low` \(5\)"),
        ((3, 7, 0), "`step` must be above 0"),
        ((3, 7, -2), "`step` must be above 0"),
        ((0, 8, 1, True), "`log` needs whole numbers from 1 on"),
        ((0.0, 1.0, 1e-320), "`step` must leave at most 1,000,000,000 values"),
        ((2, 8, 2, True), "`log` needs whole numbers from 1 on"),
        ((0.5, 1.5, 1, True), "`log` needs whole numbers from 1 on"),
    ],
)
def test_ranges_that_cannot_be(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(StudyError, match=words):
        Range(*arguments)


@given(
    low=st.integers(-50, 50), step=st.integers(1, 20), steps=st.integers(0, 40), scale=st.sampled_from([1, 0.1, 0.05])
)
def test_ranges_hold_their_ends_and_nothing_between_their_steps(low: int, step: int, steps: int, scale: float) -> None:
    axis = Range(low * scale, (low + steps * step) * scale, step * scale)
    assert len(axis) == steps + 1 == len(set(axis.values))
    assert axis.values[0] == pytest.approx(axis.low)
    assert axis.values[-1] == pytest.approx(axis.high)
    assert all(axis.member(value + 1e-13) == value for value in axis.values)
    for foreign in (
        axis.high + axis.step,
        axis.low - axis.step,
        axis.low + axis.step / 2,
        True,
        None,
        "3",
        float("nan"),
    ):
        with pytest.raises(StudyError, match="A choice must be one of"):
            axis.member(foreign)


def test_a_choice_takes_lists_for_tuples_and_tells_true_from_one() -> None:
    axis = Choice((None, (3, 3, 3, 3), True, 1))
    assert axis.member([3, 3, 3, 3]) == (3, 3, 3, 3)
    assert axis.member(None) is None
    assert axis.member(True) is True
    assert axis.member(1) is not True
    with pytest.raises(StudyError, match="one of the axis' values, but got 5"):
        axis.member(5)
    with pytest.raises(StudyError, match="at least one value"):
        Choice(())


def test_random_choices_repeat_from_their_seed_and_cover_the_axis() -> None:
    for axis in (Range(3, 31, 4), Choice((None, 5)), Range(16, 64, log=True)):
        draws = [[choose("K", axis) for _ in range(400)] for choose in (random_sampler(1), random_sampler(1))]
        assert draws[0] == draws[1]
        assert set(draws[0]) <= set(axis.values)
        assert {axis.values[0], axis.values[-1]} <= set(draws[0])
    low = sum(value < 32 for value in draws[0])
    assert 150 < low < 250, "evenly on a logarithmic scale, half of the draws fall below the geometric mean"


# Spaces that cannot be


@pytest.mark.parametrize(
    ("axes", "when", "words"),
    [
        ({"Kernel": Choice((3,))}, {}, "`Kernel` must be a field of the network"),
        ({"K[4]": Choice((3,))}, {}, r"`K` has the stages 0 to 3, but got 'K\[4\]'"),
        ({"K[-1]": Choice((3,))}, {}, "must be a field"),
        ({"drop_path[0]": Choice((0.1,))}, {}, "`drop_path` has one value for all stages"),
        ({"classes": Choice((8,))}, {}, "the data set decides it"),
        ({"in_channels": Choice((8,))}, {}, "the data set decides it"),
        ({"K": Choice((3,)), "K[3]": Choice((5,))}, {}, r"The axes `K` and `K\[3\]` must not decide the same stage"),
        ({"K": Choice((3,))}, {"reparam": "max(K) > 5"}, "`when.reparam` must name an axis"),
        ({"K": Choice((3,))}, {"K": "max(K) > 5"}, "`K` waits for itself"),
        (
            {"B": Choice((1,)), "C": Choice((8,)), "K": Choice((3,))},
            {"B": "C[0] > 5", "C": "B[0] > 1"},
            "but `B` and `C` wait for each other",
        ),
        ({"K[1]": Choice((3,)), "K[2]": Choice((3,))}, {"K[1]": "max(K) > 3"}, "`K.1.` waits for itself"),
    ],
)
def test_spaces_that_cannot_be(axes: dict[str, Axis], when: dict[str, str], words: str) -> None:
    with pytest.raises(StudyError, match=words):
        space(axes, when)


# Conditions


def test_an_axis_is_chosen_behind_those_that_its_condition_speaks_of() -> None:
    axes: dict[str, Axis] = {name: Choice((1,)) for name in ("K[1]", "B[0]", "K[0]", "shortcut", "drop_path", "K[2]")}
    ordered = space(axes, {"K[1]": "K[0] > 5", "B[0]": "shortcut or K[-2] > 1", "shortcut": "drop_path > 0"})
    assert list(ordered.axes) == ["K[0]", "K[1]", "drop_path", "shortcut", "K[2]", "B[0]"]


def test_a_condition_on_the_small_kernel_waits_for_the_large_one() -> None:
    """Because the base's small kernel gives way to it."""
    ordered = space({"B": Choice((1, 2)), "K": Choice((3, 7))}, {"B": "reparam[0] != null"})
    assert list(ordered.axes) == ["K", "B"]
    assert [candidate.params for candidate in ordered.grid()] == [{"K": 3}, {"K": 7, "B": 1}, {"K": 7, "B": 2}]


def test_an_axis_that_does_not_count_leaves_the_base_its_value() -> None:
    deep = space({"K": Choice((7, 13)), "B": Choice((2, 3))}, {"B": "K[0] > 7"})
    candidates = {(candidate.params["K"], candidate.spec.B) for candidate in deep.grid() if candidate.spec}
    assert candidates == {(7, NANO.B), (13, (2, 2, 2, 2)), (13, (3, 3, 3, 3))}


def test_the_example_of_a_kernel_study() -> None:
    """Three patterns; the smallest leaves no place for the base's 5x5 kernel, which is then absent and not an error."""
    study = space(LADDER, {"reparam": "max(K) > 5"})
    candidates = [(candidate.params, candidate.spec.reparam) for candidate in study.grid() if candidate.spec]
    none, five = (None,) * 4, (5,) * 4
    assert candidates == [
        ({"K": (3, 3, 3, 3)}, none),
        ({"K": (7, 7, 7, 7), "reparam": None}, none),
        ({"K": (7, 7, 7, 7), "reparam": 5}, five),
        ({"K": (31, 29, 27, 13), "reparam": None}, none),
        ({"K": (31, 29, 27, 13), "reparam": 5}, five),
    ]


def test_the_base_s_small_kernel_gives_way_to_kinds_of_kernel_that_have_no_place_for_it() -> None:
    kinds = space(
        {
            "kernel": Choice(("plain", "stripes", "bands", "sequential")),
            "stripe": Choice((3, 5)),
            "dilation": Choice((3,)),
        },
        {"stripe": 'kernel == "stripes"', "dilation": 'kernel == "sequential"'},
    )
    candidates = [(candidate.params, candidate.spec.reparam) for candidate in kinds.grid() if candidate.spec]
    none, five = (None,) * 4, (5,) * 4
    assert candidates == [
        ({"kernel": "plain"}, five),
        ({"kernel": "stripes", "stripe": 3}, none),
        ({"kernel": "stripes", "stripe": 5}, five),
        ({"kernel": "bands"}, none),
        ({"kernel": "sequential", "dilation": 3}, none),
    ]


def test_the_base_s_small_kernel_gives_way_stage_by_stage_and_a_chosen_one_does_not() -> None:
    stages = space({"K": Choice(((3, 7, 5, 3),))})
    (candidate,) = stages.grid()
    assert candidate.spec is not None
    assert candidate.spec.reparam == (None, 5, 5, None)
    chosen = space({"K": Choice(((3, 7, 5, 3),)), "reparam[0]": Choice((5,))})
    (candidate,) = chosen.grid()
    assert candidate.spec is None
    assert candidate.violations == {"spec": 1.0}
    assert candidate.reason is not None
    assert "`reparam[0]` must be at most the large kernel's side 3, but got 5" in candidate.reason


# Rules and budgets


def test_rules_and_budgets_report_what_is_wrong_and_by_how_much() -> None:
    rules = ["C[3] <= 8 * C[0]", "max(K) < 31"]
    cost = network_cost(NANO.replace(K=(31, 29, 27, 13)), 64)
    limits = {"params": cost.params / 2, "macs": cost.macs * 2}
    (candidate,) = space({"K": Choice(((31, 29, 27, 13),))}, rules=rules, budgets=limits).grid()
    assert not candidate.is_feasible
    assert candidate.cost == cost
    assert candidate.violations == pytest.approx({"rules[1]": 1.0, "params": 1.0})
    assert candidate.reason == (
        f"`max(K) < 31` is not so; {cost.params:,} params are over the budget of {cost.params / 2:,.0f}"
    )


def test_a_budget_is_met_by_exactly_its_amount_at_its_resolution() -> None:
    cost = network_cost(NANO, 32)
    (candidate,) = space(
        {"K": Choice((NANO.K,))}, recipe=ProxyRecipe(resolution=32), budgets={"macs": cost.macs}
    ).grid()
    assert candidate.is_feasible
    assert candidate.reason is None


# Choosing


def test_a_foreign_choice_is_refused() -> None:
    with pytest.raises(StudyError, match="one of the axis' values, but got 9"):
        space(LADDER).sample(lambda *_: 9)


def test_a_grid_names_every_network_once() -> None:
    """3 and [3, 3, 3, 3] are one network in two spellings."""
    twice = space({"K": Choice((3, (3, 3, 3, 3), 7)), "shortcut": Choice((True, False))})
    assert twice.size == 6
    assert [tuple(candidate.params.values()) for candidate in twice.grid()] == [
        (3, True),
        (3, False),
        (7, True),
        (7, False),
    ]


def test_the_size_of_an_astronomic_space_is_known_at_once() -> None:
    huge = space({f"C[{i}]": Range(1, 10**6) for i in range(4)})
    assert huge.size == 10**24
    assert len(list(itertools.islice(huge.grid(), 5))) == 5
    assert huge.sample(random_sampler(0)).spec is not None


def test_spaces_are_values() -> None:
    one, other = (space(LADDER, {"reparam": "max(K) > 5"}, ["C[0] > 3"], budgets={"params": 1e6}) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one
    changes = [
        space(LADDER, {"reparam": "max(K) > 7"}, ["C[0] > 3"], budgets={"params": 1e6}),
        space(LADDER, {"reparam": "max(K) > 5"}, [], budgets={"params": 1e6}),
        space(LADDER, {"reparam": "max(K) > 5"}, ["C[0] > 3"], budgets={"params": 2e6}),
        space(
            LADDER, {"reparam": "max(K) > 5"}, ["C[0] > 3"], budgets={"params": 1e6}, recipe=ProxyRecipe(resolution=32)
        ),
        space(LADDER, {"reparam": "max(K) > 5"}, ["C[0] > 3"], budgets={"params": 1e6}, base=NANO.replace(B=1)),
        space({"K": Choice((3,)), "reparam": Choice((None, 5))}, {"reparam": "max(K) > 5"}, ["C[0] > 3"]),
    ]
    assert len({variant.fingerprint() for variant in [one, *changes]}) == len(changes) + 1


# Random spaces

kernels = st.sampled_from([1, 3, 5, 7, 13])
patterns = st.tuples(kernels, kernels, kernels, kernels)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Small spaces: whole and single-stage axes, ordinal and not, conditions, rules; some choices are invalid."""
    axes: dict[str, Axis] = {}
    if draw(st.booleans()):
        axes["K"] = Choice(tuple(draw(st.lists(kernels | patterns, min_size=1, max_size=3, unique=True))))
    else:
        for stage in draw(st.sets(st.integers(0, 3), max_size=2)):
            axes[f"K[{stage}]"] = Range(1, draw(st.sampled_from([1, 5, 9])), 4)
    optional: dict[str, Axis] = {
        "reparam": Choice((None, 3, 5)),
        "shortcut": Choice((True, False)),
        "C": Choice((4, (4, 8, 8, 8))),
        "dw_ratio": Range(0.5, 1.5, 0.5),
        "B[2]": Range(1, 2),
    }
    axes |= {name: optional[name] for name in draw(st.permutations(sorted(optional)))[: draw(st.integers(0, 3))]}
    assume(axes)
    conditions = {"reparam": "max(K) > 3", "shortcut": "reparam[0] == null", "B[2]": "shortcut", "dw_ratio": "C[0] < 8"}
    when = {name: text for name, text in conditions.items() if name in axes and draw(st.booleans())}
    rules = draw(st.lists(st.sampled_from(["max(K) < 13", "dw_ratio <= 1", "K[0] <= K[3]"]), max_size=2, unique=True))
    return space(
        axes, when, rules, budgets=draw(st.sampled_from([{}, {"params": 2e4}])), recipe=ProxyRecipe(resolution=16)
    )


def replayed(candidate: Candidate) -> Sampler:
    return lambda name, _: candidate.params[name]


def signature(candidate: Candidate) -> tuple[Any, ...]:
    return (candidate.fingerprint, candidate.is_feasible, candidate.cost, tuple(sorted(candidate.violations)))


@examples(80)
@given(drawn=spaces(), seed=st.integers(0, 100))
def test_a_grid_is_all_that_can_be_sampled(drawn: Space, seed: int) -> None:
    grid = list(drawn.grid())
    assert len({candidate.fingerprint for candidate in grid}) == len(grid) <= drawn.size
    signatures = {signature(candidate) for candidate in grid}
    choose = random_sampler(seed)
    sampled = [drawn.sample(choose) for _ in range(20)]
    assert {signature(candidate) for candidate in sampled} <= signatures


@examples(80)
@given(drawn=spaces())
def test_every_candidate_accounts_for_itself(drawn: Space) -> None:
    for candidate in drawn.grid():
        assert candidate.is_feasible == (candidate.reason is None) == (candidate.violations == {})
        assert all(amount > 0 for amount in candidate.violations.values())
        assert (candidate.spec is None) == (candidate.cost is None) == ("spec" in candidate.violations)
        assert drawn.sample(replayed(candidate)) == candidate, "its own params lead to it again"
        if candidate.spec is not None:
            assert drawn.network(candidate.params) == candidate.spec
            assert candidate.cost == network_cost(candidate.spec, 16)
