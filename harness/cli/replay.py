"""`harness replay`: search again from a search's log, and compare every proposal and decision with the recorded one."""

from argparse import ArgumentParser, Namespace

from harness.cli.arguments import Subparsers, add_json_option, add_study_command, print_json, workspace_of


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    parser = add_study_command(
        commands,
        "replay",
        "repeat a search from its log, without training, and compare every proposal and decision",
        details="The driver searches again in an empty database, with the recorded results in the order in which they "
        "had arrived. Exit code 1 if anything differs from the study. See docs/search.md.",
    )
    add_json_option(parser)
    return parser


def run(args: Namespace) -> int:
    """Replay a study; returns 1 if it differs from its record."""
    from harness.analysis.study_reader import open_study_reader
    from harness.report.replay import replay_lines
    from harness.search.log_replay import replay_search

    workspace = workspace_of(args)
    with open_study_reader(args.file, workspace, is_quick=args.quick) as reader:
        replayed = replay_search(reader.file, reader.store, reader.trials, workspace.results)
    if args.json:
        print_json(replayed.values())
    else:
        print("\n".join(replay_lines(replayed)))
    return 0 if replayed.difference is None else 1
