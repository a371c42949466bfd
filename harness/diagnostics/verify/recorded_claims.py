"""The claims of all studies in a results folder: evaluated on the runs of its database, and from stored summaries."""

from collections.abc import Iterator

import yaml

from harness.analysis.environments import other_environments
from harness.analysis.noise import noise_line
from harness.analysis.results import study_results
from harness.analysis.reuse import study_environment
from harness.analysis.study_reader import StudyReader, open_study_reader
from harness.analysis.summary import finished
from harness.diagnostics.verify import ClaimRow
from harness.diagnostics.verify.kept_studies import recorded_summaries
from harness.errors import NotFound, UserError
from harness.storage import Store
from harness.storage.workspace import Workspace
from harness.system.command_line import without_password


def all_recorded_claims(workspace: Workspace) -> Iterator[ClaimRow]:
    """A row for each claim; for a study that cannot be read, a row with the reason.

    First the claims of the database, then those of stored summaries, which are compared with the former.
    """
    stored = list(stored_claims(workspace))
    yield from stored
    yield from recorded_summaries(workspace, stored)


def stored_claims(workspace: Workspace) -> Iterator[ClaimRow]:
    """The claims of the database, evaluated on its runs."""
    try:
        with Store.open(workspace.database, read_only=True) as store:
            studies = [row.name for row in store.studies() if (yaml.safe_load(row.resolved) or {}).get("claims")]
    except NotFound:
        return
    for name in studies:
        try:
            with open_study_reader(workspace.folder(name) / "study.yaml", workspace) as reader:
                yield from _rows(reader, without_password(str(workspace.database)))
        except UserError as error:
            yield ClaimRow(name, "", "", "", None, None, None, 0, None, "", None, "", fault=str(error))


def _rows(reader: StudyReader, source: str) -> Iterator[ClaimRow]:
    study = reader.file.study
    results = study_results(study, reader.store, reader.trials, {}, reader.claims())
    here = study_environment(study)
    for result in results.claims:
        claim, estimate = result.claim, result.estimate
        yield ClaimRow(
            study=study.study,
            name=claim.name,
            says=claim.says,
            verdict=result.verdict_text,
            effect=None if estimate is None else estimate.effect,
            low=None if estimate is None else estimate.low,
            high=None if estimate is None else estimate.high,
            n=len(result.values),
            p=result.p,
            unit=claim.metric,
            paper=claim.paper,
            device=", ".join(results.devices),
            environments="; ".join(origin.text for origin in other_environments(result.runs, here)),
            limit=result.limit,
            noise=noise_line(results.resampling),
            source=source,
            finished=finished(results),
        )
