"""A write that a power cut tears: half of it is on the platter, and whoever opens the journal next drops that half.

    batch of three   ──torn──▶ the first of them, and half a record of the second     ──recover──▶ as before the batch
    batch of one     ──torn──▶ its records, the last one cut off in its middle        ──recover──▶ as before the batch

A journal that did not recover would go on from half of what belongs together, which is what its explorations are to find.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import msgspec

from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.journal.port import Append, NewRun

# What a batch can change; all of it is kept in dicts, except what operators do.
_PARTS = ("_headers", "_records", "_numbers", "_requests", "_parked", "_registers", "_claims")


class TornTail:
    """What lies after the last whole batch of one journal, if anything does."""

    def __init__(self) -> None:
        self._before: dict[str, dict[Any, Any]] | None = None
        self._kept: MemoryJournal | None = None

    def write(self, kept: MemoryJournal, batch: list[NewRun | Append], write_one: Callable[[NewRun | Append], object]) -> None:
        """Power is lost in the middle of this batch."""
        self._kept, self._before = kept, {name: deepcopy(getattr(kept, name)) for name in _PARTS}
        whole = len(batch) // 2
        for operation in batch[:whole]:
            write_one(operation)
        cut = _half(batch[whole])
        if cut is not None:
            write_one(cut)

    def recover(self) -> None:
        """Drop it: its checksum does not fit. Everybody's view of the journal is the same objects, so they are changed in place."""
        if self._before is None or self._kept is None:
            return
        for name, was in self._before.items():
            now = getattr(self._kept, name)
            now.clear()
            now.update(was)
        self._before = None


def _half(operation: NewRun | Append) -> NewRun | Append | None:
    """Its first half; None where that is nothing that could be read."""
    if isinstance(operation, NewRun):
        return None
    records = operation.records
    if not records:
        return None
    last = records[-1]
    torn = msgspec.structs.replace(last, data=last.data[:len(last.data) // 2])
    return msgspec.structs.replace(operation, records=(*records[:-1], torn), due_at=None, asks=())
