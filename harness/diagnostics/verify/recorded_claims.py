"""The claims of all studies in a results folder: judged on the runs stored there, and as summaries keep them."""

from collections.abc import Iterator

import yaml

from harness.analysis.environments import other_environments
from harness.analysis.noise import noise_line
from harness.analysis.results import study_results
from harness.analysis.reuse import study_environment
from harness.analysis.study_reader import StudyReader, open_study_reader
from harness.diagnostics.verify import ClaimRow
from harness.diagnostics.verify.kept_studies import recorded_summaries
from harness.errors import NotFound, UserError
from harness.report.summary import finished
from harness.storage import Store
from harness.storage.workspace import Workspace
from harness.system.command_line import without_password


def all_recorded_claims(place: Workspace) -> Iterator[ClaimRow]:
    """A row for each claim, study by study; one that says why, for a study that cannot be read.

    First those of the database, then those of kept summaries, which say how they stand to the first.
    """
    stored = list(stored_claims(place))
    yield from stored
    yield from recorded_summaries(place, stored)


def stored_claims(place: Workspace) -> Iterator[ClaimRow]:
    """The claims of the database, judged on its runs."""
    try:
        with Store.open(place.database, read_only=True) as store:
            studies = [row.name for row in store.studies() if (yaml.safe_load(row.resolved) or {}).get("claims")]
    except NotFound:
        return
    for name in studies:
        try:
            with open_study_reader(place.folder(name) / "study.yaml", place) as read:
                yield from _rows(read, without_password(str(place.database)))
        except UserError as error:
            yield ClaimRow(name, "", "", "", None, None, None, 0, None, "", None, "", fault=str(error))


def _rows(read: StudyReader, source: str) -> Iterator[ClaimRow]:
    study = read.file.study
    said = study_results(study, read.store, read.trials, {}, read.claims())
    here = study_environment(study)
    for judged in said.claims:
        claim, found = judged.claim, judged.estimate
        yield ClaimRow(
            study=study.study,
            name=claim.name,
            says=claim.says,
            verdict=judged.verdict_text,
            effect=None if found is None else found.effect,
            low=None if found is None else found.low,
            high=None if found is None else found.high,
            n=len(judged.values),
            p=judged.p,
            unit=claim.metric,
            paper=claim.paper,
            device=", ".join(said.devices),
            environments="; ".join(origin.text for origin in other_environments(judged.runs, here)),
            limit=judged.limit,
            noise=noise_line(said.resampling),
            source=source,
            finished=finished(said),
        )
