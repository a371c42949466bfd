"""A Ray cluster to have workers on: started on this machine for one study, or joined where one is running."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import ExecutorError, one_line
from harness.executors.base import WorkerRequest
from harness.system.machine import available_cpus

AUTO = "auto"
REACH_TIMEOUT_S = 3.0
"""How long a host may take to accept a connection."""
CONNECT_TIMEOUT_S = 15.0
"""How long a cluster may take to let a process join."""
STORE_BYTES = 80 * 1024**2
"""Shared memory of a cluster of our own; records are small, and data sets are files."""
DISCONNECT_TIMEOUT_S = 15.0
"""How long the processes of a cluster of our own may take to end before they are killed."""
SILENCE_TIMEOUT_S = 40.0
"""How long a cluster may leave a question unanswered; Ray itself ends this process after a minute."""
PING_EVERY_S = 5.0
"""How often a cluster is asked for its nodes."""
END_TIMEOUT_S = 1.0
"""How long to wait for the last answer."""
RAY_LOG_LEVEL = 50
"""Log level above which Ray may write to the terminal: critical."""

CONFIGURATION = {
    "prestart_worker_first_driver": False,  # one process per processor, although we know how many we want
    "worker_niceness": 0,  # that of the driver, and not 15 more: whoever wants that calls the driver with `nice`
}
SERVICES = ("start_monitor", "start_log_monitor", "start_api_server")

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # or workers would be given a copy of the working folder
}
CONNECT_TEST = """
import json, logging, sys
import ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
    answer = None
except BaseException as error:
    causes = [error] + [cause for cause in (error.__cause__, error.__context__) if cause]
    answer = "\\n".join(str(cause) for cause in causes)
print("\\nanswer:", json.dumps(answer))
"""


def start_cluster() -> None:
    """Start a local cluster, which `disconnect` ends. Raises `ExecutorError` where Ray does not start."""
    with _init_options() as ray, _without_services():
        try:
            ray.init(
                address="local",
                num_cpus=available_cpus(),  # Ray counts those of the machine, whatever this process may use
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                _system_config=CONFIGURATION,
                log_to_driver=False,
                logging_level=RAY_LOG_LEVEL,
            )
        except Exception as error:
            ray.shutdown()
            raise ExecutorError(
                "Ray must start on this machine",
                place=f"{type(error).__name__}: {one_line(error)}",
                remedy="RAY_TMPDIR says where it keeps its files; `--executor inline` trains without it.",
            ) from error


class _TokenRequired(ExecutorError):
    """A cluster answers only those who show its token."""


def connect(address: str) -> None:
    """Join a running cluster. Raises `ExecutorError` within seconds where that cannot be done."""
    if address != AUTO:
        _check_reachable(address)
    if _asks_for_token(address):
        os.environ["RAY_AUTH_MODE"] = "token"  # which Ray does for itself with `auto`, and not with an address
    with _init_options() as ray:
        ray.init(address=address, log_to_driver=False, logging_level=RAY_LOG_LEVEL)


def disconnect(*, by_force: bool = False) -> None:
    """End a cluster that was started here, with all that runs on it; leave one that was joined to itself."""
    with shutdown_timeout(by_force=by_force):
        import ray

        ray.shutdown()


@contextlib.contextmanager
def shutdown_timeout(*, by_force: bool = False) -> Iterator[None]:
    """A time limit for a block that ends workers or a cluster: Ray waits for ever for one that hangs.

    The processes of a cluster of our own are killed after `DISCONNECT_TIMEOUT_S`, or at once by force; Ray then
    returns.
    """
    if by_force:
        _kill_own_processes()
    limit = threading.Timer(DISCONNECT_TIMEOUT_S, _kill_own_processes)
    limit.daemon = True
    limit.start()
    try:
        yield
    finally:
        limit.cancel()


def _own_processes() -> list[tuple[str, Any]]:
    """The processes of a cluster that was started here, by kind; none of one that was joined."""
    from ray._private import worker

    node = worker._global_node
    known: dict[str, Any] = {} if node is None else dict(node.all_processes)
    return [(kind, info.process) for kind, infos in known.items() for info in infos]


def _kill_own_processes() -> None:
    for _, process in _own_processes():
        process.kill()


class ClusterMonitor:
    """Says whether a cluster can still be worked with; never waits. One for each cluster, from its start to its end."""

    def __init__(self) -> None:
        self._is_ended = threading.Event()
        self._answered = time.monotonic()
        self._nodes_alive = 1
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def fault(self) -> str | None:
        """Why the cluster cannot be worked with; None where nothing is known against it."""
        dead = [kind for kind, process in _own_processes() if process.poll() is not None]
        if dead:
            return f"its process {dead[0]} has ended"
        if self._nodes_alive == 0:
            return "none of its nodes is alive"
        silence_s = time.monotonic() - self._answered
        return f"it has not answered for {silence_s:.0f} s" if silence_s > SILENCE_TIMEOUT_S else None

    def end(self) -> None:
        """Ask no more; waits a moment for an answer that is on its way."""
        self._is_ended.set()
        self._thread.join(END_TIMEOUT_S)

    def _ask(self) -> None:
        """Ask for the nodes, in a thread of its own: the question itself may hang."""
        import ray

        while not self._is_ended.wait(PING_EVERY_S):
            try:
                nodes = ray.nodes()  # type: ignore[no-untyped-call]
            except Exception:  # whatever a lost connection raises; the silence counts
                continue
            self._nodes_alive = sum(bool(node["Alive"]) for node in nodes)
            self._answered = time.monotonic()


def allocate(request: WorkerRequest) -> tuple[int, float]:
    """How many workers there will be, and the GPU share of each: 0 where no node has a GPU.

    Raises `ExecutorError` where the cluster has no room for a single one, or for as many as were asked for.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    gpus = request.gpus if any(node.get("GPU", 0) > 0 for node in nodes) else 0.0
    room = sum(_workers_on(node, request.cpus, gpus) for node in nodes)
    each = f"{request.cpus} processor{'s' if request.cpus > 1 else ''}" + (f" and {gpus:g} GPU" if gpus else "")
    if room == 0:
        largest = max(nodes, key=lambda node: (node.get("GPU", 0) if gpus else 0, node.get("CPU", 0)))
        has = f"{largest.get('CPU', 0):g} processors and {largest.get('GPU', 0):g} GPUs"
        raise ExecutorError(
            f"a worker must fit on one machine, and the largest has {has}",
            value=each,
            place="resources",
            remedy="Lower `resources.cpus` or `resources.gpus`.",
        )
    if request.workers is not None and request.workers > room:
        raise ExecutorError(
            f"there is room for {room} worker{'s' if room > 1 else ''} with {each} each",
            value=request.workers,
            place="--workers",
            remedy=f"Ask for at most {room}, or lower `resources.cpus` or `resources.gpus`.",
        )
    return max(1, min(request.workers or room, room if request.runs is None else request.runs)), gpus


