"""`harness simulate`: a finished grid is replayed or written as a table, and what lacks is refused with a remedy."""

import json
from pathlib import Path

import pytest
from curve_tables import space_file, synthetic_table
from tiny_studies import CommandResult, Played, Script, called, noisy

from harness.analysis.curve_table import read_table, table_path, write_table

FAST = ("--repetitions", "3", "--processes", "1", "--budget", "0.5")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished grid of five networks with three seeds."""
    folder = tmp_path_factory.mktemp("finished")
    play(Played(folder), noisy(1))
    return folder


def play(played: Played, script: Script) -> None:
    for _ in played.events(script):
        pass


def simulated(folder: Path, *options: str | Path) -> CommandResult:
    return called("simulate", "study.yaml", *FAST, *options, cwd=folder)


def test_a_finished_grid_is_replayed(finished: Path) -> None:
    ended = simulated(finished, "--plot", "regret.png")
    assert ended.returncode == 0 and "curves: the runs of question" in ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0] == "question  5 networks x 3 seeds x 4 epochs = 60 epochs"
    assert lines[2].split()[:2] == ["policy", "10"]
    assert [line.split()[0] for line in lines[3:6]] == [line.split()[0] for line in lines[9:12]]
    assert [line.split()[0] for line in lines[3:6]] == ["tpe+successive_halving+1", "random+none+1", "first_epoch"]
    assert "A mean over 3 seeds has a standard error of" in " ".join(ended.stdout.split())
    assert (finished / "regret.png").read_bytes()[:4] == b"\x89PNG"


def test_json_has_the_curves_of_regret(finished: Path) -> None:
    ended = simulated(finished, "--json", "--policies", "random+none+2", "grid+none+3", "--workers", "2")
    values = json.loads(ended.stdout)
    assert (values["networks"], values["grid_epochs"], values["budget_epochs"]) == (5, 60, 30)
    assert values["workers"] == 2 and values["repetitions"] == 3
    first, second = values["policies"]
    assert first["over_first"] is None and second["over_first"] is not None
    assert first["held_out_regret"] is not None and second["held_out_regret"] is None
    assert first["regret"][-1]["epochs"] == 30 and first["regret"][-1]["share"] == 0.5
    assert first["regret"][-1]["low"] <= first["regret"][-1]["median"] <= first["regret"][-1]["high"]


def test_a_recorded_table_gives_the_same_answer_as_the_runs(finished: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.json.gz"
    written = called("simulate", "study.yaml", "--record", table, cwd=finished)
    assert written.returncode == 0 and "5 networks x 3 seeds x 4 epochs" in written.stdout
    assert read_table(table).question == "How large?"
    answers = [json.loads(simulated(finished, "--json", *source).stdout) for source in ((), ("--table", table))]
    for answer in answers:
        for policy in answer["policies"]:
            del policy["wall_s"]
    assert answers[0] == answers[1]


def test_the_table_in_the_results_folder_is_taken_where_nothing_was_trained(tmp_path: Path) -> None:
    file = space_file(tmp_path)
    missing = simulated(tmp_path)
    assert missing.returncode == 2 and "error: " in missing.stderr
    write_table(synthetic_table(file), table_path(tmp_path / "results", "replayed"))
    ended = simulated(tmp_path, "--policies", "random+none+1")
    assert ended.returncode == 0 and f"curves: {Path('results/tables/replayed.json.gz')}" in ended.stderr


def test_errors_name_the_remedy(finished: Path, tmp_path: Path) -> None:
    unknown = simulated(finished, "--policies", "tpe+medain")
    assert unknown.returncode == 2 and "Did you mean `median`?" in unknown.stderr
    few = called("simulate", "study.yaml", "--budget", "0.01", cwd=finished)
    assert few.returncode == 2 and "the budget must allow one run of 4 epochs" in few.stderr
    play(Played(tmp_path, search={"sampler": "random", "trials": 2, "seeds": 3}), noisy(1))
    partial = simulated(tmp_path)
    assert partial.returncode == 2
    assert "must have a complete run with every seed" in partial.stderr and "--table" in partial.stderr
    too_much = called("simulate", "study.yaml", "--budget", "1.5", cwd=finished)
    assert too_much.returncode == 2 and "must be above 0 and at most 1, but got 1.5" in too_much.stderr
