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
    from harness.analysis.study_reader import open_study_reader
    from harness.analysis.winner import NetworkQuery, find_winner
    from harness.config.network_file import dump_network_spec
    from harness.report.conclusions import conditions_text, configuration_line

    workspace = workspace_of(args)
    with open_study_reader(args.file, workspace, is_quick=args.quick) as study:
        configuration, results = find_winner(
            study, NetworkQuery(workspace, trial=args.trial, options=study_options(args))
        )
    if args.json:
        return print_json(configuration.spec.canonical())
    which = "Best" if args.trial is None else "One"
    comment = f"{which} of the study {results.study}, trial {configuration.trials[0]}.\n"
    comment += f"{results.metric} {configuration_line(configuration, results.metric)}\n{conditions_text(results)}"
    print(dump_network_spec(configuration.spec, comment), end="")
    return 0
