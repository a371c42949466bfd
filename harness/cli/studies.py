"""The verbs besides `run`, and the table of all: each takes the parsed command line and gives an exit code."""

import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from harness.analysis.claims import due
from harness.analysis.results import answer, answer_limit_sentence, read_runs
from harness.analysis.study_reader import Reading, reading
from harness.analysis.winner import Sought, winner
from harness.cli.aa import calibrate_claims
from harness.cli.downstream import downstream
from harness.cli.evaluate import evaluate
from harness.cli.interrupt import Interrupt
from harness.cli.reproduce import reproduce
from harness.cli.run import options_of, place_of, run
from harness.cli.train import train
from harness.cli.verify import verify
from harness.config.json_schema import json_schema
from harness.config.network_file import dump_spec, find_spec, named_spec
from harness.config.recipes.loading import load_any_recipe, recipe_file, recipe_names
from harness.config.study import screening_epochs
from harness.config.yaml_file import read_document
from harness.diagnostics.verify.recorded_claims import recorded_claims
from harness.errors import NotFound, UserError
from harness.models.spec.published import resolutions
from harness.report.claims import claims_view
from harness.report.conclusions import conditions, environment_notes, summary_of
from harness.report.configurations import Configurations
from harness.report.console import indented, make_console, plain_table
from harness.report.data_notes import data_view
from harness.report.evaluation import evaluation_values, evaluation_view
from harness.report.full_scale import full_runs_view
from harness.report.network import network_values, network_view, presets_values, presets_view
from harness.report.status import status, status_values, status_view
from harness.report.study import ended_view, heading, next_lines, noise_view, reasons
from harness.report.summary import PICTURE, answer_values, json_text
from harness.report.trial import trial_values, trial_view
from harness.search.history import seeds_used
from harness.storage import driver_of
from harness.system.command_line import verb
from harness.system.device_slot import computing

LAST_EVENTS = 5
LEAST_SIDE, MOST_SIDE = 1, 4096
"""Of the images that a network is priced for."""


def show_status(args: Namespace) -> int:
    """Print where a study stands."""
    with reading(args.file, place_of(args), is_quick=args.quick) as read:
        study, reach, claims = read.file.study, read.extent(), read.claims()
        found = status(
            answer(study, read.store, read.trials, reach.ruled_out, claims, data=read.data_notes()),
            read.trials,
            driver=driver_of(read.store, study.study),
            trials_total=reach.configurations,
            seeds=study.search.seeds + (screening_epochs(study.search.pruner, study.proxy.epochs) > 0),
            last=read.store.events(study.study, limit=LAST_EVENTS),
            wanted=len(due(study, claims, seeds_used(read.trials))),
        )
    if args.json:
        return print_json(status_values(found))
    print_view(status_view(found))
    if not found.driver and not found.is_finished:
        print("\n".join(next_lines([(verb("run", args.file, options_of(args)), "go on where it was")])))
    return 0


def show(args: Namespace) -> int:
    """Print a network, all configurations of a study, or one of its trials from close up."""
    spec = find_spec(str(args.file))
    if spec is not None:
        if args.trial is not None:
            raise UserError("TRIAL must stand behind a study file; this is a network", value=args.trial)
        resolution = _resolution(args) or resolutions(spec)[0]
        return print_json(network_values(spec, resolution)) if args.json else print_view(network_view(spec, resolution))
    if args.resolution is not None:
        raise UserError("`--resolution` must stand with a network; a study has its own", value=args.resolution)
    with reading(args.file, place_of(args), is_quick=args.quick) as study:
        return _show_all(args, study) if args.trial is None else _show_trial(args, study)


def presets(args: Namespace) -> int:
    """Print every preset beside the published figures."""
    resolution = _resolution(args)
    return print_json(presets_values(resolution)) if args.json else print_view(presets_view(resolution))


