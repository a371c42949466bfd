"""`harness best`: print the best network of a study as YAML."""

from argparse import ArgumentParser, Namespace

from harness.cli.arguments import (
    Subparsers,
    add_json_option,
    add_study_command,
    print_json,
    workspace_of,
)


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    about = "print the best network of a study as YAML, for use as the base of another study"
    parser = add_study_command(commands, "best", about)
    parser.add_argument(
        "--trial", type=int, metavar="N", help="print this trial instead of the best (a number from the column #)"
    )
    add_json_option(parser)
    return parser


def run(args: Namespace) -> int:
    """Print the network as a network file."""
    from harness.analysis.conclusions import best_title, conditions_text, configuration_line
    from harness.analysis.formatting import format_params
    from harness.analysis.study_reader import open_study_reader
    from harness.config.network_file import dump_network_spec
    from harness.config.recipe_axes import is_recipe_axis, recipe_changes

    with open_study_reader(args.file, workspace_of(args), is_quick=args.quick) as study:
        configuration, results = study.find_winner(args.trial)
    if args.json:
        return print_json(configuration.spec.canonical())
    title = "One" if args.trial is not None else "Best"
    if args.trial is None and results.pareto is not None:
        title = f"{best_title(results).removeprefix('Best network').strip(': ').capitalize()}, the best"
    comment = f"{title} of the study {results.study}, trial {configuration.trials[0]}.\n"
    comment += f"{results.metric} {configuration_line(configuration, results.metric)}\n{conditions_text(results)}"
    if any(map(is_recipe_axis, configuration.params)):
        changes = recipe_changes(configuration.recipe, study.file.study.proxy)
        what = f"with {format_params(changes)}" if changes else "unchanged"
        comment += f"\nIts recipe is not a part of this file: the study's proxy {what}."
    print(dump_network_spec(configuration.spec, comment), end="")
    return 0
