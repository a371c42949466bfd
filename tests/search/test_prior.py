"""Priors of axes: what is drawn from them and when, what is stored, what is refused, and what they are worth."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import pytest
from tiny_studies import EPOCHS, SCRIPTED, Played, called, epoch, started, write_study

from harness.analysis.proposal_origin import PROPOSED_BY, is_space_filling
from harness.analysis.study_reader import open_space, open_study_reader
from harness.config.axes import Choice, Range, prior_sampler
from harness.config.search_methods import trials_from_prior
from harness.config.study_file import load_study, resolved_yaml
from harness.config.study_growth import compare_studies
from harness.errors import StudyError
from harness.models.spec.network import NetworkSpec
from harness.search.history import StudyHistory
from harness.search.proposals import Proposals
from harness.search.samplers import build_sampler
from harness.training.run import Ended, Job, Record, RunState

SIZES = [3, 7, 13, 19, 25, 31]
BEST = {"K[0]": 13, "K[1]": 25, "K[2]": 7, "K[3]": 19, "ffn_ratio": 2}


def _axes(likely: dict[str, Any] | None = None, weight: float = 4) -> dict[str, Any]:
    """The axes, with a prior that gives `likely` values that weight and all others 1."""
    values: dict[str, list[Any]] = {**{f"K[{i}]": SIZES for i in range(4)}, "ffn_ratio": [1, 2, 3, 4]}
    if likely is None:
        return dict(values)
    return {
        name: {"values": listed, "prior": [weight if value == likely[name] else 1 for value in listed]}
        for name, listed in values.items()
    }


def _accuracy(spec: NetworkSpec, run_id: str) -> float:
    """It decreases with the distance from `BEST`, with a standard deviation of 0.3 points between runs."""
    apart = sum(abs(SIZES.index(k) - SIZES.index(BEST[f"K[{i}]"])) for i, k in enumerate(spec.K))
    return float(80 - apart - 1.5 * abs(spec.at("ffn_ratio", 0) - 2) + random.Random(run_id).gauss(0, 0.3))


def _script(job: Job) -> Iterator[Record]:
    yield started()
    for n in range(1, EPOCHS + 1):
        yield epoch(n, _accuracy(job.run.spec, job.run.id))
    yield Ended(RunState.COMPLETE, wall_s=1.0)


def _played(folder: Path, axes: dict[str, Any], trials: int, **search: Any) -> Played:
    folder.mkdir(exist_ok=True)
    keys = {"sampler": "tpe", "trials": trials, "seeds": 1} | search
    study = Played(folder, base={"B": 1, "C": 8, "K": 3}, axes=axes, when={}, search=keys)
    for _ in study.events(_script):
        pass
    return study


def _trials(study: Played) -> list[Any]:
    with open_study_reader(study.path, study.workspace) as reader:
        return list(reader.trials)


def _origins(trials: Sequence[Any]) -> list[str]:
    return [trial.user_attrs[PROPOSED_BY] for trial in trials if PROPOSED_BY in trial.user_attrs]


def _refusal(folder: Path, **keys: Any) -> str:
    with pytest.raises(StudyError) as caught:
        load_study(write_study(folder, SCRIPTED, **{"when": {}, "search": {"sampler": "tpe", "trials": 9}} | keys))
    return str(caught.value)


def test_weights_belong_to_values(tmp_path: Path) -> None:
    axes: dict[str, Any] = {
        "K": {"values": [3, 7, [31, 29, 27, 13]], "prior": [1, 0, 2.5]},
        "C[3]": {"values": [64, 96, 128], "prior": [1, 2, 3]},
    }
    search = {"sampler": "random", "trials": 9}
    space = open_space(load_study(write_study(tmp_path, SCRIPTED, axes=axes, when={}, search=search)))
    plain = {name: entry["values"] for name, entry in axes.items()}
    without = open_space(load_study(write_study(tmp_path, SCRIPTED, axes=plain, when={}, search=search)))
    assert space.axes["K"] == Choice((3, 7, (31, 29, 27, 13)), (1, 0, 2.5))
    assert space.axes["C[3]"] == Range(64, 128, 32, prior=(1, 2, 3)), "numbers in equal steps are a range"
    assert space.fingerprint() == without.fingerprint(), "uniform draws are from the same space"
    choose = prior_sampler(0)
    counts = Counter(choose("C[3]", space.axes["C[3]"]) for _ in range(6000))
    assert all(abs(counts[value] / 1000 - weight) < 0.2 for value, weight in zip((64, 96, 128), (1, 2, 3), strict=True))
    assert 7 not in {choose("K", space.axes["K"]) for _ in range(1000)}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"axes": {"K": {"values": [3, 7], "prior": [1]}}}, "`axes.K.prior` must have one weight per value, 2 in all"),
        ({"axes": {"K": {"values": [3, 7], "prior": [0, 0]}}}, "`axes.K.prior` must have a weight above 0"),
        ({"axes": {"K": {"values": [3, 7], "prior": [1, -1]}}}, "`axes.K.prior[1]`"),
        ({"axes": {"K": {"values": [3, 7]}}}, "`axes.K.prior` is required"),
        ({"axes": {"K": {"low": 3, "high": 7, "step": 2, "prior": [1, 2, 3]}}}, "`axes.K.values` is required"),
        ({"axes": {"K": {"values": [3, 8], "prior": [1, 1]}}}, "`K[0]` must be odd"),
        *(
            (
                {
                    "axes": {"K": {"values": [3, 7], "prior": [1, 2]}},
                    "search": {"sampler": sampler} | ({"trials": 60} if sampler != "grid" else {}),
                },
                f"`axes.K.prior` must be left out for the sampler {sampler}, which does not use it",
            )
            for sampler in ("grid", "qmc", "gp", "nsga2", "cmaes")
        ),
    ],
    ids=str,
)
def test_what_is_no_prior_or_cannot_be_used_is_refused(keys: dict[str, Any], words: str, tmp_path: Path) -> None:
    text = _refusal(tmp_path, **keys)
    assert words in text and "study.yaml:" in text


def test_half_of_the_first_trials_are_drawn_from_the_prior_and_ever_fewer_of_the_later_ones() -> None:
    assert trials_from_prior("tpe", 10) == 5
    assert trials_from_prior("tpe", 100) == pytest.approx(5 + 5 * sum(1 / i for i in range(11, 101)))
    assert trials_from_prior("tpe", 100) < 17
    assert trials_from_prior("random", 100) == 50
    assert trials_from_prior("grid", 100) == 0


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_trials_state_that_they_are_from_the_prior_and_are_no_uniform_draws(sampler: str, tmp_path: Path) -> None:
    study = _played(tmp_path, _axes(BEST, weight=20), 12, sampler=sampler)
    trials = _trials(study)
    origins = _origins(trials)
    assert origins[:10] == ["prior", "sampler"] * 5
    matches = [
        sum(trial.params[name] == value for name, value in BEST.items())
        for trial in trials
        if trial.user_attrs.get(PROPOSED_BY) == "prior"
    ]
    assert fmean(matches) > 3, "of five axes, each with a chance of 80 % or more"
    with open_study_reader(study.path, study.workspace) as reader:
        fingerprint = reader.space().fingerprint()
        uniform = [is_space_filling(trial, reader.file.study, fingerprint) for trial in trials]
    assert uniform == [sampler == "random" and origin == "sampler" for origin in origins]


def test_a_network_is_drawn_once_and_draws_end_where_the_prior_has_no_other(tmp_path: Path) -> None:
    certain = {
        name: {"values": entry["values"], "prior": [int(value == BEST[name]) for value in entry["values"]]}
        for name, entry in _axes(BEST).items()
    }
    study = _played(tmp_path, certain, 14, sampler="random")
    assert Counter(_origins(_trials(study))) == {"prior": 1, "sampler": 13}


def test_space_filling_draws_stay_uniform_and_have_their_share(tmp_path: Path) -> None:
    with_prior = _played(tmp_path / "a", _axes(BEST), 20, space_filling=0.5)
    without = _played(tmp_path / "b", _axes(), 20, space_filling=0.5)

    def draws(study: Played) -> list[dict[str, Any]]:
        return [trial.params for trial in _trials(study) if trial.user_attrs.get(PROPOSED_BY) == "space_filling"]

    assert draws(with_prior) == draws(without) and len(draws(without)) == 10
    assert _origins(_trials(with_prior)).count("prior") == 5


@pytest.mark.long
def test_a_resumed_search_continues_the_draws(tmp_path: Path) -> None:
    whole = _played(tmp_path / "whole", _axes(BEST), 16)
    _played(tmp_path / "part", _axes(BEST), 7)
    again = _played(tmp_path / "part", _axes(BEST), 16)

    def drawn(study: Played) -> list[dict[str, Any]]:
        return [trial.params for trial in _trials(study) if trial.user_attrs.get(PROPOSED_BY) == "prior"]

    assert _origins(_trials(again)) == _origins(_trials(whole))
    assert drawn(again) == drawn(whole)


def _compared(tmp_path: Path, before: Any, now: Any) -> tuple[str, ...]:
    files = (
        load_study(write_study(tmp_path, SCRIPTED, axes={"K": axis}, when={}, search={"sampler": "tpe", "trials": 9}))
        for axis in (before, now)
    )
    return compare_studies(*(resolved_yaml(file) for file in files)).refused


def test_the_prior_of_a_study_stays_and_may_get_weights_of_new_values(tmp_path: Path) -> None:
    prior = {"values": [3, 7], "prior": [1, 2]}
    assert not _compared(tmp_path, prior, prior)
    assert not _compared(tmp_path, prior, {"values": [3, 13, 7], "prior": [1, 5, 2]})
    for now in ([3, 7], {"values": [3, 7], "prior": [2, 1]}):
        (text,) = _compared(tmp_path, prior, now)
        assert "(the prior was chosen before the first result)" in text
    assert _compared(tmp_path, [3, 7], prior)
    (text,) = _compared(tmp_path, prior, {"values": [3], "prior": [1]})
    assert "(without 7)" in text


def test_the_commands_take_a_file_with_a_prior(tmp_path: Path) -> None:
    study = _played(tmp_path, _axes(BEST), 6)
    for command in ("show", "status", "best"):
        result = called(command, study.path, cwd=tmp_path)
        assert result.returncode == 0, result.stderr


@pytest.mark.long
def test_a_good_prior_helps_and_a_wrong_one_does_not_ruin_the_search(tmp_path: Path) -> None:
    """The best accuracy so far in 16 searches of 40 of 5,184 networks, of which the best has 80.

    The wrong prior favors the value of each axis that is farthest from the best one.
    """
    wrong = {"K[0]": 31, "K[1]": 3, "K[2]": 31, "K[3]": 3, "ffn_ratio": 4}
    curves = {
        name: [_curve(tmp_path, _axes(likely), seed) for seed in range(16)]
        for name, likely in {"none": None, "good": BEST, "wrong": wrong}.items()
    }
    during = {name: fmean(fmean(curve) for curve in each) for name, each in curves.items()}
    last = {name: fmean(curve[-1] for curve in each) for name, each in curves.items()}
    assert during["good"] > during["none"] + 0.7, during
    assert during["wrong"] > during["none"] - 1.0, during
    assert last["good"] > last["none"] - 0.2, last
    assert last["wrong"] > last["none"] - 0.7, last


def _curve(folder: Path, axes: dict[str, Any], seed: int) -> list[float]:
    """The best accuracy after each of 40 trials of a search in memory, without training and storing runs."""
    search = {"sampler": "tpe", "trials": 40, "seeds": 1, "seed": seed}
    keys: dict[str, Any] = {"base": {"B": 1, "C": 8, "K": 3}, "axes": axes, "when": {}, "search": search}
    file = load_study(write_study(folder, SCRIPTED, **keys))
    space, history = open_space(file), StudyHistory()
    trials = optuna.create_study(direction="maximize", sampler=build_sampler(file.study.search, space, 0))
    proposals, values = Proposals(file.study, space, trials, history), []
    while (opened := proposals.open(in_progress=0)) is not None:
        values.append(_accuracy(opened.spec, opened.runs[0].id))
        history.end(trials.tell(opened.trial, values[-1]))
    assert len(values) == 40
    return list(accumulate(values, max))
