"""The configurations that a study tries first (`search.enqueue`), with the best of other studies looked up."""

from collections.abc import Iterator
from typing import NamedTuple

from harness.analysis.results import results_limit_sentence, study_results
from harness.config.enqueue import AT, BestOf, best_of, entry_text, listed_candidate, network_candidate
from harness.config.space import Candidate, Space
from harness.config.study import Study
from harness.config.study_file import StudyFile
from harness.config.yaml_file import parse_stored
from harness.errors import NotFound, StudyError
from harness.storage import Store, load_study


class Enqueued(NamedTuple):
    """A configuration that is tried first."""

    named: str
    """The entry of the file, as text."""
    candidate: Candidate


def enqueued_configurations(file: StudyFile, space: Space, store: Store | None) -> list[Enqueued]:
    """The configurations of the file's entries, in their order, each once; `store` is None if there is no database.

    Raises `StudyError`, with the file's line, for one that the space does not have, and for a study that has no best
    configuration.
    """
    enqueued: dict[str, Enqueued] = {}
    for i, entry in enumerate(file.study.search.enqueue):
        try:
            of = best_of(entry)
            found = [listed_candidate(entry, space)] if of is None else list(_best(of, space, store))
        except StudyError as error:
            error.place = error.place or file.place((*AT, i))
            raise
        for candidate in found:
            enqueued.setdefault(candidate.fingerprint, Enqueued(entry_text(entry), candidate))
    return list(enqueued.values())


def _best(of: BestOf, space: Space, store: Store | None) -> Iterator[Candidate]:
    """The first configurations of another study, as configurations of this space."""
    rule = "`search.enqueue` must name a study of this database that has complete configurations"
    studies = [row.name for row in store.studies()] if store is not None else []
    if store is None or of.study not in studies:
        remedy = f"Run it first, or import it; studies there: {', '.join(studies) or 'none'}."
        raise StudyError(rule, value=of.study, remedy=remedy)
    study = Study.model_validate(parse_stored(store.study(of.study).resolved))
    try:
        trials = load_study(store, of.study).get_trials(deepcopy=False)
    except NotFound as error:
        raise StudyError(rule, value=of.study, remedy="Run it again.") from error
    results = study_results(study, store, trials, {})
    if results.limit is not None:
        raise StudyError(rule, value=of.study, remedy=results_limit_sentence(results))
    if len(results.complete) < of.most:
        has = f"It has {len(results.complete)} complete configurations."
        raise StudyError(rule, value=f"best {of.most} of {of.study}", remedy=has)
    for row in results.ranked[: of.most]:
        yield network_candidate(row.spec, row.recipe, space, f"trial {row.trials[0]} of {of.study}")
