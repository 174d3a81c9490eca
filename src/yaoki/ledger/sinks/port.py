"""What a sink must offer: take a version once, and tell what is at rest in it.

A sink takes each name once. The same content again changes nothing; another content under a name that is taken raises
`ContentConflictError` and is never written over it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from yaoki.ledger.records import Batch, Naming, Record

EXAMPLES = 5


class Foreign(msgspec.Struct):
    """Things in a sink that its template does not explain: how many, and some of their names."""

    count: int = 0
    examples: list[str] = msgspec.field(default_factory=list)

    def note(self, name: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(name)


class Sink(Protocol):
    """A place where versions come to rest.

    Attributes:
        name: as findings and cursors know it; without secrets.
        knows_digests: does a listing tell the MD5 of contents? Without, contents are compared by name only.
        foreign: what the last complete listing could not explain.
    """

    name: str
    knows_digests: bool
    foreign: Foreign

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def put(self, key: str, version: int, content: bytes, digest: bytes) -> bool:
        """Store a version, durably. False: it was there already. Raises `ContentConflictError`."""
        ...

    def listing(self) -> AsyncIterator[Batch]:
        """Everything at rest, in batches, in any order."""
        ...

    async def read(self, names: Sequence[Naming]) -> list[Record]:
        """What is at rest under these names, read just now."""
        ...

    async def forget(self, names: Sequence[Naming]) -> None:
        """Remove heartbeats that have served. Never called with anything else; where removing is not allowed, they stay."""
        ...
