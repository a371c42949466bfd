"""Optuna's dashboard on a study of ours: what its interface and its page show, in a browser where there is one."""

import json
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dashboard_cases import finished
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from tiny_studies import EPOCHS, Played, command, environ, harness

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE_S = 60


@dataclass(frozen=True)
class ServedStudy:
    """A study and the address of its page."""

    study: Played
    url: str

    @property
    def root(self) -> str:
        return self.url.partition("/dashboard")[0]

    def api(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.root}/api/{path}", timeout=PATIENCE_S) as answer:
            return json.load(answer)


@contextmanager
def shown_study(folder: Path, **overrides: Any) -> Iterator[ServedStudy]:
    """A finished study, shown by a process of its own."""
    study = finished(folder, **overrides)
    process = subprocess.Popen(
        command("dashboard", "study.yaml", "--port", "0"),
        cwd=folder, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    first_line = process.stdout.readline()
    assert first_line.startswith("question is shown at http://127.0.0.1:"), first_line
    yield ServedStudy(study, first_line.split()[-1])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert out.endswith("ended\n")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudy]:
    with shown_study(tmp_path_factory.mktemp("dashboard")) as study:
        yield study


@pytest.fixture(scope="module")
def budgeted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudy]:
    """31x31 kernels are the most accurate and too slow; wide networks are proposed and never trained."""
    with shown_study(
        tmp_path_factory.mktemp("budgeted"),
        axes={"K": [[3, 3, 3, 3], [31, 29, 27, 13]], "C": [[16, 32, 64, 128], [32, 64, 128, 256]]},
        when={},
        budgets={"latency_ms": 8, "params": 600_000},
        search={"sampler": "random", "trials": 4, "seeds": 1, "seed": 3},
    ) as study:
        yield study


@pytest.fixture(scope="module")
def study(shown: ServedStudy) -> Any:
    (summary,) = shown.api("studies")["study_summaries"]
    assert summary["study_name"] == "question" and summary["directions"] == ["maximize"]
    assert shown.url.endswith(f"/dashboard/studies/{summary['study_id']}")
    return shown.api(f"studies/{summary['study_id']}")


@pytest.mark.long
def test_parameters_and_values_are_there(study: Any) -> None:
    trials = {trial["number"]: trial for trial in study["trials"]}
    assert len(trials) == 5 and {trial["state"] for trial in trials.values()} == {"Complete"}
    params = {param["name"]: param["param_external_value"] for param in trials[4]["params"]}
    assert params == {"K": "[31, 29, 27, 13]", "reparam": "5"}
    assert trials[4]["values"] == [pytest.approx(93.2)]
    assert study["best_trials"][0]["number"] == 4


def test_learning_curves_are_there(study: Any) -> None:
    curve = {point["step"]: point["value"] for point in study["trials"][4]["intermediate_values"]}
    mean = 93.2  # of three seeds
    assert curve == pytest.approx({n: mean * n / EPOCHS for n in range(1, EPOCHS + 1)})
    assert study["has_intermediate_values"]


def test_attributes_are_there(study: Any) -> None:
    attributes = {attribute["key"]: attribute["value"] for attribute in study["trials"][4]["user_attrs"]}
    assert int(attributes["params"]) > 400_000 and int(attributes["macs"]) > 40_000_000
    assert json.loads(attributes["seeds"]) == [0, 1, 2] and len(json.loads(attributes["runs"])) == 3
    assert attributes["device"] == "cpu (test, 1 thread)" and "torch" in attributes["versions"]
    study_attributes = {attribute["key"]: attribute["value"] for attribute in study["user_attrs"]}
    assert study_attributes["question"] == "How large?" and "maximize top1" in study_attributes["objective"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "studies/1"), ("POST", "studies"), ("POST", "studies/1/rename"), ("PUT", "studies/1/note")],
)
def test_nothing_can_be_changed(shown: ServedStudy, method: str, path: str) -> None:
    database = Path(shown.study.workspace.database)
    before = database.read_bytes()
    request = urllib.request.Request(f"{shown.root}/api/{path}", data=b"{}", method=method)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=PATIENCE_S)
    with refused.value as answer:
        assert answer.code == 403 and "read only" in answer.read().decode()
    assert database.read_bytes() == before


def test_a_port_that_is_taken_is_an_error_with_a_remedy(shown: ServedStudy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = harness("dashboard", "study.yaml", "--port", str(port), cwd=shown.study.path.parent)
    assert result.returncode == 2 and str(port) in result.stderr and "--port" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={profile}")
    options.add_argument("--window-size=1400,1800")
    started = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield started
    started.quit()


def wait_for_text(browser: webdriver.Chrome, *parts: str) -> str:
    """The page's text, once it has all of these parts."""

    def text(driver: webdriver.Chrome) -> str:
        output = driver.find_element(By.TAG_NAME, "body").text
        return output if all(part in output for part in parts) else ""

    return WebDriverWait(browser, PATIENCE_S).until(text)


@pytest.mark.long
def test_the_page_shows_history_curves_and_the_best(shown: ServedStudy, browser: webdriver.Chrome) -> None:
    browser.get(shown.url)
    text = wait_for_text(browser, "History", "Intermediate values", "Best Trial (number=4)", "trial #4")
    assert "K: [31, 29, 27, 13], reparam: 5" in text and "How large?" in text


@pytest.mark.long
def test_the_page_of_a_trial_shows_its_attributes(shown: ServedStudy, browser: webdriver.Chrome) -> None:
    browser.get(f"{shown.url}/trials?numbers=4")
    text = wait_for_text(browser, "User Attributes", "Intermediate Values", "latency_ms_p50")
    for part in ("macs", "params", "seeds [0, 1, 2]", "device cpu (test, 1 thread)", "K [31, 29, 27, 13]"):
        assert part in text


@pytest.mark.long
def test_the_page_names_the_best_within_the_budgets(budgeted: ServedStudy, browser: webdriver.Chrome) -> None:
    answer = json.loads(harness("show", "study.yaml", "--json", cwd=budgeted.study.path.parent).stdout)
    assert {row["state"] for row in answer["configurations"]} == {"complete", "over budget"}
    browser.get(budgeted.url)
    text = wait_for_text(browser, "History", "Infeasible", f"Best Trial (number={answer['best_trial']})")
    assert "K: [3, 3, 3, 3], C: [16, 32, 64, 128]" in text


@pytest.mark.long
def test_the_list_tells_rejected_trials_apart_and_a_note_has_the_network(
    budgeted: ServedStudy, browser: webdriver.Chrome
) -> None:
    answer = json.loads(harness("show", "study.yaml", "--json", cwd=budgeted.study.path.parent).stdout)
    browser.get(f"{budgeted.url}/trials?numbers={answer['best_trial']}")
    text = wait_for_text(browser, "Note", "best of the study", "Rejected", "Complete", "Best Trial")
    for part in ("stage 1", "params", "MACs", "latency_ms_p50", "cpu (test, 1 thread)", "harness 0.1.0"):
        assert part in text
    details = budgeted.api(budgeted.url.partition("/dashboard/")[2])
    rejected = next(trial["number"] for trial in details["trials"] if trial["state"] == "Rejected")
    browser.get(f"{budgeted.url}/trials?numbers={rejected}")
    wait_for_text(browser, "rejected, never trained", "are over the budget of 600,000")
