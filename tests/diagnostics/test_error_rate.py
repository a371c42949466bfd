"""The A/A test: the rate of false verdicts from recorded pairs, and the coverage of intervals over data sets."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_studies import EPOCHS, SCRIPTED, Played, Script, called, epoch, started, write_study

from harness.analysis.statistics import Plan
from harness.analysis.statistics.calibration import ErrorRate, coverage, false_verdicts, variance_parts
from harness.config.study_file import load_study
from harness.training.run import Ended, Job, Measured, Record, RunState

PLAN = Plan(first=3, most=8)
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("noise", ["normal", "heavy", "steps"])
def test_equal_arms_come_to_no_more_false_verdicts_than_allowed(noise: str) -> None:
    rng = np.random.default_rng(0)
    draws = {"normal": rng.standard_normal(40), "heavy": rng.standard_t(3, 40), "steps": rng.normal(0, 4, 40).round()}
    rate = false_verdicts(draws[noise].tolist(), PLAN, studies=4000, seed=0)
    assert rate.studies == 4000 and rate.low <= PLAN.alpha


def test_the_mean_of_the_recorded_pairs_does_not_count() -> None:
    """Arms change places at random, so that a chance difference of all pairs is no effect of the drawn studies."""
    values = (np.random.default_rng(0).standard_normal(40) + 0.4).tolist()
    assert false_verdicts(values, PLAN, studies=2000, seed=0).low <= PLAN.alpha


def test_levels_that_are_too_lax_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "level", lambda *_: 0.05)
    values = np.random.default_rng(0).standard_normal(40).tolist()
    assert false_verdicts(values, PLAN, studies=4000, seed=0).low > PLAN.alpha, "every look at 5 %"


def test_fewer_pairs_than_the_plan_takes_are_refused() -> None:
    with pytest.raises(ValueError, match="needs as many differences, but got 7"):
        false_verdicts([0.0] * 7, PLAN, studies=1000, seed=0)


def test_a_rate_has_its_exact_interval() -> None:
    assert ErrorRate.of(0, 20)[2:] == pytest.approx((0.0, 0.16843), abs=1e-5)
    assert ErrorRate.of(5, 100)[2:] == pytest.approx((0.01643, 0.11283), abs=1e-4)
    assert ErrorRate.of(20, 20).high == 1.0


@pytest.mark.parametrize(("between", "within"), [(0.0, 1.0), (1.0, 1.0), (2.0, 0.5)])
def test_the_parts_of_a_variance_are_found(between: float, within: float) -> None:
    rng = np.random.default_rng(0)
    effects = 3 + between * rng.standard_normal(400)
    parts = variance_parts({i: (e + within * rng.standard_normal(4)).tolist() for i, e in enumerate(effects)})
    assert parts.effect == pytest.approx(3, abs=0.25)
    assert np.sqrt(parts.between) == pytest.approx(between, abs=0.2)
    assert np.sqrt(parts.within) == pytest.approx(within, rel=0.05)
    assert (parts.p < 0.001) == (between > 0)


@pytest.mark.parametrize("between", [0.0, 0.5, 2.0])
def test_the_predicted_coverage_is_the_simulated_coverage(between: float) -> None:
    """Simulated: intervals of 4 seeds of one data set, against the effect over all data sets."""
    rng, seeds = np.random.default_rng(1), 4
    values = between * rng.standard_normal((20_000, 1)) + rng.standard_normal((20_000, seeds))
    half = 3.182446 * values.std(axis=1, ddof=1) / np.sqrt(seeds)
    simulated = (np.abs(values.mean(axis=1)) <= half).mean()
    assert coverage(1 + seeds * between**2, seeds) == pytest.approx(simulated, abs=0.01)
    assert (simulated > 0.94) == (between == 0)


def test_seeds_with_data_of_their_own_keep_the_coverage() -> None:
    rng = np.random.default_rng(2)
    values = 2.0 * rng.standard_normal((20_000, 4)) + rng.standard_normal((20_000, 4))
    half = 3.182446 * values.std(axis=1, ddof=1) / 2
    assert (np.abs(values.mean(axis=1)) <= half).mean() == pytest.approx(0.95, abs=0.01)


def test_data_sets_without_a_spread_are_no_error() -> None:
    assert variance_parts({"a": [1.0, 1.0], "b": [1.0, 1.0]}).between == 0.0
    assert variance_parts({"a": [1.0, 1.0], "b": [2.0, 2.0]}).coverage == 0.0


@pytest.mark.parametrize("values", [{}, {"a": [1.0, 2.0]}, {"a": [1.0, 2.0], "b": [1.0]}])
def test_too_few_data_sets_are_refused(values: dict[object, list[float]]) -> None:
    with pytest.raises(ValueError, match="2 data sets with 2 seeds each are needed"):
        variance_parts(values)


# --- the verb

AA: dict[str, Any] = {
    "study": "question",
    "axes": {"replica": [0, 1]},
    "when": {},
    "search": {"seeds": 40},
    "claims": [{"name": "b_over_a", "says": "b", "contrast": {"replica=1": 1, "replica=0": -1}, "expect": "> 0"}],
}


def noisy(job: Job) -> Iterator[Record]:
    """A run whose accuracy hangs on its training seed alone."""
    top1 = 60 + 3 * np.random.default_rng(job.run.training_seed).standard_normal()
    yield started()
    for n in range(1, EPOCHS + 1):
        yield epoch(n, top1)
    yield Measured("val_images", 1000.0)
    yield Ended(RunState.COMPLETE, wall_s=1.0)


def played(folder: Path, script: Script = noisy, **changes: Any) -> Played:
    study = Played(folder, **(AA | changes))
    for _ in study.events(script):
        pass
    return study


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the study without changes, run to its end."""
    return played(tmp_path_factory.mktemp("original")).path.parent


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return shutil.copytree(original, tmp_path / "copy")


