"""What is shown of a study besides its answer: one trial, the views, status, summary, plan; and the words of all."""

import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_studies import EPOCHS, Played, started, text_of, well

from harness.analysis.configuration_result import read_run_results
from harness.analysis.formatting import (
    format_duration,
    format_mean_and_spread,
    format_metric,
    format_params,
    format_short_duration,
    json_text,
    printable,
    si,
    sparkline,
)
from harness.analysis.plan import plan_study
from harness.analysis.results import StudyResults
from harness.analysis.study_reader import open_space, open_study_reader
from harness.report.event_log import EventFormatter, LogView
from harness.report.live import LiveState
from harness.report.plan import plan_view
from harness.report.status import StudyStatus, status_values, status_view
from harness.report.study import write_summary
from harness.report.trial import trial_values, trial_view
from harness.storage import Store
from harness.training.run import Ended, Job, Record, RunState

# One trial


def test_trial_view_has_spec_cost_curves_seeds_and_places(played: Played) -> None:
    with open_study_reader(played.path, played.workspace) as reader:
        trial = reader.trials[4]
        runs = list(read_run_results(reader.store, reader.store.trial_runs("question")[4]).values())
        text, values = text_of(trial_view(trial, runs, played.file.study)), trial_values(trial, runs, played.file.study)
    score = "top1 93.20 ± 0.20 (n = 3)"
    for part in ("K: [31, 29, 27, 13]", "stage 4", "batch norms folded", score, "seed 2: complete"):
        assert part in text
    assert "▁▃▆█ 93.00 after epoch 4/4" in text
    assert "peak_memory_bytes 500MB" in text and "cpu (test, 1 thread)" in text
    assert [len(run["curve"]) for run in values["runs"]] == [EPOCHS] * 3
    assert values["choices"] == {"K": [31, 29, 27, 13], "reparam": 5}
    assert sum(part["merged"]["macs"] for part in values["network"]["parts"]) == values_macs(played)
    json.loads(json_text(values))


def values_macs(played: Played) -> int:
    space = open_space(played.file)
    cost = space.candidate({"K": (31, 29, 27, 13), "reparam": 5}).cost
    assert cost is not None
    return cost.macs


# Views


def test_lines_are_one_per_event_with_time_and_without_control_characters(tmp_path: Path) -> None:
    def script(job: Job) -> Iterator[Record]:
        if job.run.spec.K[0] == 3:
            yield started()
            yield Ended(RunState.FAILED, wall_s=1.0, cause="bad\x1b[31m\nthing\r")
        else:
            yield from well(job)

    out = io.StringIO()
    view = LogView(EventFormatter("top1"), out)
    events = 0
    for event, progress, _ in Played(tmp_path).events(script):
        view.show(event, progress)
        events += 1
    lines = out.getvalue().splitlines()
    assert len(lines) == events
    assert all(line[:4].isdigit() and line[19:21] == "  " for line in lines)
    assert all(character.isprintable() for line in lines for character in line)
    assert any(
        line.endswith("K=31-29-27-13 reparam=5 seed 1: epoch 2/4, train loss 1.000, top1 46.60, 2.0 s")
        for line in lines
    )
    assert any("seed 0: complete, top1 93.00, in 12 s" in line for line in lines)
    assert any("top1 93.20 ± 0.20 over 3 seeds" in line for line in lines)


def test_scene_shows_progress_best_workers_and_events_within_80_columns(tmp_path: Path) -> None:
    state = LiveState("question", "How large?", "top1", "maximize", EventFormatter("top1"))
    state.doing = "opening the study"
    frames = [text_of(state.draw(), width=80)]
    for event, progress, _ in Played(tmp_path).events(slots=2):
        state.update(event, progress)
        frames.append(text_of(state.draw(), width=80))
    assert "opening the study ..." in frames[0] and "How large?" in frames[0]
    assert all(len(line) <= 80 for frame in frames for line in frame.splitlines())
    working = next(frame for frame in frames if "2/4" in frame)
    assert "#0 K=3-3-3-3 seed 0" in working and "1.000" in working and "31.50" in working
    assert any("  measuring " in frame for frame in frames)
    assert any("best top1 (maximize): 63.00 (n = 1)  #0 K=3-3-3-3" in frame for frame in frames)
    assert "15/15 runs" in frames[-1]
    assert "best top1 (maximize): 93.20 ± 0.20 (n = 3)  #4 K=31-29-27-13 reparam=5" in frames[-1]
    assert "training" not in frames[-1]
    assert max(len(frame.splitlines()) for frame in frames) <= 15


