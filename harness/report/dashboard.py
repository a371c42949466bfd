"""Optuna's dashboard on a study's database: local and read only."""

import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from harness.config.study import Study
from harness.errors import UserError
from harness.report.dashboard_notes import NO_RESULTS_NOTE, rejected_note, study_note, trial_note
from harness.storage import Store, optuna_storage

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from harness.report.dashboard_storage import DashboardTrials

HOST = "127.0.0.1"
READ_METHODS = ("GET", "HEAD")
STUDY = re.compile("/api/studies/([0-9]+)/?")
REJECTED = "Rejected"
"""State shown for a proposal that was never trained; in Optuna it is pruned."""


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
    if trials.best is None:
        details["best_trials"] = []
    _append_note(details, NO_RESULTS_NOTE if trials.answer is None else study_note(trials.answer))
    for trial in (*details["trials"], *details["best_trials"]):
        configuration = trials.rows.get(trial["number"])
        reason = next((item["value"] for item in trial["user_attrs"] if item["key"] == "rejected"), None)
        if reason is not None:
            trial["state"] = REJECTED
            _append_note(trial, rejected_note(reason))
        elif configuration is not None and trials.answer is not None:
            _append_note(trial, trial_note(trial["number"], configuration, trials.answer))


def _append_note(owner: dict[str, Any], text: str) -> None:
    """Append the text to the note of a study or trial, which a user may have written."""
    written = owner["note"]["body"]
    owner["note"] = {"version": owner["note"]["version"], "body": f"{written}\n\n---\n\n{text}" if written else text}
