"""Identity by content: the same value has the same fingerprint in every process and on every machine."""

import hashlib
import json

SHOWN_DIGITS = 8
"""Number of digits of an id in names of networks and folders."""


def fingerprint(value: object) -> str:
    """Sixteen hexadecimal digits of SHA-256 over the value's canonical JSON (sorted keys, no white space)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def short_id(id: str) -> str:
    """The first digits of an id, for the names of networks and folders."""
    return id[:SHOWN_DIGITS]