@pytest.mark.long
def test_the_verb_counts_false_verdicts(folder: Path) -> None:
    result = called("aa", "study.yaml", "--studies", "2000", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "40 pairs of equal arms" in result.stdout and "Of 2,000 studies" in result.stdout
    assert "5 % are allowed" in result.stdout and "each seed has its own" in result.stdout.replace("\n", " ")
    values = json.loads(called("aa", "study.yaml", "--json", cwd=folder).stdout)
    assert values["false_verdicts"]["studies"] == 10_000 and values["holds"]


def test_the_rate_of_unpaired_studies_is_measured_on_the_same_runs(folder: Path) -> None:
    rates = {}
    for pairing in ("seed", "none"):
        result = called("aa", "study.yaml", "--pairing", pairing, "--studies", "4000", "--json", cwd=folder)
        values = json.loads(result.stdout)
        assert result.returncode == 0 and values["pairing"] == pairing, result.stderr
        rates[pairing] = values["false_verdicts"]["share"]
    assert rates["seed"] != rates["none"] <= 0.05
    text = " ".join(called("aa", "study.yaml", "--pairing", "none", "--studies", "1000", cwd=folder).stdout.split())
    assert "with looks at 3 to 8 pairs, unpaired (Welch), " in text and "Pairing by seed " in text
    result = called("aa", "study.yaml", "study.yaml", "--pairing", "none", cwd=folder)
    assert result.returncode == 2 and "`--pairing` needs one study" in result.stderr


def test_a_study_without_pairing_is_measured_as_it_is_judged(tmp_path: Path) -> None:
    played(tmp_path, search={"seeds": 40, "pairing": "none"})
    values = json.loads(called("aa", "study.yaml", "--studies", "1000", "--json", cwd=tmp_path).stdout)
    assert values["pairing"] == "none" and values["holds"]


def test_a_rate_above_the_plan_is_exit_code_1(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "level", lambda *_: 0.05)
    result = called("aa", "study.yaml", cwd=folder)
    assert result.returncode == 1 and "more false verdicts than the plan allows" in result.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"search": {"seeds": 39}}, (), "at least 40 seeds"),
        ({"claims": []}, (), "must have one claim"),
        ({}, ("--studies", "999"), "from 1,000 to 1,000,000"),
        ({}, ("--first", "9"), "must be a plan"),
        ({}, ("--most", "41"), "at most the seeds that there are"),
    ],
)
def test_what_is_no_aa_test_is_refused(
    folder: Path, changes: dict[str, Any], options: tuple[str, ...], words: str
) -> None:
    write_study(folder, SCRIPTED, **(AA | changes))
    result = called("aa", "study.yaml", *options, cwd=folder)
    assert result.returncode == 2 and words in result.stderr.replace("\n", " ")


@pytest.mark.long
def test_arms_of_two_networks_are_refused(tmp_path: Path) -> None:
    claims = [{"name": "a", "says": "b", "contrast": {"K=5": 1, "K=3": -1}, "expect": "> 0"}]
    played(tmp_path, axes={"K": [[3, 3, 3, 3], [5, 5, 5, 5]]}, claims=claims)
    result = called("aa", "study.yaml", cwd=tmp_path)
    assert result.returncode == 2 and "differ in `replica` alone" in result.stderr


@pytest.mark.long
def test_several_studies_part_their_effect(tmp_path: Path) -> None:
    for n in range(3):
        study = played(tmp_path, study=f"set_{n}", proxy=SCRIPTED["proxy"] | {"data_seed": n}, search={"seeds": 4})
        study.path.rename(tmp_path / f"set_{n}.yaml")
    files = [f"set_{n}.yaml" for n in range(3)]
    result = called("aa", *files, cwd=tmp_path)
    assert result.returncode == 0 and "over 3 data sets with 4 seeds each" in result.stdout, result.stderr
    result = called("aa", files[0], files[0], cwd=tmp_path)
    assert result.returncode == 2 and "must be different ones" in result.stderr


@pytest.mark.parametrize("name", ["aa", "aa_shared", "data_set"])
def test_the_shipped_studies_are_sound(name: str) -> None:
    study = load_study(REPOSITORY / "search_spaces" / f"{name}.yaml").study
    assert len(study.claims) == 1
    assert study.proxy.resample == ("split" if name == "aa" else "none")
    assert study.search.seeds >= 40 or name == "data_set"


def test_a_study_that_was_never_run_is_refused(tmp_path: Path) -> None:
    write_study(tmp_path, SCRIPTED, **AA)
    result = called("aa", "study.yaml", cwd=tmp_path)
    assert result.returncode == 2 and "Traceback" not in result.stderr
