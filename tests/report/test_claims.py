"""Claims as `show` and `status` print them: with effect, interval, n, p and the published value."""

import json
import re
from pathlib import Path

from claim_studies import CLAIM, claimed
from tiny_studies import Played, called, gains, text_of, well

from harness.analysis.study_reader import open_study_reader
from harness.report.claims import claims_view


def test_claims_are_shown_with_effect_interval_n_p_and_the_published_value(tmp_path: Path) -> None:
    played = claimed(tmp_path)
    results = played.answer(gains(K13=30))
    with open_study_reader(played.path, played.workspace) as reader:
        from dataclasses import replace

        from rich.console import Group

        output = text_of(Group(*claims_view(replace(results, claims=reader.claims()))), width=80)
    row = next(line for line in output.splitlines() if line.startswith("larger_is_better"))
    assert re.search(r"supported +\d\d\.\d\d  \[\d\d\.\d\d, \d\d\.\d\d\] +3 +0\.\d+ +> 0", row)
    assert "K=13 is ahead of K=3" in output and "0.91 points (table 5)" in output


def test_an_undecided_claim_is_shown_with_the_seeds_that_would_decide_it(tmp_path: Path) -> None:
    played = claimed(tmp_path)
    for _ in played.events(gains(K13=0.3)):
        pass
    result = called("show", played.path, "--results", played.workspace.results, cwd=tmp_path)
    assert "undecided" in result.stdout and re.search(r"seeds would (decide|be needed)", result.stdout)
    values = json.loads(
        called("show", played.path, "--results", played.workspace.results, "--json", cwd=tmp_path).stdout
    )
    (claim,) = values["claims"]
    assert claim["verdict"] == "undecided" and len(claim["values"]) == claim["n"] == 4  # then a verdict was unlikely
    first, second = claim["arms"]
    assert (first["choices"]["K"], first["weight"], second["weight"]) == ([13] * 4, 1, -1)
    assert first["seeds"] == second["seeds"] == claim["seeds"] == [0, 1, 2, 3]
    assert claim["values"] == [a - b for a, b in zip(first["values"], second["values"], strict=True)]
    status = called("status", played.path, "--results", played.workspace.results, cwd=tmp_path)
    assert "finished" in status.stdout and "claims          1 undecided" in status.stdout


def test_the_analysis_is_stated_in_the_header_and_in_json(tmp_path: Path) -> None:
    for folder, search, analysis in (
        ("paired", {}, "paired by seed"),
        ("unpaired", {"pairing": "none"}, "unpaired (Welch)"),
    ):
        (tmp_path / folder).mkdir()
        played = claimed(tmp_path / folder, search={"seeds": 3, "max_seeds": 6} | search)
        for _ in played.events(gains(K13=0.3)):
            pass
        output = called("show", played.path, cwd=tmp_path / folder).stdout
        assert f"Claims  error rate 5 % over all looks, {analysis}; p corrected over 1 claim (Holm)" in output
        assert ("Unpaired; pairing by seed" in output) == bool(search)
        (claim,) = json.loads(called("show", played.path, "--json", cwd=tmp_path / folder).stdout)["claims"]
        assert claim["pairing"] == search.get("pairing", "seed")
        assert (claim["p_permutation"] is None) == bool(search) and claim["interval"] is not None
        assert claim["values"] == [a - b for a, b in zip(*(arm["values"] for arm in claim["arms"]), strict=True)]


def test_without_a_spread_the_number_of_seeds_needed_is_unknown(tmp_path: Path) -> None:
    played = Played(tmp_path, claims=[CLAIM])
    for _ in played.events(well):  # its seeds make the same difference to both arms
        pass
    result = called("show", played.path, "--results", played.workspace.results, cwd=tmp_path)
    assert "3 seeds show no spread, so the number of seeds that would decide it is unknown." in result.stdout
    assert "more seeds are unlikely" not in result.stdout
