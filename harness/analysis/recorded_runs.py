"""Reads a recorded run from a study's database or from a summary, of this version or an earlier one."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from harness.analysis.formatting import printable
from harness.analysis.objective import spread_of
from harness.analysis.results import study_results
from harness.analysis.study_reader import open_study_reader
from harness.config.recipes.proxy import REVISION, ProxyRecipe
from harness.config.yaml_file import parse_stored
from harness.errors import NotFound, SpecError, UserError
from harness.models.spec.network import NetworkSpec
from harness.storage.workspace import Workspace
from harness.system.fingerprint import fingerprint
from harness.training.environment import Environment
from harness.training.run import Epoch, Run, RunState

SUMMARY, STUDY = "summary.json", "study.yaml"


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """The record of a run that is to be trained again."""

    id: str
    """The recorded id; that of `run` differs if the meaning of the recipe has changed since."""
    run: Run
    study: str
    trial: int | None
    metric: str
    """The study's objective."""
    state: RunState
    value: float | None
    curve: tuple[Epoch, ...]
    """The learning curve; empty if the record has none."""
    measures: Mapping[str, float]
    environments: tuple[Environment | None, ...]
    """All environments that trained it; None for an unknown one."""
    threads: int | None
    device: str | None
    siblings: tuple[float, ...]
    """Values of all seeds of its configuration."""
    revision: int | None = None
    """The revision of recipes when it was recorded, if known."""

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None for fewer than two."""
        return spread_of(self.siblings)

    @property
    def changed_meaning(self) -> str | None:
        """How the meaning of the run's values has changed since, as text; None if it has not."""
        if self.id == self.run.id:
            return None
        before = self.revision if self.revision not in (None, REVISION) else _earlier_revision(self.id, self.run)
        if before is not None:
            return f"the recipe's meaning has changed since (revision {before} -> {REVISION})"
        return f"its network, recipe or data have another meaning now: the id was {self.id} and is {self.run.id}"


def is_summary(path: Path) -> bool:
    """Whether a path is a summary, or a folder that contains one, and not a study file."""
    return path.suffix == ".json" or (path / SUMMARY).is_file()


def recorded_run_from_database(
    path: Path, workspace: Workspace, trial: int | None, run_id: str | None, *, is_quick: bool = False
) -> RecordedRun:
    """Read a run of a study: by its id, or the first seed of a trial, by default the best trial. Raises `NotFound`."""
    with open_study_reader(path, workspace, is_quick=is_quick) as reader:
        results = study_results(reader.file.study, reader.store, reader.trials, {})
        rows = [(row.trials, row.values, {run.row.id: run for run in row.runs}) for row in results.rows]
        best = results.best.trials[0] if results.best else None
        number, values, facts = _chosen(rows, best, trial, run_id, str(path))
        measures = reader.store.metrics(facts.row.id)
    row = facts.row
    return RecordedRun(
        id=row.id,
        run=row.run,
        study=results.study,
        trial=number,
        metric=results.metric,
        state=row.state,
        value=facts.value(results.metric),
        curve=facts.curve,
        measures=measures,
        environments=row.environments,
        threads=row.threads,
        device=row.device,
        siblings=values,
    )


