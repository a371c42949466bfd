"""The latency of a configuration: one measurement with its interval, shared by the seeds of one network."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from harness.analysis.formatting import DASH, format_milliseconds
from harness.analysis.objective import LATENCY, LATENCY_BOUND


class LatencyResult(NamedTuple):
    """A latency measurement; those of earlier versions have only the median."""

    median_ms: float
    low_ms: float | None
    """Lower end of the median's 95 % interval."""
    high_ms: float | None
    n: int | None
    """Number of samples."""
    is_quiet: bool
    """Whether no other work on the device was recorded during the measurement."""

    @property
    def text(self) -> str:
        """Text such as `5.91 [5.88, 5.95]`; with `~` if other work disturbed it."""
        mark = "" if self.is_quiet else "~"
        if self.low_ms is None or self.high_ms is None:
            return f"{mark}{format_milliseconds(self.median_ms)}"
        return (
            f"{mark}{format_milliseconds(self.median_ms)} [{format_milliseconds(self.low_ms)}, "
            f"{format_milliseconds(self.high_ms)}]"
        )


def latency_result(runs: Iterable[Mapping[str, float]]) -> LatencyResult | None:
    """The measurement of a configuration's complete runs; of several different ones, that with the middle median."""
    measurements = sorted(
        {_latency(measures) for measures in runs if LATENCY in measures}, key=lambda each: each.median_ms
    )
    return measurements[(len(measurements) - 1) // 2] if measurements else None


def latency_text(latency: LatencyResult | None) -> str:
    """The latency as text for a table cell."""
    return DASH if latency is None else latency.text


def latency_values(latency: LatencyResult | None) -> dict[str, Any]:
    """The latency as plain values for JSON."""
    return {
        "latency_ms_p50": None if latency is None else latency.median_ms,
        "latency_ms_low": None if latency is None else latency.low_ms,
        "latency_ms_high": None if latency is None else latency.high_ms,
        "latency_ms_n": None if latency is None else latency.n,
        "latency_is_quiet": None if latency is None else latency.is_quiet,
    }


def _latency(measures: Mapping[str, float]) -> LatencyResult:
    n = measures.get("latency_ms_n")
    return LatencyResult(
        measures[LATENCY],
        measures.get("latency_ms_low"),
        measures.get(LATENCY_BOUND),
        None if n is None else int(n),
        is_quiet="latency_ms_disturbed" not in measures,
    )
