"""Claims in a study file: read with their lines, decided by as many seeds as they need, shown with their figures."""

import contextlib
import json
import math
import re
import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tiny_studies import SCRIPTED, TINY, Played, called, gains, harness, started, text_of, well, write_study

from harness.analysis.claims import ClaimResult, evaluate_claims
from harness.analysis.study_reader import open_space, open_study_reader
from harness.config.claim_arms import arm_choices
from harness.config.expressions import Formula
from harness.config.study_file import load_study
from harness.diagnostics.verify.recorded_claims import all_recorded_claims
from harness.errors import StudyError
from harness.report.claims import claims_view
from harness.search.events import ClaimsEvaluated
from harness.storage.workspace import Workspace
from harness.training.run import Ended, Job, Record, RunState

CLAIM: dict[str, Any] = {
    "name": "larger_is_better",
    "says": "K=13 is ahead of K=3",
    "contrast": {"K=13, reparam=5": 1, "K=3": -1},
    "expect": "> 0",
    "paper": "0.91 points (table 5)",
}
CLAIMED: dict[str, Any] = SCRIPTED | {"search": {"seeds": 3, "max_seeds": 6}, "claims": [CLAIM]}


def judged(played: Played) -> tuple[ClaimResult, ...]:
    with open_study_reader(played.path, played.place) as reader:
        return evaluate_claims(played.file.study, open_space(played.file), reader.store)


def seeds_by_kernel(played: Played) -> dict[tuple[int, Any], list[int]]:
    assert played.executor is not None
    found: dict[tuple[int, Any], list[int]] = {}
    for job in played.executor.submitted:
        found.setdefault((job.run.spec.K[0], job.run.spec.reparam[0]), []).append(job.run.seed)
    return {key: sorted(seeds) for key, seeds in found.items()}


# Deciding


def test_a_large_effect_is_decided_by_the_first_seeds(tmp_path: Path) -> None:
    played = Played(tmp_path, **{key: CLAIMED[key] for key in ("search", "claims")})
    looks = [event for event, _, _ in played.events(gains(K13=30)) if isinstance(event, ClaimsEvaluated)]
    assert looks == [ClaimsEvaluated({"larger_is_better": "supported"}, 0)]
    (result,) = judged(played)
    assert result.seeds == (0, 1, 2) and str(result.verdict) == "supported"
    assert result.estimate is not None and result.estimate.effect == pytest.approx(30, abs=1.5)
    assert all(seeds == [0, 1, 2] for seeds in seeds_by_kernel(played).values())


def test_an_undecided_claim_gets_seeds_for_its_own_arms_alone(tmp_path: Path) -> None:
    played = Played(tmp_path, **{key: CLAIMED[key] for key in ("search", "claims")})
    looks = [event for event, _, _ in played.events(gains(K13=0.1)) if isinstance(event, ClaimsEvaluated)]
    assert [look.arms for look in looks] == [2, 2, 2, 0]
    assert {look.verdicts["larger_is_better"] for look in looks} == {"undecided"}
    seeds = seeds_by_kernel(played)
    assert seeds.pop((13, 5)) == seeds.pop((3, None)) == [0, 1, 2, 3, 4, 5]
    assert all(each == [0, 1, 2] for each in seeds.values()) and seeds
    (result,) = judged(played)
    assert result.seeds_needed is None or result.seeds_needed > 6


def test_seeds_stop_where_the_claim_is_decided(tmp_path: Path) -> None:
    played = Played(tmp_path, **{key: CLAIMED[key] for key in ("search", "claims")})
    *undecided, last = [event for event, _, _ in played.events(gains(K13=1.8)) if isinstance(event, ClaimsEvaluated)]
    assert undecided and all(look.arms == 2 for look in undecided)
    assert (last.verdicts, last.arms) == ({"larger_is_better": "supported"}, 0)
    assert len(seeds_by_kernel(played)[13, 5]) == 3 + len(undecided) < 6


