"""The Ray cluster that the workers run on: started on this machine for one study, or an existing one that is joined."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import ExecutorError, one_line
from harness.executors.base import WorkerRequest
from harness.system.machine import available_cpus

AUTO = "auto"
REACH_TIMEOUT_S = 3.0
"""Maximum time for a host to accept a connection."""
CONNECT_TIMEOUT_S = 15.0
"""Maximum time for a process to join a cluster."""
STORE_BYTES = 80 * 1024**2
"""Shared memory of a cluster started here; records are small, and data sets are files."""
DISCONNECT_TIMEOUT_S = 15.0
"""Maximum time for the processes of a cluster started here to end, before they are killed."""
SILENCE_TIMEOUT_S = 40.0
"""Maximum time without a response of the cluster; Ray itself ends this process after a minute."""
PING_EVERY_S = 5.0
"""Interval at which the nodes of a cluster are queried."""
END_TIMEOUT_S = 1.0
"""Maximum time to wait for the last query."""
RAY_LOG_LEVEL = 50
"""Log level above which Ray may write to the terminal: critical."""

CONFIGURATION = {
    "prestart_worker_first_driver": False,  # would start one process per processor; we start the number we need
    "worker_niceness": 0,  # that of the driver, not 15 more: to lower the priority, call the driver with `nice`
}
SERVICES = ("start_monitor", "start_log_monitor", "start_api_server")

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # otherwise workers would get a copy of the working folder
}
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
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
    """Start a local cluster, which `disconnect` ends. Raises `ExecutorError` if Ray does not start."""
    with _init_options() as ray, _without_services():
        try:
            ray.init(
                address="local",
                num_cpus=available_cpus(),  # Ray would count all of the machine, even if this process may use fewer
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
                remedy="RAY_TMPDIR sets the folder of its files; `--executor inline` trains without it.",
            ) from error


class _TokenRequired(ExecutorError):
    """The cluster requires an authentication token."""


def connect(address: str) -> None:
    """Join a running cluster. Raises `ExecutorError` within seconds if that is not possible."""
    if address != AUTO:
        _check_reachable(address)
    if _asks_for_token(address):
        os.environ["RAY_AUTH_MODE"] = "token"  # Ray sets this itself for `auto`, but not for an address
    with _init_options() as ray:
        ray.init(address=address, log_to_driver=False, logging_level=RAY_LOG_LEVEL)


def disconnect(*, by_force: bool = False) -> None:
    """End a cluster that was started here, with all that runs on it; only disconnect from one that was joined."""
    with shutdown_timeout(by_force=by_force):
        import ray

        ray.shutdown()


@contextlib.contextmanager
def shutdown_timeout(*, by_force: bool = False) -> Iterator[None]:
    """Time limit for a block that ends workers or a cluster: Ray waits forever for one that hangs.

    The processes of a cluster started here are killed after `DISCONNECT_TIMEOUT_S`, or immediately with `by_force`;
    Ray then returns.
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
    """The processes of a cluster that was started here, by kind; empty for one that was joined."""
    from ray._private import worker

    node = worker._global_node
    processes: dict[str, Any] = {} if node is None else dict(node.all_processes)
    return [(kind, info.process) for kind, infos in processes.items() for info in infos]


def _kill_own_processes() -> None:
    for _, process in _own_processes():
        process.kill()


class ClusterMonitor:
    """Monitors whether a cluster is still usable, without blocking. One instance per cluster, from start to end."""

    def __init__(self) -> None:
        self._is_ended = threading.Event()
        self._answered = time.monotonic()
        self._nodes: list[dict[str, float]] | None = None
        """The resources of each living node, at the last answer."""
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def fault(self) -> str | None:
        """Why the cluster is not usable; None if no fault was detected."""
        dead = [kind for kind, process in _own_processes() if process.poll() is not None]
        if dead:
            return f"its process {dead[0]} has ended"
        if self._nodes is not None and not self._nodes:
            return "none of its nodes is alive"
        silence_s = time.monotonic() - self._answered
        return f"it has not answered for {silence_s:.0f} s" if silence_s > SILENCE_TIMEOUT_S else None

    def capacity(self, cpus: int, gpus: float) -> int | None:
        """The number of workers that fit on the living nodes; None before the first answer."""
        return None if self._nodes is None else capacity_of(self._nodes, cpus, gpus)

    def end(self) -> None:
        """Stop the queries; waits up to `END_TIMEOUT_S` for the current one."""
        self._is_ended.set()
        self._thread.join(END_TIMEOUT_S)

    def _ask(self) -> None:
        """Query the nodes, in a separate thread, because the query itself may hang."""
        while not self._is_ended.wait(PING_EVERY_S):
            try:
                self._nodes = living_nodes()
            except Exception:  # any error of a lost connection; `fault` then reports that there was no response
                continue
            self._answered = time.monotonic()


