"""Which network is meant: the best of a study, any other of its trials, a run's, a preset, or a spec file."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.analysis.results import ConfigurationResult, StudyResults, results_limit_sentence, study_results
from harness.analysis.study_reader import StudyReader, open_study_reader
from harness.config.full_scale_network import full_scale_network
from harness.config.network_file import require_network_spec
from harness.errors import NotFound, UserError
from harness.models.spec.network import NetworkSpec
from harness.storage.workspace import Workspace, run_of, trial_of
from harness.system.command_line import command_line

BEST_OF = "best-of"
SHOWN_DIGITS = 8
"""Of a run's id, in names."""


class NetworkRef(NamedTuple):
    """A network to be trained at full scale, before it is fitted to the images."""

    name: str
    spec: NetworkSpec
    recipe: str | None = None
    """Name of the recipe that its study asks for."""
    study: str | None = None
    """The study that found it; None for any other network."""
    trial: int | None = None
    """Of that study."""


class NetworkQuery(NamedTuple):
    """Where the command line says that studies are, and which of a study's trials it means."""

    place: Workspace
    is_quick: bool = False
    trial: int | None = None
    """None for the best."""
    options: Sequence[str] = ()
    """The same as options, for commands that are shown."""


def resolve_network(words: Sequence[str], query: NetworkQuery) -> NetworkRef:
    """The network of `best-of STUDY.yaml`, or of one name or path. Raises `UserError`s for what is not there."""
    first, *rest = words
    if first == BEST_OF:
        if len(rest) != 1:
            raise UserError(f"`{BEST_OF}` must stand before one study file", value=" ".join(rest))
        return _best_of(Path(rest[0]), query)
    if rest:
        raise UserError("one network must be named", value=" ".join(words), remedy=f"Or write `{BEST_OF} STUDY.yaml`.")
    if query.trial is not None:
        raise UserError(f"`--trial` must stand with `{BEST_OF} STUDY.yaml`", value=query.trial)
    path = Path(first)
    if path.suffix == ".pt":
        study = path.absolute().parent.parent
        run = run_of(path, Workspace(study.parent, query.place.storage))
        trial = trial_of(path, study.name, Workspace(study.parent, query.place.storage))
        return NetworkRef(f"{study.name}-{path.stem[:SHOWN_DIGITS]}", run.spec, study=study.name, trial=trial)
    return NetworkRef(path.stem, require_network_spec(first))


def find_winner(reader: StudyReader, query: NetworkQuery) -> tuple[ConfigurationResult, StudyResults]:
    """The best configuration of a study, or that of the trial that is sought, and all answers of the study.

    Raises `NotFound` where there is none.
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
    look = f"See how it stands: `{command_line('status', reader.file.path, query.options)}`."
    if query.trial is not None:
        raise NotFound("the trial must be one of the study's that were trained", value=query.trial, remedy=look)
    raise NotFound(
        "a study must have a complete configuration to have a best one", place=str(reader.file.path), remedy=look
    )


def _best_of(path: Path, query: NetworkQuery) -> NetworkRef:
    """A study's choices on the base and with the recipe of its `full_scale`; without one, its network as it is."""
    with open_study_reader(path, query.place, is_quick=query.is_quick) as reader:
        configuration, results = find_winner(reader, query)
        full = reader.file.study.full_scale
        spec = full_scale_network(reader.file, configuration.params) or configuration.spec
    name = f"{results.study}-{configuration.trials[0]}" if query.trial is not None else results.study
    return NetworkRef(name, spec, full.recipe if full else None, results.study, configuration.trials[0])
