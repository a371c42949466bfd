"""The command `verify`: every check holds, one that does not is named, and claims are shown with the checks."""

import json
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_studies import called, text_of
from torch import Tensor, nn

from harness.cli import main
from harness.cli.verify import SUBJECTS
from harness.diagnostics.verify import convolution, costs, full_scale, networks
from harness.diagnostics.verify.checks import CHECKS, run_checks
from harness.diagnostics.verify.findings import Check, ClaimRow, Finding, Line, Section
from harness.diagnostics.verify.report import section_view, sum_view, verdicts_view, verify_values
from harness.models.build import merge
from harness.models.cost import Cost, network_cost
from harness.models.equivalence import max_error, relative_error
from harness.models.spec.published import COUNTED, GROWTH
from harness.ops.dispatch import STOCK
from harness.ops.geometry import Window

HEAVY = "presets up to 10M params, and replknet_31b"
"""Two gigabytes of float64; other tests merge and fold the proxies."""
FAST = ("counts", "specs", "full_scale")

SUPPORTED = ClaimRow(
    study="guideline_2_shortcut",
    name="interaction",
    says="Large kernels need the shortcut more.",
    verdict="supported",
    effect=4.25,
    low=1.5,
    high=7.0,
    n=6,
    p=0.004,
    unit="top1",
    paper="15.46 points, table 2",
    device="cpu (AMD EPYC, 1 thread)",
)


# The checks


@pytest.mark.parametrize(
    ("subject", "check"),
    [
        pytest.param(subject, check, id=f"{subject}: {check.title}")
        for subject, (_, checks) in CHECKS.items()
        for check in checks
        if not check.is_slow and check.title != HEAVY
    ],
)
def test_every_check_holds(subject: str, check: Check) -> None:
    findings = list(check.run())
    assert not [finding for finding in findings if not finding.holds]
    assert findings or (check.title == "triton" and not torch.cuda.is_available()), "a check of nothing"
    assert len({(finding.what, finding.source) for finding in findings}) == len(findings), f"{subject}: two of one name"
    assert all(finding.source for finding in findings)


def test_the_command_line_has_the_subjects() -> None:
    assert (*CHECKS, "claims") == SUBJECTS


def test_every_figure_of_released_code_is_compared() -> None:
    figures = sum(
        isinstance(figure, int | float)
        for row in COUNTED
        for name, figure in row._asdict().items()
        if name not in ("resolution", "params", "params_merged")
    )
    figures += len({(row.preset, form) for row in COUNTED for form in (row.params, row.params_merged) if form})
    forms = [partial(costs.params, merged=merged) for merged in (False, True)]
    entries = [*forms, costs.params_folded, costs.macs, *_specs_entries()]
    assert sum(len(list(check())) for check in entries) == figures


def _specs_entries() -> list[Any]:
    return [check.run for check in CHECKS["specs"].checks if check.title == "entries of state dicts"]


@pytest.mark.parametrize("value", [float("nan"), 1e-9, float("inf")])
def test_an_error_above_its_bound_or_without_a_number_does_not_hold(value: float) -> None:
    assert not Finding("merged", 0.0, value, "", 1e-10).holds
    assert Finding("merged", 0.0, 1e-10, "", 1e-10).holds


def test_texts_hold_where_they_are_equal() -> None:
    assert Finding("file", "read", "read", "").holds
    assert not Finding("file", "read", "line 3", "").holds
    assert not Finding("file", 3, "3", "", 1.0).holds


def test_errors_are_relative_and_the_worst_is_kept() -> None:
    exact = torch.tensor([4.0, -8.0], dtype=torch.float64)
    assert relative_error(exact.float() + 0.5, exact) == 0.5 / 8
    assert max_error([0.1, 0.3, 0.2]) == 0.3
    assert max_error([0.1, float("nan"), 0.2]) != max_error([0.1, 0.2])


def test_a_convolution_that_is_wrong_anywhere_is_found() -> None:
    case = convolution.CASES["K=7 on 24 x 17"]

    def wrong(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
        y = STOCK.run(x, weight, bias, window)
        return torch.where(torch.arange(y.numel()).view(y.shape) == 1, y + 1e-3, y)

    metrics = convolution.errors(wrong, case, torch.float64, "cpu")
    assert metrics["output"] > 1e-6 > metrics["weight gradient"]


def test_a_merge_that_changes_the_network_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(network: nn.Module) -> nn.Module:
        merged = merge(network)
        next(merged.parameters()).data *= 1.001
        return merged

    monkeypatch.setattr(networks, "merge", wrong)
    merged, folded = islice(networks.families(), 2)
    assert not merged.holds and 1e-9 < float(merged.found) < 1e-3
    assert folded.holds


def test_a_closed_form_that_is_off_by_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "network_cost", lambda *args: network_cost(*args) + Cost(activations=1))
    first = next(costs.agreement(True))
    assert not first.holds and str(first.found)[:20] == str(first.expected)[:20]


# The verb


