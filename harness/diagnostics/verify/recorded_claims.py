"""The claims of all studies in a results folder: evaluated on the runs of its database, and from stored summaries."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.analysis.claims import ANALYSES
from harness.analysis.formatting import plural
from harness.analysis.results import noise_line, study_results
from harness.analysis.reuse import other_environments, study_environment
from harness.analysis.study_reader import StudyReader, open_study_reader
from harness.analysis.summary import finished
from harness.config.quick_profile import QUICK_SUFFIX
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.study_file import StudyFile, load_study, resolved_yaml
from harness.config.study_growth import identity, study_values
from harness.config.yaml_file import parse_stored
from harness.data import describe
from harness.diagnostics.verify.findings import ClaimRow
from harness.diagnostics.verify.full_scale import study_files
from harness.errors import HarnessError, NotFound, UserError
from harness.models.spec.network import NetworkSpec
from harness.report.claims import SUMMARY_FILE, ClaimsSummary, ClaimSummary, SummaryModel, read_summary
from harness.storage import Store
from harness.storage.workspace import CLAIMS_FOLDER, Workspace
from harness.system.command_line import command_line, short_path, without_password
from harness.system.machine import has_gpu, workers_that_fit
from harness.training.run import Run

STUDY_FILE = "study.yaml"
MAX_CHANGES_SHOWN = 3
"""Number of changed keys that are shown."""


class RunSummary(SummaryModel):
    """A run of a stored summary."""

    id: str
    seed: int
    wall_s: float | None = None


class ConfigurationSummary(SummaryModel):
    """A network of a stored summary with its runs."""

    spec: dict[str, Any]
    recipe: ProxyRecipe | None = None
    """The recipe, if each configuration has its own."""
    runs: tuple[RunSummary, ...]


class StudySummary(ClaimsSummary):
    """A stored summary with its runs."""

    devices: tuple[str, ...] = ()
    configurations: tuple[ConfigurationSummary, ...] = ()

    @property
    def runs(self) -> tuple[RunSummary, ...]:
        """All runs."""
        return tuple(run for configuration in self.configurations for run in configuration.runs)


def recorded_summaries(workspace: Workspace, evaluated: Sequence[ClaimRow]) -> Iterator[ClaimRow]:
    """A row for each claim of stored summaries; `evaluated` are those on the runs of the database."""
    for file in sorted((workspace.results / CLAIMS_FOLDER).glob(f"*/{SUMMARY_FILE}")):
        try:
            summary = read_summary(file, StudySummary)
        except UserError as error:
            yield ClaimRow(file.parent.name, "", "", "", None, None, None, 0, None, "", None, "", fault=str(error))
            continue
        check = _check(summary, file.parent, workspace) if summary.claims else ""
        for claim in summary.claims:
            current = next((row for row in evaluated if (row.study, row.name) == (summary.study, claim.name)), None)
            low, high = claim.interval or (None, None)
            yield ClaimRow(
                study=summary.study,
                name=claim.name,
                says=claim.says,
                verdict=str(claim.verdict),
                effect=claim.effect,
                low=low,
                high=high,
                n=claim.n,
                p=claim.p,
                unit=claim.metric,
                paper=claim.paper,
                device=", ".join(summary.devices),
                source=str(file),
                environment=summary.mark,
                conditions=summary.conditions,
                finished=summary.finished,
                check=check,
                pairing=claim.pairing,
                compared=None if current is None or current.fault else _compared(claim, summary.finished, current),
            )


def _check(summary: StudySummary, folder: Path, workspace: Workspace) -> str:
    """Whether the study can be run again here, with the command and the estimated time, or the reason why not."""
    try:
        file, options = _study_file(summary, folder)
    except UserError as error:
        return f"no: {error}"
    changed = _changed(file, folder / STUDY_FILE, is_earlier=bool(summary.mark))
    if changed:
        return f"no: {short_path(file.path)} asks something else since ({changed})"
    try:
        describe(file.study.proxy)
    except HarnessError as error:
        return f"no: {error}"
    if any(not device.startswith("cpu") for device in summary.devices) and not has_gpu():
        return f"no: it was recorded on {', '.join(summary.devices)}, and there is no GPU here"
    return (
        f"yes: `{command_line('run', short_path(file.path), [*options, *workspace.options])}`, "
        f"{_time(summary, file)}{_changed_runs(summary, file)}"
    )


def _study_file(summary: StudySummary, folder: Path) -> tuple[StudyFile, list[str]]:
    """The shipped file of the study, else the resolved copy next to the summary; with the options to run it.

    Raises `UserError` if there is neither, or none that can be read.
    """
    for path in study_files():
        if summary.study == path.stem:
            return load_study(path), []
        if summary.study == f"{path.stem}{QUICK_SUFFIX}":
            return load_study(path, is_quick=True), ["--quick"]
    return load_study(folder / STUDY_FILE), []


def _changed(file: StudyFile, recorded: Path, *, is_earlier: bool) -> str:
    """The keys in which a study file differs from the recorded copy; empty if they are equal.

    `proxy.resample` is not compared with a record that `is_earlier` than this key; see `_changed_runs`.
    """
    if not recorded.is_file() or recorded == file.path:
        return ""
    try:
        before = identity(study_values(recorded.read_text(encoding="utf-8")))
    except (ValidationError, ValueError, OSError):
        return f"{short_path(recorded)} is of a version that this one does not read"
    now = identity(study_values(resolved_yaml(file)))
    compared = {**before, **now}.keys() - ({"proxy.resample"} if is_earlier else set())
    keys = sorted(f"`{key}`" for key in compared if before.get(key) != now.get(key))
    more = f" and {len(keys) - MAX_CHANGES_SHOWN} more" if len(keys) > MAX_CHANGES_SHOWN else ""
    return f"changed: {', '.join(keys[:MAX_CHANGES_SHOWN])}{more}" if keys else ""


def _time(summary: StudySummary, file: StudyFile) -> str:
    """The estimated time on all processors of this machine, from the times of the recorded runs, as text."""
    times = [run.wall_s for run in summary.runs if run.wall_s]
    if not times:
        return "its time is not recorded"
    workers = min(workers_that_fit(file.study.resources.cpus), len(times))
    minutes = max(1, round(sum(times) / workers / 60))
    return f"about {minutes:,} min for {plural(len(times), 'run')}"


def _changed_runs(summary: StudySummary, file: StudyFile) -> str:
    """A note if the recorded runs are not those that would be trained now; empty otherwise."""
    proxy = file.study.proxy
    pairs = [
        (run.id, Run(NetworkSpec.from_mapping(configuration.spec), configuration.recipe or proxy, run.seed).id)
        for configuration in summary.configurations
        for run in configuration.runs
    ]
    changed = sum(recorded != now for recorded, now in pairs)
    if not changed:
        return ""
    count = "all" if changed == len(pairs) else f"{changed} of {len(pairs)}"
    return f"; the same recipe means something else since, so {count} are other runs than those recorded"


def _compared(claim: ClaimSummary, finished: str | None, current: ClaimRow) -> str:
    """Compare the stored claim with the same claim on the runs of the database, as text."""
    if current.n == 0:
        return "no seed is complete here yet"
    order = _order(finished, current.finished)
    if claim.pairing != current.pairing:
        recorded, now = ANALYSES[claim.pairing], ANALYSES[current.pairing]
        return f"{order}; not compared: {recorded} as recorded, {now} by the study here"
    if str(claim.verdict) != current.verdict:
        recorded, now = (
            f"{claim.verdict} (n = {claim.n}) as recorded",
            f"{current.verdict} (n = {current.n}) by the runs here",
        )
        return f"{order}; they disagree: {recorded}, {now}"
    effect = claim.effect
    if effect is None or current.effect is None or abs(effect - current.effect) <= 1e-9 * max(abs(effect), 1.0):
        return f"{order}; they agree"
    if current.low is not None and current.high is not None and not current.low <= effect <= current.high:
        return f"{order}; same verdict, but the recorded effect is outside the interval of the runs here"
    return f"{order}; same verdict, another effect (n = {claim.n} as recorded, {current.n} here)"


def _order(recorded: str | None, current: str | None) -> str:
    """Which of the two is newer, by the time at which their last runs were finished, as text."""
    if current is None:
        return "the runs here have no date"
    if recorded is None:
        return "the runs here are newer"
    first, second = datetime.fromisoformat(recorded), datetime.fromisoformat(current)
    if first == second:
        return "the same runs are here"
    return "the record is newer" if first > second else "the runs here are newer"


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
            studies = [row.name for row in store.studies() if (parse_stored(row.resolved) or {}).get("claims")]
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
    environment = study_environment(study)
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
            environments="; ".join(origin.text for origin in other_environments(result.runs, environment)),
            limit=result.limit,
            noise=noise_line(results.resampling),
            source=source,
            finished=finished(results),
            pairing=result.pairing,
        )
