"""The verb `export`: find the network, write it in every format that is asked for, and show how the files hold."""

import sys
from argparse import Namespace
from pathlib import Path

from harness.export.comparison import rows_table
from harness.export.export import export
from harness.export.exportable import Product, preparation_of, resolution_of
from harness.export.formats import chosen_formats
from harness.export.model_card_facts import facts_of
from harness.models.cost import network_cost
from harness.report.console import make_console
from harness.storage.load_network import Origin, Subject, class_names, find_subject
from harness.system.device_slot import computing

FOLDER = Path("exports")
FAILED = 1


def export_network(args: Namespace, resolution: int | None) -> int:
    """Export a network; gives the exit code."""
    subject = find_subject(args.network, args.storage, which=args.which)
    product = product_of(subject, args.storage, resolution, is_merged=not args.unmerged)
    names = None if args.format is None else [name for each in args.format for name in each]
    formats, notes = chosen_formats(product, names)
    folder = args.to or FOLDER / subject.name.replace("/", "-")
    if subject.origin == Origin.RANDOM:
        notes.append("the weights are random: good for measuring speed, and for nothing else")
    for note in notes:
        _tell(note)
    rows = export(product, formats, folder, tell=_tell)
    make_console().print(rows_table(rows))
    faults = [row for row in rows if row.fault]
    for row in faults:
        print(f"error: {row.format} of {subject.name} {row.fault}", file=sys.stderr)
    if faults:
        print("Nothing was written.", file=sys.stderr)
        return FAILED
    print(f"written: {folder}")
    return 0


@computing()
def product_of(subject: Subject, storage: str | None, resolution: int | None, *, is_merged: bool) -> Product:
    """The network with all that is known of it. Raises `UserError`s for images of no use to it."""
    side = resolution or resolution_of(subject)
    network_cost(subject.spec, side)  # raises for images of which the last map has nothing
    return Product(
        subject,
        preparation_of(subject, side),
        facts_of(subject, storage),
        class_names(subject),
        is_merged=is_merged,
    )


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
