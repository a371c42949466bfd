"""A recorded claim as `harness verify` shows it: the seam between the claim studies and the table."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """What the runs of a study say of one of its claims; or, where they cannot be read, why."""

    study: str
    name: str
    """What the claim is called in its study."""
    says: str
    """The claim in a sentence."""
    verdict: str
    """As supported, contradicted, equivalent, undecided."""
    effect: float | None
    low: float | None
    """Of the effect's interval."""
    high: float | None
    n: int
    """Seeds that all arms have completed."""
    p: float | None
    unit: str
    """Of the effect: the metric that the claim is about."""
    paper: str | None
    """What was published, with its place."""
    device: str
    """That trained the runs."""
    environments: str = ""
    """Runs of other environments than this machine's, as `3 of 15 runs: torch 2.14`; empty where there are none."""
    limit: str | None = None
    """`chance` or `ceiling`, where all arms are there and nothing is told apart."""
    noise: str | None = None
    """Which sources of noise the interval holds."""
    fault: str | None = None
    """Why the recorded runs cannot be read; the one thing about a claim that is no finding but a fault."""
    source: str = ""
    """Where it is recorded: a database of runs, or a kept summary."""
    environment: str = ""
    """What is to be said of how the runs were computed, where it is not as they would be computed now."""
    conditions: str = ""
    """Of a kept summary: device, versions and seeds of its runs."""
    finished: str | None = None
    """When the last run was finished; ISO 8601 in UTC."""
    check: str = ""
    """Of a kept summary: whether it can be checked again here, by which command and in what time, or why not."""
    compared: str | None = None
    """Of a kept summary: how it stands to the runs that are stored here, where there are any."""
