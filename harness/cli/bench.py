"""`harness bench`: measure the cost of the harness, its operator and its networks on this machine."""

import argparse
from argparse import ArgumentParser, Namespace
from pathlib import Path

from harness.analysis.network_forms import NetworkUse
from harness.cli.arguments import (
    Subparsers,
    add_command,
    add_network_options,
    add_workers_option,
    natural,
    network_query,
    odd,
    positive,
)

BENCH_SECTIONS = ("help", "start", "driver", "step", "proxies", "memory", "trials")
"""Sections that `harness bench` measures without a subject."""
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
"""Precisions in which the operator and networks can be measured; tf32 is float32 with products rounded to TF32."""
USE = NetworkUse(note="with random weights in each case")


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    parser = add_command(
        commands,
        "bench",
        "measure the cost of the harness, its operator and its networks on this machine",
        details="Without a subject it measures the harness itself against its targets, in about ten minutes.",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=BENCH_SECTIONS,
        help="measure only this section (may be repeated); writes no files by default",
    )
    _add_bench_output(parser, quick=False, output=None)
    subjects = parser.add_subparsers(title="subjects", metavar="SUBJECT", dest="subject")
    _add_bench_certainty(subjects)
    _add_bench_dwconv(subjects)
    _add_bench_network(subjects)
    _add_bench_search(subjects)
    _add_bench_torture(subjects)
    return parser


def run(args: Namespace) -> int:
    """Measure, print the results, and write them."""
    if args.subject is None:
        _bench(args)
    else:
        subjects = {"certainty": _bench_certainty, "dwconv": _bench_dwconv, "network": _bench_network}
        {**subjects, "search": _bench_search, "torture": _bench_torture}[args.subject](args)
    return 0


def _add_bench_output(bench: ArgumentParser, **defaults: object) -> None:
    """Add the output options of the bench and of its subjects; a subject without defaults keeps the bench's."""
    bench.set_defaults(**defaults)
    bench.add_argument(
        "--quick",
        action="store_true",
        default=argparse.SUPPRESS,
        help="few repeats and small sizes; writes no files by default",
    )
    bench.add_argument(
        "--output",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="DIR",
        help="folder for the results (default: results/bench)",
    )


def _add_bench_certainty(subjects: Subparsers) -> None:
    about = "core-minutes until the first claim of kernel_size.yaml is decided, with its proxy and with the one before"
    certainty = subjects.add_parser("certainty", help=about, description=f"Measure {about}.")
    _add_bench_output(certainty)
    add_workers_option(certainty)


def _add_bench_dwconv(subjects: Subparsers) -> None:
    about = "all algorithms of the large depth-wise convolution against nn.Conv2d, as in Table 1 of the RepLKNet paper"
    dwconv = subjects.add_parser(
        "dwconv",
        help=about,
        description=f"Measure {about}. If sizes are given, only these are measured, and written only with --output.",
    )
    _add_bench_output(dwconv)
    _add_bench_device(dwconv)
    for name, help_text in (
        ("--batch", "batch size (default: 64 on a GPU, 8 on a CPU)"),
        ("--channels", "number of channels (default: 384 on a GPU, 128 on a CPU)"),
        ("--layers", "number of layers in a stack (default: 24 on a GPU, 1 on a CPU)"),
    ):
        dwconv.add_argument(name, type=positive, metavar="N", help=help_text)
    dwconv.add_argument(
        "--sides",
        type=positive,
        nargs="+",
        default=(),
        metavar="R",
        help="sides of the feature maps (default: 16 32 64)",
    )
    dwconv.add_argument(
        "--kernels", type=odd, nargs="+", default=(), metavar="K", help="kernel sizes (default: 3 to 31)"
    )


