"""Trust in a proxy, of searches that a script plays: rungs, survivors, larger runs, coin tosses, scores, page, JSON."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_studies import EPOCHS, Played, Script, called, epoch, started, text_of

from harness.analysis.pruned_decisions import LEAST_DEGREES
from harness.analysis.statistics.rank_correlation import LEAST_CONFIGURATIONS, RankCorrelation, rank_correlation
from harness.analysis.study_reader import open_study_reader
from harness.analysis.trust import ScoreCorrelation, TrustResult, study_trust
from harness.analysis.trust_observations import Population
from harness.analysis.trust_values import trust_values
from harness.errors import UserError
from harness.report.trust import answer_lines, ceiling_lines, note_lines, score_lines, trust_view
from harness.training.run import Ended, Epoch, Job, Measured, Record, RunState

AXES: dict[str, Any] = {"K[0]": [3, 7, 13, 19], "K[3]": [3, 7, 13], "shortcut": [True, False], "reparam": [None, 3]}
KEYS: dict[str, Any] = {
    "axes": AXES,
    "when": {},
    "search": {"sampler": "tpe", "trials": 60, "seeds": 2, "space_filling": 0.5, "pruner": "successive_halving"},
    "proxy": {"epochs": EPOCHS, "schedule": {"warmup_epochs": 0}, "measures": ["zero_cost"]},
}
SPACE_FILLING, SURVIVORS = Population.SPACE_FILLING, Population.SURVIVORS


def script(noise: float = 1.0, *, early: float = 1.0) -> Script:
    """Larger kernels are better; a run differs by `noise`, and from its end by `early` in each epoch before it."""

    def play(job: Job) -> Iterator[Record]:
        spec, dice = job.run.spec, random.Random(job.run.id)
        quality = 60.0 + 0.5 * spec.K[0] + 0.3 * spec.K[3] + spec.at("shortcut", 0) + dice.gauss(0, noise)
        yield started()
        yield Measured("synflow_log10", 10.0 + spec.K[0] + 0.1 * spec.K[3])
        yield Measured("naswot_logdet", -quality + dice.gauss(0, 0.1))
        yield Measured("grad_norm", dice.gauss(0, 1))
        for n in range(1, EPOCHS + 1):
            yield epoch(n, quality - 10 * (EPOCHS - n) + dice.gauss(0, early) * (n < EPOCHS))
        yield Measured("latency_ms_p50", 1.0)
        yield Ended(RunState.COMPLETE, wall_s=1.0)

    return play


def played(folder: Path, how: Script | None = None, **overrides: Any) -> Played:
    study = Played(folder, **KEYS | overrides)
    for _ in study.events(how or script()):
        pass
    return study


def trust_of(study: Played) -> TrustResult:
    with open_study_reader(study.path, study.workspace) as reader:
        return study_trust(reader.file, reader.space(), reader.store, reader.trials)


@pytest.fixture(scope="module")
def finished_search(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return played(tmp_path_factory.mktemp("search"))


def test_a_rung_is_compared_with_the_other_seeds_and_its_ceiling_with_itself(tmp_path: Path) -> None:
    """On a grid that is trained whole, the numbers follow from the values of the script."""
    search = {"seeds": 3}
    study = played(tmp_path, axes=AXES | {"reparam": [None], "shortcut": [True]}, search=search)
    result = trust_of(study)
    assert result.finished == {SPACE_FILLING: 12} and result.population is SPACE_FILLING
    curves = curves_of(study)
    for rung in result.rungs.rungs:
        series = []
        for seed in range(3):
            others = [other for other in range(3) if other != seed]
            early = [runs[seed][rung.epochs - 1] for runs in curves]
            series.append((early, [sum(runs[other][-1] for other in others) / 2 for runs in curves]))
        assert rung.by_population[SPACE_FILLING].correlation == rank_correlation(*series)
    ceiling = result.rungs.full
    assert ceiling is not None and ceiling.by_population[SPACE_FILLING].below_ceiling is None
    first = result.rungs.rungs[0].by_population[SPACE_FILLING]
    top = ceiling.by_population[SPACE_FILLING].correlation.tau
    assert first.correlation.tau is not None and top is not None and first.below_ceiling is not None
    assert first.below_ceiling == pytest.approx(top - first.correlation.tau)
    assert first.below_interval is not None and first.below_interval[0] <= first.below_ceiling
    assert not any(rung.is_decision for rung in result.rungs.rungs)


def curves_of(study: Played) -> list[list[list[float]]]:
    """The accuracy after each epoch, by configuration and seed."""
    with open_study_reader(study.path, study.workspace) as reader:
        links = reader.store.trial_runs("question")
        epochs = reader.store.epochs_of_runs(run_id for ids in links.values() for run_id in ids)
        return [[[e.top1 for e in epochs[run_id]] for run_id in links[trial]] for trial in sorted(links)]


def test_with_a_pruner_the_unselected_come_first_and_survivors_are_marked(finished_search: Played) -> None:
    result = trust_of(finished_search)
    assert result.population is SPACE_FILLING and set(result.finished) == {SPACE_FILLING, SURVIVORS}
    assert result.finished[SURVIVORS] > result.finished[SPACE_FILLING] >= LEAST_CONFIGURATIONS
    decisions = [rung for rung in result.rungs.rungs if rung.is_decision]
    assert [rung.epochs for rung in decisions] == [2]
    assert decisions[0].screening is not None and decisions[0].screening.n < result.finished[SURVIVORS]
    notes = " ".join(note_lines(result))
    assert not ceiling_lines(result)
    assert "so these numbers are biased" in notes and "the noise of seeds lets no rung do better" in notes


@pytest.mark.long
def test_survivors_alone_understate_a_rung(tmp_path: Path) -> None:
    """Range restriction: the same script, the same rung, on average a smaller tau of those that the pruner kept."""
    differences = []
    for n in range(3):
        folder = tmp_path / str(n)
        folder.mkdir()
        search = KEYS["search"] | {"sampler": "random", "seed": 10 * n, "trials": 72}
        result = trust_of(played(folder, script(1.0, early=2.0), search=search))
        (rung,) = (rung for rung in result.rungs.rungs if rung.is_decision)
        drawn = rung.by_population[SPACE_FILLING].correlation.tau
        assert rung.screening is not None and rung.screening.tau is not None and drawn is not None
        differences.append(drawn - rung.screening.tau)
    assert sum(differences) / len(differences) > 0


@pytest.mark.long
def test_without_a_share_that_nothing_selected_the_numbers_are_those_of_survivors(tmp_path: Path) -> None:
    result = trust_of(played(tmp_path, search=KEYS["search"] | {"space_filling": 0.0}))
    assert result.population is SURVIVORS and set(result.finished) == {SURVIVORS}
    assert any("of survivors alone, which biases it" in line for line in answer_lines(result))


def test_a_grid_with_a_pruner_is_no_unselected_sample(tmp_path: Path) -> None:
    axes = {"K[0]": [3, 7, 13], "K[3]": [3, 7, 13]}
    result = trust_of(played(tmp_path, axes=axes, search={"seeds": 2, "pruner": "successive_halving"}))
    assert set(result.finished) == {SURVIVORS} and result.pruned.pruned > 0


def test_what_a_sampler_chose_without_a_pruner_is_named(tmp_path: Path) -> None:
    search = {"sampler": "tpe", "trials": 15, "seeds": 1}
    result = trust_of(played(tmp_path, search=search))
    assert set(result.finished) == {Population.VISITED}
    assert result.rungs.full is None and result.rungs.seeds == 1
    notes = " ".join(note_lines(result))
    assert "whose noise is in both" in notes and "not of the space" in notes


@pytest.mark.long
def test_a_full_budget_that_orders_nothing_is_named(tmp_path: Path) -> None:
    search = {"sampler": "random", "trials": 20, "seeds": 2}
    chance = trust_of(played(tmp_path, script(100.0), search=search))
    assert [line.split(":")[0] for line in ceiling_lines(chance)] == ["The full budget does not order configurations"]


def test_a_few_configurations_allow_no_statement(tmp_path: Path) -> None:
    axes = {"K[0]": [3, 7, 13]}
    result = trust_of(played(tmp_path, axes=axes, search={"seeds": 2}))
    for rung in result.rungs.rungs:
        assert rung.by_population[SPACE_FILLING].correlation.interval is None
    lines = list(score_lines(result))
    assert any("Too few configurations for a statement" in line for line in lines)
    assert not any("Not shown" in line or "order configurations" in line for line in lines)


def test_scores_are_worth_what_their_intervals_say(finished_search: Played) -> None:
    """SynFlow follows the quality here, NASWOT is its opposite, and the gradient norm is chance."""
    result = trust_of(finished_search)
    scores = {score.name: score.by_population[SPACE_FILLING] for score in result.scores}
    assert set(scores) == {"macs", "synflow_log10", "grad_norm", "naswot_logdet"}  # the script has no field
    assert scores["synflow_log10"].is_positive
    assert not scores["grad_norm"].is_positive and not scores["naswot_logdet"].is_positive
    assert scores["naswot_logdet"].interval is not None and scores["naswot_logdet"].interval[1] < 0
    lines = list(score_lines(result))
    useful, opposite = (
        next(line for line in lines if words in line) for words in ("as their training does", "the other way round")
    )
    assert "synflow_log10" in useful and "naswot_logdet" in opposite
    assert all(f"(n = {result.finished[SPACE_FILLING]} space-filling)" in line for line in (useful, opposite))
    assert all(line in " ".join(answer_lines(result)) for line in (useful, opposite))


def test_a_wide_interval_does_not_state_that_a_score_is_worth_nothing(finished_search: Played) -> None:
    unclear = ScoreCorrelation("grad_norm", {SPACE_FILLING: RankCorrelation(0.4, (-0.05, 0.8), 12)})
    result = replace(trust_of(finished_search), scores=(unclear,), first_rung="grad_norm")
    lines = list(score_lines(result))
    assert "chose among the sampler's proposals by grad_norm" in answer_lines(result)[0]
    assert lines[0] == (
        "Not shown to be worth anything here, because the interval of tau contains 0 (n = 12 space-filling): grad_norm "
        "0.40 [-0.05, 0.80]."
    )


@pytest.mark.long
def test_for_an_objective_to_minimize_a_good_score_is_positive_too(tmp_path: Path) -> None:
    def losses(job: Job) -> Iterator[Record]:
        for record in script()(job):
            yield replace(record, val_loss=100.0 - record.top1) if isinstance(record, Epoch) else record

    result = trust_of(played(tmp_path, losses, objectives={"val_loss": "minimize"}))
    scores = {score.name: score.by_population[SPACE_FILLING] for score in result.scores}
    assert scores["synflow_log10"].is_positive and not scores["naswot_logdet"].is_positive
    tau = result.rungs.rungs[-1].by_population[SPACE_FILLING].correlation.tau
    assert tau is not None and tau > 0
    assert all(decision.value > decision.needed for decision in result.pruned.decisions)  # losses


@pytest.mark.long
def test_larger_runs_of_the_same_networks_are_found_whoever_trained_them(tmp_path: Path) -> None:
    axes = {"K[0]": [3, 7, 13, 19], "K[3]": [3, 7, 13]}
    small = played(tmp_path, axes=axes, search={"seeds": 2}, proxy={"epochs": EPOCHS, "schedule": {"warmup_epochs": 0}})
    assert trust_of(small).larger.trainings == ()
    large_proxy = {"epochs": 2 * EPOCHS, "resolution": 96, "schedule": {"warmup_epochs": 0}}
    folder = tmp_path / "larger"
    folder.mkdir()

    def longer(job: Job) -> Iterator[Record]:
        dice = random.Random(job.run.id)
        yield replace(started(), epochs=2 * EPOCHS)
        for n in range(1, 2 * EPOCHS + 1):
            yield epoch(n, 60 + job.run.spec.K[0] + 0.3 * job.run.spec.K[3] + dice.gauss(0, 0.5))
        yield Ended(RunState.COMPLETE, wall_s=1.0)

    large = Played(folder, study="larger", axes=axes, when={}, search={"seeds": 2, "seed": 1}, proxy=large_proxy)
    large.workspace = small.workspace
    for _ in large.events(longer):
        pass
    (trainings,) = trust_of(small).larger.trainings
    assert trainings.title == f"resolution 96 instead of 64, epochs {2 * EPOCHS} instead of {EPOCHS}"
    assert trainings.ratio == pytest.approx(2 * (96 / 64) ** 2)
    assert trainings.seeds == (1, 2) and trainings.shares_seeds
    correlation = trainings.by_population[SPACE_FILLING]
    assert correlation.n == 12 and correlation.tau is not None and correlation.tau > 0.4
    assert trainings.ceiling is not None and trainings.ceiling.n == 12
    assert trust_of(large).larger.trainings == ()  # the small ones are not larger


def test_decisions_of_the_pruner_have_a_probability_and_those_near_it_are_named(finished_search: Played) -> None:
    pruned = trust_of(finished_search).pruned
    assert pruned.reason is None and pruned.spreads and pruned.decisions
    assert len(pruned.decisions) + pruned.not_reproduced == pruned.pruned
    assert pruned.not_reproduced == 0  # one worker
    assert all(decision.value < decision.needed for decision in pruned.decisions)
    assert all(0 < decision.probability < 0.6 for decision in pruned.decisions)
    ordered = [decision.probability for decision in pruned.decisions]
    assert ordered == sorted(ordered, reverse=True)
    assert len(pruned.coin_tosses(ordered[0])) == 1 and not pruned.coin_tosses(1.0)
    (spread, degrees) = pruned.spreads[2]
    assert degrees >= LEAST_DEGREES and 1.0 < spread < 2.0  # the script has sqrt(2)


@pytest.mark.long
def test_without_a_spread_between_seeds_no_decision_is_called_a_coin_toss(tmp_path: Path) -> None:
    result = trust_of(played(tmp_path, search=KEYS["search"] | {"seeds": 1, "trials": 30}))
    assert result.pruned.pruned > 0 and result.pruned.decisions == ()
    assert result.pruned.reason == "each configuration has one seed, so the spread between seeds is not known"


def test_epochs_that_are_an_axis_share_no_rung(tmp_path: Path) -> None:
    def by_recipe(job: Job) -> Iterator[Record]:
        yield replace(started(), epochs=job.run.recipe.epochs)
        for n in range(1, job.run.recipe.epochs + 1):
            yield epoch(n, 50.0 + job.run.spec.K[0] + random.Random(job.run.id).gauss(0, 1))
        yield Ended(RunState.COMPLETE, wall_s=1.0)

    axes = {"K[0]": [3, 7, 13], "recipe.epochs": [2, 4]}
    result = trust_of(played(tmp_path, by_recipe, axes=axes, search={"seeds": 2}))
    assert result.rungs.reason == "configurations have different numbers of epochs, so they share no rung"
    assert result.larger.reason == "several configurations have the same network, with recipes of their own"


def test_the_command_prints_the_page_and_json(finished_search: Played) -> None:
    folder = finished_search.path.parent
    shown = called("trust", "study.yaml", cwd=folder)
    assert shown.returncode == 0, shown.stderr
    flat = " ".join(shown.stdout.split())
    for words in (
        "may its proxy be trusted?",
        "the ceiling",
        "survivors alone",
        "Coin tosses",
        "as their training does",
    ):
        assert words in flat
    values = json.loads(called("trust", "study.yaml", "--json", "--level", "0.1", cwd=folder).stdout)
    assert set(values) == {
        *("study", "metric", "pruner", "first_rung", "method", "shown_first", "finished", "lost", "rungs", "seeds"),
        *("no_rungs_because", "larger", "no_larger_because", "pruned", "scores"),
    }
    assert values["pruned"]["level"] == 0.1 and values["shown_first"] == "space-filling"
    assert values == json.loads(json.dumps(trust_values(trust_of(finished_search), 0.1)))
    refused = called("trust", "study.yaml", "--level", "2", cwd=folder)
    assert refused.returncode == 2 and "must be from 0 to 1, but got 2" in refused.stderr


def test_the_page_fits_a_terminal(finished_search: Played) -> None:
    for width in (80, 120, 200):
        lines = [text_of(part, width) for part in trust_view(trust_of(finished_search))]
        assert max(len(line) for text in lines for line in text.splitlines()) <= width


def test_an_untrained_study_is_refused(tmp_path: Path) -> None:
    study = Played(
        tmp_path, axes={"K[0]": [3, 7]}, when={}, objectives={"macs": "minimize"}, proxy={"epochs": 0}, search={}
    )

    def untrained(_: Job) -> Iterator[Record]:
        yield replace(started(), epochs=0)
        yield Ended(RunState.COMPLETE, wall_s=1.0)

    for _ in study.events(untrained):
        pass
    with pytest.raises(UserError, match="must be at least 1 to compare rungs and scores"):
        trust_of(study)


def test_a_study_without_results_says_so(tmp_path: Path) -> None:
    study = Played(tmp_path, **KEYS | {"search": KEYS["search"] | {"trials": 3}})

    def failing(_: Job) -> Iterator[Record]:
        yield started()
        yield Ended(RunState.DIVERGED, wall_s=1.0, cause="the training loss is nan")

    for _ in study.events(failing):
        pass
    result = trust_of(study)
    page = " ".join(text_of(part) for part in trust_view(result))
    assert "no configuration has a final value with all of its seeds yet" in page
    assert result.lost and "Space-filling configurations that ended without a final value are missing" in page
