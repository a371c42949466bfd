"""`harness show`: print a network by stage, all configurations of a study, or one trial in detail."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from harness.cli.arguments import (
    STUDY,
    Subparsers,
    add_json_option,
    add_study_command,
    print_json,
    print_view,
    resolution_of,
    workspace_of,
)
from harness.errors import NotFound, UserError

if TYPE_CHECKING:
    from harness.analysis.study_reader import StudyReader


def add_parser(commands: Subparsers) -> ArgumentParser:
    """See `arguments.Command`."""
    parser = add_study_command(
        commands,
        "show",
        "show a network by stage, all configurations of a study, or one trial in detail",
        file=f"a preset, such as replknet_31b, a network file, or {STUDY}",
    )
    parser.add_argument("trial", metavar="TRIAL", type=int, nargs="?", help="number of a trial, from the column #")
    parser.add_argument("--resolution", type=int, metavar="N", help="side of the images (default: as published)")
    add_json_option(parser)
    return parser


def run(args: Namespace) -> int:
    """Print a network, all configurations of a study, or one of its trials."""
    from harness.analysis.study_reader import open_study_reader
    from harness.config.network_file import find_network_spec
    from harness.models.spec.published import resolutions
    from harness.report.network import network_values, network_view

    spec = find_network_spec(str(args.file))
    if spec is not None:
        if args.trial is not None:
            raise UserError("TRIAL must follow a study file, but this is a network", value=args.trial)
        resolution = resolution_of(args) or resolutions(spec)[0]
        return print_json(network_values(spec, resolution)) if args.json else print_view(network_view(spec, resolution))
    if args.resolution is not None:
        raise UserError("`--resolution` needs a network; a study has its own", value=args.resolution)
    with open_study_reader(args.file, workspace_of(args), is_quick=args.quick) as study:
        return _show_all(args, study) if args.trial is None else _show_trial(args, study)


def _show_all(args: Namespace, reader: "StudyReader") -> int:
    from rich.console import Group
    from rich.text import Text

    from harness.analysis.conclusions import environment_notes
    from harness.analysis.results import results_limit_sentence
    from harness.report.claims import claims_view
    from harness.report.configurations import ConfigurationTables
    from harness.report.console import indented
    from harness.report.data_notes import data_view
    from harness.report.full_scale import full_scale_runs_view
    from harness.report.study import ended_view, heading, noise_view, reasons

    results = reader.results()
    if args.json:
        return print_json(results.to_dict())
    parts = [heading(results), Text(), ConfigurationTables(results), Text()]
    parts += [*claims_view(results), *full_scale_runs_view(results), *ended_view(results), *data_view(results.data)]
    parts += [*reasons(results, most=None), *noise_view(results)]
    parts += [indented(note) for note in environment_notes(results)]
    parts += [Text(results_limit_sentence(results), style="bold")] if results.limit else []
    return print_view(Group(*parts))


def _show_trial(args: Namespace, reader: "StudyReader") -> int:
    from rich.console import Group
    from rich.text import Text

    from harness.analysis.results import read_run_results
    from harness.report.data_notes import data_view
    from harness.report.trial import trial_values, trial_view

    study = reader.file.study
    trial = next((trial for trial in reader.trials if trial.number == args.trial), None)
    if trial is None:
        numbers = f"0 to {len(reader.trials) - 1}" if reader.trials else "none"
        raise NotFound("the trial must be one of the study's", value=args.trial, remedy=f"Trials: {numbers}.")
    linked = reader.store.trial_runs(study.study).get(trial.number, ())
    runs = list(read_run_results(reader.store, linked).values())
    if args.json:
        return print_json(trial_values(trial, runs, study))
    notes = [*reader.data_notes(), *reader.store.notes_of(linked)]
    return print_view(Group(trial_view(trial, runs, study), Text(), *data_view(notes)))
