"""Calibrations played by a script: what is trained in which stage, and what the candidates come to."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from claim_studies import CLAIM
from tiny_studies import EPOCHS, SCRIPTED, epoch, started, write_study

from harness.analysis.calibration import CandidateResult
from harness.analysis.statistics.decision_pairs import Range
from harness.cli.study_run import RunOptions, check_study, train_study
from harness.config.calibration_candidates import FIRST_SEED, plan_calibration
from harness.config.study_file import StudyFile, load_study
from harness.errors import StudyError
from harness.executors.base import WorkerRequest
from harness.executors.interrupt import Interrupt
from harness.executors.scripted import ScriptedExecutor
from harness.report.calibration import calibration_markdown, calibration_values
from harness.search.calibration import (
    Calibration,
    CalibrationEvent,
    CalibrationResult,
    CandidateLeftOut,
    CandidateMeasured,
    CandidateStarted,
    StageStarted,
    calibration_workspace,
)
from harness.search.events import EventView
from harness.storage.workspace import Workspace
from harness.training.run import Ended, Job, Measured, Record, RunState

BATCHES = {"vary": {"batch_size": [8, 16, 64]}, "seeds": 3, "max_seeds": 6}
SPREAD = {8: 4.0, 16: 2.0, 32: 1.0, 64: 0.2}
"""Standard deviation of an accuracy by batch size; the file's is 32."""


def by_batch(job: Job) -> Iterator[Record]:
    """Larger kernels are 3 points better; the noise depends on the batch size, on both arms independently."""
    run = job.run
    noise = random.Random(f"{run.seed} {run.spec.K[0]}").gauss(0, SPREAD[run.recipe.batch_size])
    top1 = 60.0 + 3.0 * (run.spec.K[0] > 3) + noise
    yield started()
    yield from (epoch(n, top1 * n / EPOCHS) for n in range(1, EPOCHS + 1))
    yield Measured("latency_ms_p50", 1.0)
    yield Ended(RunState.COMPLETE, wall_s=60.0)


class Calibrated:
    """A calibration in a folder that is driven by a script."""

    def __init__(self, folder: Path, hours: float | None = None, **overrides: Any) -> None:
        keys = SCRIPTED | {"search": {"seeds": 3, "max_seeds": 6}, "claims": [CLAIM], "calibrate": BATCHES}
        file = load_study(write_study(folder, keys, **overrides))
        self.workspace = calibration_workspace(folder / "results", file.study.study)
        self.calibration = Calibration(plan_calibration(file), self.workspace, hours)
        self.script = by_batch
        self.jobs: list[Job] = []

    def train(self, file: StudyFile, workspace: Workspace) -> None:
        def start(_: WorkerRequest) -> ScriptedExecutor:
            return ScriptedExecutor(self._observed)

        options = RunOptions(workspace=workspace, executor=start)
        train_study(check_study(file, options), EventView(), Interrupt(is_command=False))

    def _observed(self, job: Job) -> Iterator[Record]:
        self.jobs.append(job)
        return self.script(job)

    def events(self) -> list[CalibrationEvent]:
        return list(self.calibration.events(self.train))

    def answer(self) -> CalibrationResult:
        self.events()
        return self.calibration.result()


def by_change(result: CalibrationResult) -> dict[int, CandidateResult]:
    """Results by batch size."""
    return {each.recipe.change.values.get("batch_size", 32): each for each in result.results}


@pytest.mark.long
def test_the_better_half_gets_more_seeds_and_the_least_computing_is_recommended(tmp_path: Path) -> None:
    played = Calibrated(tmp_path)
    events = played.events()
    stages = [(event.seeds, event.candidates) for event in events if isinstance(event, StageStarted)]
    assert stages == [(3, 4), (6, 2)]
    result = played.calibration.result()
    results = by_change(result)
    assert {batch: each.seeds for batch, each in results.items()} == {8: 3, 16: 3, 32: 6, 64: 6}
    best = result.best
    assert best is not None and best is results[64] and best is result.results[0]
    assert len(played.jobs) == 2 * (4 * 3 + 2 * 3)
    cost = best.own[0]
    assert cost.pairs.n == 6 and cost.pairs.mean == pytest.approx(3, abs=0.5)
    assert cost.pair_minutes == pytest.approx(2.0)
    assert best.core_minutes == Range(*(2 * pairs for pairs in cost.needed)) and cost.needed.value >= 3
    assert result.core_minutes == pytest.approx(len(played.jobs))
    assert {cost.contrast.metric for cost in best.costs} == {"top1", "val_loss"}
    text = calibration_markdown(result)
    block = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert block == {"proxy": SCRIPTED["proxy"] | {"batch_size": 64}}
    header = " ".join(line.removeprefix("# ") for line in text.split("```\n\n")[1].splitlines())
    assert header.startswith("Recipe from `harness calibrate`, ") and "of 4 recipes, batch_size=64 decides" in header
    assert "the recipe as it was written needs" in header
    assert best.core_minutes.high < results[32].core_minutes.low and "overlap" not in text


