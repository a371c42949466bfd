"""A digest of the content of a state or of weights, stored with them and checked when they are read."""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

DIGEST = "digest"
"""Key of the digest in a file; it is computed over everything else."""


def content_digest(state: Mapping[str, Any]) -> str:
    """A digest of nested mappings, sequences, plain values and tensors (their dtype, shape and bytes)."""
    digest = blake2b(digest_size=16)
    for part in _parts(state):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[Any]:
    """The bytes that a digest is computed over; every value is preceded by its type and, if it has one, its length."""
    if isinstance(value, Tensor):
        tensor = value.detach().cpu().contiguous()
        yield f"tensor {tensor.dtype} {tuple(tensor.shape)}\0".encode()
        yield tensor.reshape(-1).view(torch.uint8).numpy()
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)}\0".encode()
        for key, element in sorted(value.items(), key=lambda item: repr(item[0])):
            yield from _parts(key)
            yield from _parts(element)
    elif isinstance(value, list | tuple):
        yield f"sequence {len(value)}\0".encode()
        for element in value:
            yield from _parts(element)
    else:
        yield f"{type(value).__name__} {value!r}\0".encode()
