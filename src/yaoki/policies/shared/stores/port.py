"""What a store must do. `tests/contracts/test_breaker_stores.py` says the same, and every store passes it."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """One row: `service, kind, name` is its key.

    Attributes:
        kind: vote, order or lease.
        name: the node of a vote, the lease's name, or "".
        value: JSON; of a lease, its owner.
        left_s: seconds until it runs out, by the store's clock; always above 0.
    """

    service: str
    kind: str
    name: str
    value: bytes
    left_s: float


class Store(Protocol):
    """Rows that run out. Every method is one round trip, atomic, thread-safe, and may raise whatever its driver raises."""

    def put(self, service: str, kind: str, name: str, value: bytes, ttl_s: float) -> None:
        """Write a row, or replace it."""

    def remove(self, service: str, kind: str, name: str) -> None:
        """Remove a row, if it is there."""

    def acquire(self, service: str, name: str, owner: str, ttl_s: float) -> bool:
        """Take, or renew, a lease. False when another owner holds it; that must not lengthen the other's time."""
        ...

    def rows(self, service: str = "") -> list[Entry]:
        """The rows of one service, or of all, without what has run out by the store's own clock."""
        ...

    def close(self) -> None:
        """Let go of connections."""
