"""Markdown notes that Optuna's dashboard shows for a study or a trial: its network, seeds and conditions."""

from collections.abc import Iterator, Sequence

from harness.analysis.conclusions import conclusions, conditions_text
from harness.analysis.formatting import (
    DASH,
    epochs_done,
    format_duration,
    format_mean_and_spread,
    format_metric,
    format_milliseconds,
    format_params,
    plural,
    printable,
    si,
)
from harness.analysis.results import ConfigurationResult, RunResult, StudyResults
from harness.report.network import network_costs

DASHBOARD_NOTE = (
    "Values and curves are means over the seeds of a configuration, also if several trials trained it. The best trial "
    "is that of `harness best`: the best mean within the budgets. Gray: over a budget, or diverged. Trials in the "
    "state *Rejected* were proposed and never trained. Reload the page to update the means after further seeds."
)
NO_RESULTS_NOTE = (
    "This study was not created by the harness, or by a version whose study file it cannot read: each trial is shown "
    "alone, with the value and the constraints that Optuna has stored."
)
LATENCY = "latency_ms"


def study_note(results: StudyResults) -> str:
    """The results of the study so far, and an explanation of its pages."""
    ruled_out = [f"- not trained: {reason} ({count:,})" for reason, count in results.rejected.items()]
    return "\n".join([" ".join(conclusions(results)), "", conditions_text(results), "", *ruled_out, "", DASHBOARD_NOTE])


def trial_note(number: int, configuration: ConfigurationResult, results: StudyResults) -> str:
    """The configuration of a trial: its state, its network by part, and its seeds."""
    if not configuration.runs:
        return _head(number, configuration, results)
    parts = [
        _head(number, configuration, results),
        "**network**, merged",
        "\n".join(_network_table(configuration)),
        "**seeds**",
        "\n".join(_seed_table(configuration, results.metric)),
        "\n".join(f"- {line}" for line in _environments(configuration)),
    ]
    return "\n\n".join(part for part in parts if part)


def rejected_note(reason: str) -> str:
    """The note of a proposal that was never trained."""
    return f"**rejected, never trained**: {_cell(reason)}"


def _head(number: int, configuration: ConfigurationResult, results: StudyResults) -> str:
    state = "best of the study" if configuration is results.best else configuration.state
    reason = f": {_cell(configuration.reason)}" if configuration.reason and configuration.state != "complete" else ""
    mean_and_spread = format_mean_and_spread(configuration.mean, configuration.spread, results.metric)
    mean = f"{results.metric} {mean_and_spread} (n = {len(configuration.values)})"
    lines = [f"**{state}**{reason}", f"{_cell(format_params(configuration.params))}: {mean}, {_costs(configuration)}"]
    if len(configuration.trials) > 1:
        others = ", ".join(str(trial) for trial in configuration.trials if trial != number)
        lines.append(f"The same configuration as in {'trials' if len(configuration.trials) > 2 else 'trial'} {others}.")
    return "\n\n".join(lines)


def _costs(configuration: ConfigurationResult) -> str:
    costs = f"{si(configuration.params_count)} params, {si(configuration.macs)} MACs"
    return costs if configuration.latency_ms is None else f"{costs}, {format_milliseconds(configuration.latency_ms)} ms"


def _network_table(configuration: ConfigurationResult) -> Iterator[str]:
    """The merged network by part; K is 31+5 with a small kernel."""
    resolution = configuration.runs[0].row.run.recipe.resolution
    yield f"| part at {resolution} px | map | B | C | K | params | MACs |"
    yield "| --- | --: | --: | --: | --: | --: | --: |"
    for cells in network_costs(configuration.spec, resolution).merged_rows():
        yield f"| {' | '.join(cells)} |"


def _seed_table(configuration: ConfigurationResult, metric: str) -> Iterator[str]:
    """A line per run: its value, state, epochs and times."""
    times = sorted({name for facts in configuration.runs for name in facts.measures if name.startswith(LATENCY)})
    yield f"| seed | {metric} | state | epochs | {''.join(f'{name} | ' for name in times)}time | run |"
    yield f"| --: | --: | --- | --: | {'--: | ' * len(times)}--: | --- |"
    for facts in configuration.runs:
        run = facts.row
        state = f"{run.state}: {_cell(run.cause)}" if run.cause else str(run.state).replace("_", " ")
        epochs = epochs_done(facts.curve[-1].epoch if facts.curve else 0, run.run.recipe.epochs)
        cells = [str(run.run.seed), format_metric(facts.value(metric), metric), state, epochs]
        cells += [format_milliseconds(facts.measures.get(name)) for name in times]
        yield f"| {' | '.join([*cells, format_duration(run.wall_s) if run.wall_s else DASH, f'`{run.id}`'])} |"


def _environments(configuration: ConfigurationResult) -> list[str]:
    """The environments of the runs, each once with its seeds."""
    seeds: dict[str, list[int]] = {}
    for facts in configuration.runs:
        if facts.row.device is not None:
            seeds.setdefault(_environment(facts), []).append(facts.row.run.seed)
    return [f"{plural(len(group), 'seed')} ({_listed(group)}): {text}" for text, group in seeds.items()]


def _environment(facts: RunResult) -> str:
    row = facts.row
    versions = ", ".join(f"{name} {version}" for name, version in row.versions.items())
    threads = "" if row.threads is None else f", {plural(row.threads, 'thread')}"
    return _cell(f"{row.device}{threads}, on {row.host}; {versions}")


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _cell(text: str) -> str:
    """Text escaped for a cell of a Markdown table."""
    return printable(text).replace("|", "\\|")
