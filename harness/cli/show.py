"""`harness show`: print a network by stage, all configurations of a study, or one trial in detail."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.network_forms import BEST_OF, NETWORKS, NetworkForm, NetworkUse
from harness.cli.arguments import (
    STUDY,
    Subparsers,
    add_command,
    add_json_option,
    add_network_options,
    named_network,
    print_json,
    print_view,
    resolution_of,
    workspace_of,
)
from harness.errors import NotFound, UserError

if TYPE_CHECKING:
    from harness.analysis.study_reader import StudyReader

USE = NetworkUse(NETWORKS | {NetworkForm.STUDY}, note=f"or {STUDY}, whose configurations are shown")


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    about = "show a network by stage, all configurations of a study, or one trial in detail"
    parser = add_command(commands, "show", about)
    trial = "after a study file: number of a trial, from the column #; after best-of: the study file"
    add_network_options(parser, USE, second=("TRIAL", trial))
    parser.add_argument("--resolution", type=int, metavar="N", help="side of the images (default: as published)")
    add_json_option(parser)
    return parser


def run(args: Namespace) -> int:
    """Print a network, all configurations of a study, or one of its trials."""
    from harness.analysis.networks import recognize
    from harness.models.spec.published import resolutions
    from harness.report.network import network_values, network_view

    if args.network != BEST_OF and recognize(args.network) == NetworkForm.STUDY:
        return _show_study(args)
    if args.network != BEST_OF and args.second is not None:
        trial = _trial_number(args.second)
        raise UserError("TRIAL must follow a study file, but this is a network", value=trial)
    spec = named_network(args, USE).spec
    resolution = resolution_of(args) or resolutions(spec)[0]
    return print_json(network_values(spec, resolution)) if args.json else print_view(network_view(spec, resolution))


def _show_study(args: Namespace) -> int:
    from harness.analysis.study_reader import open_study_reader

    if args.resolution is not None:
        raise UserError("`--resolution` needs a network; a study has its own", value=args.resolution)
    if args.trial is not None:
        raise UserError(f"`--trial` must be used with `{BEST_OF} STUDY.yaml`; of a study file, TRIAL follows it")
    trial = None if args.second is None else _trial_number(args.second)
    with open_study_reader(Path(args.network), workspace_of(args), is_quick=args.quick) as study:
        return _show_all(args, study) if trial is None else _show_trial(args, study, trial)


def _trial_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError("TRIAL must be the number of a trial", value=text) from None


def _show_all(args: Namespace, reader: "StudyReader") -> int:
    from rich.console import Group
    from rich.text import Text

    from harness.analysis.conclusions import environment_notes
    from harness.analysis.results import results_limit_sentence
    from harness.report.claims import claims_view
    from harness.report.configurations import ConfigurationTables
    from harness.report.console import indented
    from harness.report.full_scale import full_scale_runs_view
    from harness.report.study import data_view, ended_view, enqueued_view, heading, noise_view, reasons

    results = reader.results()
    if args.json:
        return print_json(results.to_dict())
    parts = [heading(results), Text(), ConfigurationTables(results), Text(), *enqueued_view(results)]
    parts += [*claims_view(results), *full_scale_runs_view(results), *ended_view(results), *data_view(results.data)]
    parts += [*reasons(results, most=None), *noise_view(results)]
    parts += [indented(note) for note in environment_notes(results)]
    parts += [Text(results_limit_sentence(results), style="bold")] if results.limit else []
    return print_view(Group(*parts))


def _show_trial(args: Namespace, reader: "StudyReader", number: int) -> int:
    from rich.console import Group
    from rich.text import Text

    from harness.analysis.configuration_result import read_run_results
    from harness.report.study import data_view
    from harness.report.trial import trial_values, trial_view

    study = reader.file.study
    trial = next((trial for trial in reader.trials if trial.number == number), None)
    if trial is None:
        numbers = f"0 to {len(reader.trials) - 1}" if reader.trials else "none"
        raise NotFound("the trial must be one of the study's", value=number, remedy=f"Trials: {numbers}.")
    linked = reader.store.trial_runs(study.study).get(trial.number, ())
    runs = list(read_run_results(reader.store, linked).values())
    if args.json:
        return print_json(trial_values(trial, runs, study))
    notes = [*reader.data_notes(), *reader.store.notes_of(linked)]
    return print_view(Group(trial_view(trial, runs, study), Text(), *data_view(notes)))
