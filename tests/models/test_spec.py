"""A network as a value: spellings, canonical form, identity, and every rule it is checked against."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from random_specs import specs

from harness.config.recipes.proxy import ProxyRecipe
from harness.errors import SpecError
from harness.models.build import build
from harness.models.cost import network_cost
from harness.models.spec.network import FIELDS, NetworkSpec, inner_width
from harness.models.spec.presets import PRESETS
from harness.training.run import Run

PLAIN: dict[str, Any] = {"B": 1, "C": 8, "K": 7}

OTHER: dict[str, Any] = {
    "replica": 1,
    "B": [1, 1, 2, 1],
    "C": [8, 8, 8, 16],
    "K": [7, 7, 7, 9],
    "shortcut": False,
    "reparam": [None, None, 5, None],
    "depthwise": False,
    "dw_ratio": 1.5,
    "ffn_ratio": 2,
    "drop_path": 0.1,
    "stem_stride": 2,
    "in_channels": 1,
    "classes": 10,
    "dilation": [1, 1, 1, 2],
    "kernel": "dilated_reparam",
    "stripe": 3,
    "band_ratio": 0.25,
}
"""For each field a value that makes another network of `PLAIN`."""

COUNTS_IN: dict[str, dict[str, Any]] = {"stripe": {"kernel": "stripes"}, "band_ratio": {"kernel": "bands"}}
"""What `PLAIN` must be for a field to count."""

BROKEN: list[tuple[dict[str, Any], str, str]] = [
    ({"family": "resnet"}, "family", "Known: replknet, mobilenet_v2, convnext."),
    ({"family": ["replknet"]}, "family", "a known one"),
    ({"K": 8}, "K[0]", "must be odd, so that the kernel has a center, but got 8. Try 7 or 9."),
    ({"K": [7, 7, 7, 0]}, "K[3]", "whole number from 1"),
    ({"K": [7, 7, -3, 7]}, "K[2]", "but got -3"),
    ({"K": 7.0}, "K[0]", "whole number"),
    ({"K": True}, "K[0]", "whole number"),
    ({"K": "7"}, "K[0]", "whole number"),
    ({"K": [7, 7, 7]}, "K", "4 in all, but got [7, 7, 7]. Give 4 values, or one for all."),
    ({"K": [7] * 5}, "K", "one value per stage"),
    ({"K": []}, "K", "one value per stage"),
    ({"B": 0}, "B[0]", "whole number from 1"),
    ({"C": [8, 8, 8, 0]}, "C[3]", "whole number from 1"),
    ({"C": 10**400}, "C[0]", "whole number from 1"),
    ({"reparam": 9}, "reparam[0]", "at most the large kernel's side 7, but got 9. Try 7, or null"),
    ({"reparam": [None, 4, None, None]}, "reparam[1]", "must be odd"),
    ({"reparam": 0}, "reparam[0]", "whole number from 1"),
    ({"reparam": [5, 5]}, "reparam", "one value per stage"),
    ({"reparam": False}, "reparam[0]", "whole number"),
    ({"shortcut": 1}, "shortcut", "true or false"),
    ({"shortcut": "no"}, "shortcut", "true or false"),
    ({"depthwise": None}, "depthwise", "true or false"),
    ({"dw_ratio": 0}, "dw_ratio", "positive"),
    ({"dw_ratio": -1}, "dw_ratio", "positive"),
    ({"dw_ratio": 1.3}, "dw_ratio", "whole number of channels (C[0] is 8), but got 1.3. Try 1.25, or other channels."),
    ({"dw_ratio": float("nan")}, "dw_ratio", "a number"),
    ({"ffn_ratio": float("inf")}, "ffn_ratio", "a number"),
    ({"ffn_ratio": 10**400}, "ffn_ratio", "a number"),
    ({"ffn_ratio": "4"}, "ffn_ratio", "a number"),
    ({"ffn_ratio": True}, "ffn_ratio", "a number"),
    ({"drop_path": 1}, "drop_path", "at least 0 and below 1"),
    ({"drop_path": -0.1}, "drop_path", "at least 0 and below 1"),
    ({"drop_path": "0.1"}, "drop_path", "a number"),
    ({"stem_stride": 3}, "stem_stride", "2 or 4 in replknet, but got 3"),
    ({"stem_stride": 2.0}, "stem_stride", "whole number"),
    ({"in_channels": 0}, "in_channels", "whole number from 1"),
    ({"classes": 0}, "classes", "whole number from 1"),
    ({"dilation": 0}, "dilation[0]", "whole number from 1"),
    ({"dilation": 2, "reparam": 3}, "reparam[0]", "must be null with kernel plain and dilation 2"),
    ({"kernel": "star"}, "kernel", "a known one, but got 'star'. Known: plain, dilated_reparam,"),
    ({"kernel": ["plain"]}, "kernel", "4 in all, but got ['plain']"),
    ({"kernel": ["plain", "star", "plain", "plain"]}, "kernel[1]", "a known one, but got 'star'"),
    ({"kernel": ["plain", "stripes", "plain", "plain"], "depthwise": False}, "depthwise", "true with kernel stripes"),
    ({"kernel": ["plain", "stripes", "plain", "plain"], "depthwise": [False, False, True, True]}, "depthwise[1]", "tr"),
    ({"kernel": ["plain", "stripes", "plain", "plain"], "reparam": 7}, "reparam[1]", "at most 5 with kernel stripes"),
    ({"kernel": ["plain", "stripes", "plain", "plain"], "band_ratio": 0.2}, "band_ratio", "kernel plain and stripes"),
    ({"kernel": ["plain", "plain", "bands", "plain"], "dw_ratio": [1, 1, 0.25, 1]}, "C[2]", "at least 4 channels"),
    ({"kernel": ["sequential", "plain", "plain", "plain"]}, "dilation", "`dilation[0]` must be from 2"),
    ({"shortcut": [True, False]}, "shortcut", "one value per stage, 4 in all"),
    ({"shortcut": [True, 1, True, True]}, "shortcut[1]", "true or false"),
    ({"dw_ratio": [1, 1, 1.3, 1]}, "dw_ratio[2]", "(C[2] is 8), but got 1.3. Try 1.25"),
    ({"ffn_ratio": [4, None, 4, 4]}, "ffn_ratio[1]", "a number"),
    ({"family": "convnext", "dw_ratio": [1, 2, 1, 1]}, "dw_ratio", "in convnext with kernel plain"),
    ({"kernel": "stripes", "depthwise": False}, "depthwise", "must be true with kernel stripes"),
    ({"kernel": "stripes", "stripe": 4}, "stripe", "must be odd"),
    ({"kernel": "stripes", "stripe": "5"}, "stripe", "whole number"),
    ({"kernel": "stripes", "stripe": 9}, "K[0]", "at least 9 with kernel stripes and stripe 9, but got 7"),
    ({"kernel": "stripes", "stripe": 3, "reparam": 5}, "reparam[0]", "at most 3 with kernel stripes and stripe 3"),
    ({"stripe": 3}, "stripe", "in replknet with kernel plain, but got 3. Leave it out, or write 5."),
    ({"kernel": "bands", "band_ratio": 0}, "band_ratio", "above 0 and at most 1/3"),
    ({"kernel": "bands", "band_ratio": 0.4}, "band_ratio", "above 0 and at most 1/3"),
    ({"kernel": "bands", "band_ratio": None}, "band_ratio", "a number"),
    ({"kernel": "bands", "C": [8, 8, 8, 3]}, "C[3]", "at least 4 channels with kernel bands"),
    ({"kernel": "bands", "dw_ratio": 0.25}, "C[0]", "at least 4 channels"),
    ({"kernel": "bands", "K": [7, 7, 1, 7]}, "K[2]", "at least 3"),
    ({"kernel": "peripheral", "band_ratio": 0.25}, "band_ratio", "must keep its default"),
    ({"kernel": "peripheral", "dilation": 2}, "dilation", "`dilation[0]` must be 1 with kernel peripheral"),
    ({"kernel": "dilated_reparam", "reparam": 3}, "reparam[0]", "must be null with kernel dilated_reparam"),
    ({"kernel": "dilated_reparam", "K": 1}, "K[0]", "at least 3 with kernel dilated_reparam"),
    ({"kernel": "sequential"}, "dilation", "`dilation[0]` must be from 2 to 1000 with kernel sequential, but got 1"),
    ({"kernel": "sequential", "dilation": 4}, "K[0]", "at least 9 with kernel sequential and dilation 4, but got 7"),
    ({"kernels": 7}, "kernels", "no field of a network. Fields: family, B, C, K"),
]


@pytest.mark.parametrize(("change", "field", "says"), BROKEN, ids=[f"{c}"[:40] for c, _, _ in BROKEN])
def test_every_broken_rule_names_field_value_and_remedy(change: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        NetworkSpec.from_mapping(PLAIN | change)
    assert caught.value.field == field
    assert f"`{field}" in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("missing", ["B", "C", "K"])
def test_what_has_no_default_is_required(missing: str) -> None:
    with pytest.raises(SpecError, match="required") as caught:
        NetworkSpec.from_mapping({name: value for name, value in PLAIN.items() if name != missing})
    assert caught.value.field == missing


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(field=st.sampled_from(FIELDS), value=json_values)
@examples(400)
def test_any_value_in_any_field_is_a_network_or_a_spec_error(field: str, value: object) -> None:
    try:
        spec = NetworkSpec.from_mapping(PLAIN | {field: value})
    except SpecError as error:
        assert field in str(error)
    else:
        assert NetworkSpec.from_mapping(spec.canonical()) == spec


def test_one_value_applies_to_all_stages() -> None:
    spec = NetworkSpec.from_mapping(PLAIN | {"reparam": 5})
    assert (spec.B, spec.C, spec.K, spec.reparam) == ((1,) * 4, (8,) * 4, (7,) * 4, (5,) * 4)


@given(specs())
@examples(200)
def test_canonical_form_is_the_inverse_of_from_mapping(spec: NetworkSpec) -> None:
    again = NetworkSpec.from_mapping(spec.canonical())
    assert again == spec
    assert again.fingerprint() == spec.fingerprint()


def test_spellings_of_one_network_have_one_fingerprint() -> None:
    spellings = [
        PLAIN,
        {"K": [7, 7, 7, 7], "C": [8, 8, 8, 8], "B": [1, 1, 1, 1]},
        PLAIN | {"dw_ratio": 1, "ffn_ratio": 4, "drop_path": 0, "reparam": None},
        PLAIN | {"reparam": [None] * 4, "family": "replknet", "shortcut": True},
    ]
    assert len({NetworkSpec.from_mapping(spelling).fingerprint() for spelling in spellings}) == 1


def test_each_field_that_changes_the_network_changes_the_fingerprint() -> None:
    assert set(OTHER) == set(FIELDS) - {"family"}, "a new field needs a value here"
    networks = [PLAIN, *(PLAIN | fields for fields in COUNTS_IN.values())]
    networks += [PLAIN | COUNTS_IN.get(name, {}) | {name: value} for name, value in OTHER.items()]
    prints = [NetworkSpec.from_mapping(network).fingerprint() for network in networks]
    assert len(set(prints)) == len(networks)


SPELLINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"kernel": "peripheral"}, {}),
    (
        {"kernel": "peripheral", "K": [7, 5, 3, 1], "reparam": [5, 3, None, 1]},
        {"K": [7, 5, 3, 1], "reparam": [5, 3, None, 1]},
    ),
    ({"kernel": "dilated_reparam", "K": 3}, {"K": 3, "reparam": 1}),
    ({"K": [1, 7, 7, 7], "dilation": [4, 1, 1, 1]}, {"K": [1, 7, 7, 7]}),
    ({"kernel": "sequential", "dilation": 3, "K": 21}, {"kernel": "sequential", "dilation": 3, "K": 23}),
    ({"kernel": "sequential", "dilation": 3, "K": 21}, {"kernel": "sequential", "dilation": 3, "K": [19, 21, 23, 19]}),
    ({"kernel": "sequential", "dilation": 2, "K": 5}, {"kernel": "sequential", "dilation": 2, "K": 7}),
    ({"family": "convnext", "kernel": "peripheral", "reparam": 5}, {"family": "convnext", "reparam": 5}),
]
"""Pairs of ways to write one network, as changes of `PLAIN`."""

DIFFERENT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"kernel": "peripheral", "K": [7, 7, 7, 9]}, {"K": [7, 7, 7, 9]}),
    ({"kernel": "dilated_reparam", "K": [3, 3, 3, 5]}, {"K": [3, 3, 3, 5], "reparam": 1}),
    ({"kernel": "sequential", "dilation": 3, "K": 17}, {"kernel": "sequential", "dilation": 3, "K": 19}),
    ({"kernel": "sequential", "dilation": 3, "K": 23}, {"kernel": "sequential", "dilation": 3, "K": 25}),
    ({"kernel": "sequential", "dilation": 3, "K": 21}, {"kernel": "sequential", "dilation": 4, "K": 21}),
    ({"family": "convnext", "kernel": "peripheral"}, {"family": "convnext"}),
]
"""Two networks each that look alike; a ConvNeXt's plain kernel has no batch norm behind it."""


