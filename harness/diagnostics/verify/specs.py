"""Checks of network specs: they survive a round trip through files, and each network has its own fingerprint."""

import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch

from harness.config.network_file import dump_network_spec, load_network_spec
from harness.config.yaml_file import write_yaml
from harness.diagnostics.verify.findings import Finding
from harness.models.build import build
from harness.models.large_kernels import large_kernel
from harness.models.spec.kernel import KERNEL_KINDS, Kernel
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS
from harness.models.spec.published import COUNTED

LARGEST, DILATION = 31, 3
"""Largest size and dilation of the kernels whose fingerprints are compared; dilation only if the kind supports it."""
ROUND_TRIP_SOURCE = "a spec is a value"
FINGERPRINT_SOURCE = "one fingerprint for one network"


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
            (_network(kernel), _forms(kernel)) for kernel in _by_side(kind)
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


def _network(kernel: Kernel) -> NetworkSpec:
    return NetworkSpec(B=(1,) * 4, C=(8,) * 4, K=(kernel.k,) * 4, kernel=kernel.kind, dilation=(kernel.dilation,) * 4)


def _forms(kernel: Kernel) -> tuple[torch.Size, ...]:
    """The shapes of all parameters, in the training form and the merged form."""
    with torch.device("meta"):
        return tuple(p.shape for merged in (False, True) for p in large_kernel(8, kernel, merged=merged).parameters())


def _same(subject: str, spec: NetworkSpec, again: NetworkSpec) -> Finding:
    return Finding(subject, str(spec.canonical()), str(again.canonical()), ROUND_TRIP_SOURCE)
