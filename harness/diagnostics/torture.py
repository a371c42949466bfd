"""Injects faults into a study while it runs, starts it again where it has ended, and counts what was lost.

The study is a grid of tiny networks whose undisturbed answer is known. A fault is injected at a random moment of the
training. Afterwards the same command is run until it ends well, and the study is compared with the undisturbed one:
every run must be complete with the same bits, and no run that was complete before the fault may have been trained
again. An epoch that was under way is trained again, and counted.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.analysis.formatting import DASH
from harness.errors import HarnessError, UserError, did_you_mean
from harness.storage import Store
from harness.storage.workspace import Workspace
from harness.training.run import RunState

STUDY: dict[str, Any] = {
    "study": "torture",
    "base": {"B": [1, 1, 1, 1], "C": [4, 4, 8, 8], "K": [3, 3, 3, 3], "stem_stride": 2, "ffn_ratio": 2},
    "axes": {"K": [[3, 3, 3, 3], [5, 5, 3, 3], [7, 5, 3, 3], [9, 7, 3, 3]]},
    "search": {"seeds": 2},
    "proxy": {
        "rendering": "textured",
        "difficulty": 0,
        "resolution": 16,
        "train_size": 512,
        "val_size": 64,
        "epochs": 4,
        "batch_size": 8,
        "schedule": {"warmup_epochs": 0},
    },
}
"""Eight runs of about a second."""
MARK = "HARNESS_TORTURE"
"""Environment variable by which all processes of a study are found, also after their parent has ended."""
LIMIT_S = 300.0
"""Maximum time of one command."""
MOST_STARTS = 5
"""Maximum number of commands until the study must have ended."""
EPOCH_LINE = re.compile(r"#\d+ (\S+ seed \d+: epoch \d+/\d+)")


@dataclass(slots=True)
class Disturbed:
    """A study that runs, as a fault finds it."""

    process: "subprocess.Popen[bytes]"
    mark: str
    store: Store

    def worker(self) -> int | None:
        """The process of a run that is trained now; None if there is none."""
        pids = [row.pid for row in _runs(self.store).values() if row.state == RunState.RUNNING and row.pid]
        return pids[0] if pids else None

    def processes(self, name: str) -> list[int]:
        """The study's processes whose command line has this name."""
        return [pid for pid in marked(self.mark) if name in _command_line(pid)]


def _kill_driver(study: Disturbed) -> bool:
    study.process.kill()
    return True


def _kill_group(study: Disturbed) -> bool:
    os.killpg(study.process.pid, signal.SIGKILL)
    return True


def _interrupt(study: Disturbed) -> bool:
    study.process.send_signal(signal.SIGINT)
    return True


def _kill_worker(study: Disturbed) -> bool:
    return (pid := study.worker()) is not None and _kill(pid)


