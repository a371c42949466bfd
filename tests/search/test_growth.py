"""A study grows in place: nothing is trained twice, and what would change the meaning of its runs is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from rich.console import Group
from tiny_studies import Played, gains, text_of, well

from harness.analysis.claims import ClaimResult, evaluate_claims
from harness.analysis.results import study_results
from harness.analysis.study_reader import open_space, open_study_reader
from harness.errors import StudyError
from harness.executors.scripted import ScriptedExecutor
from harness.report.claims import claims_view, summarize_claims
from harness.report.plots.claims import plot_claims
from harness.search.events import ClaimsEvaluated
from harness.storage import Store, open_study

K3, K7, K13, K25 = ([k] * 4 for k in (3, 7, 13, 25))
SMALL: dict[str, Any] = {"axes": {"K": [K3, K13]}, "when": {}, "search": {"seeds": 1}}
CLAIM: dict[str, Any] = {"name": "large", "says": "K=13 is ahead", "contrast": {"K=13": 1, "K=3": -1}, "expect": "> 0"}


class Grown:
    """A study that is run again and again with other files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, script: Callable[..., Any] = well, **keys: Any) -> list[tuple[Any, int]]:
        """Run the study with these keys; gives first kernel and seed of what was trained."""
        self.played = Played(self.folder, **(SMALL | keys))
        self.played.executor = None
        self.events = [event for event, _, _ in self.played.events(script)]
        executor = self.played.executor
        assert executor is None or isinstance(executor, ScriptedExecutor)
        return [(job.run.spec.K[0], job.run.seed) for job in executor.submitted] if executor else []

    def rows(self) -> dict[int, tuple[int, ...]]:
        """The seeds behind each configuration's mean, by first kernel."""
        results = self.played.answer()
        return {configuration.spec.K[0]: configuration.seeds for configuration in results.rows}

    def claim_results(self) -> tuple[ClaimResult, ...]:
        with open_study_reader(self.played.path, self.played.workspace) as reader:
            return evaluate_claims(reader.file.study, open_space(reader.file), reader.store)


@pytest.fixture
def study(tmp_path: Path) -> Grown:
    return Grown(tmp_path)


def test_more_seeds_are_trained_and_nothing_twice(study: Grown) -> None:
    assert study.run() == [(3, 0), (13, 0)]
    assert sorted(study.run(search={"seeds": 3})) == [(3, 1), (3, 2), (13, 1), (13, 2)]
    assert study.rows() == {3: (0, 1, 2), 13: (0, 1, 2)}
    assert study.run(search={"seeds": 3}) == []


@pytest.mark.parametrize("name", ["on", "No", "007", "2026-12-01", "1_000"])
def test_a_study_whose_name_is_no_text_in_other_yaml_grows_too(study: Grown, name: str) -> None:
    assert study.run(study=name) == [(3, 0), (13, 0)]
    assert study.run(study=name, search={"seeds": 2}) == [(3, 1), (13, 1)]
    assert [configuration.seeds for configuration in study.played.answer().rows] == [(0, 1), (0, 1)]


def test_further_values_of_an_axis_are_trained_with_all_seeds(study: Grown) -> None:
    study.run(search={"seeds": 2})
    grown = study.run(search={"seeds": 2}, axes={"K": [K3, K7, K13, K25]})
    assert sorted(grown) == [(7, 0), (7, 1), (25, 0), (25, 1)]
    assert study.rows() == dict.fromkeys((3, 7, 13, 25), (0, 1))


@pytest.mark.long
@pytest.mark.parametrize(
    ("sampler", "before", "after"),
    [
        ("tpe", [3, 13], [13, 3, 25]),  # choices, in another order
        ("tpe", [3, 7, 11], [3, 7, 11, 15]),  # a range
        ("tpe", [3, 7, 11], [3, 7, 11, 25]),  # a range that becomes choices
        ("tpe", [3, 25], [3, 14, 25]),  # choices that become a range
        ("tpe", {"low": 3, "high": 11, "step": 4}, {"low": 3, "high": 15, "step": 2}),
        ("random", [3, 7, 11], [3, 7, 11, 25]),
    ],
)
def test_samplers_propose_the_further_values_too(study: Grown, sampler: str, before: Any, after: Any) -> None:
    axes = {"drop_path": [0.0, 0.1]}
    number: dict[str, Any] = {"sampler": sampler, "seeds": 1}
    study.run(axes={"B[0]": [1, 2], "C[3]": _widths(before)} | axes, search=number | {"trials": 12})
    study.run(axes={"B[0]": [1, 2], "C[3]": _widths(after)} | axes, search=number | {"trials": 40})
    with Store.open(study.played.workspace.database) as store:
        trials = open_study(store, "question", directions=["maximize"]).get_trials()
    news = set(_members(_widths(after))) - set(_members(_widths(before)))
    assert len(trials) == 40
    assert news <= {trial.params["C[3]"] for trial in trials[12:]}
    assert len({str(trial.distributions["C[3]"]) for trial in trials}) == 1
    assert all(trial.params["C[3]"] in _members(_widths(before)) for trial in trials[:12])
    optuna.load_study(study_name="question", storage=f"sqlite:///{study.played.workspace.database}").get_trials()