def recorded_run_from_summary(path: Path, trial: int | None, run_id: str | None) -> RecordedRun:
    """Read a run from a summary; if that has no recipe, from the `study.yaml` next to it. Raises `UserError`s."""
    file = path / SUMMARY if path.is_dir() else path
    values = _read_json(file)
    try:
        rows = [
            (
                tuple(configuration["trials"]),
                tuple(run["value"] for run in configuration["runs"] if run["value"] is not None),
                {
                    run["id"]: run | {"spec": configuration["spec"], "recipe": configuration.get("recipe")}
                    for run in configuration["runs"]
                },
            )
            for configuration in values["configurations"]
        ]
        number, siblings, run = _chosen(rows, values["best_trial"], trial, run_id, str(file))
        return RecordedRun(
            id=run["id"],
            run=Run(NetworkSpec.from_mapping(run["spec"]), _recipe(run, values, file), run["seed"], run.get("data")),
            study=values["study"],
            trial=number,
            metric=values["objective"]["name"],
            state=RunState(run["state"]),
            value=run["value"],
            curve=tuple(_epoch(epoch) for epoch in run.get("curve", ())),
            measures=run["measures"],
            environments=tuple(
                map(Environment.from_values, [*run.get("earlier_environments", ()), run.get("environment")])
            ),
            threads=run["threads"],
            device=run["device"],
            siblings=siblings,
            revision=values.get("recipe_revision"),
        )
    except (KeyError, TypeError, ValueError, SpecError) as error:
        raise _no_summary(file, f"{type(error).__name__}: {error}") from error


def _chosen(
    rows: Sequence[tuple[tuple[int, ...], tuple[float, ...], Mapping[str, Any]]],
    best: int | None,
    trial: int | None,
    run_id: str | None,
    place: str,
) -> tuple[int | None, tuple[float, ...], Any]:
    """Trial, values of all seeds, and the requested run; `rows` has the trials, values and runs of configurations."""
    if run_id is not None:
        for trials, values, runs in rows:
            if run_id in runs:
                return trials[0], values, runs[run_id]
        run_ids = ", ".join(name for row in rows for name in row[2]) or "none"
        raise NotFound("the run must be one of the study's", value=run_id, place=place, remedy=f"Runs: {run_ids}.")
    selected = best if trial is None else trial
    if selected is None:
        raise NotFound("a study must have a complete configuration to have a best one", place=place)
    for trials, values, runs in rows:
        if selected in trials and runs:
            return selected, values, next(iter(runs.values()))
    trial_numbers = ", ".join(str(number) for trials, _, runs in rows if runs for number in trials) or "none"
    raise NotFound(
        "the trial must be one of the study's that were trained",
        value=selected,
        place=place,
        remedy=f"Trials: {trial_numbers}.",
    )


def _earlier_revision(run_id: str, run: Run) -> int | None:
    """The recipe revision under which the run had this id; None if there is none."""
    for revision in range(REVISION - 1, 0, -1):
        recipe = fingerprint([revision, run.recipe.canonical()])
        if fingerprint([run.spec.fingerprint(), recipe, run.seed]) == run_id:
            return revision
    return None


def _recipe(run: Mapping[str, Any], values: Mapping[str, Any], file: Path) -> ProxyRecipe:
    """The recipe of a run: that of its configuration, of the summary, or of the study file next to it."""
    for holder in (run, values):
        if holder.get("recipe") is not None:
            return ProxyRecipe.model_validate(holder["recipe"])
    study_file = file.with_name(STUDY)
    try:
        return ProxyRecipe.model_validate(parse_stored(study_file.read_text(encoding="utf-8"))["proxy"])
    except (OSError, KeyError, TypeError, yaml.YAMLError, ValidationError) as error:
        raise UserError(
            f"a summary without a recipe must have its resolved {STUDY} next to it ({printable(str(error))[:200]})",
            place=str(study_file),
        ) from error


def _epoch(values: Mapping[str, Any]) -> Epoch:
    """Convert an epoch from JSON; null becomes NaN."""
    numbers: dict[str, Any] = {name: math.nan if value is None else value for name, value in values.items()}
    return Epoch(**numbers)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFound(
            f"a summary must be a file that can be read ({error.strerror or error})", place=str(file)
        ) from error
    except ValueError as error:
        raise _no_summary(file, str(error)) from error
    if not isinstance(values, dict):
        raise _no_summary(file, "it holds no mapping")
    return values


def _no_summary(file: Path, why: str) -> UserError:
    return UserError(
        f"a summary must be a {SUMMARY} that `harness run` wrote ({printable(why)[:200]})", place=str(file)
    )
