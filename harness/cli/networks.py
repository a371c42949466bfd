"""The verbs on networks that stand alone: their weights, and what they look like from inside."""

import argparse
from pathlib import Path

from harness.cli.arguments import Verbs, positive, verb
from harness.training.full_scale.folder import WEIGHTS

FORMATS = ("safetensors", "onnx", "torch", "timm")
NETWORK = "a preset, as replknet_31b; a network's file; a run's checkpoint; a training's folder; or a file of weights"


def add_networks(verbs: Verbs) -> None:
    """`weights`, `export`, `erf`, `kernels`, `shape-bias`."""
    _add_weights(verbs)
    _add_export(verbs)
    _add_looking(verbs)


def _add_weights(verbs: Verbs) -> None:
    about = "read released checkpoints into files of our own, and write them back"
    weights = verbs.add_parser("weights", help=about, description=f"{about[0].upper()}{about[1:]}.")
    directions = weights.add_subparsers(title="directions", metavar="DIRECTION", dest="direction", required=True)
    taken = directions.add_parser("import", help="keep a checkpoint (.pth) as safetensors that know their network")
    taken.add_argument("--network", metavar="NETWORK", help="a preset, as replknet_31b, or a network's file")
    entry = "which network of several in the file, by the key or prefix of its entries, as model, model_ema or teacher"
    taken.add_argument(
        "--entry", metavar="NAME", help=f"{entry} (default: the only one; a moving average before others)"
    )
    given = directions.add_parser("export", help="write such safetensors as a plain state dict with the official names")
    for each, kind in ((taken, ".safetensors"), (given, ".pth")):
        each.add_argument("file", metavar="FILE", type=Path, help="what is read")
        each.add_argument("--output", metavar="FILE", type=Path, required=True, help=f"what is written ({kind})")
        each.set_defaults(call=verb("weights"))


def _add_export(verbs: Verbs) -> None:
    about = "write a network for use elsewhere, merged, with a card; load each file back and compare its logits"
    export = verbs.add_parser("export", help=about, description=f"{about[0].upper()}{about[1:]}.")
    export.add_argument("network", metavar="NETWORK", help=NETWORK)
    export.add_argument("--to", type=Path, metavar="DIR", help="new or empty folder (default: exports/NAME)")
    formats = f"of {', '.join(FORMATS)}, with spaces or commas between (default: all that the network can have)"
    export.add_argument("--format", type=_formats, nargs="+", metavar="FORMAT", help=formats)
    side = "side of the images (default: that of its training; else as published)"
    export.add_argument("--resolution", type=int, metavar="N", help=side)
    unmerged = "keep the training form, with its small kernels and batch norms"
    export.add_argument("--unmerged", action="store_true", help=unmerged)
    which = "of a training's folder: the best epoch's, the last, or their moving average (default: best)"
    export.add_argument("--which", choices=tuple(WEIGHTS), help=which)
    export.add_argument("--storage", metavar="URL", help="database that knows the runs (default: beside their study)")
    export.set_defaults(call=verb("export"))


def _formats(text: str) -> tuple[str, ...]:
    """Names of formats between commas."""
    names = tuple(name for name in text.split(",") if name)
    for name in names or (text,):
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"must be of {', '.join(FORMATS)}, but got {name!r}")
    return names


def _add_looking(verbs: Verbs) -> None:
    about = "show how far networks see, side by side: their effective receptive fields"
    erf = verbs.add_parser("erf", help=about, description=f"{about[0].upper()}{about[1:]}.")
    erf.add_argument("networks", metavar="NETWORK", nargs="+", help=NETWORK)
    erf.add_argument("--images", type=positive, default=32, metavar="N", help="how many images (default: 32)")
    erf.add_argument(
        "--resolution", type=int, metavar="N", help="side of the images (default: 4 times that of training)"
    )
    data = "a folder of images, or shapes (default: what a run was validated on; else shapes)"
    erf.add_argument("--data", metavar="FOLDER", help=data)
    about = "show where large kernels have their weight, before and after the merge"
    kernels = verbs.add_parser("kernels", help=about, description=f"{about[0].upper()}{about[1:]}.")
    kernels.add_argument("network", metavar="NETWORK", help=NETWORK)
    for drawn in (erf, kernels):
        drawn.add_argument("--output", type=Path, metavar="DIR", help="draw heat maps (PNG) into this folder")
    about = "show whether a network for ImageNet-1K goes by shape or by texture where the two disagree"
    bias = verbs.add_parser("shape-bias", help=about, description=f"{about[0].upper()}{about[1:]}.")
    bias.add_argument("network", metavar="NETWORK", help="a run's checkpoint, or a file of weights")
    stimuli = "a folder of images named as cat1-bicycle3.png: shape first, texture second"
    bias.add_argument("--stimuli", metavar="FOLDER", type=Path, required=True, help=stimuli)
    bias.add_argument("--resolution", type=int, metavar="N", help="side of the images (default: as published)")
    for name, each in (("erf", erf), ("kernels", kernels), ("shape-bias", bias)):
        each.add_argument("--storage", metavar="URL", help="database that knows the runs (default: beside their study)")
        each.add_argument("--json", action="store_true", help="print JSON")
        each.set_defaults(call=verb(name))
