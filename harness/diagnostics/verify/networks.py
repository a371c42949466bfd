"""Checks of networks: merged and folded ones compute the same as trained ones, and specs are values.

All kernel kinds, families and presets are merged. Specs survive a round trip through files, and each network has its
own fingerprint.
"""

import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.config.network_file import dump_network_spec, load_network_spec
from harness.config.yaml_file import write_yaml
from harness.diagnostics.verify.findings import Finding
from harness.models.build import build, fold, merge
from harness.models.cost import network_cost
from harness.models.equivalence import MERGE_TOLERANCE, noise_images, randomized_float64, relative_error
from harness.models.large_kernels import large_kernel
from harness.models.large_kernels.reparam import Mergeable
from harness.models.spec.family import FAMILIES
from harness.models.spec.kernel import KERNEL_KINDS, Kernel, largest_small_kernel
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS
from harness.models.spec.published import COUNTED, GROWTH

MAP, WIDTH = (9, 14), 8
"""Map and channels for a single kernel; the map is smaller than the larger kernels."""
SIDE, SMALL_SIDE = 64, 32
"""Sides of the images for presets and for small networks."""
SIDES = (5, 13, 31)
"""Kernel sizes; a kind is checked only at those that it supports."""
SMALL = 5
"""Side of the parallel small kernel, if the kind supports one."""
SLOW_FROM = 10_000_000
"""Number of parameters from which float64 takes seconds, and for the largest networks gigabytes."""
MERGES = "arXiv 2203.06717, section 3, guideline 3"
FOLDS = "in evaluation mode a batch norm is affine"
LARGEST, DILATION = 31, 3
"""Largest size and dilation of the kernels whose fingerprints are compared; dilation only if the kind supports it."""
ROUND_TRIP_SOURCE = "a spec is a value"
FINGERPRINT_SOURCE = "one fingerprint for one network"


def kinds() -> Iterator[Finding]:
    """Every kind of large kernel alone, with stride 1 and 2."""
    for kind in KERNEL_KINDS:
        for kernel in _kernels(kind):
            for stride in (1, 2):
                name = f"{kind}, K={kernel.k}, {'depth-wise' if kernel.depthwise else 'dense'}, stride {stride}"
                yield Finding(f"{name}: merged", 0.0, _merge_error(kernel, stride), MERGES, MERGE_TOLERANCE)


def families() -> Iterator[Finding]:
    """A small network of every family with every kind of large kernel."""
    for name, spec in _small_networks():
        yield from _network(name, spec, SMALL_SIDE)


def presets(*, is_slow: bool) -> Iterator[Finding]:
    """The smaller presets, and the paper's main network; or the other presets, if `is_slow`."""
    for name, spec in PRESETS.items():
        is_small = network_cost(spec, SIDE).params < SLOW_FROM or name == GROWTH.large
        if is_small != is_slow:
            yield from _network(name, spec, SIDE)


def _kernels(kind: str) -> Iterator[Kernel]:
    """Kernels of a kind smaller and larger than the map, with a parallel small kernel if the kind supports one."""
    for k in SIDES:
        kernel = Kernel(k, kind=kind, dilation=KERNEL_KINDS[kind].dilations[0])
        if k >= KERNEL_KINDS[kind].least_k(kernel):
            s = SMALL if largest_small_kernel(kernel) >= SMALL else None
            yield kernel._replace(s=s)
            if KERNEL_KINDS[kind].can_be_dense:
                yield kernel._replace(s=s, depthwise=False)


def _small_networks() -> Iterator[tuple[str, NetworkSpec]]:
    for family in FAMILIES:
        specs = [spec for spec in PRESETS.values() if spec.family == family]
        smallest = min(specs, key=lambda spec: network_cost(spec, SIDE).params)
        for kind in KERNEL_KINDS:
            for kernel in _kernels(kind):
                if kernel.k == SIDES[1]:
                    form = "" if kernel.depthwise else ", dense"
                    yield f"{family}, {kind}{form}", smallest.replace(**_fields(kernel))


def _fields(kernel: Kernel) -> dict[str, Any]:
    return {
        "kernel": kernel.kind,
        "K": kernel.k,
        "reparam": kernel.s,
        "dilation": kernel.dilation,
        "depthwise": kernel.depthwise,
    }


