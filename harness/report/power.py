"""What the claims of a study need to be decided, as a table and for JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from harness.analysis.claim_power import ClaimPower, EffectPower, Spread, SpreadSource
from harness.analysis.formatting import format_duration, format_metric
from harness.analysis.statistics.power import MOST_PAIRS
from harness.report.console import indented, plain_table


def power_view(claims: Sequence[ClaimPower], power: float, workers: int) -> RenderableType:
    """One table for each claim: pairs and minutes by size of the effect."""
    return Group(*(part for claim in claims for part in _claim_view(claim, power, workers)))


def power_values(claims: Sequence[ClaimPower], power: float, workers: int) -> dict[str, Any]:
    """The same numbers for JSON."""
    return {"power": power, "workers": workers, "claims": [_values(claim) for claim in claims]}


def _values(claim: ClaimPower) -> dict[str, Any]:
    return {
        "name": claim.claim.name,
        "pairing": "seed" if claim.is_paired else "none",
        "plan": {"first": claim.plan.first, "most": claim.plan.most, "alpha": claim.plan.alpha},
        "sd": asdict(claim.spread),
        "pair_s": claim.pair_s,
        "is_timed": claim.is_timed,
        "effects": [asdict(effect) for effect in claim.effects],
    }


def _claim_view(claim: ClaimPower, power: float, workers: int) -> Iterator[RenderableType]:
    unit = " x sd" if claim.spread.source == SpreadSource.UNIT else ""
    yield Text(claim.claim.name, style="bold").append(f"  {claim.claim.expect}", style="dim")
    yield indented(_spread_text(claim))
    own = f"by {claim.plan.most} seeds"
    table = plain_table((f"effect{unit}",), (f"pairs for {power:.0%}", "on average", "computing", "time", own))
    for effect in claim.effects:
        table.add_row(*_cells(effect, claim, workers))
    yield table
    yield Text()


def _spread_text(claim: ClaimPower) -> str:
    spread, metric = claim.spread, claim.claim.metric
    of_what = "its pairs" if claim.is_paired else "its contrast, unpaired"
    match spread.source:
        case SpreadSource.RUNS:
            low, high = format_metric(spread.low, metric), format_metric(spread.high, metric)
            return (
                f"Standard deviation of {of_what}: {format_metric(spread.sd, metric)} [{low}, {high}] "
                f"(n = {spread.n}, 80 % interval); pairs in brackets are for its ends."
            )
        case SpreadSource.ASSUMED:
            return f"Standard deviation of {of_what}: {format_metric(spread.sd, metric)}, as assumed."
        case _ if claim.is_paired:
            return "The spread of its pairs is not known yet: effects are in units of their standard deviation."
        case _:
            return "The spread of its contrast is not known yet: effects are in units of it, for arms of equal spread."


def _cells(effect: EffectPower, claim: ClaimPower, workers: int) -> tuple[str, ...]:
    size = format_metric(effect.effect, claim.claim.metric)
    pairs = _pairs_text(effect, claim.spread)
    chance = f"{effect.chance:.0%}"
    if effect.expected is None or claim.pair_s is None:
        return size, pairs, "-", "-", "-", chance
    seconds = effect.expected * claim.pair_s
    about = "" if claim.is_timed else "about "
    return (
        size,
        pairs,
        f"{effect.expected:.1f}",
        f"{about}{seconds / 60:.1f} core-min",
        f"{about}{format_duration(seconds / workers)}",
        chance,
    )


def _pairs_text(effect: EffectPower, spread: Spread) -> str:
    if spread.source != SpreadSource.RUNS:
        return _count(effect.pairs)
    return f"{_count(effect.pairs)} [{_count(effect.pairs_range[0])}, {_count(effect.pairs_range[1])}]"


def _count(pairs: int | None) -> str:
    return f"> {MOST_PAIRS}" if pairs is None else str(pairs)
