"""The answer in the README is the recorded one."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def test_the_readme_shows_the_recorded_answer_of_make_study() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    shown = readme.split("`make study` ends with this", 1)[1].split("```\n", 2)[1].splitlines()
    recorded = (REPOSITORY / "results" / "claims" / "kernel_size" / "summary.txt").read_text().splitlines()
    assert [line for line in shown if line not in ("", *recorded)] == []
    assert sum(bool(re.search(r"\d ± \d", line)) for line in shown) == 5