def test_a_study_that_is_run_again_trains_nothing_and_judges_alike(tmp_path: Path) -> None:
    played = Played(tmp_path, **{key: CLAIMED[key] for key in ("search", "claims")})
    first = [event for event, _, _ in played.events(gains(K13=4))]
    before, played.executor = judged(played), None
    again = [event for event, _, _ in played.events(gains(K13=4))]
    assert played.executor is None
    assert judged(played) == before
    assert [e for e in again if isinstance(e, ClaimsEvaluated)] == [e for e in first if isinstance(e, ClaimsEvaluated)][
        -1:
    ]


def test_a_study_stopped_between_looks_goes_on_to_the_same_verdict(tmp_path: Path) -> None:
    whole, parts = (tmp_path / name for name in ("whole", "parts"))
    played = []
    for folder in (whole, parts):
        folder.mkdir()
        played.append(Played(folder, **{key: CLAIMED[key] for key in ("search", "claims")}))
    for _ in played[0].events(gains(K13=0.1)):
        pass
    for stop in (25, 70, 999):
        events = played[1].events(gains(K13=0.1))
        for _, _ in zip(events, range(stop), strict=False):
            pass
        events.close()
    assert judged(played[1]) == judged(played[0])


def test_a_seed_that_an_arm_lost_is_no_pair(tmp_path: Path) -> None:
    def script(job: Job) -> Iterator[Record]:
        if job.run.seed == 1 and job.run.spec.K[0] == 3:
            yield started()
            yield Ended(RunState.DIVERGED, wall_s=1.0, cause="the training loss is nan in epoch 1")
            return
        yield from gains(K13=30)(job)

    played = Played(tmp_path, **{key: CLAIMED[key] for key in ("search", "claims")})
    for _ in played.events(script):
        pass
    (result,) = judged(played)
    assert 1 not in result.seeds and {0, 2} < set(result.seeds)


def test_exact_figures_need_no_seeds_and_missing_ones_are_named(tmp_path: Path) -> None:
    claims = [
        CLAIM | {"name": "macs", "metric": "log2(macs)", "contrast": {"K=13, reparam=5": 1, "K=3": -1}},
        CLAIM | {"name": "unknown", "metric": "latency_ms_p90 - top1"},
    ]
    played = Played(tmp_path, claims=claims)
    for _ in played.events(gains(K13=30)):
        pass
    macs, unknown = judged(played)
    costs = [arm.cost.macs for arm in macs.arms if arm.cost is not None]
    assert str(macs.verdict) == "supported" and macs.estimate is not None
    assert macs.estimate.effect == pytest.approx(math.log2(costs[0] / costs[1])) and macs.estimate.sd == 0
    assert unknown.values == () and str(unknown.verdict) == "undecided"
    assert unknown.missing_reason == "no run has a value of `latency_ms_p90 - top1`"


# Showing


def test_claims_are_shown_with_effect_interval_n_p_and_paper(tmp_path: Path) -> None:
    played = Played(tmp_path, **{key: CLAIMED[key] for key in ("search", "claims")})
    results = played.answer(gains(K13=30))
    with open_study_reader(played.path, played.place) as reader:
        from dataclasses import replace

        from rich.console import Group

        output = text_of(Group(*claims_view(replace(results, claims=reader.claims()))), width=80)
    row = next(line for line in output.splitlines() if line.startswith("larger_is_better"))
    assert re.search(r"supported +\d\d\.\d\d  \[\d\d\.\d\d, \d\d\.\d\d\] +3 +0\.\d+ +> 0", row)
    assert "K=13 is ahead of K=3" in output and "0.91 points (table 5)" in output


def test_an_undecided_claim_says_what_would_decide_it(tmp_path: Path) -> None:
    played = Played(tmp_path, **{key: CLAIMED[key] for key in ("search", "claims")})
    for _ in played.events(gains(K13=0.3)):
        pass
    result = called("show", played.path, "--results", played.place.results, cwd=tmp_path)
    assert "undecided" in result.stdout and re.search(r"seeds would (decide|be needed)", result.stdout)
    values = json.loads(called("show", played.path, "--results", played.place.results, "--json", cwd=tmp_path).stdout)
    (claim,) = values["claims"]
    assert claim["verdict"] == "undecided" and len(claim["values"]) == claim["n"] == 6
    first, second = claim["arms"]
    assert (first["choices"]["K"], first["weight"], second["weight"]) == ([13] * 4, 1, -1)
    assert first["seeds"] == second["seeds"] == claim["seeds"] == [0, 1, 2, 3, 4, 5]
    assert claim["values"] == [a - b for a, b in zip(first["values"], second["values"], strict=True)]
    status = called("status", played.path, "--results", played.place.results, cwd=tmp_path)
    assert "finished" in status.stdout and "claims          1 undecided" in status.stdout