def _kill_process(name: str) -> Callable[[Disturbed], bool]:
    return lambda study: sum(_kill(pid) for pid in study.processes(name)) > 0


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, and the executor whose study it befalls."""

    name: str
    executor: str
    inject: Callable[[Disturbed], bool]
    """Returns whether there was something to disturb."""


FAULTS = (
    *(Fault("Ctrl-C", executor, _interrupt) for executor in ("inline", "ray", "tune")),
    *(Fault("driver killed", executor, _kill_driver) for executor in ("inline", "ray", "tune")),
    *(Fault("driver's process group killed", executor, _kill_group) for executor in ("inline", "ray", "tune")),
    *(Fault("worker killed", executor, _kill_worker) for executor in ("ray", "tune")),
    *(Fault("raylet killed", executor, _kill_process("raylet/raylet")) for executor in ("ray", "tune")),
    *(Fault("GCS killed", executor, _kill_process("gcs_server")) for executor in ("ray", "tune")),
)


@dataclass(slots=True)
class FaultResult:
    """What came of one fault, injected a number of times."""

    fault: Fault
    injected: int = 0
    missed: int = 0
    """Times at which the study had ended before the fault, or had nothing to disturb."""
    trained_again: int = 0
    """Complete runs that were trained again; must be 0."""
    wrong: int = 0
    """Studies whose answer was not that of the undisturbed one; must be 0."""
    epochs_again: list[int] = field(default_factory=list)
    """Epochs that were reported twice, by study: an epoch that was under way is trained again without having been."""
    starts: list[int] = field(default_factory=list)
    """Commands until the study had ended."""
    recovery_s: list[float] = field(default_factory=list)
    """Seconds from the fault, or from the start of the next command if it ended the study, to the next stored epoch."""
    orphans: list[str] = field(default_factory=list)
    """Command lines of processes of a dead driver that were still there when the next command had ended."""

    @property
    def is_well(self) -> bool:
        """Whether nothing was lost."""
        return self.trained_again == 0 and self.wrong == 0


def chosen_faults(names: Sequence[str]) -> list[Fault]:
    """The faults of these names, or all. Raises `UserError` for an unknown one."""
    known = list(dict.fromkeys(fault.name for fault in FAULTS))
    for name in names:
        if name not in known:
            rule = "the fault must be a known one"
            raise UserError(rule, value=name, remedy=did_you_mean(name, known) or f"Faults: {', '.join(known)}.")
    return [fault for fault in FAULTS if not names or fault.name in names]


def torture(faults: Sequence[Fault], times: int, seed: int, log: Callable[[str], None]) -> Iterator[FaultResult]:
    """Inject each fault a number of times, at moments that follow from the seed; yields a result for each fault."""
    choose = random.Random(seed)
    for executor in dict.fromkeys(fault.executor for fault in faults):
        with TemporaryDirectory() as folder:
            expected, first_s, end_s = _undisturbed(Path(folder), executor)
        for fault in (fault for fault in faults if fault.executor == executor):
            result = FaultResult(fault)
            for i in range(times):
                moment_s = choose.uniform(first_s, end_s)
                log(f"{fault.name}, {executor}: {i + 1} of {times}, after {moment_s:.1f} s")
                with TemporaryDirectory() as folder:
                    _disturb(result, Path(folder), moment_s, expected)
            yield result


def _undisturbed(folder: Path, executor: str) -> tuple[dict[str, Any], float, float]:
    """The answer of the study, and the seconds after which it has begun its first run and ended."""
    start = time.monotonic()
    process = _start(folder, executor, uuid.uuid4().hex)
    with _opened(folder, process) as store:
        while not _runs(store):
            time.sleep(0.02)
        first_s = time.monotonic() - start
        code = process.wait(LIMIT_S)
        if code != 0:
            raise HarnessError(f"the undisturbed study must end well, but exit code {code}: {_output(folder)[-500:]}")
        return _answer(store), first_s, time.monotonic() - start


def _disturb(result: FaultResult, folder: Path, moment_s: float, expected: dict[str, Any]) -> None:
    mark = uuid.uuid4().hex
    start = time.monotonic()
    process = _start(folder, result.fault.executor, f"{mark}.0")
    with _opened(folder, process) as store:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, moment_s - (time.monotonic() - start)))
        before = {run_id: row for run_id, row in _runs(store).items() if row.state == RunState.COMPLETE}
        epochs = _epochs(store)
        if process.poll() is not None or not result.fault.inject(Disturbed(process, mark, store)):
            result.missed += 1
            process.wait(LIMIT_S)
            return
        result.injected += 1
        _follow(result, folder, process, mark, store, epochs)
        after = _runs(store)
        result.trained_again += sum(
            (after[run_id].attempts, after[run_id].finished) != (row.attempts, row.finished)
            for run_id, row in before.items()
        )
        result.wrong += _answer(store) != expected
        reported = EPOCH_LINE.findall(_output(folder))
        result.epochs_again.append(len(reported) - len(set(reported)))


def _follow(
    result: FaultResult, folder: Path, process: "subprocess.Popen[bytes]", mark: str, store: Store, epochs: int
) -> None:
    """Run the command again until the study has ended, and measure how long it takes to recover."""
    fault_s, recovered, starts = time.monotonic(), False, 1
    while True:
        while process.poll() is None:
            if not recovered and _epochs(store) > epochs:
                result.recovery_s.append(time.monotonic() - fault_s)
                recovered = True
            if time.monotonic() - fault_s > LIMIT_S:
                os.killpg(process.pid, signal.SIGKILL)
                raise HarnessError(f"after {LIMIT_S:g} s the study has not ended: {_output(folder)[-500:]}")
            time.sleep(0.02)
        if process.returncode == 0:
            break
        if starts == MOST_STARTS:
            raise HarnessError(f"{MOST_STARTS} commands have not ended the study: {_output(folder)[-500:]}")
        fault_s, epochs = time.monotonic(), _epochs(store)
        process = _start(folder, result.fault.executor, f"{mark}.{starts}")
        starts += 1
    result.starts.append(starts)
    earlier = [pid for start in range(starts - 1) for pid in marked(f"{mark}.{start}")]
    result.orphans += [_command_line(pid).strip() for pid in earlier]


def _start(folder: Path, executor: str, mark: str) -> "subprocess.Popen[bytes]":
    (folder / "study.yaml").write_text(json.dumps(STUDY), encoding="utf-8")  # JSON is YAML
    workers = () if executor == "inline" else ("--workers", "2")
    command = [sys.executable, "-m", "harness", "run", "study.yaml", "--executor", executor, *workers]
    environment = os.environ | {MARK: mark, "PYTHONUNBUFFERED": "1"}
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


def _opened(folder: Path, process: "subprocess.Popen[bytes]") -> Store:
    """The study's database, as soon as there is one."""
    workspace = Workspace(folder / "results")
    start = time.monotonic()
    while True:
        if process.poll() is not None or time.monotonic() - start > LIMIT_S:
            raise HarnessError(f"the study must begin: {_output(folder)[-500:]}")
        try:
            return Store.open(workspace.database, read_only=True)
        except HarnessError:
            time.sleep(0.05)


