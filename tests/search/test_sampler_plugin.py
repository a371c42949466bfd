"""A sampler of the user's own: its code is pinned in the record, and what is wrong with it is refused before a run."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import optuna
import pytest
import yaml
from tiny_studies import BRIEF, EPOCHS, TINY, Played, called, epoch, files_of, started, write_study

from harness.config.json_schema import json_schema
from harness.config.sampler_plugin import find_plugin
from harness.config.study_file import load_study
from harness.search.events import TrialStarted
from harness.storage import Store, open_study
from harness.training.run import Ended, Job, Record, RunState

PLUGIN = '''"""Proposes the largest kernels."""

from optuna.samplers import RandomSampler


class Largest(RandomSampler):
    """Takes the upper end of every range, and else draws at random."""

    def sample_independent(self, study, trial, param_name, param_distribution):
        if hasattr(param_distribution, "high"):
            return param_distribution.high
        return super().sample_independent(study, trial, param_name, param_distribution)


def make(seed):
    return Largest(seed)
'''
KEYS: dict[str, Any] = {"axes": {"K[0]": [3, 7, 13], "K[3]": [13, 3], "shortcut": [True, False]}, "when": {}}
SEARCH = {"sampler": "largest.py:make", "trials": 4, "seeds": 1}


def well(job: Job) -> Iterator[Record]:
    yield started()
    for n in range(1, EPOCHS + 1):
        yield epoch(n, 50.0 + job.run.spec.K[0])
    yield Ended(RunState.COMPLETE, wall_s=1.0)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "largest.py"
    path.write_text(PLUGIN)
    return path


def kernels(study: Played) -> list[tuple[int, int]]:
    return [(event.spec.K[0], event.spec.K[3]) for event, _, _ in study.events(well) if isinstance(event, TrialStarted)]


@pytest.mark.usefixtures("plugin")
def test_it_proposes_what_is_trained_and_sees_ordered_axes_as_numbers(tmp_path: Path) -> None:
    study = Played(tmp_path, **KEYS, search=SEARCH)
    assert kernels(study) == [(13, 13)] * 4, "the largest of [13, 3], too, is at its upper end"
    with Store.open(study.workspace.database) as store:
        trials = open_study(store, "question", directions=["maximize"]).get_trials()
    assert {trial.params["shortcut"] for trial in trials} == {True, False}
    assert all(trial.params["K[0]"] == 13 for trial in trials)


@pytest.mark.usefixtures("plugin")
def test_an_interrupted_study_resumes(tmp_path: Path) -> None:
    study = Played(tmp_path, **KEYS, search=SEARCH)
    with closing(study.events(well)) as events:
        assert list(islice(events, 6))
    kernels(study)
    with Store.open(study.workspace.database) as store:
        trials = open_study(store, "question", directions=["maximize"]).get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4


@pytest.mark.parametrize("text", ["optuna.samplers:TPESampler", "optuna.samplers._random:RandomSampler"])
def test_one_of_an_installed_package_is_pinned_with_its_version(tmp_path: Path, text: str) -> None:
    study = Played(tmp_path, **KEYS, search=SEARCH | {"sampler": text})
    assert len(kernels(study)) == 4
    assert study.file.study.search.sampler_digest is not None
    assert re.fullmatch(
        rf"optuna {re.escape(optuna.__version__)} [0-9a-f]{{8}}", study.file.study.search.sampler_digest
    )


def test_a_package_that_is_not_installed_is_pinned_with_all_of_its_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "my_samplers"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "widths.py").write_text(PLUGIN)
    (package / "helper.py").write_text("ANSWER = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    first = find_plugin("my_samplers.widths:make", tmp_path).digest
    (package / "helper.py").write_text("ANSWER = 2\n")
    assert re.fullmatch("[0-9a-f]{8}", first) and find_plugin("my_samplers.widths:make", tmp_path).digest != first


@pytest.mark.long
def test_the_record_has_the_code_and_its_digest(tmp_path: Path, plugin: Path) -> None:
    search = {"sampler": "largest.py:make", "trials": 2, "seeds": 1}
    path = write_study(tmp_path, TINY, axes={"K[0]": [3, 5]}, search=search, proxy=BRIEF)
    assert called("run", path, "--quiet", "--executor", "inline", cwd=tmp_path).returncode == 0
    digest = load_study(path).study.search.sampler_digest
    assert digest is not None and re.fullmatch("[0-9a-f]{8}", digest)
    folder = tmp_path / "results" / "tiny"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["search"] | {"sampler": "largest.py:make", "sampler_digest": digest} == summary["search"]
    assert yaml.safe_load((folder / "study.yaml").read_text())["search"]["sampler_digest"] == digest
    assert (folder / "largest.py").read_text() == PLUGIN
    assert load_study(folder / "study.yaml").study.search == load_study(path).study.search
    plugin.write_text(PLUGIN.replace("param_distribution.high", "param_distribution.low"))
    assert called("show", path, "--json", cwd=tmp_path).returncode == 0


def test_other_code_is_refused_when_the_study_is_resumed(tmp_path: Path, plugin: Path) -> None:
    kernels(Played(tmp_path, **KEYS, search=SEARCH))
    path, before = tmp_path / "study.yaml", load_study(tmp_path / "study.yaml").study.search.sampler_digest
    plugin.write_text(PLUGIN.replace("the largest kernels", "large kernels") + "# a comment\n")
    assert load_study(path).study.search.sampler_digest == before, "comments and docstrings decide nothing"
    plugin.write_text(PLUGIN.replace("param_distribution.high", "param_distribution.low"))
    write_study(tmp_path, yaml.safe_load(path.read_text()), search=SEARCH | {"trials": 6})
    files = files_of(tmp_path)
    for flags in (["--dry-run"], []):
        result = called("run", path, *flags, "--executor", "inline", cwd=tmp_path)
        assert result.returncode == 2 and files_of(tmp_path) == files
        after = load_study(path).study.search.sampler_digest
        assert f'`search.sampler_digest` from "{before}" to "{after}"' in result.stderr
        assert "(the code of the sampler is another one)" in result.stderr
        assert "study.yaml:" in result.stderr and "`--fresh`" in result.stderr


BROKEN: list[tuple[str, dict[str, Any], str, tuple[str, ...]]] = [
    ("file", {"sampler": "lagest.py:make"}, PLUGIN, ("must exist in the folder of the study file", "lagest.py")),
    ("outside", {"sampler": "../largest.py:make"}, PLUGIN, ("in the folder of the study file", "../largest.py")),
    ("form", {"sampler": "largest.py:make:it"}, PLUGIN, ("a module and a name in it", "largest.py:make:it")),
    ("name", {"sampler": "largest.py:mke"}, PLUGIN, ("a function or a class of largest.py", "Did you mean `make`?")),
    ("syntax", {}, "def make(seed:\n", ("must be valid Python", "(line 1)")),
    ("module", {"sampler": "no.such_module:Sampler"}, PLUGIN, ("one that can be imported", "no.such_module")),
    ("seed", {}, "def make():\n    return 1\n", ("can be called as `name(seed=...)`", "def make(seed)")),
    ("kind", {}, "def make(seed):\n    return 3\n", ("must return an `optuna.samplers.BaseSampler`", "returned int")),
    ("error", {}, "def make(seed):\n    return 1 / 0\n", ("ZeroDivisionError", "largest.py:2)")),
    ("import", {}, "import no_such_package\n\n\ndef make(seed): ...\n", ("ModuleNotFoundError", "largest.py:1)")),
    ("pin", {"sampler_digest": "00000000"}, PLUGIN, ("`search.sampler_digest` must be that of the code", "00000000")),
    ("no plug-in", {"sampler": "tpe", "sampler_digest": "00000000"}, PLUGIN, ("must be left out for the sampler tpe",)),
    ("typing", {"sampler": "tp"}, PLUGIN, ("`search.sampler` must be one of", "Did you mean `tpe`?")),
    ("trials", {"trials": None}, PLUGIN, ("`search.trials` must be given for the sampler largest.py:make",)),
]


@pytest.mark.parametrize(("search", "code", "messages"), [c[1:] for c in BROKEN], ids=[c[0] for c in BROKEN])
def test_a_plugin_that_is_wrong_is_refused_and_nothing_is_written(
    tmp_path: Path, search: dict[str, Any], code: str, messages: tuple[str, ...]
) -> None:
    (tmp_path / "largest.py").write_text(code)
    path = write_study(tmp_path, TINY, **KEYS, search=SEARCH | search, proxy=BRIEF)
    before = files_of(tmp_path)
    for flags in (["--dry-run"], []):
        result = called("run", path, *flags, "--executor", "inline", cwd=tmp_path)
        assert result.returncode == 2, result.stdout
        assert all(message in result.stderr for message in messages), result.stderr
        assert "Traceback" not in result.stderr and files_of(tmp_path) == before


@pytest.mark.usefixtures("plugin")
def test_a_study_with_a_plugin_has_a_dry_run_and_fits_the_schema(tmp_path: Path) -> None:
    path = write_study(tmp_path, TINY, **KEYS, search=SEARCH, proxy=BRIEF)
    before = files_of(tmp_path)
    result = called("run", path, "--dry-run", "--executor", "inline", cwd=tmp_path)
    assert result.returncode == 0 and "at most 4 configurations, 4 runs" in result.stdout, result.stderr
    assert files_of(tmp_path) == before
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.validate(load_study(path).document.data)
    for sampler, is_valid in (("grid", True), ("tp", False), ("a.b:C", True)):
        data = load_study(path).document.data | {"search": {"sampler": sampler}}
        assert validator.is_valid(data) == is_valid