def _widths(values: Any) -> Any:
    """Numbers as widths: 8 channels each."""
    if isinstance(values, dict):
        return {key: 8 * value for key, value in values.items()}
    return [8 * value for value in values]


def _members(values: Any) -> list[int]:
    if isinstance(values, dict):
        return list(range(values["low"], values["high"] + 1, values["step"]))
    return list(values)


def test_more_seeds_do_not_use_up_a_samplers_trials(study: Grown) -> None:
    axes = {"B[0]": [1, 2, 3, 4], "C[3]": [64, 96, 128, 160]}
    study.run(axes=axes, search={"sampler": "tpe", "trials": 4, "seeds": 1})
    before = sum(len(configuration.seeds) == 1 for configuration in study.played.answer().rows)
    grown = study.run(axes=axes, search={"sampler": "tpe", "trials": 6, "seeds": 2})
    assert before and sum(seed == 1 for _, seed in grown) >= before
    results = study.played.answer()
    assert all(len(configuration.seeds) >= 2 for configuration in results.rows)
    assert len({number for configuration in results.rows for number in configuration.trials}) == 6 + before
    assert study.run(axes=axes, search={"sampler": "tpe", "trials": 6, "seeds": 2}) == []


def test_an_interrupted_growth_resumes(study: Grown) -> None:
    study.run()
    played = Played(study.folder, **(SMALL | {"search": {"seeds": 4}, "axes": {"K": [K3, K7, K13]}}))
    events = played.events(well)
    for _ in range(25):
        next(events)
    events.close()
    study.run(search={"seeds": 4}, axes={"K": [K3, K7, K13]})
    assert study.rows() == dict.fromkeys((3, 7, 13), (0, 1, 2, 3))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"search": {"seeds": 2}}, "`search.seeds` from 3 to 2"),
        ({"claims": [], "axes": {"K": [K3, K25]}}, "(without [13, 13, 13, 13])"),
        ({"claims": [], "axes": {"K": [K3, K13], "drop_path": [0, 0.1]}}, "`axes.drop_path` from null to [0, 0.1]"),
        ({"proxy": {"epochs": 5, "schedule": {"warmup_epochs": 0}}}, "`proxy.epochs` from 4 to 5"),
        ({"budgets": {"params": 1e9}}, "`budgets.params` from null to 1000000000.0"),
        ({"claims": []}, "`claims.large` is taken away"),
        ({"claims": [CLAIM | {"expect": "> 1"}]}, '`claims.large.expect` from "> 0" to "> 1"'),
        ({"claims": [CLAIM | {"ignore": 0.5}]}, "`claims.large.ignore` from null to 0.5"),
        ({"search": {"seeds": 3, "seed": 1}}, "`search.seed` from 0 to 1"),
        ({"search": {"seeds": 3, "pairing": "none"}}, '`search.pairing` from "seed" to "none"'),
        ({"objectives": {"val_loss": "minimize"}}, "`objectives.top1`"),
    ],
)
def test_what_earlier_runs_meant_cannot_change(study: Grown, keys: dict[str, Any], message: str) -> None:
    first: dict[str, Any] = {"search": {"seeds": 3}, "claims": [CLAIM]}
    study.run(**first)
    before = _everything(study)
    with pytest.raises(StudyError) as refusal:
        study.run(**(first | keys))
    assert message in str(refusal.value)
    assert "study.yaml:" in str(refusal.value)
    assert _everything(study) == before


def _everything(study: Grown) -> list[Any]:
    with Store.open(study.played.workspace.database, read_only=True) as store:
        return [store.studies(), store.changes("question"), store.events("question")]


def test_order_and_words_are_free(study: Grown) -> None:
    study.run(claims=[CLAIM], search={"seeds": 3})
    other = CLAIM | {"says": "otherwise put", "paper": "table 5", "contrast": {"K=3": -1, "K=13": 1}}
    assert study.run(claims=[other], search={"seeds": 3}, axes={"K": [K13, K3]}) == []
    assert study.claim_results()[0].exploratory is None


# Plans and claims


def claimed(**search: int) -> dict[str, Any]:
    return {"claims": [CLAIM], "search": search}


NOISY = gains(K13=1.0)
"""Undecided by few seeds."""


@pytest.mark.long
def test_a_plan_stretched_after_its_last_look_gives_exploratory_verdicts(study: Grown) -> None:
    study.run(NOISY, **claimed(seeds=3))
    (before,) = study.claim_results()
    study.run(NOISY, **claimed(seeds=3, max_seeds=8))
    (after,) = study.claim_results()
    assert str(before.verdict) == str(after.verdict) == "undecided" and after.p == before.p
    assert after.exploratory is not None and "after its last look, at 3 seeds" in after.exploratory.reason
    assert len(after.values) > 3
    with open_study_reader(study.played.path, study.played.workspace) as reader:
        results = study_results(reader.file.study, reader.store, reader.trials, {}, reader.claims())
    text = text_of(Group(*claims_view(results)))
    assert "exploratory: " in text and "Exploratory, without an error rate: the plan was stretched" in text
    (kept,) = summarize_claims(results).claims
    assert kept.exploratory is not None and str(kept.verdict) == "undecided"
    plot_claims(study.folder / "claims.png", summarize_claims(results))