def test_the_command_passes_and_reports_it(tmp_path: Path) -> None:
    result = called("verify", "--only", *FAST, "claims", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "checks hold, 0 do not" in result.stdout
    assert all(check.title in result.stdout for name in FAST for check in CHECKS[name].checks)
    assert "no claim study is recorded in results" in result.stdout and "harness run" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_fact_that_is_not_so_is_named_with_both_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [row._replace(params=79_864_169) if row.preset == "replknet_31b" else row for row in COUNTED]
    monkeypatch.setattr(costs, "COUNTED", tuple(wrong))
    monkeypatch.setattr(costs, "GROWTH", GROWTH._replace(macs=28.6))
    result = called("verify", "--only", "counts", cwd=tmp_path)
    assert result.returncode == 1
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert any("replknet_31b: params in training 79,864,169 79,864,168" in line for line in lines)
    assert any("28.6 ± 0.3 18.66" in line for line in lines)
    assert "2 do not (counts)" in lines[-1]


def test_a_check_that_breaks_off_does_not_hold_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(costs, "network_parts", broken)
    (section,) = run_checks(["counts"])
    assert section.failed == 1 and section.holding > 40
    assert "RuntimeError: no memory" in text_of(section_view(section))


def test_json_has_every_finding(tmp_path: Path) -> None:
    result = called("verify", "--only", "counts", "claims", "--json", cwd=tmp_path)
    values = json.loads(result.stdout)
    (subject,) = values["subjects"]
    made = [finding for check in subject["checks"] for finding in check["findings"]]
    assert result.returncode == 0 and values["fails"] == 0 and values["holds"] == len(made)
    assert {finding["holds"] for finding in made} == {True} and values["claims"] == []
    (merged,) = (finding for finding in made if finding["what"] == "replknet_31b: params merged")
    assert merged["expected"] == merged["found"] == 79_527_272 and merged["tolerance"] == 0
    assert "torch" in values["conditions"] and values["wall_s"] > 0


def test_an_unknown_subject_lists_the_known_ones(tmp_path: Path) -> None:
    result = called("verify", "--only", "count", cwd=tmp_path)
    assert result.returncode == 2
    assert all(name in result.stderr for name in SUBJECTS)


def test_help_explains_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["verify", "--help"])
    output = " ".join(capsys.readouterr().out.split())
    assert "give exit code 1" in output and "contradicted is a finding, not a fault" in output


# The tables


def _section(*made: Finding) -> Section:
    return Section("merge", "about", (Line("title", made),), 1.5)


def test_many_failures_are_counted_and_the_first_named() -> None:
    made = [Finding(f"network {i}", 0.0, 1e-3, "guideline 3", 1e-10) for i in range(20)]
    text = text_of(section_view(_section(*made)))
    assert "network 11" in text and "network 12" not in text and "and 8 more" in text
    assert "20 within 1e-10" in text and "up to 1e-03" in text
    assert "0 checks hold, 20 do not (merge)" in text_of(sum_view([_section(*made)], 1.0, "here"))


def test_a_check_of_nothing_is_marked() -> None:
    assert "nothing to check on this machine" in text_of(section_view(_section()))


def test_claims_are_shown_with_effect_interval_n_and_p() -> None:
    text = text_of(verdicts_view([SUPPORTED]), width=200)
    for words in ("guideline_2_shortcut", "supported", "4.25", "[1.50, 7.00]", "0.004", "15.46 points", "AMD EPYC"):
        assert words in text


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"verdict": "contradicted"}, 0, "contradicted"),
        ({"fault": "its recipe is of another version"}, 1, "guideline_2_shortcut: its recipe is of another version"),
    ],
)
def test_a_contradicted_claim_is_no_fault_and_runs_that_cannot_be_read_are(
    change: dict[str, Any], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [SUPPORTED, replace(SUPPORTED, **change)]
    monkeypatch.setattr("harness.diagnostics.verify.recorded_claims.all_recorded_claims", lambda _: rows)
    result = called("verify", "--only", "claims", cwd=tmp_path)
    assert result.returncode == code
    assert words in result.stdout and "supported" in result.stdout
    assert called("verify", "--only", "claims", "--json", cwd=tmp_path).returncode == code


def test_claims_in_json() -> None:
    values = verify_values([], [SUPPORTED], 1.0, "here")
    assert values["claims"][0]["effect"] == 4.25 and values["claims"][0]["fault"] is None
    assert verify_values([], None, 1.0, "here")["claims"] is None


# Shipped studies


def test_a_study_file_with_faults_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sound.yaml").write_text(
        "study: a\nbase: replknet_nano\naxes: {K: [3, 31]}\nfull_scale: {base: replknet_31b}\n"
    )
    (tmp_path / "faulty.yaml").write_text("study: a\nbase: replknet_nano\naxes: {K: [4]}\n")
    monkeypatch.setattr(full_scale, "STUDIES_FOLDER", tmp_path)
    broken, sound = full_scale.files()
    assert broken.what == "faulty.yaml" and not broken.holds and "odd" in str(broken.found)
    assert sound.holds and next(full_scale.bases()).holds
    assert [finding.holds for finding in full_scale.configurations()] == [True, True]


def test_choices_that_do_not_fit_the_full_scale_base_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "study.yaml").write_text(
        "study: a\nbase: mobilenet_v2_nano\naxes: {K: [[3, 3, 3, 3, 3, 3, 3]]}\nfull_scale: {base: replknet_31b}\n"
    )
    monkeypatch.setattr(full_scale, "STUDIES_FOLDER", tmp_path)
    (finding,) = full_scale.configurations()
    assert not finding.holds and "4 in all" in str(finding.found)


def test_claim_studies_are_those_with_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text("study: a\nclaims: [{name: b}]\n")
    (tmp_path / "b.yaml").write_text("study: b\n")
    (tmp_path / "c.yaml").write_text("study: [\n")
    monkeypatch.setattr(full_scale, "STUDIES_FOLDER", tmp_path)
    assert [path.name for path in full_scale.claim_studies()] == ["a.yaml"]