@pytest.mark.parametrize(("one", "other"), SPELLINGS, ids=str)
def test_two_spellings_of_one_network_have_one_fingerprint(one: dict[str, Any], other: dict[str, Any]) -> None:
    specs = [NetworkSpec.from_mapping(PLAIN | change) for change in (one, other)]
    assert specs[0] != specs[1] and specs[0].identity() == specs[1].identity()
    assert specs[0].fingerprint() == specs[1].fingerprint()
    assert NetworkSpec.from_mapping(specs[0].canonical()) == specs[0], "what was written stays"


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=str)
def test_networks_that_look_alike_have_fingerprints_of_their_own(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = (NetworkSpec.from_mapping(PLAIN | change).fingerprint() for change in (one, other))
    assert first != second


@given(specs())
@examples(100)
def test_an_identity_is_its_own(spec: NetworkSpec) -> None:
    assert spec.identity().identity() == spec.identity()


def test_presets_are_different_networks() -> None:
    assert len({spec.fingerprint() for spec in PRESETS.values()}) == len(PRESETS)


def test_fingerprint_is_the_same_in_another_process() -> None:
    program = "from harness.models.spec.presets import PRESETS; print(PRESETS['replknet_31b'].fingerprint())"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == PRESETS["replknet_31b"].fingerprint()


def test_fingerprint_stays_for_ever() -> None:
    """Stored runs are found by it: a change here orphans them, and must be on purpose."""
    assert NetworkSpec.from_mapping(PLAIN).fingerprint() == "a07a1da9519da1a2"


def test_a_spec_is_frozen_and_hashable() -> None:
    spec = NetworkSpec.from_mapping(PLAIN)
    with pytest.raises(AttributeError):
        spec.classes = 2  # type: ignore[misc]
    assert len({spec, NetworkSpec.from_mapping(PLAIN)}) == 1


def test_replace_checks_the_new_network() -> None:
    spec = NetworkSpec.from_mapping(PLAIN | {"reparam": 5})
    assert spec.replace(K=9).K == (9,) * 4
    with pytest.raises(SpecError, match=r"`reparam\[0\]` must be at most"):
        spec.replace(K=3)


def test_a_ratio_may_be_inexact_in_binary() -> None:
    spec = NetworkSpec.from_mapping(PLAIN | {"C": 10, "dw_ratio": 1.1})
    assert inner_width(spec.C[0], spec.at("dw_ratio", 0)) == 11


def test_replicas_are_one_network_by_two_names() -> None:
    a, b = (NetworkSpec.from_mapping(PLAIN | {"replica": replica}) for replica in (0, 1))
    assert a.fingerprint() == NetworkSpec.from_mapping(PLAIN).fingerprint() != b.fingerprint()
    assert a.canonical() == NetworkSpec.from_mapping(PLAIN).canonical()
    assert network_cost(a, 64) == network_cost(b, 64)
    first, second = (build(spec, seed=0).state_dict() for spec in (a, b))
    assert all(torch.equal(first[name], second[name]) for name in first | second)


def test_a_replica_has_weights_and_an_order_of_its_own_and_the_images_of_its_seed() -> None:
    recipe = ProxyRecipe()
    runs = [Run(NetworkSpec.from_mapping(PLAIN | {"replica": r}), recipe, seed) for r in (0, 1, 2) for seed in (0, 1)]
    assert len({run.training_seed for run in runs}) == len({run.id for run in runs}) == 6
    assert [run.training_seed for run in runs[:2]] == [0, 1], "without a replica it is the seed"
    assert len({run.recipe.image_seed(run.seed) for run in runs}) == 2


def test_a_negative_replica_is_refused() -> None:
    with pytest.raises(SpecError, match="`replica` must be a whole number from 0"):
        NetworkSpec.from_mapping(PLAIN | {"replica": -1})
