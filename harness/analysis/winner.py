"""Resolves a network from the command line: the best or another trial of a study, a run, a preset, or a spec file."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.analysis.configuration_result import ConfigurationResult
from harness.analysis.results import StudyResults, results_limit_sentence, study_results
from harness.analysis.study_reader import StudyReader, open_study_reader
from harness.config.network_file import require_network_spec
from harness.config.study_file import full_scale_network
from harness.errors import NotFound, UserError
from harness.models.spec.network import NetworkSpec
from harness.storage.workspace import Workspace, run_of, trial_of
from harness.system.command_line import command_line

BEST_OF = "best-of"
SHOWN_DIGITS = 8
"""Number of digits of a run's id in the name of a network."""


class NetworkRef(NamedTuple):
    """A network to train at full scale, before it is adapted to the images."""

    name: str
    spec: NetworkSpec
    recipe: str | None = None
    """Name of the recipe that its study requests."""
    study: str | None = None
    """The study that chose it; None for any other network."""
    trial: int | None = None
    """The trial of that study."""


class NetworkQuery(NamedTuple):
    """Workspace and trial selection from the command line."""

    place: Workspace
    is_quick: bool = False
    trial: int | None = None
    """Number of the trial; None for the best."""
    options: Sequence[str] = ()
    """The same as command-line options, for commands in messages."""


def resolve_network(words: Sequence[str], query: NetworkQuery) -> NetworkRef:
    """The network of `best-of STUDY.yaml`, or of one name or path. Raises `UserError`s if there is no such network."""
    first, *rest = words
    if first == BEST_OF:
        if len(rest) != 1:
            raise UserError(f"`{BEST_OF}` must be followed by one study file", value=" ".join(rest))
        return _best_of(Path(rest[0]), query)
    if rest:
        raise UserError("one network must be named", value=" ".join(words), remedy=f"Or write `{BEST_OF} STUDY.yaml`.")
    if query.trial is not None:
        raise UserError(f"`--trial` must be used with `{BEST_OF} STUDY.yaml`", value=query.trial)
    path = Path(first)
    if path.suffix == ".pt":
        study = path.absolute().parent.parent
        run = run_of(path, Workspace(study.parent, query.place.storage))
        trial = trial_of(path, study.name, Workspace(study.parent, query.place.storage))
        return NetworkRef(f"{study.name}-{path.stem[:SHOWN_DIGITS]}", run.spec, study=study.name, trial=trial)
    return NetworkRef(path.stem, require_network_spec(first))


def find_winner(reader: StudyReader, query: NetworkQuery) -> tuple[ConfigurationResult, StudyResults]:
    """The best configuration of a study, or that of the requested trial; and all results of the study.

    Raises `NotFound` if there is none, and `UserError` if all configurations are at one limit.
    """
    results = study_results(reader.file.study, reader.store, reader.trials, {})
    configuration = results.best if query.trial is None else results.row_of(query.trial)
    if configuration is not None:
        return configuration, results
    if query.trial is None and results.limit is not None:
        raise UserError(
            "a study must tell its configurations apart to have a best one",
            value=f"all at {results.limit}",
            place=str(reader.file.path),
            remedy=f"{results_limit_sentence(results)} Or name one: `--trial N`.",
        )
    look = f"See its status: `{command_line('status', reader.file.path, query.options)}`."
    if query.trial is not None:
        raise NotFound("the trial must be one of the study's that were trained", value=query.trial, remedy=look)
    raise NotFound(
        "a study must have a complete configuration to have a best one", place=str(reader.file.path), remedy=look
    )


def _best_of(path: Path, query: NetworkQuery) -> NetworkRef:
    """A study's choices on the base and recipe of its `full_scale` section; without one, its network unchanged."""
    with open_study_reader(path, query.place, is_quick=query.is_quick) as reader:
        configuration, results = find_winner(reader, query)
        full = reader.file.study.full_scale
        spec = full_scale_network(reader.file, configuration.params) or configuration.spec
    name = f"{results.study}-{configuration.trials[0]}" if query.trial is not None else results.study
    return NetworkRef(name, spec, full.recipe if full else None, results.study, configuration.trials[0])
