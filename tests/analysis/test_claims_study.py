"""Claims of a study: decided by as many seeds as they need, the same however the study is interrupted or named."""

import contextlib
import json
import math
import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from claim_studies import CLAIM, CLAIMED, claim_results, claimed
from scipy.stats import ttest_ind
from tiny_studies import BRIEF, INLINE, TINY, Played, called, gains, started, well, write_study

from harness.analysis.claims import ClaimResult
from harness.diagnostics.verify.recorded_claims import all_recorded_claims
from harness.search.events import ClaimsEvaluated
from harness.storage.workspace import Workspace
from harness.training.run import Ended, Job, Record, RunState


def seeds_by_kernel(played: Played) -> dict[tuple[int, Any], list[int]]:
    assert played.executor is not None
    seeds_by_arm: dict[tuple[int, Any], list[int]] = {}
    for job in played.executor.submitted:
        seeds_by_arm.setdefault((job.run.spec.K[0], job.run.spec.reparam[0]), []).append(job.run.seed)
    return {key: sorted(seeds) for key, seeds in seeds_by_arm.items()}


# Deciding


def test_a_large_effect_is_decided_by_the_first_seeds(tmp_path: Path) -> None:
    played = claimed(tmp_path)
    evaluations = [event for event, _, _ in played.events(gains(K13=30)) if isinstance(event, ClaimsEvaluated)]
    assert evaluations == [ClaimsEvaluated({"larger_is_better": "supported"}, 0)]
    (result,) = claim_results(played)
    assert result.seeds == (0, 1, 2) and str(result.verdict) == "supported"
    assert result.estimate is not None and result.estimate.effect == pytest.approx(30, abs=1.5)
    assert all(seeds == [0, 1, 2] for seeds in seeds_by_kernel(played).values())


def test_an_undecided_claim_gets_seeds_for_its_own_arms_alone(tmp_path: Path) -> None:
    played = claimed(tmp_path)
    evaluations = [event for event, _, _ in played.events(gains(K13=0.55)) if isinstance(event, ClaimsEvaluated)]
    assert [evaluation.arms for evaluation in evaluations] == [2, 2, 2, 0]
    verdicts = [evaluation.verdicts["larger_is_better"] for evaluation in evaluations]
    assert verdicts == ["undecided", "undecided", "undecided", "supported"]
    seeds = seeds_by_kernel(played)
    assert seeds.pop((13, 5)) == seeds.pop((3, None)) == [0, 1, 2, 3, 4, 5]
    assert all(arm_seeds == [0, 1, 2] for arm_seeds in seeds.values()) and seeds


def test_seeds_stop_where_a_verdict_has_become_unlikely(tmp_path: Path) -> None:
    played = claimed(tmp_path)
    evaluations = [event for event, _, _ in played.events(gains(K13=0.4)) if isinstance(event, ClaimsEvaluated)]
    assert [evaluation.arms for evaluation in evaluations] == [2, 0]
    (result,) = claim_results(played)
    assert str(result.verdict) == "undecided" and result.seeds == (0, 1, 2, 3)
    assert result.seeds_needed is None or result.seeds_needed > 6


def test_seeds_stop_where_the_claim_is_decided(tmp_path: Path) -> None:
    played = claimed(tmp_path)
    *undecided, last = [event for event, _, _ in played.events(gains(K13=1.8)) if isinstance(event, ClaimsEvaluated)]
    assert undecided and all(look.arms == 2 for look in undecided)
    assert (last.verdicts, last.arms) == ({"larger_is_better": "supported"}, 0)
    assert len(seeds_by_kernel(played)[13, 5]) == 3 + len(undecided) < 6


def test_a_study_that_is_run_again_trains_nothing_and_judges_alike(tmp_path: Path) -> None:
    played = claimed(tmp_path)
    first = [event for event, _, _ in played.events(gains(K13=4))]
    before, played.executor = claim_results(played), None
    again = [event for event, _, _ in played.events(gains(K13=4))]
    assert played.executor is None
    assert claim_results(played) == before
    assert [e for e in again if isinstance(e, ClaimsEvaluated)] == [e for e in first if isinstance(e, ClaimsEvaluated)][
        -1:
    ]