def _workers_on(node: dict[str, float], cpus: int, gpus: float) -> int:
    """Workers that fit on a node; a worker with a share of a GPU has it on one."""
    by_cpus = int(node.get("CPU", 0) // cpus)
    if gpus == 0:
        return by_cpus
    has = int(node.get("GPU", 0))
    return min(by_cpus, has // int(gpus) if gpus > 1 else has * int(1 / gpus + 1e-9))


@contextlib.contextmanager
def _init_options() -> Iterator[Any]:
    """Ray, with the manners of a guest: no prints, no usage reports, signals left as they were."""
    os.environ.update(ENVIRONMENT)
    import ray
    import ray._private.worker

    # The raylet's remarks on a worker's death are printed by the driver past all logging; we record the cause.
    ray._private.worker._worker_logs_enabled = False
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield ray
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _without_services() -> Iterator[None]:
    """Have Ray leave out what a cluster of one machine has no use for: autoscaler, log shipping, dashboard.

    They cost two seconds of a processor at every start, 250 MB, and a second at every shutdown. Where a version of Ray
    calls them otherwise they are started, and all works as well.
    """
    from ray._private.node import Node

    kept = {name: getattr(Node, name) for name in SERVICES if hasattr(Node, name)}
    try:
        for name in kept:
            setattr(Node, name, lambda *_, **__: None)
        yield
    finally:
        for name, method in kept.items():
            setattr(Node, name, method)


def _check_reachable(address: str) -> None:
    """Raise `ExecutorError` unless something listens at `host:port`; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise ExecutorError("a cluster's address must be `host:port` or `auto`", value=address, place="--ray-address")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from error


def _asks_for_token(address: str) -> bool:
    """Whether one can join a cluster, but only with the token that is here.

    It is not shown where nobody asks: tasks run there nevertheless, but actors end before they start.
    """
    try:
        _test_connection(address)
    except _TokenRequired:
        if "RAY_AUTH_MODE" in os.environ or not _has_token():
            raise
    else:
        return False
    _test_connection(address, RAY_AUTH_MODE="token")
    return True


def _test_connection(address: str, **settings: str) -> None:
    """Join in a process of its own first: one that cannot join is kept waiting for minutes, or ended, by Ray."""
    command = [sys.executable, "-c", CONNECT_TEST, address]
    environment = {**os.environ, **ENVIRONMENT, "RAY_gcs_server_port_wait_time_s": "5", **settings}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=CONNECT_TIMEOUT_S,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise _unreachable(address, f"no answer within {CONNECT_TIMEOUT_S:g} s") from error
    lines = [line.removeprefix("answer:") for line in done.stdout.splitlines() if line.startswith("answer:")]
    answer = json.loads(lines[0]) if lines else "Ray gave up"
    if answer is None:
        return
    if "AuthToken" in done.stderr:
        raise _TokenRequired(
            "the cluster asks for its token",
            value=address,
            place="--ray-address",
            remedy="Copy `~/.ray/auth_token` from the node where it was started, or set RAY_AUTH_TOKEN.",
        )
    if "Version mismatch" in answer:
        versions = [line.strip() for line in answer.splitlines() if line.startswith("  ")]
        raise ExecutorError(
            f"the cluster must run what this process runs ({', '.join(versions[2:4])})",
            value=", ".join(versions[:2]),
            place=address,
            remedy="Install the same versions of Ray and Python on all nodes.",
        )
    raise _unreachable(address, answer.strip().splitlines()[0])


def _unreachable(address: str, why: str) -> ExecutorError:
    return ExecutorError(
        "`--ray-address` must be that of a Ray cluster to which this machine belongs",
        value=address,
        place=why,
        remedy="Start one here (`ray start --head`), let this machine join it (`ray start --address HOST:PORT`), "
        "or leave `--ray-address` out to train on this machine alone.",
    )


def _has_token() -> bool:
    """Whether Ray has a token with which to join clusters that ask for one."""
    given = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return given or (Path.home() / ".ray" / "auth_token").exists()
