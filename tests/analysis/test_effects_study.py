"""The effects of a search that a script plays: from its file to the page, JSON, the plot and its summary."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_studies import BRIEF, EPOCHS, TINY, Played, called, epoch, started, text_of, write_study

from harness.analysis.effect_estimators import EffectResult
from harness.analysis.effect_values import effects_values
from harness.analysis.effects import EffectsResult, study_effects
from harness.analysis.study_reader import open_study_reader
from harness.errors import UserError
from harness.report.effects import effects_view, note_lines
from harness.report.plots.effects import draw_effects_figure, plotted_effects
from harness.training.run import Ended, Job, Measured, Record, RunState

KEYS: dict[str, Any] = {
    "axes": {"K[0]": [3, 7, 13], "K[3]": [3, 7, 13], "shortcut": [True, False], "reparam": [None, 3]},
    "when": {},
    "search": {"sampler": "tpe", "trials": 100, "seeds": 1, "space_filling": 0.5},
    "effects": [
        {"axis": "shortcut", "guideline": 2, "says": "The shortcut helps", "paper": "18.55 points (table 2)"},
        {"axis": "K", "guideline": 5, "recorded": "kernel_size.larger"},
        {"pair": ["shortcut", "K"], "guideline": 2},
    ],
}


def script(job: Job) -> Iterator[Record]:
    """Shortcut 3 points, and 1 more for each of two stages with K=13; each stage's kernel 2 points from 3 to 13."""
    spec = job.run.spec
    value = 60.0 + 3 * spec.at("shortcut", 0) + 0.2 * (spec.K[0] + spec.K[3]) + random.Random(job.run.id).gauss(0, 0.3)
    value += spec.at("shortcut", 0) * ((spec.K[0] == 13) + (spec.K[3] == 13))
    yield started()
    for n in range(1, EPOCHS + 1):
        yield epoch(n, value)
    yield Measured("latency_ms_p50", 1.0 + 0.5 * spec.K[0] + abs(random.Random(job.run.id).gauss(0, 0.05)))
    yield Ended(RunState.COMPLETE, wall_s=1.0)


def diverging(job: Job) -> Iterator[Record]:
    """Without a shortcut, the largest kernel of the first stage diverges."""
    if job.run.spec.K[0] == 13 and not job.run.spec.shortcut:
        yield started()
        yield Ended(RunState.DIVERGED, wall_s=1.0, cause="the training loss is nan")
        return
    yield from script(job)


def played(folder: Path, how: Any = script, **overrides: Any) -> Played:
    study = Played(folder, **KEYS | overrides)
    for _ in study.events(how):
        pass
    return study


def effects_of(study: Played, metric: str | None = None) -> EffectsResult:
    with open_study_reader(study.path, study.workspace) as reader:
        return study_effects(reader.file, reader.space(), reader.store, reader.trials, metric)


def named(result: EffectsResult, name: str) -> EffectResult:
    return next(effect for effect in result.effects if effect.term.name.startswith(name))


