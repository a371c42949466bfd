"""Comparison of a study file with the one that its study was started with: additions, and changes that are refused.

A study can be extended: more seeds, more trials, further values of an axis, further networks on the axis `base`,
further claims. Its existing runs stay valid. A change that removes something, or that invalidates existing runs,
requires a new study.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.config.axes import Range
from harness.config.search_methods import traits_of
from harness.config.space import plain_fields
from harness.config.study import AxisEntry, Claim, OrdinalRange, Search, Study, WeightedValues
from harness.config.yaml_file import parse_stored
from harness.errors import StudyError
from harness.models.spec.network import NetworkSpec

FREE_TO_CHANGE = (
    "resources",
    "full_scale",
    "search.trials",
    "search.space_filling",
    "search.budget",
    "search.plateau",
    "search.racing",  # which must not be left out again; see `_racing`
    "search.enqueue",
    "effects",
    "quick",
    "calibrate",
    "proxy.root",
)
"""Keys that may change in any way: they decide only how long and where a study is trained, which trials are drawn
uniformly from now on, and what is shown of it. The data set is identified by its content, not by its folder; see
`harness.storage.data_changes`."""
DESCRIPTIVE_KEYS = ("says", "paper")
"""Keys of a claim that do not affect its verdict."""
COMPARED_KEYS = ("axes", "bases", "claims", "search.seeds", "search.max_seeds", "search.pairing")
"""Keys that may be extended; each is compared by its own rule."""


@dataclass(frozen=True, slots=True)
class StudyChanges:
    """The additions of a study file to its study, and its refused changes; each as `key from old to new`."""

    added: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    """Path in the file of the first refused change."""


def compare_studies(before: str, now: str) -> StudyChanges:
    """Compare two resolved study files. Raises `ValidationError` for one that this version cannot read."""
    old, new = _read(before), _read(now)
    started, study = Study.model_validate(old), Study.model_validate(new)
    differences = [
        *_seeds(started.search, study.search),
        *_pairing(started, study),
        *_racing(started.search, study.search),
        *_objectives(started, study),
        *_axes(started, study),
        *_bases(started, study),
        *_claims(started, study),
        *_others(started, study),
    ]
    added, refused = (tuple(text for kind, text in differences if kind == name) for name in ("added", "refused"))
    return StudyChanges(added, refused, _path(refused[0]) if refused else ())


def seeds_of(search: Search) -> tuple[int, int]:
    """The number of seeds of every configuration, and the maximum that a claim may request."""
    return search.seeds, max(search.seeds, search.max_seeds or 0)


def study_values(resolved: str) -> dict[str, Any]:
    """A resolved study as plain values by dotted key; every axis, and every list, is one value.

    Keys that a file of an earlier version lacks have their default, except `resample`: its seeds shared one data set.
    """
    return dict(_flat(Study.model_validate(_read(resolved)).model_dump(mode="json")))


def _read(resolved: str) -> dict[str, Any]:
    """The values of a resolved file; in a file of an earlier version, all seeds share one data set.

    Missing fields of a network have their default, too.
    """
    values: dict[str, Any] = parse_stored(resolved)
    bases = {name: _with_defaults(base) for name, base in (values.get("bases") or {}).items()}
    proxy = {"resample": "none"} | (values.get("proxy") or {})
    return {**values, "base": _with_defaults(values.get("base")), "bases": bases, "proxy": proxy}


def _with_defaults(base: object) -> object:
    return plain_fields(NetworkSpec.from_mapping(base)) if isinstance(base, Mapping) else base


def identity(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that affect the results of a study; of a claim, all but its descriptions."""
    return {
        key: [_without_description(claim) for claim in value] if key == "claims" else value
        for key, value in values.items()
        if not _is_below(key, FREE_TO_CHANGE)
    }


KeyChange = tuple[str, str]


def _seeds(old: Search, new: Search) -> Iterator[KeyChange]:
    for key, was, becomes in zip(("seeds", "max_seeds"), seeds_of(old), seeds_of(new), strict=True):
        if key == "max_seeds" and old.max_seeds is None and new.max_seeds is None:
            continue
        if was != becomes:
            yield "added" if becomes > was else "refused", _change_text(f"search.{key}", was, becomes)


def _pairing(old: Study, new: Study) -> Iterator[KeyChange]:
    """A part of the plan of the claims, which can be chosen as long as there are none."""
    was, becomes = old.search.pairing, new.search.pairing
    if was != becomes:
        yield "refused" if old.claims else "added", _change_text("search.pairing", was, becomes)


def _racing(old: Search, new: Search) -> Iterator[KeyChange]:
    """A race may begin, or get another rule, but not be left out: the seeds that it gave follow from results."""
    was, becomes = (None if key is None else key.model_dump(mode="json") for key in (old.racing, new.racing))
    if was != becomes:
        text = _change_text("search.racing", was, becomes)
        why = " (which configurations have further seeds follows from the results, so means alone must not rank them)"
        yield ("refused", text + why) if becomes is None else ("added", text)


def _objectives(old: Study, new: Study) -> Iterator[KeyChange]:
    """Their order is that of the values of a trial in Optuna; other changes are found key by key."""
    if old.objectives == new.objectives and list(old.objectives) != list(new.objectives):
        yield "refused", f"{_change_text('objectives', old.objectives, new.objectives)} (their order stays the same)"


