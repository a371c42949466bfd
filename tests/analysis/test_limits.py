"""Results at chance or at their ceiling are marked and have no best; and all results name the noise they include."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tiny_studies import EPOCHS, SCRIPTED, Played, Script, called, epoch, started, text_of, write_study

from harness.analysis.claims import evaluate_claims
from harness.analysis.conclusions import conclusions
from harness.analysis.limits import CorrectCounts, Limit, at_least, is_above, limit_of, sampling_error
from harness.analysis.results import StudyResults, noise_line
from harness.analysis.study_reader import open_space, open_study_reader
from harness.config.study_file import load_study, resolved_yaml
from harness.config.study_growth import study_values
from harness.report.claims import ClaimsSummary
from harness.report.event_log import EventFormatter
from harness.report.live import LiveState, LiveView
from harness.report.study import results_view
from harness.training.run import Ended, Job, Measured, Record, RunState

IMAGES = 1000


def counts(*accuracies: float, images: int = IMAGES, chance: float = 12.5) -> list[CorrectCounts]:
    return [CorrectCounts.of(accuracy, images, chance) for accuracy in accuracies]


# --- the tests themselves


@pytest.mark.parametrize(
    ("runs", "limit"),
    [
        (counts(12.5), Limit.CHANCE),
        (counts(12.5, 12.5), Limit.CHANCE),
        (counts(0.0), Limit.CHANCE),
        (counts(14.0), Limit.CHANCE),
        (counts(16.0), None),
        (counts(14.0, 14.0, 14.0, 14.0), None),  # together, four seeds tell what one does not
        (counts(60.0, chance=60.0), Limit.CHANCE),  # of a class that has 60 % of the images
        (counts(60.0), None),
        (counts(100.0), Limit.CEILING),
        (counts(99.5), Limit.CEILING),
        (counts(99.3), None),
        (counts(99.7, 99.8, 99.8), None),  # 7 errors of 3,000 images
        (counts(100.0, chance=100.0), Limit.CHANCE),  # one class alone
        ([], None),
    ],
)
def test_limits_of_accuracies(runs: list[CorrectCounts], limit: Limit | None) -> None:
    assert limit_of(runs) == limit


def test_a_network_at_chance_is_rarely_taken_for_better() -> None:
    studies = np.random.default_rng(0).binomial(IMAGES, 1 / 8, (2000, 2))
    limits = [limit_of([CorrectCounts(int(k), IMAGES, 1 / 8) for k in study]) for study in studies]
    assert 0.02 < limits.count(None) / 2000 < 0.065


def test_twenty_networks_at_chance_are_rarely_taken_for_better() -> None:
    rng = np.random.default_rng(0)
    studies = rng.binomial(IMAGES, 1 / 8, (500, 20))
    some = [any(limit_of([CorrectCounts(int(k), IMAGES, 1 / 8)], tests=20) is None for k in study) for study in studies]
    assert np.mean(some) < 0.08


def test_the_binomial_tail() -> None:
    assert at_least(0, 10, 0.5) == 1.0
    assert at_least(10, 10, 0.5) == pytest.approx(2**-10)
    assert at_least(5, 10, 0.5) == pytest.approx(0.623046875)


def test_values_above_a_level() -> None:
    assert is_above([3.0], 2.0) and not is_above([2.0], 2.0)
    assert is_above([3.0, 3.0], 2.0) and not is_above([2.0, 2.0], 2.0)
    assert is_above([3.0, 3.1, 2.9], 2.0) and not is_above([2.1, 1.9, 2.05], 2.0)


def test_the_sampling_error_is_that_of_a_share() -> None:
    assert sampling_error(90.0, 1000) == pytest.approx(0.949, abs=1e-3)
    assert sampling_error(90.0, 8000) == pytest.approx(0.335, abs=1e-3)
    assert sampling_error(100.0, 10) == sampling_error(0.0, 10) == 0.0


# --- studies


Number = float | Callable[[Job], float]


def scored(top1: Number, **measures: Number) -> Script:
    def value(number: Number, job: Job) -> float:
        return number(job) if callable(number) else number

    def script(job: Job) -> Iterator[Record]:
        yield started()
        for n in range(1, EPOCHS + 1):
            yield epoch(n, value(top1, job))
        yield Measured("val_images", float(IMAGES))
        yield from (Measured(name, value(number, job)) for name, number in measures.items())
        yield Ended(RunState.COMPLETE, wall_s=1.0)

    return script


CHANCE = scored(12.5)
CEILING = scored(lambda job: 100.0 - 0.1 * (job.run.spec.K[0] == 3))
CLAIM: dict[str, Any] = {
    "name": "larger",
    "says": "13 is ahead of 3",
    "contrast": {"K=13, reparam=5": 1, "K=3": -1},
    "expect": "> 0",
    "ignore": 1,
}


@pytest.fixture(scope="module")
def at_chance(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyResults]:
    """The folder of a finished study at chance, which is only read, and its results."""
    folder = tmp_path_factory.mktemp("at_chance")
    return folder, Played(folder).answer(CHANCE)


@pytest.mark.long
@pytest.mark.parametrize(("script", "limit"), [(CHANCE, "chance"), (CEILING, "ceiling")])
@pytest.mark.parametrize("objective", ["top1", "val_loss"])
def test_a_study_at_a_limit_names_nothing(tmp_path: Path, script: Script, limit: str, objective: str) -> None:
    results = Played(tmp_path, objectives={objective: "maximize" if objective == "top1" else "minimize"}).answer(script)
    assert results.limit == limit and results.complete
    assert results.best is None and results.best_so_far is None and results.front == () and results.unseparated() == ()
    (line,) = conclusions(results)
    assert f"at {'chance' if limit == 'chance' else 'the ceiling'}" in line and "nothing can be told apart here" in line
    text = text_of(results_view(results), width=300)
    assert "Best network" not in text and "Pareto front" not in text and "nothing can be told apart" in text


def test_a_limit_is_in_what_programs_read_and_ends_well(at_chance: tuple[Path, StudyResults]) -> None:
    folder, _ = at_chance
    shown = json.loads(called("show", "study.yaml", "--json", cwd=folder).stdout)
    assert (shown["limit"], shown["best_trial"], shown["pareto_front"]) == ("chance", None, [])
    assert {row["limit"] for row in shown["configurations"]} == {"chance"}
    assert json.loads(called("status", "study.yaml", "--json", cwd=folder).stdout)["best"] is None
    assert "at chance" in called("status", "study.yaml", cwd=folder).stdout
    assert "at chance" in called("show", "study.yaml", cwd=folder).stdout


def scenes(played: Played, script: Script) -> list[str]:
    """What the live view shows as the best after every event."""
    state = LiveState("question", None, "top1", "maximize", EventFormatter("top1"))
    shown = []
    for event, progress, _ in played.events(script):
        state.update(event, progress)
        shown += [line for line in text_of(state.draw(), width=300).splitlines() if line.startswith("best top1")]
    return shown


@pytest.mark.parametrize("script", [CHANCE, CEILING])
def test_the_live_view_names_no_best_at_a_limit_in_the_words_of_the_answer(tmp_path: Path, script: Script) -> None:
    played = Played(tmp_path)
    shown = scenes(played, script)
    assert {line.partition(":")[2].split(".")[0] for line in shown} == {" none yet", " none"}
    (sentence,) = conclusions(played.answer(script))
    assert shown[-1] == f"best top1 (maximize): none. {sentence}"


def test_the_live_view_of_a_resumed_study_has_the_limits_of_its_earlier_runs(
    at_chance: tuple[Path, StudyResults],
) -> None:
    _, results = at_chance
    state = LiveState("question", None, "top1", "maximize", EventFormatter("top1"))
    LiveView(Console(file=io.StringIO()), state).begin(results)
    assert "at chance (no better than a constant answer, 15 runs" in text_of(state.draw(), width=300)


def test_a_best_at_the_ceiling_is_marked_in_every_view(tmp_path: Path) -> None:
    script = scored(lambda job: 100.0 if job.run.spec.K[0] == 31 else 60.0)
    played = Played(tmp_path, axes={"K": [[3, 3, 3, 3], [31, 29, 27, 13]]}, when={})
    assert scenes(played, script)[-1].endswith("K=31-29-27-13, at the ceiling")
    text = text_of(results_view(played.answer(script)), width=300)
    assert next(line for line in text.splitlines() if "MACs, " in line and "n = 3" in line).endswith("at the ceiling")
    assert "at the ceiling" in called("status", "study.yaml", cwd=tmp_path).stdout


@pytest.mark.parametrize("command", [("best", "study.yaml"), ("train", "best-of", "study.yaml", "--dry-run")])
def test_no_best_network_is_given_of_a_study_at_chance(
    at_chance: tuple[Path, StudyResults], command: tuple[str, ...]
) -> None:
    result = called(*command, cwd=at_chance[0])
    assert result.returncode == 2 and "all at chance" in result.stderr and "--trial" in result.stderr
    assert result.stdout == ""


def test_any_trial_of_a_study_at_chance_can_be_named(at_chance: tuple[Path, StudyResults]) -> None:
    result = called("best", "study.yaml", "--trial", "1", cwd=at_chance[0])
    assert result.returncode == 0 and "trial 1" in result.stdout and "B: [" in result.stdout


def test_one_configuration_above_chance_is_best_and_the_others_are_reported(tmp_path: Path) -> None:
    script = scored(lambda job: 12.5 + 20 * (job.run.spec.K[0] == 31 and job.run.spec.reparam[0] is None))
    results = Played(tmp_path).answer(script)
    assert results.limit is None and results.best is not None and results.best.params["K"] == [31, 29, 27, 13]
    assert {configuration.params["K"][0] for configuration in results.front} == {31}, (
        "nothing at chance is on the front"
    )
    assert "At chance, cannot be told apart: K=" in conclusions(results)[-1]


def test_what_is_at_the_ceiling_is_ahead_of_what_is_at_chance(tmp_path: Path) -> None:
    results = Played(tmp_path).answer(scored(lambda job: 100.0 if job.run.spec.K[0] == 13 else 12.5))
    assert results.limit is None and results.best is not None and results.best.params["K"][0] == 13
    assert results.front and {configuration.params["K"][0] for configuration in results.front} == {13}


def test_a_spread_of_nothing_does_not_separate_what_the_images_do_not(tmp_path: Path) -> None:
    results = Played(tmp_path).answer(scored(lambda job: 60.0 + 0.1 * (job.run.spec.K[0] == 31)))
    assert results.best is not None and results.best.spread == 0.0
    assert len(results.unseparated()) == len(results.complete) - 1
    assert "Not separated" in conclusions(results)[0]


@pytest.mark.parametrize(("script", "limit"), [(CHANCE, "chance"), (CEILING, "ceiling")])
def test_a_claim_at_a_limit_stays_undecided_and_asks_for_no_seed(tmp_path: Path, script: Script, limit: str) -> None:
    played = Played(tmp_path, claims=[CLAIM], search={"seeds": 3, "max_seeds": 8})
    played.answer(script)
    with open_study_reader(played.path, played.workspace) as reader:
        (result,) = evaluate_claims(played.file.study, open_space(played.file), reader.store)
    assert (str(result.verdict), result.limit, len(result.values)) == ("undecided", limit, 3)
    text = called("show", "study.yaml", cwd=tmp_path).stdout
    assert "nothing can be told apart here, and more seeds would not help" in text.replace("\n", " ")


def test_a_claim_of_which_one_arm_is_above_chance_is_decided(tmp_path: Path) -> None:
    played = Played(tmp_path, claims=[CLAIM], search={"seeds": 4})
    played.answer(scored(lambda job: 12.5 + (job.run.spec.K[0] == 13) * (20 + 0.1 * job.run.seed)))
    with open_study_reader(played.path, played.workspace) as reader:
        (result,) = evaluate_claims(played.file.study, open_space(played.file), reader.store)
    assert (str(result.verdict), result.limit) == ("supported", None)


def test_masks_are_at_chance_where_one_class_everywhere_does_as_well(tmp_path: Path) -> None:
    proxy = SCRIPTED["proxy"] | {"transfer": {"head": "deeplabv3plus"}}
    script = scored(60.0, miou=lambda job: 9.0 + 0.01 * job.run.seed, chance_miou=9.05)
    assert Played(tmp_path, objectives={"miou": "maximize"}, proxy=proxy).answer(script).limit == "chance"


def test_costs_and_times_have_no_limits(tmp_path: Path) -> None:
    results = Played(tmp_path, objectives={"macs": "minimize"}).answer(CHANCE)
    assert results.limit is None and results.best is not None


# --- noise


def test_the_answer_names_the_noise_it_includes(tmp_path: Path) -> None:
    results = Played(tmp_path).answer(scored(60.0))
    assert "training and validation images (each seed has its own)" in text_of(results_view(results), width=300)
    assert results.resampling == (("split", True),)


def test_a_shared_data_set_is_reported(tmp_path: Path) -> None:
    results = Played(tmp_path, proxy=SCRIPTED["proxy"] | {"resample": "none"}).answer(scored(60.0))
    text = text_of(results_view(results), width=300)
    assert "one data set only" in text and "which are not part of them" in text
    shown = json.loads(called("show", "study.yaml", "--json", cwd=tmp_path).stdout)
    assert shown["resample"] == "none" and "one data set only" in shown["noise"]


def test_mixed_runs_are_reported() -> None:
    line = noise_line([("none", True), ("split", True)])
    assert line is not None and line.startswith("Mixed: ") and "one data set only" in line and "its own" in line
    assert noise_line([]) is None


def test_recorded_summaries_without_the_key_are_of_one_data_set() -> None:
    summary = ClaimsSummary(study="old", conditions="", claims=())
    assert summary.resample == "none" and "one data set only" in summary.noise_line


def test_sampling_error_and_images_are_shown_with_the_spread(played_results: StudyResults) -> None:
    best = played_results.best
    assert best is not None and best.val_images == IMAGES
    assert best.sampling_error == pytest.approx(sampling_error(best.mean or 0.0, IMAGES))
    text = text_of(results_view(played_results))
    assert "± val" in text and "1,000 validation images" in text


def test_a_study_of_an_earlier_version_shared_one_data_set(tmp_path: Path) -> None:
    """So that resuming it with images of its own for each seed is refused as a change."""
    resolved = resolved_yaml(load_study(write_study(tmp_path, SCRIPTED)))
    assert study_values(resolved)["proxy.resample"] == "split"
    before = "\n".join(line for line in resolved.splitlines() if "resample:" not in line)
    assert study_values(before)["proxy.resample"] == "none"