def test_scene_cuts_long_lines_instead_of_growing() -> None:
    state = LiveState("question", "Why? " * 60, "top1", "maximize", EventFormatter("top1"))
    for _ in range(20):
        state.add_line("x" * 300)
    assert len(text_of(state.draw(), width=80).splitlines()) < 12


def test_scene_drops_what_is_over_budget_from_the_best(tmp_path: Path) -> None:
    state = LiveState("question", None, "top1", "maximize", EventFormatter("top1"))
    for event, progress, _ in Played(tmp_path, budgets={"latency_ms": 10}).events():
        state.update(event, progress)
    assert "K=13-13-13-13 reparam=5" in text_of(state.draw(), width=100).splitlines()[2]


# Status


def status_of(played: Played, driver: str | None = None) -> tuple[str, dict[str, Any]]:
    with open_study_reader(played.path, played.workspace) as reader:
        from harness.analysis.results import study_results

        status = StudyStatus(
            study_results(reader.file.study, reader.store, reader.trials, {}),
            reader.trials,
            driver=driver,
            trials_total=5,
            seeds=3,
            last=reader.store.events("question"),
        )
    return text_of(status_view(status)), status_values(status)


def test_status_of_a_finished_study(played: Played) -> None:
    text, values = status_of(played)
    assert "finished" in text and "5 complete; 5 in all" in text and "15 complete; 15 at most" in text
    assert values["is_finished"] and values["best"]["n"] == 3


def test_status_while_a_study_runs(tmp_path: Path) -> None:
    study = Played(tmp_path)
    for at, _ in enumerate(study.events(slots=2)):
        if at == 40:
            text, values = status_of(study, driver="process 7 on host")
    assert "driven by process 7 on host" in text
    assert values["runs"]["running"] == 2
    assert f"/{EPOCHS}" in text and "best" in text and not values["is_finished"]


def test_status_of_a_study_that_was_stopped(tmp_path: Path) -> None:
    study = Played(tmp_path)
    events = study.events()
    for _ in range(20):
        next(events)
    events.close()
    text, values = status_of(study)
    assert "not running" in text and not values["is_finished"]


# Summary


def test_summary_files_hold_every_figure_with_its_conditions(played_results: StudyResults, tmp_path: Path) -> None:
    write_summary(tmp_path, played_results)
    values = json.loads((tmp_path / "summary.json").read_text())
    assert values == json.loads(json_text(played_results.to_dict()))
    row = values["configurations"][0]
    assert row["n"] == 3 and row["seeds"] == [0, 1, 2] and row["sd"] == pytest.approx(0.2)
    assert {run["device"] for run in row["runs"]} == {"cpu (test, 1 thread)"}
    assert row["runs"][0]["versions"]["torch"] == "2.15.0"
    assert values["pareto_front"] == [0, 2, 4] and values["best_trial"] == 4
    text = (tmp_path / "summary.txt").read_text()
    assert "93.20 ± 0.20" in text and "\x1b" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["summary.json", "summary.txt"]


# Plan