@pytest.mark.long
def test_seeds_and_database_are_not_those_of_the_study(tmp_path: Path) -> None:
    played = Calibrated(tmp_path)
    played.answer()
    assert {job.run.seed for job in played.jobs} == set(range(FIRST_SEED, FIRST_SEED + 6))
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"calibrations"}
    assert (tmp_path / "results" / "calibrations" / "question" / "studies.db").is_file()


@pytest.mark.long
def test_a_second_call_trains_nothing_and_decides_alike(tmp_path: Path) -> None:
    first = Calibrated(tmp_path).answer()
    again = Calibrated(tmp_path)
    events = again.events()
    assert again.jobs == [] and calibration_values(again.calibration.result()) == calibration_values(first)
    assert {event.runs for event in events if isinstance(event, CandidateStarted)} == {0}


@pytest.mark.long
def test_more_seeds_are_added_to_what_is_there(tmp_path: Path) -> None:
    Calibrated(tmp_path).answer()
    more = Calibrated(tmp_path, calibrate=BATCHES | {"max_seeds": 8})
    results = by_change(more.answer())
    assert results[64].seeds == 8 and {job.run.seed - FIRST_SEED for job in more.jobs} == {6, 7}
    fewer = Calibrated(tmp_path, calibrate=BATCHES | {"seeds": 2, "max_seeds": 2})
    assert fewer.answer().results[0].seeds == 2 and fewer.jobs == []


@pytest.mark.long
def test_an_interrupted_calibration_is_resumed(tmp_path: Path) -> None:
    stopped = Calibrated(tmp_path)

    def interrupt(job: Job) -> Iterator[Record]:
        if len(stopped.jobs) == 9:
            raise KeyboardInterrupt
        yield from by_batch(job)

    stopped.script = interrupt
    with pytest.raises(KeyboardInterrupt):
        stopped.answer()
    resumed = Calibrated(tmp_path)
    result = resumed.answer()
    assert len(stopped.jobs) - 1 + len(resumed.jobs) == 36
    (whole := tmp_path / "whole").mkdir()
    assert calibration_values(result) == calibration_values(Calibrated(whole).answer())


@pytest.mark.long
def test_with_the_arms_swapped_only_the_sign_changes(tmp_path: Path) -> None:
    results = []
    brief = {"vary": {"batch_size": [64]}, "seeds": 3, "max_seeds": 3}
    for name, sign, expect in (("one", 1, "> 0"), ("other", -1, "> 0"), ("third", 1, "< 0")):
        (folder := tmp_path / name).mkdir()
        contrast = {arm: sign * weight for arm, weight in CLAIM["contrast"].items()}
        claims = [CLAIM | {"contrast": contrast, "expect": expect}]
        results.append(Calibrated(folder, claims=claims, calibrate=brief).answer())
    assert "The intervals of batch_size=64 and of the recipe as written overlap" in calibration_markdown(results[0])
    one, other, third = (
        [(each.recipe.change.values, each.seeds, each.core_minutes, each.own[0]) for each in result.results]
        for result in results
    )
    assert [row[:3] for row in one] == [row[:3] for row in other] == [row[:3] for row in third]
    for (*_, cost), (*_, swapped), (*_, contradicted) in zip(one, other, third, strict=True):
        assert swapped.pairs == replace(cost.pairs, mean=-cost.pairs.mean) and swapped.size == cost.size
        assert contradicted.pairs == cost.pairs and contradicted.size == cost.size