def allocate(request: WorkerRequest) -> tuple[int, float]:
    """The number of workers to start, and the GPU share of each: 0 if no node has a GPU.

    Raises `ExecutorError` if not a single worker fits on the cluster, or fewer than were requested.
    """
    nodes = living_nodes()
    gpus = request.gpus if any(node.get("GPU", 0) > 0 for node in nodes) else 0.0
    capacity = capacity_of(nodes, request.cpus, gpus)
    resources = f"{request.cpus} processor{'s' if request.cpus > 1 else ''}" + (f" and {gpus:g} GPU" if gpus else "")
    if capacity == 0:
        largest = max(nodes, key=lambda node: (node.get("GPU", 0) if gpus else 0, node.get("CPU", 0)))
        has = f"{largest.get('CPU', 0):g} processors and {largest.get('GPU', 0):g} GPUs"
        rule = f"a worker must fit on one machine, and the largest has {has}"
        remedy = "Lower `resources.cpus` or `resources.gpus`."
        raise ExecutorError(rule, value=resources, place="resources", remedy=remedy)
    if request.workers is not None and request.workers > capacity:
        raise ExecutorError(
            f"at most {capacity} worker{'s' if capacity > 1 else ''} with {resources} each can run",
            value=request.workers,
            place="--workers",
            remedy=f"Request at most {capacity}, or lower `resources.cpus` or `resources.gpus`.",
        )
    return slots_for(request, capacity), gpus


def slots_for(request: WorkerRequest, capacity: int) -> int:
    """The number of workers to have where this number fits."""
    return max(1, min(request.workers or capacity, capacity if request.runs is None else request.runs))


def living_nodes() -> list[dict[str, float]]:
    """The resources of each living node of the cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def capacity_of(nodes: Iterable[dict[str, float]], cpus: int, gpus: float) -> int:
    """The number of workers with these resources that fit on the nodes."""
    return sum(_workers_on(node, cpus, gpus) for node in nodes)


def _workers_on(node: dict[str, float], cpus: int, gpus: float) -> int:
    """Number of workers that fit on a node; a share of a GPU is always on one GPU."""
    by_cpus = int(node.get("CPU", 0) // cpus)
    if gpus == 0:
        return by_cpus
    has = int(node.get("GPU", 0))
    return min(by_cpus, has // int(gpus) if gpus > 1 else has * int(1 / gpus + 1e-9))


@contextlib.contextmanager
def _init_options() -> Iterator[Any]:
    """The `ray` module with side effects switched off: no prints, no usage reports, signal handlers restored."""
    os.environ.update(ENVIRONMENT)
    import ray
    import ray._private.worker

    # The driver prints the raylet's messages on a worker's death, bypassing logging; we record the cause instead.
    ray._private.worker._worker_logs_enabled = False
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield ray
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _without_services() -> Iterator[None]:
    """Keep Ray from starting services that a local cluster does not need: autoscaler, log shipping, dashboard.

    They cost two seconds of a processor at every start, 250 MB, and a second at every shutdown. In a version of Ray
    that uses other names for them they are started, which does no harm.
    """
    from ray._private.node import Node

    methods = {name: getattr(Node, name) for name in SERVICES if hasattr(Node, name)}
    try:
        for name in methods:
            setattr(Node, name, lambda *_, **__: None)
        yield
    finally:
        for name, method in methods.items():
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
    """Whether a cluster can be joined, but only with the token of this machine.

    The token is not sent to a cluster that does not require one: there, tasks would run, but actors would end before
    they start.
    """
    try:
        _test_connection(address)
    except _TokenRequired:
        has_token = any(os.environ.get(name) for name in TOKEN_VARIABLES) or (Path.home() / ".ray/auth_token").exists()
        if "RAY_AUTH_MODE" in os.environ or not has_token:
            raise
    else:
        return False
    _test_connection(address, RAY_AUTH_MODE="token")
    return True


def _test_connection(address: str, **settings: str) -> None:
    """Join in a separate process first: Ray lets a process that cannot join wait for minutes, or ends it."""
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
            "the cluster requires its token",
            value=address,
            place="--ray-address",
            remedy="Copy `~/.ray/auth_token` from the node where it was started, or set RAY_AUTH_TOKEN.",
        )
    if "Version mismatch" in answer:
        versions = [line.strip() for line in answer.splitlines() if line.startswith("  ")]
        rule = f"the cluster must run what this process runs ({', '.join(versions[2:4])})"
        remedy = "Install the same versions of Ray and Python on all nodes."
        raise ExecutorError(rule, value=", ".join(versions[:2]), place=address, remedy=remedy)
    raise _unreachable(address, answer.strip().splitlines()[0])


def _unreachable(address: str, why: str) -> ExecutorError:
    return ExecutorError(
        "`--ray-address` must be that of a Ray cluster to which this machine belongs",
        value=address,
        place=why,
        remedy="Start one here (`ray start --head`), let this machine join it (`ray start --address HOST:PORT`), "
        "or leave `--ray-address` out to train only on this machine.",
    )
