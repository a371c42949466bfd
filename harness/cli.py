"""The door: parses the command line, calls a verb, and turns what comes of it into an exit code.

    0    done
    1    a study that ended without a complete configuration, or an error of the harness itself
    2    something that the caller can put right; one message on standard error
    130  ended by Ctrl-C or SIGTERM; a study goes on with the command that is printed

Nothing heavy is imported here: a verb imports what it needs.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from harness import __version__
from harness.errors import UserError

USER_ERROR = 2
INTERNAL_ERROR = 1
INTERRUPTED = 130
PIPE_CLOSED = 141
"""As a shell says it of a program that SIGPIPE ended."""
BENCHED = ("help", "start", "driver", "proxies", "memory")
"""What `harness bench` measures without a subject."""
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
"""What operator and networks can be measured in; tf32 is float32 whose products a GPU rounds to TF32."""


def main(argv: Sequence[str] | None = None, *, run_name: str | None = None) -> int:
    """Run one command line (by default that of this process); gives its exit code.

    `run_name` is what the help calls the verb `run`, where that has a door of its own.
    """
    _make_printable()
    args = build_parser(run_name).parse_args(argv)
    try:
        code = int(args.call(args))
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except Exception:
        traceback.print_exc()
        print(
            "\nerror: the harness failed, and should not have. What studies have recorded is safe: the same command "
            "goes on where it was.",
            file=sys.stderr,
        )
        return INTERNAL_ERROR


def build_parser(run_name: str | None = None) -> argparse.ArgumentParser:
    """The whole grammar of the command line."""
    parser = argparse.ArgumentParser(
        prog="harness", description="Architecture studies of large-kernel networks: a YAML file in, an answer out."
    )
    _add_version(parser)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_run(verbs, run_name)
    status = _add_verb(verbs, "status", "show where a study stands, also while another process drives it")
    show = _add_verb(
        verbs,
        "show",
        "show a network by stage; or all configurations of a study, or one trial from close up",
        file="a preset, as replknet_31b; a network's file; or a study file, as search_spaces/kernel_size.yaml",
    )
    show.add_argument("trial", metavar="TRIAL", type=int, nargs="?", help="the number of a trial, from the column #")
    best = _add_verb(verbs, "best", "print the winner's network as YAML, to be the base of another study")
    presets = verbs.add_parser("presets", help=(about := "list all presets beside the figures of their papers"))
    presets.description = f"{about[0].upper()}{about[1:]}."
    presets.set_defaults(call=_verb("presets"))
    for priced in (show, presets):
        priced.add_argument("--resolution", type=int, metavar="N", help="side of the images (default: as published)")
    for listing in (status, show, presets, best):
        listing.add_argument("--json", action="store_true", help="print JSON")
    dashboard = _add_verb(verbs, "dashboard", "show a study in Optuna's dashboard, on this machine only")
    dashboard.add_argument(
        "--port", type=_port, default=8080, metavar="N", help="port to listen on; 0 for any (default: 8080)"
    )
    schema = verbs.add_parser("schema", help="print the JSON schema of study files, for editors")
    schema.set_defaults(call=_verb("schema"))
    _add_weights(verbs)
    _add_bench(verbs)
    return parser


Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add_run(verbs: Verbs, name: str | None) -> None:
    run = _add_verb(verbs, "run", "train what a study needs, and print its answer")
    run.prog = name or run.prog
    _add_version(run)
    workers = run.add_argument_group("workers")
    workers.add_argument(
        "--executor", choices=("ray", "inline"), default="ray", help="who trains (default: ray; inline: this process)"
    )
    workers.add_argument(
        "--workers", type=_positive, metavar="N", help="runs at a time (default: as many as the machine has room for)"
    )
    workers.add_argument("--ray-address", metavar="ADDRESS", help="a Ray cluster that is running, as host:6379 or auto")
    how = run.add_argument_group("how")
    how.add_argument(
        "--dry-run", action="store_true", help="list what would be trained, its cost and time; write nothing"
    )
    how.add_argument("--fresh", action="store_true", help="forget this study's trials, and its runs that no other has")
    how.add_argument("--quiet", action="store_true", help="print the answer only")


def _add_weights(verbs: Verbs) -> None:
    about = "read released checkpoints into files of our own, and write them back"
    weights = verbs.add_parser("weights", help=about, description=f"{about[0].upper()}{about[1:]}.")
    directions = weights.add_subparsers(title="directions", metavar="DIRECTION", dest="direction", required=True)
    taken = directions.add_parser("import", help="keep a checkpoint (.pth) as safetensors that know their network")
    taken.add_argument("--network", metavar="NETWORK", help="a preset, as replknet_31b, or a network's file")
    given = directions.add_parser("export", help="write such safetensors as a plain state dict with the official names")
    for each, kind in ((taken, ".safetensors"), (given, ".pth")):
        each.add_argument("file", metavar="FILE", type=Path, help="what is read")
        each.add_argument("--output", metavar="FILE", type=Path, required=True, help=f"what is written ({kind})")
        each.set_defaults(call=_verb("weights"))


def _add_bench(verbs: Verbs) -> None:
    about = "measure what the harness, its operator and its networks cost on this machine"
    bench = verbs.add_parser(
        "bench",
        help=about,
        description=f"{about[0].upper()}{about[1:]}. Without a subject: the harness itself, against its targets, in "
        "ten minutes.",
    )
    bench.add_argument(
        "--only",
        action="append",
        choices=BENCHED,
        help="measure this alone (may be repeated); writes nothing by default",
    )
    _add_bench_output(bench, quick=False, output=None)
    bench.set_defaults(call=_bench)
    subjects = bench.add_subparsers(title="subjects", metavar="SUBJECT")
    _add_bench_dwconv(subjects)
    _add_bench_network(subjects)


def _add_bench_output(bench: argparse.ArgumentParser, **defaults: object) -> None:
    """Without defaults a subject leaves what stood before it as it is."""
    bench.set_defaults(**defaults)
    bench.add_argument(
        "--quick",
        action="store_true",
        default=argparse.SUPPRESS,
        help="few repeats, small sizes; writes nothing by default",
    )
    bench.add_argument(
        "--output",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="DIR",
        help="folder for what is written (default: results/bench)",
    )


def _add_bench_dwconv(subjects: Verbs) -> None:
    about = "every algorithm of the large depth-wise convolution beside nn.Conv2d: Table 1 of RepLKNet's paper"
    dwconv = subjects.add_parser(
        "dwconv",
        help=about,
        description=f"Measure {about}. Sizes that are given here are measured alone, and written only with --output.",
    )
    _add_bench_output(dwconv)
    _add_bench_device(dwconv)
    for name, what in (
        ("--batch", "images at once (default: 64 on a GPU, 8 on a CPU)"),
        ("--channels", "channels (default: 384 on a GPU, 128 on a CPU)"),
        ("--layers", "layers in a stack (default: 24 on a GPU, 1 on a CPU)"),
    ):
        dwconv.add_argument(name, type=_positive, metavar="N", help=what)
    dwconv.add_argument(
        "--sides", type=_positive, nargs="+", default=(), metavar="R", help="sides of the maps (default: 16 32 64)"
    )
    dwconv.add_argument(
        "--kernels", type=_odd, nargs="+", default=(), metavar="K", help="sides of the kernels (default: 3 to 31)"
    )
    dwconv.set_defaults(call=_bench_dwconv)


def _add_bench_network(subjects: Verbs) -> None:
    about = "whole networks: ours with our operator and with nn.Conv2d, and timm's beside them"
    network = subjects.add_parser("network", help=about, description=f"Measure {about}, in images per second.")
    network.add_argument("networks", metavar="NETWORK", nargs="+", help="a preset, as replknet_31b, or a spec file")
    _add_bench_output(network)
    _add_bench_device(network)
    network.add_argument(
        "--resolution", type=_positive, nargs="+", default=(224,), metavar="R", help="of the images (default: 224)"
    )
    network.add_argument(
        "--batch", type=_positive, metavar="N", help="images at once (default: 64 on a GPU, 1 on a CPU)"
    )
    network.add_argument(
        "--beside", nargs="*", metavar="NAME", help="networks of timm's (default: Swin-B and ConvNeXt-B)"
    )
    network.set_defaults(call=_bench_network)


def _add_bench_device(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("--device", choices=("cpu", "cuda"), help="what computes (default: the GPU where there is one)")
    bench.add_argument(
        "--precision",
        choices=PRECISIONS,
        nargs="+",
        default=(),
        help="float32, and bfloat16 beside it on a GPU, by default",
    )


def _add_verb(
    verbs: Verbs, name: str, about: str, *, file: str = "a study file, as search_spaces/kernel_size.yaml"
) -> argparse.ArgumentParser:
    """A verb on a study."""
    verb = verbs.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
    verb.add_argument("file", metavar="FILE", type=Path, help=file)
    verb.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="folder of all studies (default: results)"
    )
    verb.add_argument("--storage", metavar="URL", help="database (default: sqlite, studies.db in the results folder)")
    verb.set_defaults(call=_verb(name))
    return verb


def _verb(name: str) -> Callable[[argparse.Namespace], int]:
    """The function of `harness.commands` for a verb, imported when it is called."""

    def call(args: argparse.Namespace) -> int:
        from harness import commands

        return commands.VERBS[name](args)

    return call


def _bench(args: argparse.Namespace) -> int:
    from harness.bench.study import bench

    bench(args.only or (), args.output, is_quick=args.quick)
    return 0


def _bench_dwconv(args: argparse.Namespace) -> int:
    from harness.bench.options import DwconvOptions
    from harness.bench.verbs import bench_dwconv

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
    return 0


def _bench_network(args: argparse.Namespace) -> int:
    from harness.bench.options import BESIDE, NetworkOptions
    from harness.bench.verbs import bench_network

    options = NetworkOptions(
        networks=tuple(args.networks),
        resolutions=tuple(args.resolution),
        beside=BESIDE if args.beside is None else tuple(args.beside),
        device=args.device,
        precisions=tuple(args.precision),
        batch=args.batch,
    )
    bench_network(options, args.output, is_quick=args.quick)
    return 0


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action="version", version=f"harness {__version__}")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but got {number}")
    return number


def _odd(text: str) -> int:
    number = _positive(text)
    if number % 2 == 0:
        raise argparse.ArgumentTypeError(f"must be odd, but got {number}")
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise argparse.ArgumentTypeError(f"must be 0 to 65535, but got {number}")
    return number


def _make_printable() -> None:
    """Let no text fail on a terminal that cannot show all of it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    raise SystemExit(main())
