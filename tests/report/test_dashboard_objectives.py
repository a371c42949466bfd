"""The dashboard of a study with several objectives: its best trials are the front, and it has the learning curves."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard_cases import Api, attributes, finished, served
from tiny_studies import EPOCHS, FOUR, called

from harness.report.dashboard_storage import DashboardStorage
from harness.storage import Store, optuna_storage

BOTH: dict[str, Any] = {"objectives": {"top1": "maximize", "macs": "minimize"}}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Api]]:
    """Nine configurations, some of which are pruned by their crowding on the front."""
    folder = tmp_path_factory.mktemp("objectives")
    axes = {"K": [[k] * 4 for k in (3, 31, 13, 7, 21, 5, 25, 9, 17)]}
    search = {"sampler": "grid", "seeds": 1, "pruner": "successive_halving"}
    with served(finished(folder, search=search, axes=axes, when={}, **BOTH)) as api:
        yield folder, api


def summary(folder: Path) -> Any:
    return json.loads(called("show", "study.yaml", "--json", cwd=folder).stdout)


def plots(study: Any) -> dict[str, Any]:
    return {plot["id"]: json.loads(plot["graph_object"]) for plot in study["plotly_graph_objects"]}


def test_the_best_trials_are_the_front_with_the_means_of_all_objectives(shown: tuple[Path, Api]) -> None:
    folder, api = shown
    rows = {row["trials"][0]: row for row in summary(folder)["configurations"]}
    front = [row for row in rows.values() if row["is_on_pareto_front"]]
    best = api.study()["best_trials"]
    assert front and len(best) == len(front)
    for trial in best:
        row = next(row for row in front if trial["number"] in row["trials"])
        assert trial["values"] == [pytest.approx(row["mean"]), pytest.approx(row["macs"])]
        assert trial["state"] == "Complete" and "on the Pareto front" in trial["note"]["body"]


def test_the_front_is_there_when_the_page_asks_for_later_trials_only(shown: tuple[Path, Api]) -> None:
    _, api = shown
    later = json.loads(api.text(f"/api/studies/{api.study_id}", "after=9"))
    assert not later["trials"]
    assert sorted(trial["number"] for trial in later["best_trials"]) == sorted(
        trial["number"] for trial in api.study()["best_trials"]
    )


def test_there_are_learning_curves_of_all_configurations(shown: tuple[Path, Api]) -> None:
    folder, api = shown
    figure = plots(api.study())["learning_curves_top1"]
    rows = summary(folder)["configurations"]
    assert any(row["state"] == "pruned" for row in rows)
    text = json.dumps(figure["data"])
    for row in rows:
        assert f"#{row['trials'][0]} " in text
        if row["state"] == "pruned":
            assert ", pruned" in text
    named = {trace["name"]: trace for trace in figure["data"]}
    for row in (row for row in rows if row["is_on_pareto_front"]):
        trace = next(trace for name, trace in named.items() if name.startswith(f"#{row['trials'][0]} "))
        assert trace["x"] == list(range(1, EPOCHS + 1)) and trace["y"][-1] == pytest.approx(row["mean"])


def test_the_hypervolume_is_that_of_the_answer(shown: tuple[Path, Api]) -> None:
    folder, api = shown
    (trace,) = plots(api.study())["hypervolume"]["data"]
    assert trace["y"] == [one["hypervolume"] for one in summary(folder)["pareto"]["hypervolume_by_trial"]]


def test_notes_and_importances_are_there(shown: tuple[Path, Api]) -> None:
    _, api = shown
    study = api.study()
    assert "on the Pareto front of top1 (maximize) and macs (minimize)" in study["note"]["body"]
    assert "The best trials are those of the Pareto front" in study["note"]["body"]
    assert len(json.loads(api.text(f"/api/studies/{api.study_id}/param_importances"))["param_importances"]) == 2
    assert study["objective_names"] == ["top1", "macs"]
    complete = [trial for trial in study["trials"] if trial["state"] == "Complete"]
    assert all("value_by_seed" in attributes(trial) for trial in complete)


def test_a_study_whose_file_cannot_be_read_is_shown_as_optuna_has_it(shown: tuple[Path, Api]) -> None:
    folder, api = shown
    with Store.open(folder / "results" / "studies.db", read_only=True) as store:
        storage = DashboardStorage(optuna_storage(store), store, {})
        storage._study = lambda _: None  # type: ignore[method-assign, assignment]
        trials = storage.trials_of(api.study_id)
    assert trials.best is None and trials.results is None and trials.has_several_objectives
    assert any(len(trial.values or ()) == 2 for trial in trials.trials)


def test_a_study_with_one_objective_has_no_such_plots(tmp_path: Path) -> None:
    with served(finished(tmp_path, search={"seeds": 1}, axes=FOUR["axes"], when={})) as api:
        assert api.study()["plotly_graph_objects"] == []


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (("status", "study.yaml"), ("front ", "hypervolume 0.", "maximize top1, minimize macs")),
        (("best", "study.yaml"), ("of the study question",)),
        (("show", "study.yaml", "0"), ("top1",)),
        (("show", "best-of", "study.yaml"), ("replknet",)),
        (("trust", "study.yaml"), ("they were stopped by Pareto rank",)),
        (("effects", "study.yaml", "--metric", "macs"), ("exact",)),
        (("run", "study.yaml", "--dry-run"), ("9 configurations, 9 runs",)),
    ],
)
def test_commands_work(shown: tuple[Path, Api], arguments: tuple[str, ...], texts: tuple[str, ...]) -> None:
    result = called(*arguments, cwd=shown[0])
    assert result.returncode == 0, result.stderr
    assert all(text in result.stdout for text in texts), result.stdout


def test_a_replay_of_several_objectives_is_refused(shown: tuple[Path, Api]) -> None:
    result = called("simulate", "study.yaml", cwd=shown[0])
    assert result.returncode == 2 and "must have one objective to be replayed" in result.stderr