def _add_bench_network(subjects: Subparsers) -> None:
    about = "whole networks: ours with our operator and with nn.Conv2d, and baselines of timm"
    network = subjects.add_parser("network", help=about, description=f"Measure {about}, in images per second.")
    add_network_options(network, USE, several=True, has_quick=False)
    _add_bench_output(network)
    _add_bench_device(network)
    network.add_argument(
        "--resolution", type=positive, nargs="+", default=(224,), metavar="R", help="side of the images (default: 224)"
    )
    network.add_argument("--batch", type=positive, metavar="N", help="batch size (default: 64 on a GPU, 1 on a CPU)")
    network.add_argument(
        "--beside", nargs="*", metavar="NAME", help="baselines of timm (default: Swin-B and ConvNeXt-B)"
    )


def _add_bench_search(subjects: Subparsers) -> None:
    about = "the regret of simulated searches on the table of curves of replknet_small.yaml, against computing"
    _add_bench_output(subjects.add_parser("search", help=about, description=f"Measure {about}."))


def _add_bench_torture(subjects: Subparsers) -> None:
    about = "what is lost when drivers, workers and clusters are killed while a study runs"
    torture = subjects.add_parser("torture", help=about, description=f"Measure {about}. Takes hours unless `--quick`.")
    _add_bench_output(torture)
    torture.add_argument("--only", action="append", metavar="FAULT", help="only this fault (may be repeated)")
    torture.add_argument("--times", type=positive, metavar="N", help="injections of each fault (default: 30)")
    torture.add_argument("--seed", type=natural, default=0, metavar="N", help="seed of the moments (default: 0)")


def _add_bench_device(bench: ArgumentParser) -> None:
    bench.add_argument("--device", choices=("cpu", "cuda"), help="device (default: the GPU if there is one)")
    bench.add_argument(
        "--precision",
        choices=PRECISIONS,
        nargs="+",
        default=(),
        help="numerical precisions (default: float32, on a GPU also bfloat16)",
    )


def _bench(args: Namespace) -> None:
    from harness.diagnostics.bench.actions import bench

    bench(args.only or (), args.output, is_quick=args.quick)


def _bench_certainty(args: Namespace) -> None:
    from harness.cli.calibration_run import calibrate, open_calibration
    from harness.cli.study_run import RunOptions
    from harness.config.calibration_candidates import plan_calibration
    from harness.config.study_file import load_study
    from harness.diagnostics.bench.actions import bench_certainty
    from harness.search.calibration import CalibrationResult
    from harness.storage.workspace import Workspace

    def run_calibration(study: Path, results: Path) -> CalibrationResult:
        options = RunOptions(workspace=Workspace(results), executor="ray", workers=args.workers)
        return calibrate(open_calibration(plan_calibration(load_study(study)), options, None), options, is_quiet=False)

    bench_certainty(run_calibration, args.output, is_quick=args.quick)


def _bench_search(args: Namespace) -> None:
    from harness.diagnostics.bench.actions import bench_search

    bench_search(args.output, is_quick=args.quick)


def _bench_torture(args: Namespace) -> None:
    from harness.diagnostics.bench.actions import bench_torture

    bench_torture(args.only or (), args.times, args.seed, args.output, is_quick=args.quick)


def _bench_dwconv(args: Namespace) -> None:
    from harness.diagnostics.bench.actions import bench_dwconv
    from harness.diagnostics.bench.base import DwconvOptions

    options = DwconvOptions(
        device=args.device,
        precisions=tuple(args.precision),
        batch=args.batch,
        channels=args.channels,
        layers=args.layers,
        sides=tuple(args.sides),
        kernels=tuple(args.kernels),
    )
    bench_dwconv(options, args.output, is_quick=args.quick)


def _bench_network(args: Namespace) -> None:
    from harness.analysis.networks import resolve_networks
    from harness.diagnostics.bench.actions import bench_network
    from harness.diagnostics.bench.base import BASELINES, NetworkOptions

    networks = resolve_networks(args.networks, network_query(args, has_quick=False), USE)
    options = NetworkOptions(
        networks={network.named: network.spec for network in networks},
        resolutions=tuple(args.resolution),
        beside=BASELINES if args.beside is None else tuple(args.beside),
        device=args.device,
        precisions=tuple(args.precision),
        batch=args.batch,
    )
    bench_network(options, args.output, is_quick=args.quick)
