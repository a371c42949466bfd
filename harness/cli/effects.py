"""`harness effects`: what each choice of a search is worth, averaged over the space, with honest intervals."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from harness.cli.arguments import (
    Subparsers,
    add_json_option,
    add_study_command,
    print_json,
    print_view,
    workspace_of,
)


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    parser = add_study_command(
        commands,
        "effects",
        "show what each axis of a search is worth, and the pairs that matter, averaged over the space",
        details="All else equal, over the networks within rules and budgets, with 95 %% intervals that rest on the "
        "trials of `search.space_filling`, which no sampler chose; also while the study runs. See docs/effects.md.",
    )
    parser.add_argument(
        "--metric", metavar="M", help="a metric or a formula of metrics, as log2(macs) (default: the objective)"
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="also draw the effects as a forest plot")
    add_json_option(parser)
    return parser


def run(args: Namespace) -> int:
    """Print the effects of a study, and draw them."""
    from rich.console import Group

    from harness.analysis.effects import study_effects
    from harness.analysis.study_reader import open_study_reader
    from harness.report.effects import effects_json, effects_view, read_recorded

    workspace = workspace_of(args)
    with open_study_reader(args.file, workspace, is_quick=args.quick) as reader:
        result = study_effects(reader.file, reader.space(), reader.store, reader.trials, args.metric)
    recorded = read_recorded(result, workspace)
    if args.plot is not None:
        from harness.report.plots.effects import plot_effects

        plot_effects(args.plot, result, recorded)
        print(f"written: {args.plot}", file=sys.stderr)
    if args.json:
        return print_json(effects_json(result, recorded))
    return print_view(Group(*effects_view(result, recorded)))
