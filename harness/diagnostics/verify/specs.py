"""Networks as values: what is written of them is read back, and each is known by an identity of its own."""

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
"""Of the kernels that are told apart; a dilation where their kind has one."""
ROUND_TRIP_SOURCE = "a spec is a value"
FINGERPRINT_SOURCE = "one fingerprint for one network"


def round_trips() -> Iterator[Finding]:
    """Every preset through its canonical form, and through both forms of a YAML file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.yaml"
        for name, spec in PRESETS.items():
            yield _same(f"{name}: its canonical form", spec, NetworkSpec.from_mapping(spec.canonical()))
            for form, text in (("short", write_yaml(spec.canonical())), ("full", dump_network_spec(spec))):
                path.write_text(text, encoding="utf-8")
                yield _same(f"{name}: a file, {form}", spec, load_network_spec(path))


def fingerprints() -> Iterator[Finding]:
    """No two presets are one network."""
    yield Finding(
        "fingerprints of the presets",
        len(PRESETS),
        len({s.fingerprint() for s in PRESETS.values()}),
        FINGERPRINT_SOURCE,
    )


def identities() -> Iterator[Finding]:
    """Networks of neighbouring sides have one fingerprint where their kernels are built alike, and only there."""
    for kind in KERNEL_KINDS:
        for (one, built), (other, other_built) in pairwise(
            (_network(kernel), _forms(kernel)) for kernel in _by_side(kind)
        ):
            networks, known = len({built, other_built}), len({one.fingerprint(), other.fingerprint()})
            yield Finding(f"{kind}, K={one.K[0]} and {other.K[0]}: networks", networks, known, FINGERPRINT_SOURCE)


def entries() -> Iterator[Finding]:
    """State dicts have as many entries as the released checkpoints."""
    for row in COUNTED:
        for form, expected, merged in (("training", row.entries, False), ("merged", row.entries_merged, True)):
            if expected is not None:
                with torch.device("meta"):
                    found = len(build(PRESETS[row.preset], merged=merged).state_dict())
                yield Finding(f"{row.preset}: entries of its state dict, {form}", expected, found, row.source)


def _by_side(kind: str) -> Iterator[Kernel]:
    """A kernel of every side that its kind can have, up to the paper's largest."""
    kernel = Kernel(LARGEST, kind=kind, dilation=min(DILATION, KERNEL_KINDS[kind].dilations[1]))
    for k in range(KERNEL_KINDS[kind].least_k(kernel), LARGEST + 1, 2):
        yield kernel._replace(k=k)


def _network(kernel: Kernel) -> NetworkSpec:
    return NetworkSpec(B=(1,) * 4, C=(8,) * 4, K=(kernel.k,) * 4, kernel=kernel.kind, dilation=(kernel.dilation,) * 4)


def _forms(kernel: Kernel) -> tuple[torch.Size, ...]:
    """The shapes of all parameters, in the training form and in the merged one."""
    with torch.device("meta"):
        return tuple(p.shape for merged in (False, True) for p in large_kernel(8, kernel, merged=merged).parameters())


def _same(what: str, spec: NetworkSpec, again: NetworkSpec) -> Finding:
    return Finding(what, str(spec.canonical()), str(again.canonical()), ROUND_TRIP_SOURCE)
