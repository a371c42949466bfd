"""Optuna's dashboard on a study's database: for this machine only, and only to look at."""

import json
import warnings
from collections.abc import Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from harness.errors import UserError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from optuna.storages import BaseStorage

HOST = "127.0.0.1"
READING = ("GET", "HEAD")


class Server(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own, none of which keeps the process alive."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""


def dashboard_server(storage: "BaseStorage", port: int) -> Server:
    """A server that listens on the port (0: any that is free). Raises `UserError` where the port cannot be had."""
    from optuna_dashboard import wsgi

    try:
        return make_server(HOST, port, read_only(wsgi(storage)), server_class=Server, handler_class=_Quiet)
    except (OSError, OverflowError) as error:
        raise UserError(
            "the dashboard's port must be free and permitted",
            value=port,
            place=f"{HOST}: {getattr(error, 'strerror', None) or error}",
            remedy="Give another with `--port`, or `--port 0` for any that is free.",
        ) from error


def serve(server: Server) -> None:
    """Answer until KeyboardInterrupt. What Optuna warns of while it draws is nobody's concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server.serve_forever()


def study_url(server: Server, study_id: int) -> str:
    """The address of a study's page."""
    return f"http://{HOST}:{server.server_port}/dashboard/studies/{study_id}"


def read_only(app: "WSGIApplication") -> "WSGIApplication":
    """The application without what changes or deletes: any web page could send such a request to this machine."""

    def guarded(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in READING:
            return app(environ, start_response)
        body = json.dumps({"reason": "This dashboard is to be looked at only."}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response("403 Forbidden", headers)
        return [body]

    return guarded
