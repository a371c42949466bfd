"""Studies in which Optuna's best trial is not ours, and their dashboard without a socket."""

import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tiny_studies import EPOCHS, Played, Script, epoch, quality, started, well

from harness.analysis.study_reader import open_study_reader
from harness.report.dashboard import dashboard_app
from harness.training.run import Ended, Job, Measured, Record, RunState


class Api:
    """The dashboard's interface, called in this process."""

    def __init__(self, app: Any, study_id: int) -> None:
        self._app = app
        self.study_id = study_id

    def text(self, path: str, query: str = "") -> str:
        """The body of an answer whose status is 200."""
        statuses: list[str] = []
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as the server has it
            body = b"".join(self._app(environ, lambda status, *_: statuses.append(status)))
        assert statuses[0].startswith("200"), (statuses, body)
        return body.decode()

    def study(self) -> Any:
        """What the page of the study is drawn from."""
        return json.loads(self.text(f"/api/studies/{self.study_id}"))


def attributes(trial: Any) -> dict[str, str]:
    return {attribute["key"]: attribute["value"] for attribute in trial["user_attrs"]}


def is_feasible(trial: Any) -> bool:
    """As the page decides it."""
    return all(value <= 0 for value in trial["constraints"])


@contextmanager
def served(played: Played) -> Iterator[Api]:
    with open_study_reader(played.path, played.workspace) as reader:
        yield Api(dashboard_app(reader.store, {}), reader.optuna_id)


def finished(folder: Path, script: Script = well, **overrides: Any) -> Played:
    """A study that was driven to its end."""
    played = Played(folder, **overrides)
    for _ in played.events(script):
        pass
    return played


def slower_with_each_seed(job: Job) -> Iterator[Record]:
    """A run of a good network is over budget; the seeds differ much, so that means decide."""
    yield started()
    top1 = quality(job) + (3.0 if job.run.seed == 0 and job.run.spec.K[0] == 3 else 0.0)
    for n in range(1, EPOCHS + 1):
        yield epoch(n, top1 * n / EPOCHS)
    yield Measured("latency_ms_p50", 0.5 * job.run.spec.K[0])
    yield Ended(RunState.COMPLETE, wall_s=12.0)
