"""Further seeds go to the claim that gains the most by them for its computing, and to no claim in vain."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from claim_studies import CLAIM, claim_results, claimed
from rich.console import Console
from tiny_studies import EPOCHS, Played, called, epoch, gains, started

from harness.analysis.prospects import arms_needing_seeds, claim_prospects, distances_to_verdicts
from harness.report.event_log import EventFormatter
from harness.report.live import LiveState
from harness.search.events import ClaimsEvaluated
from harness.training.run import Ended, Job, Record, RunState

NEAR: dict[str, Any] = {**CLAIM, "name": "near", "contrast": {"K=13, reparam=5": 1, "K=3": -1}}
FAR: dict[str, Any] = {**CLAIM, "name": "far", "contrast": {"K=13, reparam=5": 1, "K=[31,29,27,13], reparam=5": -1}}


def script(values: dict[int, float], noise: float, wall_s: dict[int, float]) -> Any:
    """Accuracies by the first kernel's side with noise that the seed decides; and the seconds of a run."""

    def play(job: Job) -> Iterator[Record]:
        k, seed = job.run.spec.K[0], job.run.seed
        drawn = 0.0 if k == 13 else noise * (1.0, -0.7, 0.4, -1.1, -0.2, 0.9)[seed]
        top1 = 60 + values.get(k, 0.0) + drawn
        yield started()
        for n in range(1, EPOCHS + 1):
            yield epoch(n, top1 * n / EPOCHS)
        yield Ended(RunState.COMPLETE, wall_s=wall_s.get(k, 10.0))

    return play


def looks(played: Played, play: Any) -> list[ClaimsEvaluated]:
    return [event for event, _, _ in played.events(play) if isinstance(event, ClaimsEvaluated)]


def arms_of(played: Played) -> list[int]:
    """The first kernel's side of the arms that would get the next seed if there were more."""
    study, results = played.file.study, claim_results(played)
    larger = study.model_copy(update={"search": study.search.model_copy(update={"max_seeds": 8})})
    used = {arm.fingerprint: len(result.values) for result in results for arm in result.arms}
    return [arm.spec.K[0] for arm in arms_needing_seeds(larger, results, used) if arm.spec is not None]


@pytest.mark.parametrize(("near", "first"), [(1.5, [13, 3]), (0.0, [13, 31])])
def test_the_claim_that_is_nearer_to_a_verdict_comes_first(tmp_path: Path, near: float, first: list[int]) -> None:
    """Effects of 1.5 and 1.0, and then of 0.0 and 1.0, with the same spread and cost."""
    search = {"seeds": 3, "max_seeds": 3}
    played = claimed(tmp_path, claims=[NEAR, FAR], search=search)
    looks(played, script({13: 2.0, 3: 2.0 - near, 31: 1.0}, 0.6, {}))
    assert arms_of(played) == first


def test_a_cheaper_pair_comes_first_where_the_chances_are_equal(tmp_path: Path) -> None:
    played = claimed(tmp_path, claims=[NEAR, FAR], search={"seeds": 3, "max_seeds": 3})
    looks(played, script({13: 2.0, 3: 1.0, 31: 1.0}, 0.0, {3: 60.0, 31: 5.0}))
    assert arms_of(played) == [13, 31]


def test_a_claim_without_a_chance_gets_no_seeds_and_the_output_says_so(tmp_path: Path) -> None:
    """An effect of zero with a large spread and no negligible size cannot be decided by 6 seeds."""
    played = claimed(tmp_path, claims=[NEAR], search={"seeds": 5, "max_seeds": 6})
    (look,) = looks(played, script({}, 3.0, {}))
    assert look.arms == 0 and look.verdicts == {"near": "undecided"}
    assert "% chance of a verdict by 6 seeds, so no further seeds: " in look.distances["near"]
    assert played.executor is not None and all(job.run.seed < 5 for job in played.executor.submitted)