def test_where_no_spread_is_seen_nothing_is_said_of_seeds_that_would_decide(tmp_path: Path) -> None:
    played = Played(tmp_path, claims=[CLAIM])
    for _ in played.events(well):  # its seeds make the same difference to both arms
        pass
    result = called("show", played.path, "--results", played.place.results, cwd=tmp_path)
    assert "3 seeds show no spread, so the number of seeds that would decide it is unknown." in result.stdout
    assert "more seeds are unlikely" not in result.stdout


def test_a_claim_on_trained_runs_from_the_command_line(tmp_path: Path) -> None:
    from tiny_studies import INLINE, TINY

    claim = CLAIM | {"contrast": {"K=[5,5,3,3]": 1, "K=3": -1}}
    write_study(tmp_path, TINY, claims=[claim], search={"seeds": 2, "max_seeds": 3})
    done = harness("run", "study.yaml", *INLINE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "claims judged: larger_is_better is" in done.stdout and "Claims  error rate 5 %" in done.stdout
    kept = json.loads((tmp_path / "results" / "tiny" / "summary.json").read_text())
    assert kept["claims"][0]["n"] in (2, 3)

    def looks() -> list[str]:
        with contextlib.closing(sqlite3.connect(tmp_path / "results" / "studies.db")) as database:
            rows = database.execute("SELECT message FROM events WHERE kind = 'claims judged' ORDER BY id")
            return [message for (message,) in rows]

    before = looks()
    assert before and all(a != b for a, b in pairwise(before)), "a look that says nothing new is not written down"
    assert harness("run", "study.yaml", *INLINE, cwd=tmp_path).returncode == 0
    assert looks() == before


# Reading


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"expect": "bigger"}, r"`claims\[0\]\.expect` .*bigger"),
        ({"metric": "__import__('os')"}, r"`claims\[0\]\.metric` must be a metric of a run"),
        ({"metric": "3 * 4"}, r"names no metric"),
        ({"contrast": {"K=13": 1, "K=3": -1}}, r"every axis that counts.*Add `reparam=\.\.\.`"),
        ({"contrast": {"K=4, reparam=5": 1, "K=3": -1}}, r"one of the values of `K`, but got 4"),
        ({"contrast": {"K=13, reparam=5, width=2": 1}}, r"choose on the study's axes, but got \"width\""),
        ({"contrast": {"K=3, reparam=5": 1}}, r"Leave `reparam` out"),
        ({"contrast": {"K=13 reparam=5": 1}}, r"one of the values of `K`, but got \"13 reparam=5\""),
        ({"contrast": {"K": 1}}, r"commas between them, each axis once, but got \"K\""),
        ({"contrast": {"K=13, reparam=5": 0}}, r"a number that is not 0"),
        ({"contrast": {"K=13, reparam=5": 1, "reparam=5, K=13": -1}}, r"each network once"),
        ({"contrast": {}}, r"at least 1 entry"),
        ({"surprise": 1}, r"`surprise` is no key of `claims\[0\]`"),
    ],
)
def test_a_claim_that_cannot_be_is_refused_with_its_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = write_study(tmp_path, CLAIMED, claims=[CLAIM | change])
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert re.search(said, str(caught.value)), str(caught.value)
    line = int(re.search(r"study\.yaml:(\d+)", str(caught.value))[1])  # type: ignore[index]
    assert line > path.read_text().splitlines().index(' "claims": [')


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"search": {"seeds": 3, "max_seeds": 2}}, "`search.max_seeds` must be at least `seeds`"),
        ({"claims": [], "search": {"seeds": 3, "max_seeds": 5}}, "no claims"),
        ({"search": {"sampler": "random", "trials": 4, "seeds": 3}}, "`search.sampler` must be grid"),
        ({"search": {"seeds": 3, "pruner": "median"}}, "`search.pruner` must be none"),
        ({"claims": [CLAIM, CLAIM]}, "different names"),
    ],
)
def test_a_search_that_cannot_decide_claims_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(StudyError) as caught:
        load_study(write_study(tmp_path, CLAIMED | change))
    assert said in str(caught.value)


