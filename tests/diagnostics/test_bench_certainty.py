"""The bench of certainty: the flagship's first claim with both recipes, and the ratio of their core-minutes."""

from pathlib import Path

import pytest
import yaml
from claim_studies import CLAIM
from tiny_studies import BRIEF, TINY, called, write_study

from harness.config.calibration_candidates import plan_calibration
from harness.config.study_file import load_study
from harness.diagnostics.bench import certainty
from harness.diagnostics.bench.certainty import BEFORE, FLAGSHIP, write_certainty_study


def test_both_recipes_of_the_flagship_are_candidates(tmp_path: Path) -> None:
    plan = plan_calibration(load_study(write_certainty_study(tmp_path, 4)))
    own, before = (candidate.study(4).study for candidate in plan.candidates)
    written = load_study(FLAGSHIP).study
    assert own.proxy == written.proxy and plan.stages == (4,)
    assert len(own.bases) == len(written.claims[0].contrast) == 2
    assert before.proxy.batch_size == BEFORE["batch_size"] and before.proxy.optimizer.lr == BEFORE["optimizer.lr"]
    assert before.proxy != own.proxy


@pytest.mark.long
def test_a_quick_bench_trains_both_and_prints_their_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = CLAIM | {"contrast": {"K=[5,5,3,3]": 1, "K=3": -1}}
    (tmp_path / "flagship").mkdir()
    flagship = write_study(tmp_path / "flagship", TINY, claims=[claim], proxy=BRIEF)
    monkeypatch.setattr(certainty, "FLAGSHIP", flagship)
    monkeypatch.setattr(certainty, "BEFORE", {"batch_size": 8, "optimizer.lr": 0.05})
    output = called("bench", "certainty", "--quick", "--workers", "1", "--output", "out", cwd=tmp_path)
    assert output.returncode == 0, output.stderr
    assert "Core-minutes to a decision" in output.stdout and "batch_size=8 optimizer.lr=0.05" in output.stdout
    written = (tmp_path / "out" / "certainty.md").read_text()
    assert "| recipe | before | now | ratio |" in written and "as written" in written
    assert yaml.safe_load(flagship.read_text())["study"] == TINY["study"]