def test_a_study_stopped_between_looks_is_resumed_to_the_same_verdict(tmp_path: Path) -> None:
    whole, parts = (tmp_path / name for name in ("whole", "parts"))
    played = []
    for folder in (whole, parts):
        folder.mkdir()
        played.append(claimed(folder))
    for _ in played[0].events(gains(K13=0.55)):
        pass
    for stop in (25, 70, 999):
        events = played[1].events(gains(K13=0.55))
        for _, _ in zip(events, range(stop), strict=False):
            pass
        events.close()
    assert claim_results(played[1]) == claim_results(played[0])


def test_a_seed_that_an_arm_lost_is_no_pair(tmp_path: Path) -> None:
    def script(job: Job) -> Iterator[Record]:
        if job.run.seed == 1 and job.run.spec.K[0] == 3:
            yield started()
            yield Ended(RunState.DIVERGED, wall_s=1.0, cause="the training loss is nan in epoch 1")
            return
        yield from gains(K13=30)(job)

    played = claimed(tmp_path)
    for _ in played.events(script):
        pass
    (result,) = claim_results(played)
    assert 1 not in result.seeds and {0, 2} < set(result.seeds)


def unpaired(folder: Path, **overrides: Any) -> Played:
    return claimed(folder, search={"seeds": 3, "max_seeds": 6, "pairing": "none"}, **overrides)


def test_without_pairing_the_arms_are_tested_as_independent(tmp_path: Path) -> None:
    """The seeds make the same difference to both arms, so that only the difference has no spread."""
    results: list[ClaimResult] = []
    for folder, make in ((tmp_path / "paired", claimed), (tmp_path / "unpaired", unpaired)):
        folder.mkdir()
        played = make(folder)
        for _ in played.events(well):
            pass
        results += claim_results(played)
    paired, independent = results
    assert paired.estimate is not None and independent.estimate is not None
    assert paired.values[:3] == independent.values[:3] and paired.estimate.sd == 0
    large, small = ([values[seed] for seed in independent.seeds] for values in independent.arm_values)
    assert independent.estimate.sd == pytest.approx(math.hypot(np.std(large, ddof=1), np.std(small, ddof=1)))
    assert independent.estimate.p <= ttest_ind(large, small, equal_var=False).pvalue * 8
    assert str(independent.verdict) == "supported" and len(independent.values) == 3
    assert independent.variance_removed == pytest.approx(1)


def test_without_pairing_open_claims_get_seeds_for_all_arms_and_a_prospect(tmp_path: Path) -> None:
    played = unpaired(tmp_path)
    events = [event for event, _, _ in played.events(gains(K13=0.55)) if isinstance(event, ClaimsEvaluated)]
    assert events[0].arms == 2 and "% chance of a verdict by 6 seeds" in events[0].distances["larger_is_better"]
    (result,) = claim_results(played)
    assert result.arm_values[0].keys() == result.arm_values[1].keys() and len(result.seeds) > 3
    before, played.executor = result, None
    assert [event for event, _, _ in played.events(gains(K13=0.55)) if isinstance(event, ClaimsEvaluated)] == events[
        -1:
    ]
    assert claim_results(played) == (before,)


def test_without_pairing_a_seed_that_one_arm_lost_is_left_out_of_both_and_named(tmp_path: Path) -> None:
    def script(job: Job) -> Iterator[Record]:
        if job.run.seed == 1 and job.run.spec.K[0] == 3:
            yield started()
            yield Ended(RunState.DIVERGED, wall_s=1.0, cause="the training loss is nan in epoch 1")
            return
        yield from gains(K13=30)(job)

    played = unpaired(tmp_path)
    for _ in played.events(script):
        pass
    (result,) = claim_results(played)
    assert 1 not in result.seeds and {0, 2} < set(result.seeds) and 1 in result.arm_values[0]
    assert [pair.text for pair in result.lost_pairs] == ["seed 1 of K=3 diverged"]
    assert result.estimate is not None and result.estimate.n == len(result.seeds)
    output = called("show", played.path, cwd=tmp_path).stdout
    assert "seed 1 of K=3 diverged. Seeds lost because of their outcome" in " ".join(output.split())


