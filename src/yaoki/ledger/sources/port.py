"""What a source must offer: what was written, where its heartbeats are, and a copy of what a sink lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from yaoki.ledger.records import Batch, Naming, Record
from yaoki.ledger.sinks.port import Sink
from yaoki.ledger.sketch import Tally
from yaoki.ledger.verdicts import Beat


class Lane(msgspec.Struct, kw_only=True):
    """One partition, or shard, with its heartbeats.

    Attributes:
        beats: written in the last hours, oldest first.
        names: under which each of them is found in a sink.
        transported: the numbers of those seen on the way; None where there is nothing to look into.
        held_s, holder: how long an open transaction has held sealing back, and whose it is.
        natural: are the beats what was written last, for want of real ones? Then a hole among them is a loss like any other.
    """

    part: str
    beats: list[Beat]
    names: list[Naming]
    transported: frozenset[int] | None = None
    held_s: float = 0.0
    holder: str = ""
    natural: bool = False


class Source(Protocol):
    """Where changes are written.

    Attributes:
        name: without secrets.
        knows_digests: does it know the MD5 of what a sink should hold?
        complete: does it know of every version ever written? Only then is a skipped stretch settled by comparing.
        vouches: can it say of every name whether it was written? If not, a name that only the sink has proves nothing.
    """

    name: str
    knows_digests: bool
    complete: bool
    vouches: bool

    async def now(self) -> float: ...

    async def refresh(self) -> None:
        """Do what each look needs first: read on in the stream, write a beat."""
        ...

    async def lanes(self) -> list[Lane]: ...

    def part_of(self, key: str) -> str: ...

    def expected(self) -> AsyncIterator[Batch]:
        """Every version that a sink should hold sooner or later, with the time of its commit."""
        ...

    async def recent(self, after: float, until: float) -> list[Record] | None:
        """Those committed in this time; None if that cannot be told apart, or would be too many to hold."""
        ...

    async def known(self) -> Tally | None:
        """What `expected` adds up to, if that is known without reading it."""
        ...

    async def forgotten(self, names: Sequence[Naming]) -> set[Naming]:
        """Those that were written once and are not known here any more: a sink that still has them is right to."""
        ...

    async def read(self, names: Sequence[Naming]) -> list[Record]:
        """What was written under these names, read just now."""
        ...

    async def has_copies(self, names: Sequence[Naming]) -> set[Naming]:
        """Those of which a copy exists that `redeliver` can bring."""
        ...

    async def redeliver(self, names: Sequence[Naming], sink: Sink) -> dict[Naming, str]:
        """Bring them to the sink again, harmlessly if they are there. Returns why it failed, for those where it did."""
        ...
