"""`harness trust`: whether early epochs, the proxy and scores order configurations as longer trainings do."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace

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
        "trust",
        "show whether the proxy, its rungs and scores order networks as longer trainings do, and which stops were luck",
        details="Kendall's tau with intervals, from what is stored: each epoch against the full budget, the proxy "
        "against all larger trainings of the same networks, scores before training against the results; and the "
        "configurations that the pruner stopped by chance. Also while the study runs. See docs/trust.md.",
    )
    parser.add_argument(
        "--level",
        type=probability,
        metavar="P",
        help="list configurations that would have passed the pruner with this probability (default: 0.25)",
    )
    add_json_option(parser)
    return parser


def probability(text: str) -> float:
    """A number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise ArgumentTypeError(f"must be from 0 to 1, but got {text}")
    return number


def run(args: Namespace) -> int:
    """Print how far the proxy of a study may be trusted."""
    from rich.console import Group

    from harness.analysis.pruned_decisions import COIN_TOSS
    from harness.analysis.study_reader import open_study_reader
    from harness.analysis.trust import study_trust
    from harness.analysis.trust_values import trust_values
    from harness.report.trust import trust_view

    level = COIN_TOSS if args.level is None else args.level
    with open_study_reader(args.file, workspace_of(args), is_quick=args.quick) as reader:
        result = study_trust(reader.file, reader.space(), reader.store, reader.trials)
    if args.json:
        return print_json(trust_values(result, level))
    return print_view(Group(*trust_view(result, level)))
