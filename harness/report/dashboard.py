"""Optuna's dashboard on a study's database: local, read only, and with notes on each study and trial in Markdown."""

import copy
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from harness.analysis.conclusions import conclusions, conditions_text
from harness.analysis.configuration_result import ConfigurationResult
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
from harness.analysis.pareto_conclusions import objectives_text
from harness.analysis.results import StudyResults
from harness.config.study import Study
from harness.errors import UserError
from harness.report.network import network_costs
from harness.storage import Store, optuna_storage

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from harness.report.dashboard_storage import DashboardTrials


HOST = "127.0.0.1"
READ_METHODS = ("GET", "HEAD")
STUDY = re.compile("/api/studies/([0-9]+)/?")
REJECTED = "Rejected"
"""State shown for a proposal that was never trained; in Optuna it is pruned."""
DASHBOARD_NOTE = (
    "Values and curves are means over the seeds of a configuration, also if several trials trained it. The best trial "
    "is that of `harness best`: the best mean within the budgets. Gray: over a budget, or diverged. Trials in the "
    "state *Rejected* were proposed and never trained. Reload the page to update the means after further seeds."
)
FRONT_NOTE = (
    "Values and curves are means over the seeds of a configuration, also if several trials trained it. The best trials "
    "are those of the Pareto front, one for each configuration; `harness best` prints the knee. Gray: over a budget, "
    "or diverged. Trials in the state *Rejected* were proposed and never trained. The page has the learning curves of "
    "all configurations, and the hypervolume over the trials, among its plots. Reload the page to update the means "
    "after further seeds."
)
NO_RESULTS_NOTE = (
    "This study was not created by the harness, or by a version whose study file it cannot read: each trial is shown "
    "alone, with the value and the constraints that Optuna has stored."
)
LATENCY = "latency_ms"
"""Prefix of the metrics that the table of a configuration's seeds shows."""


class ThreadingServer(ThreadingMixIn, WSGIServer):
    """A server that handles each request in a daemon thread."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""


def dashboard_app(store: Store, studies: Mapping[str, Study]) -> "WSGIApplication":
    """The dashboard of all studies of a store; `studies` are those with a loaded study file, by name."""
    from optuna_dashboard import wsgi

    from harness.report.dashboard_storage import DashboardStorage

    storage = DashboardStorage(optuna_storage(store), store, studies)
    return read_only(adapt_responses(wsgi(storage), storage.trials_of))


def dashboard_server(app: "WSGIApplication", port: int) -> ThreadingServer:
    """A server that listens on the port (0: any free port). Raises `UserError` if the port is not available."""
    try:
        return make_server(HOST, port, app, server_class=ThreadingServer, handler_class=_Quiet)
    except (OSError, OverflowError) as error:
        raise UserError(
            "the dashboard's port must be free and permitted",
            value=port,
            place=f"{HOST}: {getattr(error, 'strerror', None) or error}",
            remedy="Choose another with `--port`, or `--port 0` for any free port.",
        ) from error


def serve(server: ThreadingServer) -> None:
    """Serve requests until KeyboardInterrupt, ignoring Optuna's warnings about its plots."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server.serve_forever()


def study_url(server: ThreadingServer, study_id: int) -> str:
    """The address of a study's page."""
    return f"http://{HOST}:{server.server_port}/dashboard/studies/{study_id}"


def read_only(app: "WSGIApplication") -> "WSGIApplication":
    """The application without requests that change or delete: any web page could send these to this machine."""

    def guarded(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in READ_METHODS:
            return app(environ, start_response)
        body = json.dumps({"reason": "This dashboard is read only."}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response("403 Forbidden", headers)
        return [body]

    return guarded


def adapt_responses(app: "WSGIApplication", shown: "Callable[[int], DashboardTrials]") -> "WSGIApplication":
    """The application with corrected responses, for what a storage cannot express: no best trial, states, notes."""

    def answered(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = STUDY.fullmatch(environ.get("PATH_INFO", ""))
        if path is None or environ["REQUEST_METHOD"] != "GET":
            return app(environ, start_response)
        head: list[Any] = []
        body = b"".join(app(environ, lambda *start: head.extend(start)))  # type: ignore[arg-type]
        status, headers, *rest = head
        if status.startswith("200"):
            details = json.loads(body)
            adapt_study_details(details, shown(int(path[1])))
            body = json.dumps(details).encode()
            headers = [pair for pair in headers if pair[0].lower() != "content-length"]
            headers.append(("Content-Length", str(len(body))))
        start_response(status, headers, *rest)
        return [body]

    return answered


def adapt_study_details(details: dict[str, Any], trials: "DashboardTrials") -> None:
    """Complete the dashboard's JSON of a study, in place."""
    if trials.has_several_objectives:
        details["best_trials"] = _front_of(details, trials)
    elif trials.best is None:
        details["best_trials"] = []
    if trials.results is not None and trials.has_several_objectives:
        from harness.report.dashboard_plots import several_objectives_plots

        details["plotly_graph_objects"] = [*details["plotly_graph_objects"], *several_objectives_plots(trials.results)]
    _append_note(details, NO_RESULTS_NOTE if trials.results is None else study_note(trials.results))
    for trial in (*details["trials"], *details["best_trials"]):
        configuration = trials.rows.get(trial["number"])
        reason = next((item["value"] for item in trial["user_attrs"] if item["key"] == "rejected"), None)
        if reason is not None:
            trial["state"] = REJECTED
            _append_note(trial, rejected_note(reason))
        elif configuration is not None and trials.results is not None:
            _append_note(trial, trial_note(trial["number"], configuration, trials.results))


def _front_of(details: dict[str, Any], trials: "DashboardTrials") -> list[dict[str, Any]]:
    """The trials that the page shows as the best ones of several objectives; those of Optuna without results."""
    if trials.results is None:
        return list(details["best_trials"])
    from optuna_dashboard._serializer import serialize_frozen_trial

    # the page asks for the last trials only, once it has the others
    listed = {trial["number"]: copy.deepcopy(trial) for trial in (*details["trials"], *details["best_trials"])}
    return [listed.get(trial.number) or serialize_frozen_trial(0, trial, {}) for trial in trials.front]


def _append_note(owner: dict[str, Any], text: str) -> None:
    """Append the text to the note of a study or trial, which a user may have written."""
    written = owner["note"]["body"]
    owner["note"] = {"version": owner["note"]["version"], "body": f"{written}\n\n---\n\n{text}" if written else text}


def study_note(results: StudyResults) -> str:
    """The results of the study so far, and an explanation of its pages."""
    ruled_out = [f"- not trained: {reason} ({count:,})" for reason, count in results.rejected.items()]
    explanation = DASHBOARD_NOTE if results.pareto is None else FRONT_NOTE
    return "\n".join([" ".join(conclusions(results)), "", conditions_text(results), "", *ruled_out, "", explanation])


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
    if results.pareto is not None and configuration.values:
        mean = f"{objectives_text(results.pareto, configuration)} (n = {len(configuration.values)})"
        state = f"{state}, on the Pareto front" if configuration.is_on_front else state
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
            row = facts.row
            versions = ", ".join(f"{name} {version}" for name, version in row.versions.items())
            threads = "" if row.threads is None else f", {plural(row.threads, 'thread')}"
            seeds.setdefault(_cell(f"{row.device}{threads}, on {row.host}; {versions}"), []).append(row.run.seed)
    return [f"{plural(len(group), 'seed')} ({', '.join(map(str, group))}): {text}" for text, group in seeds.items()]


def _cell(text: str) -> str:
    """Text escaped for a cell of a Markdown table."""
    return printable(text).replace("|", "\\|")