def test_without_pairing_exact_metrics_are_exact(tmp_path: Path) -> None:
    claim = CLAIM | {"name": "macs", "metric": "log2(macs)"}
    played = unpaired(tmp_path, claims=[claim])
    for _ in played.events(gains(K13=30)):
        pass
    (macs,) = claim_results(played)
    assert macs.estimate is not None and macs.estimate.is_exact and str(macs.verdict) == "supported"


def test_exact_metrics_need_no_further_seeds_and_missing_ones_are_named(tmp_path: Path) -> None:
    claims = [
        CLAIM | {"name": "macs", "metric": "log2(macs)", "contrast": {"K=13, reparam=5": 1, "K=3": -1}},
        CLAIM | {"name": "unknown", "metric": "latency_ms_p90 - top1"},
    ]
    played = Played(tmp_path, claims=claims)
    for _ in played.events(gains(K13=30)):
        pass
    macs, unknown = claim_results(played)
    costs = [arm.cost.macs for arm in macs.arms if arm.cost is not None]
    assert str(macs.verdict) == "supported" and macs.estimate is not None
    assert macs.estimate.effect == pytest.approx(math.log2(costs[0] / costs[1])) and macs.estimate.sd == 0
    assert unknown.values == () and str(unknown.verdict) == "undecided"
    assert unknown.missing_reason == "no run has a value of `latency_ms_p90 - top1`"


