"""The measures of a study are in its table, whatever the terminal's width; and the texts that explain them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from tiny_runs import tiny_run, with_
from tiny_studies import HERE, VERSIONS, Played, text_of

from harness.analysis.results import StudyResults
from harness.config.recipes.proxy import ProxyRecipe, Transfer
from harness.executors.run_job import run_job
from harness.measures import ON_DEMAND_MEASURES
from harness.report.configurations import METRIC_COLUMNS, ConfigurationTables
from harness.report.study import results_view
from harness.training.run import Ended, Job, Measured, Record, RunState, Started

SHOWN = ["erf", "merge_error", "shape_bias", "throughput", "train_step"]
"""The measures of `measured`."""
TEXTURED: dict[str, Any] = {"rendering": "textured", "cue_correlation": 0.5}
LATENCY = {"latency_ms_p50": "minimize"}


def measured(job: Job) -> Iterator[Record]:
    """The records of an untrained network with all measures."""
    k, seed = job.run.spec.K[0], job.run.seed
    yield Started("host", 1, "cpu (test, 1 thread)", 1, VERSIONS, epochs=0, environment=HERE)
    metrics = {
        "latency_ms_p50": k + 0.1 * seed,
        "throughput_images_per_s_batch32": 100.0 / k,
        "merge_error_relative": 2e-15 * (1 + seed),
        "train_step_s": 0.5,
        "train_step_peak_bytes": 4.5e9,
        "train_step_gradients_finite": float(k < 31 or seed > 0),
        **{f"erf_log_r{t}_pct": k + t / 10 for t in (20, 30, 50, 99)},
        "shape_bias_pct": 40.0,
    }
    yield from (Measured(name, value) for name, value in metrics.items() if k != 13 or "erf" not in name)
    yield Ended(RunState.COMPLETE, wall_s=2.0)


def results_of(folder: Path, measures: list[str], **overrides: Any) -> StudyResults:
    keys: dict[str, Any] = {"proxy": {"epochs": 0, "measures": measures} | TEXTURED, "objectives": LATENCY}
    return Played(folder, **(keys | overrides)).answer(measured)


def words_of(results: StudyResults, width: int) -> list[list[str]]:
    return [line.split() for line in text_of(ConfigurationTables(results), width=width).splitlines()]


def test_every_measure_has_columns() -> None:
    annotation = ProxyRecipe.model_fields["measures"].annotation
    learned_targets = {Transfer(head=head).learns for head in get_args(Transfer.model_fields["head"].annotation)}
    assert (
        {*METRIC_COLUMNS}
        == {*ON_DEMAND_MEASURES} | learned_targets
        == {*get_args(get_args(annotation)[0])} | learned_targets
    )
    assert all(METRIC_COLUMNS.values())


def test_columns_are_figures_that_runs_have(tmp_path: Path) -> None:
    job = Job(
        tiny_run(recipe=with_(epochs=0, measures=[*ON_DEMAND_MEASURES], train_size=32, val_size=16, **TEXTURED)),
        tmp_path / "s",
    )
    *records, ended = run_job(job)
    assert isinstance(ended, Ended) and ended.state == RunState.COMPLETE, ended
    names = {record.name for record in records if isinstance(record, Measured)}
    for measure in ON_DEMAND_MEASURES:
        for figure in METRIC_COLUMNS[measure]:
            candidates = {name for name in names if name.startswith(figure.name)} if figure.is_by_batch else names
            assert figure.name in candidates or (figure.is_by_batch and candidates), figure.name


def test_a_wide_terminal_has_all_of_it_in_one_table(tmp_path: Path) -> None:
    results = results_of(tmp_path, SHOWN, search={"seeds": 1})
    lines = words_of(results, width=200)
    assert [line[0] for line in lines if "base" in line or "latency_ms_p50" in line] == ["#"]
    first = next(line for line in lines if "3-3-3-3" in line)
    assert first[-10:] == ["33.33", "2e-15", "0.5", "4.50GB", "finite", "5.0", "6.0", "8.0", "12.9", "40.0"]
    assert not any("ms" in line for line in lines), "the objective is not shown twice"
    last = next(line for line in lines if "31-29-27-13" in line)
    assert " ".join(last).count("not finite") == 1


@pytest.mark.parametrize("width", [80, 120, 160])
def test_a_narrower_one_has_tables_below_each_other_and_cuts_nothing(tmp_path: Path, width: int) -> None:
    results = results_of(tmp_path, SHOWN)
    text = text_of(results_view(results), width=width)
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    for word in ("images/s", "merge", "memory", "gradients", "ERF", "bias", "finite in 2 of 3", "6e-15"):
        assert word in text, word
    tables = [line for line in text.splitlines() if " # " in f" {line} " and "K" in line]
    assert len(tables) > 1 or width == 160


def test_what_no_run_has_is_a_dash(tmp_path: Path) -> None:
    results = results_of(tmp_path, ["erf", "throughput"], search={"seeds": 1})
    line = next(line for line in words_of(results, width=160) if "13-13-13-13" in line and "5" in line)
    assert line[-5:] == ["7.692", "-", "-", "-", "-"]


def test_nothing_is_shown_that_was_not_asked_for(tmp_path: Path) -> None:
    text = text_of(ConfigurationTables(results_of(tmp_path, [])), width=200)
    assert not any(word in text for word in ("images/s", "merge", "step", "ERF", "bias", "mIoU"))


def test_fields_of_random_weights_are_called_misleading(tmp_path: Path) -> None:
    text = text_of(results_view(results_of(tmp_path, ["erf"])), width=300)
    assert "Nothing was trained, and random weights mislead" in text and "percent of the image's" in text


@pytest.mark.parametrize(("head", "figure", "heading"), [("upernet", "miou", "mIoU"), ("fcos", "ap", "AP")])
def test_a_transfer_is_a_column_too(tmp_path: Path, head: str, figure: str, heading: str) -> None:
    def script(job: Job) -> Iterator[Record]:
        yield Started("host", 1, "cpu (test, 1 thread)", 1, VERSIONS, epochs=0, environment=HERE)
        yield from (Measured("latency_ms_p50", 1.0), Measured(figure, 61.25 + job.run.seed))
        yield Ended(RunState.COMPLETE, wall_s=2.0)

    proxy = {"epochs": 0, "transfer": {"epochs": 1, "head": head}}
    results = Played(tmp_path, proxy=proxy, objectives=LATENCY).answer(script)
    lines = words_of(results, width=120)
    assert any(heading in line for line in lines) and lines[-1][-3:] == ["62.2", "±", "1.0"]