def test_plan_of_a_new_study_lists_the_grid_and_rests_on_a_stated_rule(tmp_path: Path) -> None:
    study = Played(tmp_path, budgets={"params": 400_000})
    plan = plan_study(study.file.study, open_space(study.file), None, workers=2)
    assert [format_params(planned.candidate.params) for planned in plan.rows] == [
        "K=3-3-3-3",
        "K=13-13-13-13 reparam=none",
        "K=13-13-13-13 reparam=5",
    ]
    assert plan.runs_left == 9 and plan.rejected == {"params": 2}
    runs_s = [planned.run_s for planned in plan.rows if planned.run_s is not None]
    assert plan.total_s == pytest.approx(sum(runs_s) * 3 / 2)
    text = text_of(plan_view(plan), width=200)
    assert "3 x MACs" in text and "2 configurations left out by params" in text and "9 to train" in text


def test_plan_leaves_out_what_the_store_has_and_uses_its_wall_times(played: Played, tmp_path: Path) -> None:
    longer = Played(tmp_path, search={"seeds": 4})
    with Store.open(played.workspace.database, read_only=True) as store:
        plan = plan_study(longer.file.study, open_space(longer.file), store, workers=1)
    assert [planned.stored_seeds for planned in plan.rows] == [(0, 1, 2)] * 5
    assert plan.runs_left == 5 and plan.total_s == pytest.approx(5 * 12.0)
    assert "15 stored runs of this recipe" in plan.basis


def test_plan_of_a_sampler_is_a_seeded_sample_and_is_marked_so(tmp_path: Path) -> None:
    study = Played(tmp_path, search={"sampler": "tpe", "trials": 3, "seeds": 1})
    plans = [plan_study(study.file.study, open_space(study.file), None, workers=1) for _ in range(2)]
    assert plans[0] == plans[1] and plans[0].is_sample and len(plans[0].rows) == 3
    assert "a sample of what the sampler may choose" in text_of(plan_view(plans[0]))


def test_plan_without_known_images_gives_no_time(tmp_path: Path) -> None:
    study = Played(tmp_path)
    recipe = study.file.study.proxy.model_copy(update={"dataset": "imagefolder"})
    unknown = study.file.study.model_copy(update={"proxy": recipe})
    plan = plan_study(unknown, replace(open_space(study.file), recipe=recipe), None, workers=1)
    assert plan.total_s is None and "not known" in text_of(plan_view(plan), width=200)


# Words


@pytest.mark.parametrize(
    ("number", "text"),
    [(79_864_168, "79.9M"), (15_354_000_000, "15.4G"), (999_950, "1.00M"), (999, "999"), (1000, "1.00k"),
     (12.5, "12.5"), (0, "0"), (None, "-"), (math.nan, "-")],
)  # fmt: skip
def test_amounts(number: float | None, text: str) -> None:
    assert si(number) == text


@pytest.mark.parametrize(
    ("seconds", "text", "short"),
    [(0.04, "0.0 s", "0.0 s"), (9.96, "10 s", "10 s"), (59.7, "1 min 00 s", "60 s"), (185, "3 min 05 s", "185 s"),
     (7620, "2 h 07 min", "2.1 h"), (None, "-", "-")],
)  # fmt: skip
def test_durations(seconds: float | None, text: str, short: str) -> None:
    assert format_duration(seconds) == text
    assert format_short_duration(seconds) == short


def test_scores_fit_their_metric() -> None:
    assert format_mean_and_spread(93.456, 0.1234, "top1") == "93.46 ± 0.12"
    assert format_metric(0.123456, "val_loss") == "0.1235" and format_metric(44_762_368, "macs") == "44.8M"
    assert format_metric(math.nan, "top1") == "-"


def test_labels_are_short() -> None:
    params = {"K": [31, 29], "reparam": None, "shortcut": True, "dw_ratio": 1.5, "K[3]": 13}
    assert format_params(params) == "K=31-29 reparam=none shortcut=true dw_ratio=1.5 K[3]=13"
    assert format_params({}) == "the base network"


def test_curves_in_a_line() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0, math.nan, 1.0]) == "▁ ▁"
    assert sparkline([]) == ""


def test_text_of_errors_becomes_one_printable_line() -> None:
    assert printable("a\x1b[31mb\r\nc\u202e") == "a [31mb  c "