def plot(args: Namespace) -> int:
    """Draw the claims of written summaries, each beside its own."""
    from harness.report.claims_summary import SUMMARY, read_claims
    from harness.report.plots.claims import plot_claims

    for named in args.summaries:
        file = named / SUMMARY if named.is_dir() else named
        plot_claims(file.with_name(PICTURE), read_claims(file))
        print(f"written: {file.with_name(PICTURE)}", file=sys.stderr)
    return 0


def weights(args: Namespace) -> int:
    """Read a checkpoint into safetensors, or write such a file back as a checkpoint."""
    from harness.models.weights import export_weights, import_weights

    if args.direction == "import":
        spec = named_spec(args.network) if args.network else None
        found = import_weights(args.file, args.output, spec, entry=args.entry)
    else:
        found = export_weights(args.file, args.output)
    print(f"{args.output}: {len(found.entries):,} entries, {found.form} form, {found.spec.classes:,} classes")
    for note in found.notes:
        print(f"  {note}")
    return 0


def erf(args: Namespace) -> int:
    """Print how far networks see, and draw it."""
    from harness.measures.erf_comparison import see
    from harness.report.plots.receptive_field import plot_field, plot_fields
    from harness.report.plots.style import file_names
    from harness.report.receptive_field import fields_values, fields_view
    from harness.storage.load_network import find_subject

    subjects = [find_subject(named, args.storage) for named in args.networks]
    found = list(see(subjects, images=args.images, resolution=args.resolution, data=args.data))
    if args.output is not None:
        for seen, name in zip(found, file_names("erf", [each.name for each in subjects]), strict=True):
            plot_field(args.output / name, seen)
            print(f"written: {args.output / name}", file=sys.stderr)
        if len(found) > 1:
            plot_fields(args.output / "erf.png", found)
            print(f"written: {args.output / 'erf.png'}", file=sys.stderr)
    return print_json(fields_values(found)) if args.json else print_view(fields_view(found))


def kernels(args: Namespace) -> int:
    """Print where a network's large kernels have their weight, and draw it."""
    from harness.measures.kernel_weights import large_kernels
    from harness.report.kernel_weights import kernels_values, kernels_view
    from harness.report.plots.kernel_weights import plot_kernels
    from harness.report.plots.style import file_names
    from harness.storage.load_network import find_subject

    subject = find_subject(args.network, args.storage)
    with computing():
        found = list(large_kernels(subject.model))
    if args.output is not None:
        path = args.output / file_names("kernels", [subject.name])[0]
        plot_kernels(path, subject, found)
        print(f"written: {path}", file=sys.stderr)
    return print_json(kernels_values(subject, found)) if args.json else print_view(kernels_view(subject, found))


def export(args: Namespace) -> int:
    """Write a network in the formats that others read, each verified."""
    from harness.cli.export import export_network

    return export_network(args, _resolution(args))


def shape_bias(args: Namespace) -> int:
    """Print what a network makes of images whose shape and texture disagree."""
    from harness.measures.cue_conflict import decide
    from harness.report.shape_bias import decided_values, decided_view
    from harness.storage.load_network import find_subject

    subject = find_subject(args.network, args.storage)
    found = decide(subject, args.stimuli, _resolution(args) or resolutions(subject.spec)[0])
    return print_json(decided_values(found)) if args.json else print_view(decided_view(found))


def evaluate_network(args: Namespace) -> int:
    """Print how accurate a network is."""
    found = evaluate(args)
    return print_json(evaluation_values(found)) if args.json else print_view(evaluation_view(found))


def best(args: Namespace) -> int:
    """Print the winner's network as a spec file."""
    with reading(args.file, place_of(args), is_quick=args.quick) as study:
        row, said = winner(study, Sought(place_of(args), trial=args.trial, options=options_of(args)))
    if args.json:
        return print_json(row.spec.canonical())
    which = "Best" if args.trial is None else "One"
    comment = f"{which} of the study {said.study}, trial {row.trials[0]}.\n"
    comment += f"{said.metric} {summary_of(row, said.metric)}\n{conditions(said)}"
    print(dump_spec(row.spec, comment), end="")
    return 0


