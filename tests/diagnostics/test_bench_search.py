"""The bench of searches: the default policy and its baselines on a recorded table, with their targets."""

from pathlib import Path

import pytest
from curve_tables import SPACE, space_file, synthetic_table
from tiny_studies import called, write_study

from harness.analysis.curve_table import table_path, write_table
from harness.config.study_file import load_study
from harness.diagnostics.bench import search
from harness.diagnostics.bench.search import SEARCH_STUDY


def test_the_shipped_space_has_three_hundred_networks_with_three_seeds() -> None:
    study = load_study(SEARCH_STUDY).study
    assert study.search.sampler == "grid" and study.search.pruner == "none" and study.search.seeds == 3
    assert {name.partition("[")[0] for name in study.axes} == {"B", "C", "K", "shortcut", "reparam"}
    assert 4 <= study.proxy.epochs <= 6


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_quick_bench_prints_regret_and_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_recorded: bool
) -> None:
    path = write_study(tmp_path, SPACE)
    table = table_path(tmp_path / "results", "replayed")
    monkeypatch.setattr(search, "SEARCH_STUDY", path)
    monkeypatch.setattr(search, "SEARCH_TABLE", table)
    monkeypatch.setattr(search, "QUICK_REPETITIONS", 2)
    if not is_recorded:
        refused = called("bench", "search", "--quick", cwd=tmp_path)
        assert refused.returncode == 2 and "--record" in refused.stderr
        return
    write_table(synthetic_table(space_file(tmp_path / "space"), noise=0.5), table)
    output = called("bench", "search", "--quick", "--output", "out", cwd=tmp_path)
    assert output.returncode == 0, output.stderr
    assert "regret of tpe+successive_halving+1" in output.stdout and "mean, against first_epoch" in output.stdout
    written = (tmp_path / "out" / "search.md").read_text()
    assert "| policy | 2.4 % |" in written and "## Targets" in written
