"""The result of `harness replay` as text."""

from collections.abc import Iterator

from harness.analysis.formatting import plural
from harness.search.log_replay import ReplayedSearch


def replay_lines(replayed: ReplayedSearch) -> Iterator[str]:
    """One line with what was replayed, and where it differs, one with the difference and one with a possible cause."""
    counts = plural(replayed.trials, "trial"), plural(replayed.records, "record"), plural(replayed.starts, "start")
    size = "{}, {} of runs, {}".format(*counts)
    if replayed.difference is None:
        yield f"{replayed.study} is replayed: {size}; every proposal, decision and value is the recorded one."
        return
    yield f"{replayed.study} is not replayed ({size}). The first difference:"
    yield f"  {replayed.difference}"
    if replayed.code_changed:
        yield "Runs of it were computed by other code or libraries than these, which may be the cause."