def _network(name: str, spec: NetworkSpec, side: int) -> Iterator[Finding]:
    """The relative change of the network's output after merging, and after also folding its batch norms."""
    network, x = randomized_float64(build(spec, seed=0)), noise_images(spec.in_channels, (side, side))
    exact = _output(network, x)
    for form, change, source in (("merged", merge, MERGES), ("folded", fold, FOLDS)):
        yield Finding(
            f"{name}: {form}", 0.0, relative_error(_output(change(network), x), exact), source, MERGE_TOLERANCE
        )


def _merge_error(kernel: Kernel, stride: int) -> float:
    """The relative change of the output of a single large kernel after merging."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        block = randomized_float64(large_kernel(WIDTH, kernel, stride=stride))
    assert isinstance(block, Mergeable), "every large kernel has a merged form"
    x = noise_images(WIDTH, MAP)
    exact = _output(block, x)
    block.merge()
    return relative_error(_output(block, x), exact)


@torch.no_grad()
def _output(network: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = network(x)
    return y


def round_trips() -> Iterator[Finding]:
    """Every preset survives a round trip through its canonical form and through both forms of a YAML file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.yaml"
        for name, spec in PRESETS.items():
            yield _same(f"{name}: its canonical form", spec, NetworkSpec.from_mapping(spec.canonical()))
            for form, text in (("short", write_yaml(spec.canonical())), ("full", dump_network_spec(spec))):
                path.write_text(text, encoding="utf-8")
                yield _same(f"{name}: a file, {form}", spec, load_network_spec(path))


def fingerprints() -> Iterator[Finding]:
    """No two presets have the same fingerprint."""
    yield Finding(
        "fingerprints of the presets",
        len(PRESETS),
        len({s.fingerprint() for s in PRESETS.values()}),
        FINGERPRINT_SOURCE,
    )


def identities() -> Iterator[Finding]:
    """Networks of neighboring kernel sizes share a fingerprint if and only if their kernels are built alike."""
    for kind in KERNEL_KINDS:
        for (one, built), (other, other_built) in pairwise(
            (_one_block(kernel), _shapes_of(kernel)) for kernel in _by_side(kind)
        ):
            networks, distinct = len({built, other_built}), len({one.fingerprint(), other.fingerprint()})
            name = f"{kind}, K={one.K[0]} and {other.K[0]}: networks"
            yield Finding(name, networks, distinct, FINGERPRINT_SOURCE)


def entries() -> Iterator[Finding]:
    """State dicts have the same number of entries as the released checkpoints."""
    for row in COUNTED:
        for form, expected, merged in (("training", row.entries, False), ("merged", row.entries_merged, True)):
            if expected is not None:
                with torch.device("meta"):
                    count = len(build(PRESETS[row.preset], merged=merged).state_dict())
                yield Finding(f"{row.preset}: entries of its state dict, {form}", expected, count, row.source)


def _by_side(kind: str) -> Iterator[Kernel]:
    """A kernel of every size that the kind supports, up to the paper's largest."""
    kernel = Kernel(LARGEST, kind=kind, dilation=min(DILATION, KERNEL_KINDS[kind].dilations[1]))
    for k in range(KERNEL_KINDS[kind].least_k(kernel), LARGEST + 1, 2):
        yield kernel._replace(k=k)


def _one_block(kernel: Kernel) -> NetworkSpec:
    return NetworkSpec(B=(1,) * 4, C=(8,) * 4, K=(kernel.k,) * 4, kernel=kernel.kind, dilation=(kernel.dilation,) * 4)


def _shapes_of(kernel: Kernel) -> tuple[torch.Size, ...]:
    """The shapes of all parameters, in the training form and the merged form."""
    with torch.device("meta"):
        return tuple(p.shape for merged in (False, True) for p in large_kernel(8, kernel, merged=merged).parameters())


def _same(subject: str, spec: NetworkSpec, again: NetworkSpec) -> Finding:
    return Finding(subject, str(spec.canonical()), str(again.canonical()), ROUND_TRIP_SOURCE)