def test_a_decided_claim_has_no_prospect(tmp_path: Path) -> None:
    played = claimed(tmp_path)
    looks(played, gains(K13=30))
    results = claim_results(played)
    assert claim_prospects(played.file.study, results) == {} == distances_to_verdicts(played.file.study, results)


def test_status_shows_the_distance_to_a_verdict(tmp_path: Path) -> None:
    played = claimed(tmp_path, search={"seeds": 3, "max_seeds": 3})
    looks(played, gains(K13=0.1))
    output = called("status", "study.yaml", cwd=tmp_path)
    assert "larger_is_better: no look is left: 0." in output.stdout and "against 0.00 (n = 3)" in output.stdout


def test_the_live_view_shows_open_claims_and_their_distance(tmp_path: Path) -> None:
    played = claimed(tmp_path)
    state = LiveState("study", None, "top1", "maximize", EventFormatter("top1"))
    shown = []
    for event, progress, _ in played.events(gains(K13=0.55)):
        state.update(event, progress)
        if isinstance(event, ClaimsEvaluated):
            console = Console(width=80, file=io.StringIO(), record=True)
            console.print(state.draw())
            shown.append(console.export_text())
    assert "larger_is_better: 46 % chance of a verdict by 6 seeds: 0.82 [" in shown[0]
    assert "chance of a verdict" not in shown[-1]  # supported by then


# harness power


def test_power_in_units_of_the_spread_before_any_run(tmp_path: Path) -> None:
    claimed(tmp_path)
    output = called("power", "study.yaml", cwd=tmp_path)
    assert output.returncode == 0, output.stderr
    assert "effects are in units of their standard deviation" in output.stdout
    assert not (tmp_path / "results").exists()


def test_power_of_stored_runs_names_pairs_time_and_the_chance_of_the_plan(tmp_path: Path) -> None:
    played = claimed(tmp_path, search={"seeds": 3, "max_seeds": 3})
    looks(played, gains(K13=0.1))
    output = called("power", "study.yaml", "--effect", "0.1", "30", "--json", cwd=tmp_path)
    (claim,) = json.loads(output.stdout)["claims"]
    small, large = claim["effects"]
    assert claim["sd"]["source"] == "runs" and claim["sd"]["n"] == 3 and claim["pair_s"] == 24.0
    assert large["pairs"] == 3 and large["chance"] > 0.95
    assert small["pairs"] is None and small["chance"] < 0.2


@pytest.mark.long
def test_power_without_pairing(tmp_path: Path) -> None:
    """Seeds are needed for independent arms: of equal spread before any run, then as the runs have it."""
    search = {"seeds": 3, "max_seeds": 8}
    needed = {}
    for pairing in ("seed", "none"):
        (tmp_path / pairing).mkdir()
        played = claimed(tmp_path / pairing, search=search | {"pairing": pairing})
        output = called("power", "study.yaml", "--json", cwd=tmp_path / pairing)
        (claim,) = json.loads(output.stdout)["claims"]
        assert claim["pairing"] == pairing
        needed[pairing] = [effect["expected"] for effect in claim["effects"]]
        looks(played, gains(K13=0.1))
    assert needed["none"][1] < needed["seed"][1] and needed["none"][2] < needed["seed"][2]
    output = called("power", "study.yaml", cwd=tmp_path / "none")
    assert "Standard deviation of its contrast, unpaired: " in output.stdout


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--power", "1"], "`--power` must be above"),
        (["--sd", "0"], "`--sd` must be a number above 0"),
        (["--sd", "nan"], "`--sd` must be"),
        (["--effect", "nan"], "`--effect` must be numbers"),
    ],
)
def test_power_refuses_what_has_none(tmp_path: Path, options: list[str], rule: str) -> None:
    claimed(tmp_path)
    output = called("power", "study.yaml", *options, cwd=tmp_path)
    assert output.returncode == 2 and rule in output.stderr


def test_power_of_a_study_without_claims_is_refused(tmp_path: Path) -> None:
    Played(tmp_path)
    output = called("power", "study.yaml", cwd=tmp_path)
    assert output.returncode == 2 and "must have claims" in output.stderr
