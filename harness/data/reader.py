"""Batches from processes that read images ahead, and live as long as a training does."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from harness.system.device_slot import computing, resting

Collate = Callable[[list[Any]], Any]
"""Makes a batch of items."""


class Reader:
    """Reads the items of a set by their keys; the processes are started for the first batch, and end with the reader.

    Between two readings they wait. With 0 loaders the caller's own process reads, when it asks for a batch.

    Whoever reads an item computes (`device_slot`), and the caller holds no slot of the processor while it waits for
    a batch. With `leads=False` nobody does: of workers that wait for each other in every step, only one takes part.
    """

    def __init__(
        self, items: Dataset[Any], loaders: int, collate: Collate | None = None, *, leads: bool = True
    ) -> None:
        self._asked, self._rest = _Asked(), resting if loaders and leads else nullcontext
        self._loader: DataLoader[Any] = DataLoader(
            _Shared(items) if leads else items,
            batch_sampler=self._asked,
            num_workers=loaders,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=loaders > 0,
            generator=torch.Generator().manual_seed(0),  # nothing uses it; it is kept off the global stream
        )

    def read(self, parts: Iterable[Sequence[Any]]) -> Generator[Any]:
        """A batch for each part, a list of keys, in order; what comes next is read meanwhile.

        The parts are asked for as they are needed, so there may be very many. A reading ends the one before it.
        """
        self._asked.parts = parts
        batches = iter(self._loader)
        while True:
            with self._rest():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


class _Shared(Dataset[Any]):
    """Items, each of which is read while the processor's slot is held shared."""

    def __init__(self, items: Dataset[Any]) -> None:
        self._items = items

    def __getitem__(self, key: Any) -> Any:
        with computing():
            return self._items[key]


class _Asked:
    """The parts that are to be read now."""

    parts: Iterable[Sequence[Any]] = ()

    def __iter__(self) -> Iterator[list[Any]]:
        return (list(part) for part in self.parts)
