"""Table of all checks by subject, and the function that runs them."""

import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial

import torch

from harness.diagnostics.verify import convolution, costs, full_scale, networks
from harness.diagnostics.verify.findings import Check, CheckGroup, Finding, Line, Section
from harness.ops.dispatch import ALGORITHMS
from harness.ops.timing import cpu_threads
from harness.system.device_slot import computing, yield_slot
from harness.system.machine import cpu_name
from harness.training.device import find_device

CHECKS: dict[str, CheckGroup] = {
    "counts": CheckGroup(
        "parameters and MACs against papers and released code",
        (
            Check("params in training", partial(costs.params, merged=False)),
            Check("params merged", partial(costs.params, merged=True)),
            Check("params, batch norms folded (millions)", costs.params_folded),
            Check("MACs in both forms (G)", costs.macs),
            Check("params as published, to their rounding", costs.published_params),
            Check("MACs as published, to their rounding", costs.published_macs),
            Check("K from 3-3-3-3 to 31-29-27-13: % more MACs", partial(costs.growth, "macs", "MACs")),
            Check("K from 3-3-3-3 to 31-29-27-13: % more params", partial(costs.growth, "params", "params")),
            Check("taps of the large kernels on the map (%)", costs.in_bounds),
        ),
    ),
    "closed_form": CheckGroup(
        "the closed form against a count on the network, for every preset",
        (
            Check("in training, up to two blocks a stage", partial(costs.agreement, False)),
            Check("merged, up to two blocks a stage", partial(costs.agreement, True)),
            Check("whole, in both forms", partial(costs.agreement, False, True, most_blocks=sys.maxsize), is_slow=True),
        ),
    ),
    "merge": CheckGroup(
        "merged and folded networks compute the same, in float64, with randomized batch norms",
        (
            Check("every kind of large kernel, merged", networks.kinds),
            Check("every family with every kind, merged and folded", networks.families),
            Check("presets up to 10M params, and replknet_31b", partial(networks.presets, is_slow=False)),
            Check("the larger presets", partial(networks.presets, is_slow=True), is_slow=True),
        ),
    ),
    "operator": CheckGroup(
        "the large depth-wise convolution against PyTorch's in float64, output and gradients",
        (
            *(Check(name, partial(convolution.algorithm, name)) for name in ALGORITHMS),
            Check("as the blocks call it, in four precisions", convolution.default_path),
        ),
    ),
    "specs": CheckGroup(
        "networks as values",
        (
            Check("presets to a file and back", networks.round_trips),
            Check("presets are different networks", networks.fingerprints),
            Check("one fingerprint for one network, side by side", networks.identities),
            Check("entries of state dicts", networks.entries),
        ),
    ),
    "full_scale": CheckGroup(
        "the networks that the shipped studies end with",
        (
            Check("study files can be read", full_scale.files),
            Check("full-scale bases build", full_scale.bases),
            Check("configurations fit onto them", full_scale.configurations),
        ),
    ),
}


def run_checks(names: Iterable[str], *, is_full: bool = False) -> Iterator[Section]:
    """Run the checks of these subjects; yields a section per subject when its last check is done."""
    for name in names:
        start = time.perf_counter()
        # one thread: on such small maps, several threads wait for each other and take up to thirty times as long
        with computing(find_device(None)), cpu_threads(1):
            lines = tuple(_line(check) for check in CHECKS[name].checks if is_full or not check.is_slow)
        yield Section(name, CHECKS[name].about, lines, time.perf_counter() - start)


def _line(check: Check) -> Line:
    """Run one check; an exception makes it fail, and the other checks still run."""
    findings: list[Finding] = []
    yield_slot()
    try:
        for finding in check.run():
            findings.append(finding)
            yield_slot()
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        findings.append(Finding(f"{check.title}: to its end", "no error", message, "every check can be run"))
    return Line(check.title, tuple(findings))


def verification_conditions() -> str:
    """The machine and the version of torch with which the checks are run, as text."""
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([f"{cpu_name()}, 1 thread", *gpu, f"torch {torch.__version__}"])
