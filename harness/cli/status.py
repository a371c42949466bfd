"""`harness status`: the progress of a study, also while another process drives it."""

from argparse import ArgumentParser, Namespace

from harness.cli.arguments import (
    Subparsers,
    add_json_option,
    add_study_command,
    print_json,
    print_next,
    print_view,
    study_options,
    workspace_of,
)

LAST_EVENTS = 5


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    parser = add_study_command(commands, "status", "show the progress of a study, also while another process runs it")
    add_json_option(parser)
    return parser


def run(args: Namespace) -> int:
    """Print the status of a study."""
    from harness.analysis.prospects import arms_needing_seeds, distances_to_verdicts
    from harness.analysis.racing import seeds_due
    from harness.analysis.results import study_results
    from harness.analysis.study_reader import open_study_reader
    from harness.config.study import screening_epochs
    from harness.report.status import StudyStatus, status_values, status_view
    from harness.search.history import StudyHistory
    from harness.storage import driver_of
    from harness.system.command_line import command_line

    with open_study_reader(args.file, workspace_of(args), is_quick=args.quick) as reader:
        study, reach, claims, history = reader.file.study, reader.size(), reader.claims(), StudyHistory()
        history.read(reader.trials)
        results = study_results(study, reader.store, reader.trials, reach.ruled_out, claims, data=reader.data_notes())
        racing = seeds_due(study, reader.trials).configurations if results.race and not results.limit else ()
        state = StudyStatus(
            results,
            reader.trials,
            driver=driver_of(reader.store, study.study),
            trials_total=reach.configurations,
            seeds=study.search.seeds + (screening_epochs(study.search.pruner, study.proxy.epochs) > 0),
            last=reader.store.events(study.study, limit=LAST_EVENTS),
            needing_seeds=len(arms_needing_seeds(study, claims, history.seeds_used)) + len(racing),
            distances=distances_to_verdicts(study, claims),
        )
    if args.json:
        return print_json(status_values(state))
    print_view(status_view(state))
    if not state.driver and not state.is_finished:
        is_over = state.results.is_out_of_budget
        purpose = "continue the study, after `search.budget` was raised" if is_over else "resume the study"
        print_next([(command_line("run", args.file, study_options(args)), purpose)])
    return 0