@pytest.mark.long
def test_without_pairing_the_candidates_are_judged_as_the_claims_will_be(tmp_path: Path) -> None:
    brief, results = {"vary": {"batch_size": [64]}, "seeds": 3, "max_seeds": 3}, {}
    for pairing in ("seed", "none"):
        (folder := tmp_path / pairing).mkdir()
        search = {"seeds": 3, "max_seeds": 6, "pairing": pairing}
        results[pairing] = Calibrated(folder, search=search, calibrate=brief).answer()
        assert calibration_values(results[pairing])["pairing"] == pairing
        assert ("unpaired (Welch)" in calibration_markdown(results[pairing])) == (pairing == "none")
    paired, unpaired = (by_change(result)[64].own[0] for result in results.values())
    assert unpaired.pairs.mean == pytest.approx(paired.pairs.mean) and len(unpaired.pairs.shares) == 2
    assert unpaired.pairs.sd != paired.pairs.sd and unpaired.pair_minutes == paired.pair_minutes


@pytest.mark.parametrize(("top1", "words"), [(98.5, "ceiling: K="), (10.2, "floor: K=")])
@pytest.mark.long
def test_a_candidate_at_a_limit_is_marked_and_never_recommended(tmp_path: Path, top1: float, words: str) -> None:
    def limited(job: Job) -> Iterator[Record]:
        if job.run.recipe.batch_size != 64:
            yield from by_batch(job)
            return
        value = top1 + 0.4 * (job.run.spec.K[0] > 3) + 0.01 * (job.run.seed % 2)
        yield started()
        yield from (epoch(n, value) for n in range(1, EPOCHS + 1))
        yield Ended(RunState.COMPLETE, wall_s=60.0)

    played = Calibrated(tmp_path)
    played.script = limited
    result = played.answer()
    marked = by_change(result)[64]
    assert marked.limit is not None and marked.limit.startswith(words) and marked.seeds == 3
    assert result.best is not None and result.best.recipe.change.values.get("batch_size") != 64
    assert words in calibration_markdown(result)


@pytest.mark.long
def test_a_candidate_that_diverges_is_not_recommended(tmp_path: Path) -> None:
    def diverges(job: Job) -> Iterator[Record]:
        if job.run.recipe.batch_size == 64 and job.run.seed == FIRST_SEED:
            yield started()
            yield Ended(RunState.DIVERGED, wall_s=1.0, cause="loss is not finite")
        else:
            yield from by_batch(job)

    played = Calibrated(tmp_path)
    played.script = diverges
    result = played.answer()
    lost = by_change(result)[64]  # a configuration with a diverged seed gets no further ones
    assert (lost.lost, lost.is_eligible, lost.note) == (6, False, "6 of 6 runs without a value")
    assert result.best is not None and result.best is not lost


def test_the_budget_counts_what_is_stored_and_leaves_candidates_out(tmp_path: Path) -> None:
    played = Calibrated(tmp_path, hours=0.25)  # 15 runs of a minute
    events = played.events()
    result = played.calibration.result()
    assert 12 <= len(played.jobs) <= 15 and result.core_minutes <= 15
    out = [event.recipe.change.values for event in events if isinstance(event, CandidateLeftOut)]
    assert out and all(recipe.change.values in out for recipe in result.left_out)
    assert "Not trained, for lack of budget" in calibration_markdown(result)
    again = Calibrated(tmp_path, hours=0.25)
    again.events()
    assert again.jobs == []
    assert calibration_values(again.calibration.result())["candidates"] == calibration_values(result)["candidates"]


@pytest.mark.long
def test_runs_that_claims_share_are_counted_once(tmp_path: Path) -> None:
    further = CLAIM | {"name": "again", "contrast": {"K=[31,29,27,13], reparam=5": 1, "K=3": -1}}
    played = Calibrated(tmp_path, claims=[CLAIM, further], calibrate=BATCHES | {"vary": {"batch_size": [64]}})
    result = played.answer()
    best = result.best
    assert best is not None and len(best.own) == 2
    first, second = best.own
    pairs = [cost.needed.value for cost in (first, second)]
    assert best.core_minutes.value == pytest.approx(pairs[0] + pairs[1] + max(pairs))
    assert played.calibration.claim_plan.alpha == 0.025
    assert "All claims; shared runs are counted once" in calibration_markdown(result)


def test_claims_about_costs_need_no_proxy(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="a claim must compare something that varies between seeds"):
        Calibrated(tmp_path, claims=[CLAIM | {"metric": "macs"}])


@pytest.mark.long
def test_measured_events_are_in_the_order_of_the_candidates(tmp_path: Path) -> None:
    measured = [event for event in Calibrated(tmp_path).events() if isinstance(event, CandidateMeasured)]
    assert [(event.position, event.candidates) for event in measured] == [
        (1, 4),
        (2, 4),
        (3, 4),
        (4, 4),
        (1, 2),
        (2, 2),
    ]
    assert measured[0].result.recipe.change.values == {}
