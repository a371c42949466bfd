"""Makes a table of learning curves from a stored study whose grid is trained, and checks a table against a file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from harness.analysis.curve_table import CurveTable, RecordedConfiguration, rounded_curves
from harness.analysis.formatting import format_params, plural
from harness.analysis.study_reader import study_title
from harness.config.space import Candidate, Space
from harness.config.study import CURVES, Study
from harness.config.study_file import StudyFile, resolved_yaml
from harness.errors import StudyError, first_of
from harness.storage import RunRow, Store
from harness.training.run import Epoch, Run, RunState, missing_epochs

MAX_NAMED = 3
"""Maximum number of configurations that a refusal lists."""
LARGEST = 20_000
"""Maximum number of configurations of a table."""


def record_table(file: StudyFile, space: Space, store: Store) -> CurveTable:
    """The table of a study, from all runs that its grid has with its seeds, whichever study trained them.

    Raises `StudyError`, with what is missing, if a run of the grid is not complete.
    """
    study = file.study
    cells = _cells(file, space)
    seeds = tuple(range(study.search.seed, study.search.seed + study.search.seeds))
    runs = {cell.fingerprint: [Run(*cell.trained, seed, space.data) for seed in seeds] for cell in cells}
    rows = store.runs(run.id for group in runs.values() for run in group)
    curves = store.epochs_of_runs(rows)
    _require_complete(file, cells, runs, rows, curves)
    complete = list(rows.values())
    return CurveTable(
        study=study.study,
        question=study_title(file.text) or "",
        study_file=resolved_yaml(file),
        recipe=study.proxy.fingerprint(),
        axes=tuple(space.axes),
        classes=space.base.classes,
        channels=space.base.in_channels,
        data=space.data,
        seeds=seeds,
        epochs=_epochs_of(study, cells, file),
        environments=_environments(complete),
        recorded=max(f"{row.finished:%Y-%m-%d}" for row in complete if row.finished is not None),
        configurations=tuple(
            _configuration(cell, [curves[run.id] for run in runs[cell.fingerprint]]) for cell in cells
        ),
    )


def require_curves(file: StudyFile) -> None:
    """Raise `StudyError` for an objective that has no learning curve."""
    objective = file.study.objective
    if file.study.has_several_objectives:
        rule = "a study must have one objective to be replayed: searches are compared by their best value"
        remedy = f"Keep `{file.study.curve_objective}` in a copy of the file."
        raise StudyError(rule, value=", ".join(file.study.objectives), place=file.place(("objectives",)), remedy=remedy)
    if objective not in CURVES:
        rule = f"the objective must be {' or '.join(CURVES)} to be replayed: others have no learning curve"
        raise StudyError(rule, value=objective, place=file.place(("objectives",)))


def require_replayable(file: StudyFile, table: CurveTable, space: Space, source: str) -> None:
    """Raise `StudyError` if the table, from this source, lacks a configuration of the space or has another proxy."""
    require_curves(file)
    proxy = file.study.proxy.fingerprint()
    if table.recipe != proxy:
        rule = f"`proxy` must be that of the table {source}, which was recorded with {table.recipe}"
        remedy = f"The table has the file of its study, {table.study}: copy the proxy from there."
        raise StudyError(rule, value=proxy, place=file.place(("proxy",)), remedy=remedy)
    recorded = {configuration.fingerprint for configuration in table.configurations}
    cells = _cells(file, space)
    missing = [format_params(cell.params) for cell in cells if cell.fingerprint not in recorded]
    if missing:
        rule = f"every configuration must be in the table {source}, which lacks {len(missing):,} of {len(cells):,}"
        remedy = f"Its axes are {', '.join(table.axes)}: keep to the values that were recorded."
        value = first_of(missing, MAX_NAMED)
        raise StudyError(rule, value=value, place=file.place(("axes",)), remedy=remedy)


def _cells(file: StudyFile, space: Space) -> list[Candidate]:
    """The configurations of the space. Raises `StudyError` if there are too many for a table, or their runs differ."""
    if space.size > LARGEST:
        rule = f"a space must have at most {LARGEST:,} combinations for a table of all its curves"
        raise StudyError(rule, value=f"{space.size:,}", place=file.place(("axes",)), remedy="Simulate a smaller space.")
    return [cell for cell in space.grid() if cell.is_feasible]


def _epochs_of(study: Study, cells: Sequence[Candidate], file: StudyFile) -> int:
    epochs = sorted({cell.trained[1].epochs for cell in cells})
    if len(epochs) > 1 or epochs[0] < 1:
        rule = "all configurations must be trained for the same number of epochs, at least one, for a table of curves"
        place = file.place(("proxy", "epochs"))
        raise StudyError(rule, value=first_of(epochs, MAX_NAMED), place=place, remedy="Leave the axis of epochs out.")
    return study.proxy.epochs


def _require_complete(
    file: StudyFile,
    cells: Sequence[Candidate],
    runs: Mapping[str, Sequence[Run]],
    rows: Mapping[str, RunRow],
    curves: Mapping[str, Sequence[Epoch]],
) -> None:
    def problem(run: Run) -> str | None:
        row = rows.get(run.id)
        if row is None or row.state == RunState.QUEUED:
            return "not trained"
        if row.state != RunState.COMPLETE:
            return str(row.state).replace("_", " ")
        is_whole = not missing_epochs((epoch.epoch for epoch in curves.get(run.id, ())), run.recipe.epochs)
        return None if is_whole else "without all of its epochs"

    problems = [(cell, run, problem(run)) for cell in cells for run in runs[cell.fingerprint]]
    lacking = [(cell, run, text) for cell, run, text in problems if text is not None]
    if lacking:
        _refuse(file, lacking, len(problems))


def _refuse(file: StudyFile, lacking: Sequence[tuple[Candidate, Run, str]], total: int) -> NoReturn:
    states = Counter(text for _, _, text in lacking)
    counts = ", ".join(f"{count} {text}" for text, count in states.items())
    named = first_of([f"{format_params(cell.params)}, seed {run.seed}" for cell, run, _ in lacking], MAX_NAMED)
    if str(RunState.DIVERGED) in states:
        remedy = (
            "Leave these networks out with a rule, or lower the learning rate: a simulation has no run that diverges."
        )
    else:
        remedy = (
            f"Train the whole grid with its {plural(file.study.search.seeds, 'seed')} and without a pruner (`search: "
            "{sampler: grid}`), or name a recorded table with `--table`."
        )
    rule = f"every configuration must have a complete run with every seed to be replayed; of {total:,} runs, {counts}"
    raise StudyError(rule, value=named, place=str(file.path), remedy=remedy)


def _environments(rows: Sequence[RunRow]) -> tuple[dict[str, Any], ...]:
    """The environments of the runs, those of most runs first, each with the number of its runs."""
    groups: list[tuple[dict[str, Any], list[RunRow]]] = []
    for row in rows:
        values = {} if row.environment is None else row.environment.values()
        values = {"harness": row.versions.get("harness"), "machine": row.device, **values}
        group = next((group for known, group in groups if known == values), None)
        if group is None:
            groups.append((values, [row]))
        else:
            group.append(row)
    ordered = sorted(groups, key=lambda pair: -len(pair[1]))
    return tuple({"runs": len(group), **values} for values, group in ordered)


def _configuration(cell: Candidate, curves: Sequence[Sequence[Epoch]]) -> RecordedConfiguration:
    assert cell.cost is not None, "a feasible configuration has a cost"
    params = {name: list(value) if isinstance(value, tuple) else value for name, value in cell.params.items()}
    exact = RecordedConfiguration(
        params=params,
        fingerprint=cell.fingerprint,
        parameters=cell.cost.params,
        macs=cell.cost.macs,
        top1=[[epoch.top1 for epoch in curve] for curve in curves],
        val_loss=[[epoch.val_loss for epoch in curve] for curve in curves],
        seconds=[[epoch.wall_s for epoch in curve] for curve in curves],
    )
    return rounded_curves(exact)