@pytest.mark.parametrize("name", ["on", "1_000", "2026-12-01"])
def test_a_claim_whose_name_is_no_text_in_other_yaml_is_the_same_one_later(study: Grown, name: str) -> None:
    claims = [CLAIM | {"name": name, "says": "yes"}]
    study.run(NOISY, search={"seeds": 3}, claims=claims)
    study.run(NOISY, search={"seeds": 3}, claims=[CLAIM | {"name": name, "says": "on"}])
    (result,) = study.claim_results()
    assert result.claim.name == name and result.exploratory is None


def test_a_plan_stretched_before_its_last_look_keeps_its_error_rate(study: Grown) -> None:
    played = Played(study.folder, **(SMALL | claimed(seeds=3, max_seeds=6)))
    events = played.events(NOISY)
    for event, _, _ in events:
        if isinstance(event, ClaimsEvaluated):
            break
    events.close()
    study.run(NOISY, **claimed(seeds=3, max_seeds=12))
    (result,) = study.claim_results()
    assert result.exploratory is None
    assert result.note is not None and "from 3-6 seeds to 3-12 seeds at 3 pairs" in result.note
    assert study.claim_results() == (result,)  # the same for every later reader


def test_an_edited_file_that_was_not_run_is_not_read_as_the_plan_from_the_start(study: Grown) -> None:
    study.run(NOISY, **claimed(seeds=3))
    before = study.claim_results()[0]
    study.played = Played(study.folder, **(SMALL | claimed(seeds=3, max_seeds=20)))
    (after,) = study.claim_results()
    assert (after.verdict, after.p) == (before.verdict, before.p) and after.exploratory is not None


@pytest.mark.parametrize(
    ("keys", "changed"),
    [
        ({"search": {"seeds": 3, "pairing": "none"}}, "`search.pairing`"),
        ({"claims": [CLAIM | {"expect": "> 1", "ignore": 0.1}]}, "`expect` and `ignore`"),
    ],
)
def test_an_edited_file_that_was_not_run_is_not_read_as_another_claim_from_the_start(
    study: Grown, keys: dict[str, Any], changed: str
) -> None:
    first = {"claims": [CLAIM], "search": {"seeds": 3}}
    study.run(gains(K13=30), **first)
    (before,) = study.claim_results()
    study.played = Played(study.folder, **(SMALL | first | keys))
    (after,) = study.claim_results()
    assert str(before.verdict) == "supported" and str(after.verdict) == "undecided" and after.p is None
    assert after.exploratory is not None and str(after.exploratory.verdict) == "supported"
    assert after.exploratory.reason == f"the file has another {changed} than the one that the study was run with"


def test_a_claim_that_is_added_after_runs_is_exploratory_and_leaves_the_others_alone(study: Grown) -> None:
    large = gains(K13=30)
    study.run(large, **claimed(seeds=3))
    (before,) = study.claim_results()
    again = CLAIM | {"name": "again", "expect": "> 5"}
    study.run(large, claims=[CLAIM, again], search={"seeds": 3})
    kept, added = study.claim_results()
    assert (kept.verdict, kept.p) == (before.verdict, before.p) and str(kept.verdict) == "supported"
    assert str(added.verdict) == "undecided" and added.p is None
    assert added.exploratory is not None and str(added.exploratory.verdict) == "supported"
    assert added.exploratory.reason == "the claim was added after 6 runs"


def test_the_pairing_can_be_chosen_until_there_are_claims(study: Grown) -> None:
    study.run(gains(K13=30), search={"seeds": 3})
    study.run(gains(K13=30), claims=[CLAIM], search={"seeds": 3, "pairing": "none"})
    (result,) = study.claim_results()
    assert not result.is_paired and result.exploratory is not None
    assert result.exploratory.reason == "the claim was added after 6 runs"


def test_a_claim_that_is_added_before_any_run_is_a_claim(study: Grown, tmp_path: Path) -> None:
    played = Played(tmp_path, **SMALL, claims=[CLAIM])
    played.events(well).close()
    study.run(gains(K13=30), claims=[CLAIM, CLAIM | {"name": "again"}], search={"seeds": 3})
    assert [result.exploratory for result in study.claim_results()] == [None, None]


def test_the_change_is_kept_in_the_store(study: Grown) -> None:
    study.run(NOISY, **claimed(seeds=3))
    study.run(NOISY, **claimed(seeds=3, max_seeds=4))
    with Store.open(study.played.workspace.database, read_only=True) as store:
        (kept,) = map(json.loads, store.changes("question"))
        messages = [event.message for event in store.events("question") if event.kind == "study grown"]
    assert kept["plan"] == [3, 3] and kept["seeds"] == {"large": [0, 1, 2]} and kept["runs"] == 6
    assert messages == ["`search.max_seeds` from 3 to 4"]
