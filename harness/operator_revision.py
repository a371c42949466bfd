"""The revision of the operator's arithmetic: a digest of the code that chooses the algorithms and of the algorithms."""

import functools
from hashlib import blake2b
from pathlib import Path


@functools.cache
def operator_digest() -> str:
    """Eight hexadecimal digits of everything in `harness/ops`."""
    digest = blake2b(digest_size=4)
    for path in sorted((Path(__file__).parent / "ops").glob("*.py")):
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()
