"""Ray Tune's own configuration: what is taken from it, what is refused, and what its callbacks and loggers see."""

import json
from pathlib import Path

import pytest
from ray import tune
from tiny_studies import BRIEF, RAY, TINY, called, harness, write_study

from harness.errors import ExecutorError
from harness.executors import check_tune_config, make_executor
from harness.executors.base import WorkerRequest
from harness.executors.tune_executor import load_run_config

CONFIGS = """
import json
import pathlib
from ray import tune
from ray.tune.logger import JsonLoggerCallback

HERE = pathlib.Path(__file__).parent


class Keep(tune.Callback):
    def on_trial_result(self, iteration, trials, trial, result, **info):
        with (HERE / "seen.jsonl").open("a") as file:
            file.write(json.dumps({key: result.get(key) for key in ("epoch", "top1", "state", "records")}) + "\\n")


def usable():
    callbacks = [Keep(), JsonLoggerCallback()]
    return tune.RunConfig(name="ours", storage_path=str(HERE / "ray"), callbacks=callbacks, verbose=0)


elsewhere = tune.RunConfig(storage_path="ray")


stopping = tune.RunConfig(stop={"training_iteration": 2})
repeating = tune.RunConfig(failure_config=tune.FailureConfig(max_failures=2))
keeping = tune.RunConfig(checkpoint_config=tune.CheckpointConfig(num_to_keep=2))
number = 3


def failing():
    return 1 / 0
"""


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(CONFIGS)
    return tmp_path / "mine.py"


def test_a_configuration_is_an_object_or_what_a_function_returns(configs: Path) -> None:
    config = load_run_config(f"{configs}:usable")
    assert isinstance(config, tune.RunConfig) and config.name == "ours"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stopping", r"`stop` .* must be left out, since the driver of a study decides that, but got \{'training_it"),
        ("repeating", r"`failure_config` of Ray Tune's configuration must be left out"),
        ("keeping", r"`checkpoint_config` of Ray Tune's configuration must be left out"),
        ("number", r"must be a `ray.tune.RunConfig`, but is a int.*FILE.py:NAME"),
        ("failing", r"must be found, but ZeroDivisionError: division by zero, but got '.*mine.py:failing'"),
        ("nothing", r"must be found, but KeyError: 'nothing'"),
    ],
)
def test_what_the_driver_decides_and_what_is_no_configuration_are_refused(
    configs: Path, name: str, message: str
) -> None:
    with pytest.raises(ExecutorError, match=message):
        check_tune_config("tune", f"{configs}:{name}")


def test_another_executor_has_no_use_for_it_and_nothing_is_written(configs: Path) -> None:
    write_study(configs.parent, TINY)
    result = called("run", "study.yaml", "--tune-config", "mine.py:usable", cwd=configs.parent)
    assert result.returncode == 2 and "`ray` must have no configuration of Ray Tune" in result.stderr
    assert not (configs.parent / "results").exists()


@pytest.mark.long
def test_a_configuration_that_tune_refuses_is_an_error_and_the_cluster_is_left(configs: Path) -> None:
    import ray

    with pytest.raises(
        ExecutorError, match=r"Ray Tune must take its configuration, but ArrowInvalid: .*`storage_path`"
    ):
        make_executor("tune", WorkerRequest(workers=1, tune_config=f"{configs}:elsewhere"))
    assert not ray.is_initialized()


@pytest.mark.long
def test_callbacks_and_loggers_see_plain_numbers_and_the_study_resumes(configs: Path) -> None:
    folder = configs.parent
    write_study(folder, TINY | {"proxy": BRIEF})
    result = harness(
        *("run", "study.yaml", "--executor", "tune", "--tune-config", "mine.py:usable", "--workers", "2"),
        cwd=folder,
        **RAY,
    )
    assert result.returncode == 0, result.stderr
    assert "starting 2 workers with Ray Tune, on this machine" in result.stdout and "2 complete" in result.stdout
    seen = [json.loads(line) for line in (folder / "seen.jsonl").read_text().splitlines()]
    assert sum(line["epoch"] == 2 and line["top1"] is not None for line in seen) == 4
    assert [line["state"] for line in seen if line["state"]] == ["complete"] * 4
    assert not any(line["records"] for line in seen)
    logs = list((folder / "ray" / "ours").glob("*/result.json"))
    assert len(logs) == 4
    config = json.loads(logs[0].read_text().splitlines()[0])["config"]
    assert config["network"]["C"] == [4, 4, 8, 8] and config["seed"] in (0, 1)
    again = called("run", "study.yaml", "--executor", "inline", cwd=folder)
    assert again.returncode == 0 and "epoch" not in again.stdout