def _axes(old: Study, new: Study) -> Iterator[KeyChange]:
    sampler = old.search.sampler
    can_grow = traits_of(sampler).grows_axes
    for name in {**old.axes, **new.axes}:
        key = f"axes.{name}"
        if name not in new.axes or name not in old.axes:
            was, becomes = _plain(old.axes.get(name)), _plain(new.axes.get(name))
            yield "refused", f"{_change_text(key, was, becomes)} (the axes of a study stay the same)"
            continue
        was, becomes = old.axes[name], new.axes[name]
        if _plain(was) == _plain(becomes):
            continue
        removed = _removed_value(was, becomes)
        if removed is not None:
            yield "refused", f"{_change_text(key, _plain(was), _plain(becomes))} (without {removed})"
        elif not _keeps_prior(was, becomes):
            change = _change_text(key, _plain(was), _plain(becomes))
            yield "refused", f"{change} (the prior was chosen before the first result)"
        elif _removed_value(becomes, was) is None:
            continue
        else:
            change = _change_text(key, _plain(was), _plain(becomes))
            yield ("added", change) if can_grow else ("refused", f"{change} ({sampler} has learned the earlier values)")


def _removed_value(was: AxisEntry, becomes: AxisEntry) -> str | None:
    """A value of an axis that its new form lacks; None if it has all. The expression of a derived axis must stay."""
    if isinstance(was, str) or isinstance(becomes, str):
        return f"`{was if isinstance(was, str) else becomes}`"
    if isinstance(was, OrdinalRange) and isinstance(becomes, OrdinalRange):
        if was.log != becomes.log:
            return f"`log: {json.dumps(was.log)}`"
        members = _range(becomes)
        ends = [was.low, was.low + was.step, was.high] if was.high > was.low else [was.low]
        return next((f"{end:g}" for end in ends if not _has(members, end)), None)
    values = _listed(was)
    if isinstance(becomes, OrdinalRange):
        members = _range(becomes)
        return next((json.dumps(value) for value in values if not _has(members, value)), None)
    keys = {_key(value) for value in _listed(becomes)}
    return next((json.dumps(value) for value in values if _key(value) not in keys), None)


def _listed(entry: list[Any] | WeightedValues | OrdinalRange) -> list[Any]:
    if isinstance(entry, OrdinalRange):
        return list(_range(entry).values)
    return entry.values if isinstance(entry, WeightedValues) else entry


def _keeps_prior(was: AxisEntry, becomes: AxisEntry) -> bool:
    """Whether the earlier values of an axis have the weights that they had."""
    old, new = (
        {_key(value): weight for value, weight in zip(entry.values, entry.prior, strict=False)}
        if isinstance(entry, WeightedValues)
        else None
        for entry in (was, becomes)
    )
    return old == new if old is None or new is None else all(new.get(key) == weight for key, weight in old.items())


def _range(entry: OrdinalRange) -> Range:
    return Range(entry.low, entry.high, entry.step, False)


def _has(axis: Range, value: Any) -> bool:
    try:
        axis.member(value)
    except StudyError:
        return False
    return True


def _key(value: Any) -> str:
    """A text that is equal for equal values: 3 and 3.0 are equal, true and 1 are not."""
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def _bases(old: Study, new: Study) -> Iterator[KeyChange]:
    for name, network in old.bases.items():
        if new.bases.get(name) != network:
            yield "refused", _change_text(f"bases.{name}", network, new.bases.get(name))


def _claims(old: Study, new: Study) -> Iterator[KeyChange]:
    after = {claim.name: claim for claim in new.claims}
    for claim in old.claims:
        now = after.get(claim.name)
        if now is None:
            yield "refused", f"`claims.{claim.name}` is taken away"
            continue
        for key, was, becomes in _changed(claim, now):
            yield "refused", f"{_change_text(f'claims.{claim.name}.{key}', was, becomes)} (add it under another name)"
    old_names = {claim.name for claim in old.claims}
    yield from (("added", f"the claim `{claim.name}`") for claim in new.claims if claim.name not in old_names)


def _changed(was: Claim, becomes: Claim) -> Iterator[tuple[str, Any, Any]]:
    old, new = _without_description(was.model_dump(mode="json")), _without_description(becomes.model_dump(mode="json"))
    return ((key, old[key], new[key]) for key in old if old[key] != new[key])


def _others(old: Study, new: Study) -> Iterator[KeyChange]:
    before, now = (dict(_flat(study.model_dump(mode="json"))) for study in (old, new))
    for key in {**before, **now}:
        if not _is_below(key, FREE_TO_CHANGE + COMPARED_KEYS) and before.get(key) != now.get(key):
            note = " (the code of the sampler is another one)" if key == "search.sampler_digest" else ""
            yield "refused", f"{_change_text(key, before.get(key), now.get(key))}{note}"


def _path(text: str) -> tuple[str, ...]:
    """The path of the first key in a difference's text."""
    named = text.split("`")[1].split(".")
    return ("claims",) if named[0] == "claims" else tuple(named)


def _is_below(key: str, above: tuple[str, ...]) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in above)


def _without_description(claim: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in claim.items() if key not in DESCRIPTIVE_KEYS}


def _plain(entry: Any) -> Any:
    return entry.model_dump(mode="json") if isinstance(entry, OrdinalRange | WeightedValues) else entry


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _change_text(key: str, was: object, becomes: object) -> str:
    return f"`{key}` from {_shown(was)} to {_shown(becomes)}"


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