def test_an_arm_is_a_choice_on_every_axis_that_counts(tmp_path: Path) -> None:
    space = open_space(load_study(write_study(tmp_path, CLAIMED)))
    assert arm_choices("K=13, reparam=null", space) == {"K": (13,) * 4, "reparam": None}
    assert arm_choices("reparam=5, K=[31, 29, 27, 13]", space) == {"K": (31, 29, 27, 13), "reparam": 5}
    assert arm_choices("K=3", space) == {"K": (3,) * 4}


def test_a_formula_is_a_number_from_figures() -> None:
    metrics = {"latency_ms_p50": 8.0, "macs": 2.0}
    assert Formula("log2(latency_ms_p50 / macs)").value(metrics.get) == 2.0
    assert Formula("latency_ms_p50 - miou").value(metrics.get) is None
    assert Formula("log(macs - macs)").value(metrics.get) is None
    assert Formula("latency_ms_p50 ** 999").value(metrics.get) is None
    for text in (
        "macs.real",
        "[macs]",
        "log(macs, 2)",
        "pow(macs)",
        "'macs'",
        "macs if macs else 0",
        "",
        "macs; 1",
        "log",
    ):
        with pytest.raises(StudyError):
            Formula(text)


# The same runs under another name


def test_a_longer_plan_for_runs_that_another_study_looked_at_is_exploratory(tmp_path: Path) -> None:
    keys = {key: CLAIMED[key] for key in ("search", "claims")}
    played = Played(tmp_path, **keys)
    for _ in played.events(gains(K13=30)):
        pass
    assert [result.verdict_text for result in judged(played)] == ["supported"]
    longer = Played(tmp_path, **keys | {"search": {"seeds": 3, "max_seeds": 12}}, study="longer")
    result = called("run", longer.path, "--dry-run", cwd=tmp_path)
    reason = "3 of its 3 pairs were looked at before by the study `question`"
    assert f"its verdict would be exploratory, since {reason}" in " ".join(result.stdout.split())
    for _ in longer.events(gains(K13=30)):
        pass
    (found,) = judged(longer)
    assert found.verdict_text == "exploratory: supported" and found.exploratory is not None and found.p is None
    assert found.exploratory.reason == reason
    assert reason in " ".join(called("show", longer.path, cwd=tmp_path).stdout.split())
    assert [result.verdict_text for result in judged(played)] == ["supported"], "the first study came before"


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
def test_a_claim_that_nobody_looked_at_before_keeps_its_error_rate(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    keys = ("search", "claims")
    for _ in Played(tmp_path, **{key: first[key] for key in keys}).events(gains(K13=30)):
        pass
    other = Played(tmp_path, **{key: second[key] for key in keys}, study="other")
    for _ in other.events(gains(K13=30)):
        pass
    assert [result.verdict_text for result in judged(other)] == ["supported"]


# The quick profile


def test_quick_is_a_study_of_its_own_with_the_changes_merged(tmp_path: Path) -> None:
    path = write_study(tmp_path, CLAIMED, quick={"search": {"seeds": 2, "max_seeds": 2}, "proxy": {"epochs": 1}})
    quick, whole = load_study(path, is_quick=True).study, load_study(path).study
    assert (quick.study, quick.search.seeds, quick.proxy.epochs) == ("question_quick", 2, 1)
    assert quick.proxy.schedule.warmup_epochs == 0 and quick.claims == whole.claims
    assert (whole.study, whole.search.seeds) == ("question", 3)


@pytest.mark.parametrize(
    ("keys", "quick", "at", "fitted", "note"),
    [
        ({}, {"epochs": 1}, "schedule.warmup_epochs", 0.1, "0.1` in place of 1.0, to fit `proxy.epochs: 1`"),
        ({"epochs": 20, "schedule": {"warmup_epochs": 5}}, {"epochs": 2}, "schedule.warmup_epochs", 0.5, "of 5"),
        ({"epochs": 20, "schedule": {"warmup_epochs": 5}}, {"epochs": 6}, "schedule.warmup_epochs", 5, None),
        ({"schedule": {"final": 0.1}}, {"epochs": 1}, "schedule.final", 0.1, "proxy.schedule.warmup_epochs"),
        ({}, {"epochs": 1, "schedule": {"warmup_epochs": 0}}, "schedule.warmup_epochs", 0, None),
        ({"train_size": 500}, {"train_size": 20}, "batch_size", 20, "20` in place of 32"),
        ({"batch_size": 8, "transfer": {}}, {"train_size": 9}, "transfer.batch_size", 9, "transfer.batch_size: 9` in"),
        ({"val_size": 500}, {"final_val_size": 100}, "val_size", 100, "100` in place of 500"),
    ],
)
def test_values_that_a_quick_profile_leaves_open_are_fitted_to_those_it_gives(
    tmp_path: Path, keys: dict[str, Any], quick: dict[str, Any], at: str, fitted: float, note: str | None
) -> None:
    path = write_study(tmp_path, SCRIPTED, proxy=keys, quick={"proxy": quick})
    file = load_study(path, is_quick=True)
    value: Any = file.study.proxy
    for key in at.split("."):
        value = getattr(value, key)
    assert value == fitted
    assert len(file.notes) == (note is not None) and (note or "") in "".join(file.notes)
    load_study(path)
    assert load_study(path).study.proxy == load_study(write_study(tmp_path, SCRIPTED, proxy=keys)).study.proxy


def test_a_quick_profile_of_one_epoch_prunes_nothing_and_the_plan_says_so(tmp_path: Path) -> None:
    path = write_study(
        tmp_path,
        TINY,
        proxy=TINY["proxy"] | {"epochs": 4, "schedule": {"warmup_epochs": 1}},
        search={"seeds": 2, "pruner": "successive_halving"},
        quick={"proxy": {"epochs": 1}},
    )
    result = called("run", path, "--quick", "--dry-run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    text = " ".join(result.stdout.split())
    assert "has `search.pruner: none` in place of successive_halving, to fit `proxy.epochs: 1`" in text
    assert "`proxy.schedule.warmup_epochs: 0.25` in place of 1" in text
    result = called("run", path, "--quick", "--executor", "inline", cwd=tmp_path)
    assert result.returncode == 0 and "warmup_epochs: 0.25" in result.stdout


def test_a_quick_profile_that_cannot_be_is_refused_where_it_stands(tmp_path: Path) -> None:
    path = write_study(tmp_path, CLAIMED, quick={"proxy": {"epochs": "few"}})
    with pytest.raises(StudyError, match=r"`proxy\.epochs` must be a whole number") as caught:
        load_study(path, is_quick=True)
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if '"few"' in text)
    assert f"study.yaml:{line}" in str(caught.value)
    with pytest.raises(StudyError, match="must have a key `quick`"):
        load_study(write_study(tmp_path, CLAIMED), is_quick=True)


# All recorded claims


def test_verify_judges_the_claims_of_every_recorded_study(tmp_path: Path) -> None:
    played = Played(tmp_path, **{key: CLAIMED[key] for key in ("search", "claims")})
    for _ in played.events(gains(K13=30)):
        pass
    (row,) = all_recorded_claims(played.place)
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
    result = called("verify", "--only", "claims", "--results", played.place.results, cwd=tmp_path)
    assert result.returncode == 0 and "supported" in result.stdout


def test_a_claim_study_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    played = Played(tmp_path, **{key: CLAIMED[key] for key in ("search", "claims")})
    for _ in played.events(gains(K13=30)):
        pass
    (played.place.folder("question") / "study.yaml").unlink()
    (row,) = all_recorded_claims(played.place)
    assert row.fault is not None and "study.yaml" in row.fault
    result = called("verify", "--only", "claims", "--results", played.place.results, cwd=tmp_path)
    assert result.returncode == 1 and "study.yaml" in result.stdout


def test_a_results_folder_without_a_database_has_no_claims(tmp_path: Path) -> None:
    assert list(all_recorded_claims(Workspace(tmp_path))) == []