@pytest.fixture(scope="module")
def finished_search(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return played(tmp_path_factory.mktemp("search"))


def test_effects_are_those_of_the_script_and_the_model_narrows_their_intervals(finished_search: Played) -> None:
    result = effects_of(finished_search)
    truth = {
        "shortcut: true against false": 3 + 2 / 3,
        "K[0]: 13 against 3": 2.5,
        "K: 13 against 3, mean of 2 stages": 2.5,
        "shortcut x K: true against false, at 13 less at 3, mean of 2": 1.0,
        "reparam: 3 against none": 0.0,
    }
    for name, value in truth.items():
        effect = named(result, name)
        assert effect.estimate is not None and effect.alone is not None
        low, high = effect.estimate.interval
        assert low <= value <= high, name
        assert high - low < effect.alone.interval[1] - effect.alone.interval[0], name
    assert result.explained is not None and result.explained > 0.8
    assert 20 <= result.draws <= 36  # of 36 networks some were drawn twice
    assert not any(effect.term.subject == "K x stage" for effect in result.effects)  # the entries name other pairs
    assert result.importances is not None and "PED-ANOVA" in result.importances.evaluator
    assert set(result.importances.shares) == set(KEYS["axes"])


@pytest.mark.long
def test_axes_of_the_recipe_have_effects_and_a_derived_axis_decides_which_others_count(tmp_path: Path) -> None:
    def of_recipe(job: Job) -> Iterator[Record]:
        spec, noise = job.run.spec, random.Random(job.run.id).gauss(0, 0.3)
        yield started()
        for n in range(1, EPOCHS + 1):
            yield epoch(n, 60.0 + 2 * (spec.K[2] == 15) + 20 * job.run.recipe.optimizer.lr + noise)
        yield Ended(RunState.COMPLETE, wall_s=1.0)

    axes = {"K[0]": [7, 3, 13], "K[2]": "K[0] + 2", "reparam": [None, 3], "recipe.optimizer.lr": [0.1, 0.2]}
    search = {"sampler": "tpe", "trials": 60, "seeds": 1, "space_filling": 0.6}
    study = played(tmp_path, of_recipe, axes=axes, when={"reparam": "K[2] > 7"}, search=search, effects=[])
    result = effects_of(study)
    truth = {"recipe.optimizer.lr: 0.2 against 0.1": 2.0, "K[0]: 13 against 7": 2.0, "reparam: 3 against none": 0.0}
    for name, value in truth.items():
        estimate = named(result, name).estimate
        assert estimate is not None and estimate.interval[0] <= value <= estimate.interval[1], name
    assert not any("K[2]" in effect.term.name for effect in result.effects)  # which is not chosen


def test_they_are_deterministic_and_json_has_their_keys(finished_search: Played) -> None:
    first, second = (effects_values(effects_of(finished_search)) for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    assert set(first) == {
        *("study", "metric", "sampler", "method", "configurations", "space_filling", "explained_by_model"),
        *("averaged_over", "seeds", "importance", "effects"),
    }
    for effect in first["effects"]:
        assert set(effect) == {
            *("subject", "compared", "kind", "effect", "interval", "standard_error", "df", "n", "lost", "reason"),
            *("share_of_networks", "space_filling_alone", "model_alone", "as_visited", "entry"),
        }


def test_costs_are_exact_and_times_have_effects_like_accuracies(finished_search: Played) -> None:
    costs = effects_of(finished_search, "log2(macs)")
    assert all(effect.estimate is not None and effect.estimate.error == 0 for effect in costs.effects)
    assert costs.explained is None and "exact" in text_of(effects_view(costs)[1], 200)
    latency = named(effects_of(finished_search, "latency_ms_p50"), "K[0]: 13 against 3").estimate
    assert latency is not None and latency.interval[0] <= 5.0 <= latency.interval[1]


def test_the_command_prints_the_table_the_entries_and_what_the_numbers_rest_on(finished_search: Played) -> None:
    folder = finished_search.path.parent
    result = called("effects", "study.yaml", "--plot", "out/effects.png", cwd=folder)
    assert result.returncode == 0, result.stderr
    flat = " ".join(result.stdout.split())
    assert "Guideline 2, shortcut: true against false: The shortcut helps; paper: 18.55 points (table 2)" in flat
    assert "grid kernel_size.larger: not recorded here" in flat
    assert "whatever the sampler tpe proposed" in flat and "1 in 20 misses" in flat
    assert result.stderr.strip() == "written: out/effects.png"
    with Image.open(folder / "out" / "effects.png") as picture:
        assert picture.width > 800 and picture.height > 300
    values = json.loads(called("effects", "study.yaml", "--json", cwd=folder).stdout)
    assert values["recorded"] == {} and values["effects"]


def test_a_narrow_console_has_fewer_columns_and_all_of_their_digits(finished_search: Played) -> None:
    result = effects_of(finished_search)
    wide, middle, narrow = (text_of(effects_view(result)[1], width) for width in (200, 130, 90))
    assert "importance" in wide and "as visited" in middle and "importance" not in middle
    assert "95 % interval" in narrow and "as visited" not in narrow
    assert all("\u2026" not in text for text in (wide, middle, narrow))


def test_the_plot_has_the_named_effects_by_guideline_and_one_row_for_every_other_choice(
    finished_search: Played,
) -> None:
    result = effects_of(finished_search)
    assert [effect.term.subject for effect in plotted_effects(result)] == [
        *("shortcut", "shortcut x K", "K"),
        *("K[0]", "K[0]", "K[3]", "K[3]", "reparam"),
    ]
    texts = [text.get_text() for text in draw_effects_figure(result, {}).axes[0].texts]
    assert any(text.startswith("Guideline 2, shortcut: true against false\nThe shortcut helps") for text in texts)
    assert any(text == "K[0]: 7 against 3" for text in texts)


def test_a_recorded_claim_is_shown_with_its_verdict(finished_search: Played) -> None:
    folder = finished_search.path.parent / "results" / "claims" / "kernel_size"
    folder.mkdir(parents=True)
    claim: dict[str, Any] = {
        "name": "larger",
        "says": "s",
        "metric": "top1",
        "expect": "> 0",
        "ignore": None,
        "paper": None,
    }
    claim |= {"verdict": "supported", "values": [1.0, 2.0], "effect": 1.5, "interval": [0.5, 2.5], "n": 2, "p": 0.01}
    summary = {"study": "kernel_size", "conditions": "c", "claims": [claim | {"missing": None, "arms": []}]}
    (folder / "summary.json").write_text(json.dumps(summary))
    result = called("effects", "study.yaml", "--plot", "e.png", cwd=finished_search.path.parent)
    assert "grid kernel_size.larger: supported, 1.50 [0.50, 2.50] (n = 2)" in " ".join(result.stdout.split())


@pytest.mark.long
def test_levels_whose_networks_diverge_are_named(tmp_path: Path) -> None:
    result = effects_of(played(tmp_path, diverging))
    assert (result.lost["failed"] > 1 and result.lost_levels == ()) or result.lost_levels
    effect = named(result, "K[0]: 13 against 3")
    assert effect.counts[0].lost > 0 and " of " in effect.counts[0].text
    notes = " ".join(note_lines(result))
    assert "ended without a value" in notes and "those among networks that can be trained" in notes
    pair = named(result, "shortcut x K")
    assert pair.estimate is None and "shortcut=false and K[0]=13 (0 of" in " ".join(pair.short)
    assert "No interval where fewer than 3" in notes


@pytest.mark.parametrize(
    ("overrides", "metric", "texts"),
    [
        (
            {"search": {"sampler": "tpe", "trials": 4, "seeds": 1}},
            None,
            ("`search.space_filling` must be above 0", "tpe", "study.yaml:", "`space_filling: 0.2`"),
        ),
        (
            {"search": {"sampler": "tpe", "trials": 4, "seeds": 1, "space_filling": 0.5}},
            None,
            ("at least 8 space-filling configurations", "2 of 4", "study.yaml:", "Raise `search.trials`"),
        ),
        (
            {"search": {"sampler": "random", "trials": 4, "seeds": 1, "pruner": "median"}},
            None,
            ("`search.space_filling` must be above 0", "median"),
        ),
        (
            {"axes": {"K": [[3, 3, 3, 3]]}, "search": {"sampler": "random", "trials": 1, "seeds": 1}, "effects": []},
            None,
            ("an axis with at least two values", "study.yaml:", "Add values"),
        ),
        (
            {"search": {"sampler": "random", "trials": 1, "seeds": 1}},
            "miou",
            ("`--metric` must be a metric", "'miou'", "Metrics: "),
        ),
        ({"search": {"sampler": "random", "trials": 1, "seeds": 1}}, "top1 +", ("`--metric`",)),
    ],
)
def test_studies_without_effects_are_refused(
    tmp_path: Path, overrides: dict[str, Any], metric: str | None, texts: tuple[str, ...]
) -> None:
    study = played(tmp_path, **overrides)
    with pytest.raises(UserError) as caught:
        effects_of(study, metric)
    assert all(text in str(caught.value) for text in texts), str(caught.value)


@pytest.mark.long
def test_a_grid_has_effects_when_all_of_it_is_trained(tmp_path: Path) -> None:
    study = Played(tmp_path, **KEYS | {"search": {"seeds": 1}})
    events = study.events(script)
    for _ in range(40):
        next(events)
    events.close()
    with pytest.raises(UserError, match="all cells of a grid must be trained"):
        effects_of(study)
    for _ in study.events(script):
        pass
    result = effects_of(study)
    effect = named(result, "shortcut: true against false")
    assert result.draws == 36 and effect.estimate is not None
    assert effect.estimate.interval[0] <= 3 + 2 / 3 <= effect.estimate.interval[1]
    assert effect.estimate.effect == pytest.approx(effect.visited)


@pytest.mark.long
def test_draws_from_a_smaller_space_are_left_to_the_model(tmp_path: Path) -> None:
    before = played(tmp_path, search=KEYS["search"] | {"trials": 20})
    assert effects_of(before).draws >= 8
    axes = KEYS["axes"] | {"K[0]": [3, 7, 11, 13]}
    grown = played(tmp_path, axes=axes)
    result = effects_of(grown)
    assert result.earlier == 10 and result.draws <= 40
    assert "before an axis grew" in " ".join(note_lines(result))


@pytest.mark.long
def test_the_summary_of_a_search_has_its_effects(tmp_path: Path) -> None:
    """A real search with the inline executor; the networks stay at chance, which latencies do not depend on."""
    axes = {"K[0]": [3, 5], "K[1]": [3, 5], "B[0]": [1, 2], "shortcut": [True, False]}
    search, objective = {"sampler": "random", "trials": 12, "seeds": 1}, {"latency_ms_p50": "minimize"}
    path = write_study(tmp_path, TINY, axes=axes, search=search, proxy=BRIEF | {"epochs": 1}, objectives=objective)
    result = called("run", path, "--quiet", "--executor", "inline", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "results" / "tiny" / "summary.json").read_text())
    shown = (tmp_path / "results" / "tiny" / "summary.txt").read_text()
    assert summary["effects"]["metric"] == "latency_ms_p50" and summary["effects"]["space_filling"]["with_value"] >= 8
    assert "Effects  on latency_ms_p50, all else equal" in shown
    assert "Effects  on latency_ms_p50, all else equal" in result.stdout


@pytest.mark.long
@pytest.mark.parametrize(("value", "limit"), [(10.0, "at chance"), (100.0, "at the ceiling")])
def test_a_search_in_which_nothing_can_be_told_apart_has_no_effects(tmp_path: Path, value: float, limit: str) -> None:
    def at_limit(_: Job) -> Iterator[Record]:
        yield started()
        for n in range(1, EPOCHS + 1):
            yield epoch(n, value)
        yield Ended(RunState.COMPLETE, wall_s=1.0)

    study = played(tmp_path, at_limit)
    with pytest.raises(UserError, match=f"must not all be {limit}"):
        effects_of(study)
    refused = called("effects", "study.yaml", cwd=tmp_path)
    assert refused.returncode == 2 and limit in refused.stderr
    assert "Effects" not in called("show", "study.yaml", cwd=tmp_path).stdout


@pytest.mark.long
def test_equal_values_have_no_spread_and_no_interval(tmp_path: Path) -> None:
    def by_shortcut(job: Job) -> Iterator[Record]:
        yield started()
        for n in range(1, EPOCHS + 1):
            yield epoch(n, 70.0 if job.run.spec.shortcut else 10.0)
        yield Ended(RunState.COMPLETE, wall_s=1.0)

    result = effects_of(played(tmp_path, by_shortcut))
    effect = named(result, "shortcut: true against false")
    assert effect.estimate is None and effect.visited == 60.0
    assert effect.reason is not None and "the same value" in effect.reason
    assert set(result.at_limit) == {"at chance"}
    text = text_of(effects_view(result)[-1], 200) + " ".join(note_lines(result))
    assert "space-filling configurations are at chance" in text
