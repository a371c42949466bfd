"""The axis `base`: whole networks as alternatives, whatever their family and their number of stages."""

from harness.config.axes import Axis, Choice
from harness.config.expressions import Expression
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.space import Space
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS

BASES = {name: PRESETS[name] for name in ("replknet_nano", "mobilenet_v2_nano", "convnext_nano")}


def space_over_bases(
    axes: dict[str, Axis], when: dict[str, str] | None = None, bases: dict[str, NetworkSpec] = BASES
) -> Space:
    """These axes on all of the bases."""
    conditions = {name: Expression(text, key=f"when.{name}") for name, text in (when or {}).items()}
    axes = axes | {"base": Choice(tuple(bases))}
    return Space(base=next(iter(bases.values())), bases=bases, axes=axes, when=conditions)


def test_the_base_is_chosen_first_and_its_values_are_kept() -> None:
    space = space_over_bases({"K": Choice((3, 13))})
    assert list(space.axes) == ["base", "K"]
    cells = list(space.grid())
    assert len(cells) == 6 and all(cell.is_feasible for cell in cells)
    assert [cell.spec for cell in cells] == [
        base.replace(K=k, reparam=None if k == 3 else base.reparam) for base in BASES.values() for k in (3, 13)
    ]


def test_an_axis_of_one_stage_counts_only_where_the_base_has_it() -> None:
    space = space_over_bases({"K[5]": Choice((5, 7))})
    chosen = [cell.params for cell in space.grid()]
    assert chosen == [
        {"base": "replknet_nano"},
        {"base": "mobilenet_v2_nano", "K[5]": 5},
        {"base": "mobilenet_v2_nano", "K[5]": 7},
        {"base": "convnext_nano"},
    ]
    stray = space.candidate({"base": "convnext_nano", "K[5]": 5})
    assert stray.reason == "`K[5]` must be a stage of the base, which has 4."


def test_what_does_not_suit_a_base_is_no_candidate() -> None:
    space = space_over_bases({"K": Choice(((3, 3, 3, 3), (5,) * 7))})
    feasible = [(cell.params["base"], len(cell.params["K"])) for cell in space.grid() if cell.is_feasible]  # type: ignore[arg-type]
    assert feasible == [("replknet_nano", 4), ("mobilenet_v2_nano", 7), ("convnext_nano", 4)]
    ratio = space_over_bases({"dw_ratio": Choice((1.0, 1.5))})
    refused = [cell for cell in ratio.grid() if not cell.is_feasible]
    assert [cell.params["base"] for cell in refused] == ["mobilenet_v2_nano", "convnext_nano"]
    assert all("`dw_ratio` must keep its default" in (cell.reason or "") for cell in refused)


def test_conditions_may_speak_of_the_family_and_of_the_last_stage_of_any_base() -> None:
    axes: dict[str, Axis] = {
        "shortcut": Choice((True, False)),
        "ffn_ratio": Choice((2.0, 4.0)),
        "K[6]": Choice((3, 9)),
        "K[3]": Choice((3, 5)),
    }
    when = {"shortcut": 'family == "mobilenet_v2"', "ffn_ratio": "K[-1] > 4"}
    space = space_over_bases(axes, when)
    assert list(space.axes) == ["base", "shortcut", "K[6]", "K[3]", "ffn_ratio"]
    for cell in space.grid():
        assert ("shortcut" in cell.params) == (cell.params["base"] == "mobilenet_v2_nano")
        last = cell.params["K[6]" if cell.params["base"] == "mobilenet_v2_nano" else "K[3]"]
        assert ("ffn_ratio" in cell.params) == (last in (5, 9))


def test_bases_make_another_space() -> None:
    larger = BASES | {"convnext_nano": BASES["convnext_nano"].replace(K=9)}
    assert space_over_bases({}).fingerprint() != space_over_bases({}, bases=larger).fingerprint()


def test_a_network_whose_maps_vanish_is_no_candidate() -> None:
    small = Space(base=BASES["convnext_nano"], axes={"stem_stride": Choice((2, 4))}, recipe=ProxyRecipe(resolution=24))
    fits, vanishes = small.grid()
    assert fits.is_feasible
    assert vanishes.spec is None and "needs images of 32 pixels a side" in (vanishes.reason or "")