def recipes(args: Namespace) -> int:
    """Print the recipes for full scale and downstream, or one of them."""
    if args.name is not None:
        print(read_document(recipe_file(args.name)).text, end="")
        return 0
    table = plain_table()
    for column in ("recipe", "for"):
        table.add_column(column)
    for name in recipe_names(None):
        table.add_row(name, load_any_recipe(name).about)
    return print_view(table)


def dashboard(args: Namespace) -> int:
    """Serve Optuna's dashboard on a study's database until Ctrl-C."""
    from harness.report.dashboard import dashboard_app, dashboard_server, serve, study_url

    with reading(args.file, place_of(args), is_quick=args.quick) as study, Interrupt():
        study_id, name = study.optuna_id, study.file.study.study
        app = dashboard_app(study.store, {name: study.file.study})
        with dashboard_server(app, args.port) as server:
            print(f"{name} is shown at {study_url(server, study_id)}")
            print("Ctrl-C ends it.", flush=True)
            try:
                serve(server)
            except KeyboardInterrupt:
                print("ended")
    return 0


def verify_all(args: Namespace) -> int:
    """Check what needs no training, and show what the recorded studies say of their claims."""
    return verify(args, recorded_claims(place_of(args)))


def schema(_: Namespace) -> int:
    """Print the JSON schema of study files."""
    return print_json(json_schema())


def print_view(view: RenderableType) -> int:
    """Print something made for people."""
    make_console().print(view)
    return 0


def print_json(values: Any) -> int:
    """Print something made for programs."""
    print(json_text(values))
    return 0


def _show_all(args: Namespace, read: Reading) -> int:
    ruled_out, claims, data = read.extent().ruled_out, read.claims(), read.data_notes()
    said = answer(read.file.study, read.store, read.trials, ruled_out, claims, data=data)
    if args.json:
        return print_json(answer_values(said))
    parts = [heading(said), Text(), Configurations(said), Text(), *claims_view(said), *full_runs_view(said)]
    parts += [*ended_view(said), *data_view(said.data), *reasons(said, most=None), *noise_view(said)]
    parts += [indented(note) for note in environment_notes(said)]
    parts += [Text(answer_limit_sentence(said), style="bold")] if said.limit else []
    return print_view(Group(*parts))


def _show_trial(args: Namespace, read: Reading) -> int:
    study = read.file.study
    trial = next((trial for trial in read.trials if trial.number == args.trial), None)
    if trial is None:
        known = f"0 to {len(read.trials) - 1}" if read.trials else "none"
        raise NotFound("the trial must be one of the study's", value=args.trial, remedy=f"Trials: {known}.")
    linked = read.store.trial_runs(study.study).get(trial.number, ())
    runs = list(read_runs(read.store, linked).values())
    if args.json:
        return print_json(trial_values(trial, runs, study))
    notes = [*read.data_notes(), *read.store.notes_of(linked)]
    return print_view(Group(trial_view(trial, runs, study), Text(), *data_view(notes)))


def _resolution(args: Namespace) -> int | None:
    """The side of the images, if it is given."""
    side: int | None = args.resolution
    if side is not None and not LEAST_SIDE <= side <= MOST_SIDE:
        raise UserError(
            f"`--resolution` must be from {LEAST_SIDE} to {MOST_SIDE}", value=side, remedy="The paper's are 224 to 384."
        )
    return side


VERBS: dict[str, Callable[[Namespace], int]] = {
    "run": run,
    "reproduce": reproduce,
    "status": show_status,
    "show": show,
    "presets": presets,
    "plot": plot,
    "verify": verify_all,
    "weights": weights,
    "erf": erf,
    "kernels": kernels,
    "shape-bias": shape_bias,
    "export": export,
    "best": best,
    "train": train,
    "downstream": downstream,
    "evaluate": evaluate_network,
    "recipes": recipes,
    "aa": calibrate_claims,
    "dashboard": dashboard,
    "schema": schema,
}
"""The function of each verb of the command line."""
