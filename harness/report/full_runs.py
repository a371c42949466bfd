"""What became of a study's networks at full scale, beside what their proxies had promised."""

from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from harness.analysis.formatting import DASH, epochs_done, label, mean_and_spread, score
from harness.analysis.seeds import seeds_text
from harness.models.spec.published import preset_of
from harness.report.console import indented, plain_table
from harness.storage import FullRow
from harness.training.environment import UNKNOWN, Environment, describe_difference
from harness.training.full_scale.folder import WEIGHTS, is_at_work
from harness.training.run import RunState

if TYPE_CHECKING:
    from harness.analysis.results import Answer

NOTE = "a proxy's figures are of its own images and epochs: what may agree between the two is the order of networks"


def full_runs_view(answer: "Answer") -> list[RenderableType]:
    """Proxy beside full scale, a row for each training; nothing where there is none."""
    if not answer.full_scale:
        return []
    table = plain_table()
    for name in ("#", f"proxy {answer.metric}", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("at full scale", "recipe"):
        table.add_column(name, no_wrap=True)
    for name in ("epochs", "best"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in answer.full_scale:
        table.add_row(*_cells(row, answer))
    said = [indented(f"{_head(row, answer)}{_place(row)}") for row in answer.full_scale]
    return [Text("Full scale", style="bold").append(f"  {NOTE}", style="dim"), table, Text(), *said, Text()]


def full_run_values(answer: "Answer") -> list[dict[str, Any]]:
    """The same for JSON."""
    return [_values(row, answer) for row in answer.full_scale]


def standing(row: FullRow) -> str:
    """How a training stands, in words; one that nobody is at any longer was interrupted."""
    if row.state == RunState.RUNNING and not is_at_work(row.folder):
        return "interrupted"
    return str(row.state).replace("_", " ")


def _cells(row: FullRow, answer: "Answer") -> list[str | Text]:
    proxy = None if row.trial is None else answer.row_of(row.trial)
    mean = DASH if proxy is None else mean_and_spread(proxy.mean, proxy.spread, answer.metric)
    side = row.recipe.get("resolution")
    return [
        DASH if row.trial is None else str(row.trial),
        mean,
        DASH if proxy is None else seeds_text(len(proxy.values), proxy.missing),
        Text(f"{preset_of(row.spec) or row.spec.family}{f', {side} px' if side else ''}"),
        Text(row.recipe_name),
        epochs_done(row.epochs_done, row.epochs),
        f"{row.metric} {score(row.best, row.metric)}",
        standing(row),
    ]


def _head(row: FullRow, answer: "Answer") -> str:
    proxy = None if row.trial is None else answer.row_of(row.trial)
    return f"{row.name}: " if proxy is None else f"#{row.trial} {label(proxy.params)}: "


def _place(row: FullRow) -> str:
    """Where the weights are, and under which conditions they were trained."""
    best = row.folder / WEIGHTS["best"]
    weights = str(best) if best.exists() else f"no weights yet in {row.folder}"
    when = "" if row.best_epoch is None else f", of epoch {row.best_epoch}"
    versions = ", ".join(f"{name} {version}" for name, version in (row.versions or {}).items())
    earlier = "; ".join(_words(each, row.environment) for each in row.earlier)
    resumed = f"; its first epochs of another environment: {earlier}" if earlier else ""
    return f"{weights}{when}{f'; on {row.device}, {versions}' if row.device else ''}{resumed}"


def _words(earlier: Environment | None, environment: Environment | None) -> str:
    return UNKNOWN if environment is None else describe_difference(earlier, environment)


def _values(row: FullRow, answer: "Answer") -> dict[str, Any]:
    proxy = None if row.trial is None else answer.row_of(row.trial)
    best = row.folder / WEIGHTS["best"]
    return {
        "id": row.id,
        "name": row.name,
        "trial": row.trial,
        "state": standing(row),
        "cause": row.cause,
        "recipe": row.recipe_name,
        "recipe_fingerprint": row.recipe_fingerprint,
        "seed": row.recipe.get("seed"),
        "epochs": row.epochs,
        "epochs_done": row.epochs_done,
        "metric": row.metric,
        "best": row.best,
        "best_epoch": row.best_epoch,
        "proxy": None if proxy is None else {"mean": proxy.mean, "sd": proxy.spread, "n": len(proxy.values)},
        "weights": str(best) if best.exists() else None,
        "folder": str(row.folder),
        "host": row.host,
        "device": row.device,
        "versions": row.versions,
        "environment": None if row.environment is None else row.environment.values(),
        "earlier_environments": [None if each is None else each.values() for each in row.earlier],
        "spec": row.spec.canonical(),
    }
