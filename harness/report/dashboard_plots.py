"""Plots that the dashboard shows of a study with several objectives, of which it draws no learning curves itself.

Each is a figure in plotly's JSON (`data` and `layout`), which the page draws; plotly itself is not needed here. The
dashboard shows such figures as those that a user has saved.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from harness.analysis.configuration_result import ConfigurationResult
from harness.analysis.formatting import format_params
from harness.analysis.results import StudyResults
from harness.config.study import CURVES
from harness.report.dashboard_storage import mean_curve

OTHERS = {"complete": "#7f9fbf", "not complete": "#c8c8c8"}
"""Colors of the curves of configurations that are not on the front."""


def several_objectives_plots(results: StudyResults) -> list[dict[str, str]]:
    """The plots for the dashboard's page of a study; none for a study with one objective."""
    if results.pareto is None:
        return []
    figures = {
        f"learning_curves_{name}": figure
        for name in results.pareto.objectives
        if name in CURVES and (figure := curves_figure(results.rows, name)) is not None
    }
    figures |= {"hypervolume": hypervolume_figure(results)} if results.pareto.hypervolumes else {}
    return [{"id": name, "graph_object": json.dumps(figure)} for name, figure in figures.items()]


def curves_figure(rows: Sequence[ConfigurationResult], metric: str) -> dict[str, Any] | None:
    """The learning curve of every configuration: the mean over its seeds; of a pruned one, its screening run's."""
    on_front = [row for row in rows if row.is_on_front]
    data = [trace for row in on_front if (trace := _curve(row, metric)) is not None]
    for name, color in OTHERS.items():
        others = [row for row in rows if not row.is_on_front and (row.state == "complete") == (name == "complete")]
        trace = _joined(list(_points(others, metric)), name, color)
        data = [trace, *data] if trace["x"] else data
    layout = _layout(f"Learning curves of all configurations: {metric}", "epoch", metric)
    return {"data": data, "layout": layout} if data else None


def hypervolume_figure(results: StudyResults) -> dict[str, Any]:
    """The hypervolume after each complete configuration."""
    assert results.pareto is not None
    course = results.pareto.hypervolumes
    trials = [f"#{trial}" for trial, _ in course]
    line = {"x": list(range(1, len(course) + 1)), "y": [share for _, share in course], "text": trials}
    title = "Hypervolume, as a share of the box between reference and ideal point"
    data = [{"type": "scatter", "mode": "lines+markers", "line": {"shape": "hv"}, "name": "hypervolume", **line}]
    return {"data": data, "layout": _layout(title, "complete configurations", "hypervolume")}


def _curve(row: ConfigurationResult, metric: str) -> dict[str, Any] | None:
    curve = mean_curve(row, metric)
    name = _name(row)
    points = {"x": list(curve), "y": list(curve.values())}
    return {"type": "scatter", "mode": "lines+markers", "name": f"{name} (front)", **points} if curve else None


def _points(rows: Sequence[ConfigurationResult], metric: str) -> Iterator[tuple[int | None, float | None, str]]:
    """Epochs, values and names of the curves, with a gap after each."""
    for row in rows:
        name = _name(row) if row.state == "complete" else f"{_name(row)}, {row.state}"
        yield from ((epoch, value, name) for epoch, value in mean_curve(row, metric).items())
        yield None, None, name


def _joined(points: Sequence[tuple[int | None, float | None, str]], name: str, color: str) -> dict[str, Any]:
    is_empty = all(epoch is None for epoch, _, _ in points)
    x, y, text = ([], [], []) if is_empty else map(list, zip(*points, strict=True))
    style = {"mode": "lines+markers", "line": {"color": color, "width": 1}, "marker": {"color": color, "size": 4}}
    return {"type": "scatter", "name": name, "x": x, "y": y, "text": text, "connectgaps": False, **style}


def _name(row: ConfigurationResult) -> str:
    return f"#{row.trials[0]} {format_params(row.params)}"


def _layout(title: str, x: str, y: str) -> dict[str, Any]:
    return {"title": {"text": title}, "xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
