"""Faults are injected into a real study, and what is lost is seen."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_studies import BRIEF, TINY

from harness.diagnostics import torture as module
from harness.diagnostics.torture import FAULTS, MARK, FaultResult, chosen_faults, marked, torture_cells
from harness.errors import UserError


def test_faults_are_chosen_by_name_and_an_unknown_one_gets_a_suggestion() -> None:
    assert chosen_faults(()) == list(FAULTS)
    assert [fault.executor for fault in chosen_faults(["worker killed"])] == ["ray", "tune"]
    with pytest.raises(UserError, match="worker killed"):
        chosen_faults(["worker kiled"])


def test_processes_are_found_by_their_mark_until_they_end() -> None:
    sleeping = subprocess.Popen([sys.executable, "-c", "input()"], env=os.environ | {MARK: "a1"}, stdin=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while marked("a1") != [sleeping.pid] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert marked("a1") == [sleeping.pid] and marked("b2") == []
    sleeping.communicate(b"\n")
    assert marked("a1") == []


def test_a_row_shows_the_worst() -> None:
    result = FaultResult(FAULTS[0], injected=3, epochs_again=[0, 2, 1], starts=[1, 2, 1], recovery_s=[1.0, 4.25])
    assert torture_cells(result) == ("Ctrl-C", "inline", "3", "0", "0", "1.0, 2", "2", "4.2 s", "0")
    assert result.is_well and not FaultResult(FAULTS[0], wrong=1).is_well


@pytest.mark.long
def test_a_killed_driver_trains_nothing_again_and_another_answer_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study: dict[str, Any] = TINY | {"study": "torture", "search": {"seeds": 1}, "proxy": BRIEF | {"epochs": 6}}
    monkeypatch.setattr(module, "STUDY", study)
    killed = next(fault for fault in FAULTS if fault.name == "driver killed" and fault.executor == "inline")
    at_once = FaultResult(killed)
    module._disturb(at_once, tmp_path, 0.0, expected={})
    assert (at_once.injected, at_once.wrong, at_once.trained_again, at_once.starts) == (1, 1, 0, [2])