def _output(folder: Path) -> str:
    return (folder / "output").read_text(encoding="utf-8", errors="replace")


def _runs(store: Store) -> dict[str, Any]:
    ids = [run_id for runs in store.trial_runs(str(STUDY["study"])).values() for run_id in runs]
    return store.runs(ids)


def _epochs(store: Store) -> int:
    return sum(map(len, store.epochs_of_runs(_runs(store)).values()))


def _answer(store: Store) -> dict[str, Any]:
    """The state and the whole learning curve of every run, without what depends on time."""
    curves = store.epochs_of_runs(_runs(store))
    return {
        run_id: (row.state, [(epoch.epoch, epoch.train_loss, epoch.top1) for epoch in curves.get(run_id, ())])
        for run_id, row in _runs(store).items()
    }


def marked(mark: str) -> list[int]:
    """The processes whose environment has a mark that begins so, without those that are dead and not yet waited for."""
    pids = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                is_marked = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes()
            except OSError:  # it has ended meanwhile
                continue
            pids += [int(folder.name)] if is_marked else []
    return pids


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


TORTURE_HEADINGS = (
    *("fault", "executor", "n", "lost", "trained again", "epochs again", "starts", "slowest recovery", "orphans"),
)
TORTURE_NOTE = (
    "n is how often the fault was injected, at random moments of a study of eight runs. Lost are studies whose answer "
    "is not that of the undisturbed one, bit by bit; trained again are runs that were complete before the fault: both "
    "must be 0. Epochs again are those that were reported twice, of the 32 of a study: mean and largest. Starts are "
    "the commands until the study had ended, 1 where it survived. Recovery is the time from the fault, or from the "
    "start of the next command, to the next stored epoch; orphans are processes of a dead driver that outlive the "
    "next command."
)


def torture_cells(result: FaultResult) -> tuple[str, ...]:
    """A row of the table; see `TORTURE_NOTE`."""

    def largest(values: Sequence[float]) -> str:
        return f"{max(values):.1f} s" if values else DASH

    again = result.epochs_again
    return (
        *(result.fault.name, result.fault.executor, str(result.injected), str(result.wrong), str(result.trained_again)),
        f"{sum(again) / len(again):.1f}, {max(again)}" if again else DASH,
        str(max(result.starts, default=0)),
        largest(result.recovery_s),
        str(len(result.orphans)),
    )
