"""The shape bias as it is shown: a share of decisions, never without its interval and its n."""

from collections.abc import Iterator, Mapping

from harness.analysis.formatting import DASH, counted

LEVEL = 0.95


def interval_pct(shape: int, decisions: int) -> tuple[float, float] | None:
    """Wilson's 95 % interval of a share of decisions, in percent; None without decisions."""
    from scipy.stats import binomtest

    if decisions == 0:
        return None
    found = binomtest(shape, decisions).proportion_ci(LEVEL, method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


def share_words(shape: int, decisions: int) -> str:
    """As 43.2 % (36.6 to 49.9), a share and its interval."""
    interval = interval_pct(shape, decisions)
    if interval is None:
        return DASH
    return f"{100 * shape / decisions:.1f} % ({interval[0]:.1f} to {interval[1]:.1f})"


def shape_bias_line(measures: Mapping[str, float]) -> Iterator[str]:
    """The shape bias of a run that has measured it, with its 95 % interval; a line or none."""
    if "shape_decisions" in measures:
        shape = int(measures["shape_decisions"])
        decisions = shape + int(measures["cue_decisions"])
        yield f"{share_words(shape, decisions)} of {counted(decisions, 'decision')}"
