"""The table of named networks: the paper's, to the letter, and the proxies."""

import pytest

from harness.errors import SpecError
from harness.models.spec.presets import PRESETS, preset

KERNELS = {
    "replknet_3": (3, 3, 3, 3),
    "replknet_7": (7, 7, 7, 7),
    "replknet_13": (13, 13, 13, 13),
    "replknet_25": (25, 25, 25, 13),
    "replknet_31b": (31, 29, 27, 13),
    "replknet_31l": (31, 29, 27, 13),
    "replknet_xl": (27, 27, 27, 13),
}


@pytest.mark.parametrize("name", KERNELS)
def test_the_papers_networks(name: str) -> None:
    spec = preset(name)
    assert KERNELS[name] == spec.K
    assert spec.B == (2, 2, 18, 2)
    assert (spec.stem_stride, spec.ffn_ratio, spec.classes, spec.in_channels) == (4, 4.0, 1000, 3)
    assert tuple(c * spec.C[0] for c in (1, 2, 4, 8)) == spec.C


def test_widths_and_small_kernels() -> None:
    assert [PRESETS[name].C[0] for name in ("replknet_31b", "replknet_31l", "replknet_xl")] == [128, 192, 256]
    assert PRESETS["replknet_31b"].reparam == (5,) * 4
    assert PRESETS["replknet_xl"].reparam == PRESETS["replknet_3"].reparam == (None,) * 4
    assert PRESETS["replknet_xl"].dw_ratio == 1.5


def test_proxies_keep_the_ratio_of_kernel_to_map() -> None:
    nano = preset("replknet_nano")
    assert (nano.C, nano.B, nano.stem_stride) == ((16, 32, 64, 128), (1, 1, 2, 1), 2)
    assert preset("replknet_tiny").K == nano.K == preset("replknet_31b").K


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(SpecError) as caught:
        preset("replknet_32")
    assert all(name in str(caught.value) for name in PRESETS)