def test_a_claim_on_trained_runs_from_the_command_line(tmp_path: Path) -> None:

    claim = CLAIM | {"contrast": {"K=[5,5,3,3]": 1, "K=3": -1}}
    write_study(tmp_path, TINY, claims=[claim], search={"seeds": 2, "max_seeds": 3}, proxy=BRIEF)
    result = called("run", "study.yaml", *INLINE, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "claims judged: larger_is_better is" in result.stdout and "Claims  error rate 5 %" in result.stdout
    kept = json.loads((tmp_path / "results" / "tiny" / "summary.json").read_text())
    assert kept["claims"][0]["n"] in (2, 3)

    def looks() -> list[str]:
        with contextlib.closing(sqlite3.connect(tmp_path / "results" / "studies.db")) as database:
            rows = database.execute("SELECT message FROM events WHERE kind = 'claims judged' ORDER BY id")
            return [message for (message,) in rows]

    before = looks()
    assert before and all(a != b for a, b in pairwise(before)), "a look that says nothing new is not written down"
    assert called("run", "study.yaml", *INLINE, cwd=tmp_path).returncode == 0
    assert looks() == before


# The same runs under another name


@pytest.mark.long
def test_a_longer_plan_for_runs_that_another_study_looked_at_is_exploratory(tmp_path: Path) -> None:
    keys = {key: CLAIMED[key] for key in ("search", "claims")}
    played = Played(tmp_path, **keys)
    for _ in played.events(gains(K13=30)):
        pass
    assert [result.verdict_text for result in claim_results(played)] == ["supported"]
    longer = Played(tmp_path, **keys | {"search": {"seeds": 3, "max_seeds": 12}}, study="longer")
    result = called("run", longer.path, "--dry-run", cwd=tmp_path)
    reason = "3 of its 3 pairs were looked at before by the study `question`"
    assert f"its verdict would be exploratory, since {reason}" in " ".join(result.stdout.split())
    for _ in longer.events(gains(K13=30)):
        pass
    (claim_result,) = claim_results(longer)
    assert (
        claim_result.verdict_text == "exploratory: supported"
        and claim_result.exploratory is not None
        and claim_result.p is None
    )
    assert claim_result.exploratory.reason == reason
    assert reason in " ".join(called("show", longer.path, cwd=tmp_path).stdout.split())
    assert [result.verdict_text for result in claim_results(played)] == ["supported"], "the first study came before"


def test_another_pairing_for_runs_that_another_study_looked_at_is_exploratory(tmp_path: Path) -> None:
    for _ in claimed(tmp_path).events(gains(K13=30)):
        pass
    other = unpaired(tmp_path, study="other")
    for _ in other.events(gains(K13=30)):
        pass
    (result,) = claim_results(other)
    assert result.verdict_text == "exploratory: supported" and result.exploratory is not None
    assert result.exploratory.reason == "3 of its 3 pairs were looked at before by the study `question`"


@pytest.mark.long
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (CLAIMED, CLAIMED),  # the same looks
        (CLAIMED | {"claims": []} | {"search": {"seeds": 3}}, CLAIMED),  # no looks
        (CLAIMED | {"claims": [CLAIM | {"metric": "val_loss"}]}, CLAIMED),  # at something else
        (CLAIMED, CLAIMED | {"search": {"seeds": 3, "max_seeds": 12, "seed": 100}}),  # at other runs
    ],
    ids=["same plan", "no claims", "another metric", "other seeds"],
)
def test_a_claim_that_no_study_looked_at_before_keeps_its_error_rate(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    keys = ("search", "claims")
    for _ in Played(tmp_path, **{key: first[key] for key in keys}).events(gains(K13=30)):
        pass
    other = Played(tmp_path, **{key: second[key] for key in keys}, study="other")
    for _ in other.events(gains(K13=30)):
        pass
    assert [result.verdict_text for result in claim_results(other)] == ["supported"]


# All recorded claims


def test_verify_judges_the_claims_of_every_recorded_study(tmp_path: Path) -> None:
    played = claimed(tmp_path)
    for _ in played.events(gains(K13=30)):
        pass
    (row,) = all_recorded_claims(played.workspace)
    assert (row.study, row.name, row.verdict, row.n, row.unit) == (
        "question",
        "larger_is_better",
        "supported",
        3,
        "top1",
    )
    assert (
        row.effect == pytest.approx(30, abs=1.5)
        and row.paper == CLAIM["paper"]
        and row.device == "cpu (test, 1 thread)"
    )
    result = called("verify", "--only", "claims", "--results", played.workspace.results, cwd=tmp_path)
    assert result.returncode == 0 and "supported" in result.stdout


def test_verify_names_claims_without_pairing_and_compares_them_with_no_pairs(tmp_path: Path) -> None:
    played = unpaired(tmp_path)
    folder = played.workspace.results / "claims" / "question"
    folder.mkdir(parents=True)
    for _ in played.events(gains(K13=30)):
        pass
    values = json.loads(called("show", played.path, "--json", cwd=tmp_path).stdout)
    (folder / "summary.json").write_text(json.dumps(values))
    stored, kept = all_recorded_claims(played.workspace)
    assert (stored.pairing, kept.pairing) == ("none", "none")
    assert kept.compared == "the same runs are here; they agree"
    output = called("verify", "--only", "claims", "--results", played.workspace.results, cwd=tmp_path).stdout
    assert "larger_is_better, unpaired (Welch)" in output
    (folder / "summary.json").write_text(json.dumps(values | {"claims": [values["claims"][0] | {"pairing": "seed"}]}))
    *_, kept = all_recorded_claims(played.workspace)
    assert kept.compared is not None
    assert kept.compared.endswith("not compared: paired by seed as recorded, unpaired (Welch) by the study here")


def test_a_claim_study_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    played = claimed(tmp_path)
    for _ in played.events(gains(K13=30)):
        pass
    (played.workspace.folder("question") / "study.yaml").unlink()
    (row,) = all_recorded_claims(played.workspace)
    assert row.fault is not None and "study.yaml" in row.fault
    result = called("verify", "--only", "claims", "--results", played.workspace.results, cwd=tmp_path)
    assert result.returncode == 1 and "study.yaml" in result.stdout


def test_a_results_folder_without_a_database_has_no_claims(tmp_path: Path) -> None:
    assert list(all_recorded_claims(Workspace(tmp_path))) == []
