"""`harness best`: the winner's network as YAML."""

from argparse import ArgumentParser, Namespace

from harness.cli.arguments import (
    Subparsers,
    add_json_option,
    add_study_command,
    print_json,
    study_options,
    workspace_of,
)


def add_parser(commands: Subparsers) -> ArgumentParser:
    """See `arguments.Command`."""
    about = "print the winner's network as YAML, to be the base of another study"
    parser = add_study_command(commands, "best", about)
    parser.add_argument("--trial", type=int, metavar="N", help="another trial than the winner, from the column #")
    add_json_option(parser)
    return parser


def run(args: Namespace) -> int:
    """Print the winner's network as a spec file."""
    from harness.analysis.study_reader import reading
    from harness.analysis.winner import Sought, winner
    from harness.config.network_file import dump_spec
    from harness.report.conclusions import conditions, summary_of

    place = workspace_of(args)
    with reading(args.file, place, is_quick=args.quick) as study:
        row, results = winner(study, Sought(place, trial=args.trial, options=study_options(args)))
    if args.json:
        return print_json(row.spec.canonical())
    which = "Best" if args.trial is None else "One"
    comment = f"{which} of the study {results.study}, trial {row.trials[0]}.\n"
    comment += f"{results.metric} {summary_of(row, results.metric)}\n{conditions(results)}"
    print(dump_spec(row.spec, comment), end="")
    return 0
