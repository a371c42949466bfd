"""`harness weights`: released checkpoints in, as safetensors that know their network, and out again."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from harness.cli.arguments import Subparsers, add_command


def add_parser(commands: Subparsers) -> ArgumentParser:
    """See `arguments.Command`."""
    parser = add_command(commands, "weights", "read released checkpoints into files of our own, and write them back")
    directions = parser.add_subparsers(title="directions", metavar="DIRECTION", dest="direction", required=True)
    importing = directions.add_parser("import", help="keep a checkpoint (.pth) as safetensors that know their network")
    importing.add_argument("--network", metavar="NETWORK", help="a preset, as replknet_31b, or a network's file")
    entry = "which network of several in the file, by the key or prefix of its entries, as model, model_ema or teacher"
    importing.add_argument(
        "--entry", metavar="NAME", help=f"{entry} (default: the only one; a moving average before others)"
    )
    about = "write such safetensors as a plain state dict with the official names"
    exporting = directions.add_parser("export", help=about)
    for direction, suffix in ((importing, ".safetensors"), (exporting, ".pth")):
        direction.add_argument("file", metavar="FILE", type=Path, help="what is read")
        direction.add_argument("--output", metavar="FILE", type=Path, required=True, help=f"what is written ({suffix})")
    return parser


def run(args: Namespace) -> int:
    """Read a checkpoint into safetensors, or write such a file back as a checkpoint."""
    from harness.config.network_file import require_network_spec
    from harness.models.weights import export_weights, import_weights

    if args.direction == "import":
        spec = require_network_spec(args.network) if args.network else None
        written = import_weights(args.file, args.output, spec, entry=args.entry)
    else:
        written = export_weights(args.file, args.output)
    print(f"{args.output}: {len(written.entries):,} entries, {written.form} form, {written.spec.classes:,} classes")
    for note in written.notes:
        print(f"  {note}")
    return 0
