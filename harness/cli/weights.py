"""`harness weights`: convert released checkpoints to safetensors that name their network, and back."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from harness.analysis.network_forms import NETWORKS, NetworkForm, NetworkUse
from harness.cli.arguments import Subparsers, add_command

USE = NetworkUse(
    NETWORKS - {NetworkForm.BEST_OF},
    {NetworkForm.BEST_OF: "Write it to a file first: `harness best STUDY.yaml > best.yaml`."},
    note="without its weights; here not best-of",
)


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    parser = add_command(commands, "weights", "convert released checkpoints to safetensors files, and back")
    directions = parser.add_subparsers(title="directions", metavar="DIRECTION", dest="direction", required=True)
    importing = directions.add_parser("import", help="convert a checkpoint (.pth) to safetensors with its network spec")
    importing.add_argument("--network", metavar="NETWORK", help=USE.help)
    entry = "for a file with several networks: the key or prefix of one, such as model, model_ema or teacher"
    importing.add_argument(
        "--entry", metavar="NAME", help=f"{entry} (default: the only one; a moving average before others)"
    )
    about = "convert such a file to a plain state dict with the official names"
    exporting = directions.add_parser("export", help=about)
    for direction, suffix in ((importing, ".safetensors"), (exporting, ".pth")):
        direction.add_argument("file", metavar="FILE", type=Path, help="input file")
        direction.add_argument("--output", metavar="FILE", type=Path, required=True, help=f"output file ({suffix})")
    return parser


def run(args: Namespace) -> int:
    """Convert a checkpoint to safetensors, or such a file back to a checkpoint."""
    from harness.analysis.networks import resolve_network
    from harness.models.weights import export_weights, import_weights

    if args.direction == "import":
        spec = resolve_network(args.network, use=USE).spec if args.network else None
        written = import_weights(args.file, args.output, spec, entry=args.entry)
    else:
        written = export_weights(args.file, args.output)
    print(f"{args.output}: {len(written.entries):,} entries, {written.form} form, {written.spec.classes:,} classes")
    for note in written.notes:
        print(f"  {note}")
    return 0
