"""Formats metrics and configurations as short text, in the same way for all tables and views."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

DASH = "-"
"""Placeholder for a missing value."""
BARS = "▁▂▃▄▅▆▇█"
PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def si(number: float | None) -> str:
    """A number with three digits and an SI prefix: 79.9M, 15.4G, 870."""
    if number is None or not math.isfinite(number):
        return DASH
    for size, prefix in PREFIXES:
        if abs(number) >= 0.9995 * size:
            return f"{_three_digits(number / size)}{prefix}"
    return f"{number:.0f}" if float(number).is_integer() else _three_digits(number)


def format_duration(seconds: float | None) -> str:
    """A duration such as 42 s, 3 min 05 s, 2 h 07 min, 1,234 h."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 360_000:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 3600:,} h"


def format_short_duration(seconds: float | None) -> str:
    """A duration for table columns, such as 0.9 s, 102 s, 12.3 min, 2.1 h."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 600:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def format_milliseconds(value: float | None) -> str:
    """A latency with three digits: 4.31, 28.9."""
    return DASH if value is None or not math.isfinite(value) else _three_digits(value)


def format_metric(mean: float | None, metric: str) -> str:
    """A value of a metric: top1 with two decimals, from 10,000 with a prefix, the rest with four digits."""
    if mean is None or not math.isfinite(mean):
        return DASH
    if metric == "top1":
        return f"{mean:.2f}"
    return si(mean) if abs(mean) >= 1e4 else f"{mean:.4g}"


def format_mean_and_spread(mean: float | None, spread: float | None, metric: str) -> str:
    """Mean and spread such as 93.40 ± 0.82; only the mean if there is no spread."""
    text = format_metric(mean, metric)
    return text if spread is None else f"{text} ± {format_metric(spread, metric)}"


def format_value(chosen: Any) -> str:
    """A value of an axis: lists as 31-29-27-13, null as none."""
    if isinstance(chosen, list | tuple):
        return "-".join(format_value(value) for value in chosen)
    if chosen is None:
        return "none"
    if isinstance(chosen, bool):
        return str(chosen).lower()
    return f"{chosen:g}" if isinstance(chosen, float) else str(chosen)


def format_params(params: Mapping[str, Any]) -> str:
    """The choices of a configuration: K=31-29-27-13 reparam=5."""
    return " ".join(f"{name}={format_value(chosen)}" for name, chosen in params.items()) or "the base network"


def plural(n: int, noun: str) -> str:
    """A count with its noun, such as 1 seed, 3 seeds."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def epochs_done(done: int, epochs: int) -> str:
    """Progress such as 3/10; `untrained` for zero epochs."""
    return f"{done}/{epochs}" if epochs else "untrained"


def join_words(parts: Iterable[str]) -> str:
    """Join texts as in `a, b and c`."""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def json_safe(values: Any) -> Any:
    """Plain values for JSON: numbers that are not finite become null."""
    if isinstance(values, Mapping):
        return {key: json_safe(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [json_safe(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def json_text(values: Any) -> str:
    """Plain values as standard JSON, without NaN and infinity."""
    return json.dumps(json_safe(values), indent=2, allow_nan=False, ensure_ascii=False)


def printable(text: str) -> str:
    """The text as one line, with a space for each control character."""
    return "".join(c if c.isprintable() else " " for c in text)


def sparkline(values: Sequence[float]) -> str:
    """A curve with one character per point, scaled from its minimum to its maximum; a space if it is not finite."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    steps = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((v - low) * steps)] if math.isfinite(v) else " " for v in values)


def _three_digits(number: float) -> str:
    size = abs(number)
    return f"{number:.2f}" if size < 9.995 else f"{number:.1f}" if size < 99.95 else f"{number:.0f}"
