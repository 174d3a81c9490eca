"""What a store of messages must offer: one append-only log, and where each reader is in it.

The log is the outbox (what this service says), the inbox (what it was told) and, for the `embedded` and `postgres`
brokers, the broker itself. A *group* is one reader: a handler, the relay to a broker. For each group and partition the
store keeps one number, the position up to which everything is done, and a row for each exception:

    scheduled ──due──▶ ┐
    retry ──due──▶ running ──▶ done (the row goes)
      ▲               │
      └── failed ─────┼──▶ quarantined   gave up: its key waits for a person, and only its key
                      └──▶ dead          gave up: its key goes on without it
    behind             an earlier message of the same key is in retry or quarantine: waits for it, in order
    done               beyond the cursor, which has not come so far: kept until it has

So a message costs no write of its own to be consumed: a batch of them moves sixteen numbers.

A group's partition belongs to one worker at a time, by a lease with a `fence` that grows with every owner. A settlement
is written only if all of its fences still stand; else `FencedError`, and nothing of it is written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec

from yaoki.errors import DefinitionError
from yaoki.messages.envelope import Message

Position = tuple[int, int]
"""Where a message is in the log. Ordered. SQLite: (0, row id). PostgreSQL: (effective transaction id, row id)."""

START: Position = (0, 0)


CLASSES = ("memory", "process", "power")
"""From least to most. What an acknowledged message survives: nothing; kill -9 of any process; a power cut of all."""


class Durability(msgspec.Struct, frozen=True):
    """What is left of what was acknowledged.

    Attributes:
        survives: `memory`, `process` or `power`; the worst case of the settings in force, as far as they can be seen.
        kill: what a kill -9 of the broker may take. power_cut: what a power cut of all its machines may take.
    """

    survives: str
    kill: str
    power_cut: str


class Entry(msgspec.Struct, frozen=True):
    """A message in the log. `attempts`: how often it was tried and failed before; `held`: it comes from a held row."""

    position: Position
    part: int
    message: Message
    attempts: int = 0
    held: bool = False


class Page(msgspec.Struct, frozen=True):
    """What a read found, oldest first, and up to where partitions have now been read: at least those that got further."""

    entries: list[Entry]
    read_to: dict[int, Position]
    more: bool = False


class Lease(msgspec.Struct, frozen=True):
    """One partition of one group, in the hands of one worker. `position`: everything up to it is done.

    crashes: how many owners in a row died without getting any further.
    """

    part: int
    position: Position
    fence: int
    crashes: int = 0


class Share(msgspec.Struct, frozen=True):
    """What a worker holds after `balance`.

    Attributes:
        leases: all of the partitions it holds now, by number.
        surplus: partitions it should drain and release, because others have fewer.
        check_in_s: come back by then: a lease of a silent worker runs out, or the own ones need renewing.
    """

    leases: dict[int, Lease]
    surplus: frozenset[int]
    check_in_s: float


BLOCKING = ("retry", "quarantined", "behind")
"""The states in which a held message makes later ones of its key wait."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """An exception to "done up to here": one message that waits, or gave up.

    Attributes:
        state: scheduled, retry, behind, quarantined, dead, done.
        attempts: made so far. due_at: seconds since 1970, when it is tried (again).
        error: the last failure. history: (at, error) of the earlier ones, oldest first.
        replays: how often a person has redriven it. data: the payload that replaces the message's, after an edit.
    """

    part: int
    position: Position
    key: str = ""
    state: str = "retry"
    attempts: int = 0
    due_at: float = 0.0
    error: str = ""
    first_at: float = 0.0
    history: tuple[tuple[float, str], ...] = ()
    replays: int = 0
    data: bytes | None = None


class Settlement(msgspec.Struct):
    """What a worker asks the store to write, all or nothing.

    Attributes:
        fences: the leases it was done under, by partition.
        cursors: how far each partition is done now.
        hold: held rows to write or replace. drop: held rows that are done.
        publish: messages that follow from what was done.
    """

    fences: dict[int, int] = {}
    cursors: dict[int, Position] = {}
    hold: list[Held] = []
    drop: list[tuple[int, Position]] = []
    publish: list[Message] = []

    def __bool__(self) -> bool:
        return bool(self.cursors or self.hold or self.drop or self.publish)


class GroupLag(msgspec.Struct, frozen=True):
    """How far behind a group is.

    Attributes:
        waiting: messages after its cursor, of the types it reads, held ones not included.
        oldest_s: age in seconds of the oldest of these, 0.0 if none.
        states: held messages by state. keys_blocked: keys that wait for a person.
        workers: live ones. parts: partitions that have an owner.
        under_way: messages that the workers had in hand when they last renewed their leases, three times a lease.
    """

    group: str
    waiting: int
    oldest_s: float
    states: dict[str, int]
    keys_blocked: int
    workers: int
    parts: int
    under_way: int = 0


class Tx(Protocol):
    """A transaction of the store's database, in which a handler works. `connection` is the driver's own."""

    connection: Any

    async def settle(self, group: str, settlement: Settlement) -> None:
        """Write what was done in this transaction. Raises `FencedError`: the caller must then roll back."""
        ...


class Store(Protocol):
    """One database with its messages. Safe to use from many tasks of one loop."""

    url: str
    durability: Durability
    decisions: int
    """How often a person's decision was written through this store: readers look again when it has grown."""

    async def append(self, messages: Sequence[Message]) -> None:
        """Store messages; returns when they are durable. One that is known by source and id is passed over."""
        ...

    async def read(self, types: Collection[str] | None, after: Mapping[int, Position], limit: int) -> Page:
        """At most `limit` messages of these types (None: all) in these partitions, each after its position."""
        ...

    async def wait_changed(self, timeout_s: float) -> None:
        """Return when something may have been appended or become due, or after `timeout_s`, whichever is first."""
        ...

    async def settle(self, group: str, settlement: Settlement) -> None:
        """Write what was done, in a transaction of its own. Raises `FencedError`."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Tx]:
        """A transaction that commits when the block ends and rolls back when it raises, cancellation included."""
        ...

    async def declare(self, group: str, types: Collection[str], *, since: str) -> None:
        """Make the group known. since: `beginning` of the log, or `now`; only the first declaration decides."""
        ...

    async def forget(self, group: str) -> None:
        """Remove the group and everything kept for it."""
        ...

    async def balance(self, group: str, worker: str, ttl_s: float, *, draining: Collection[int] = (), under_way: int = 0) -> Share:
        """Renew this worker's leases, and take its fair share of free ones. See `Share`; `under_way` is for people to see."""
        ...

    async def release(self, group: str, worker: str, parts: Collection[int], *, leaving: bool) -> None:
        """Give partitions back at once. `leaving`: the worker stops."""
        ...

    async def blocked_keys(self, group: str, parts: Collection[int]) -> dict[int, set[str]]:
        """The keys with held messages in a blocking state, by partition. Orphans are put back on their way first."""
        ...

    async def held_beyond(self, group: str, after: Mapping[int, Position]) -> list[tuple[int, Position]]:
        """Where held messages lie after these positions: a message may be held while an earlier one is under way."""
        ...

    async def is_done(self, group: str, part: int, position: Position) -> bool:
        """Has the group come past this position? Held messages before it are not done for that."""
        ...

    async def due(self, group: str, parts: Collection[int], *, now: float, limit: int) -> list[tuple[Entry, Held]]:
        """Held messages whose time has come, each with what waits behind it, in the order of the log."""
        ...

    async def lag(self, group: str | None = None) -> list[GroupLag]:
        """How far behind each group is (or this one)."""
        ...

    async def held(self, *, group: str | None = None, states: Collection[str] = ("quarantined", "dead"),
                   key: str | None = None, limit: int = 100) -> list[tuple[str, Entry, Held]]:
        """Held messages with their group, oldest first."""
        ...

    async def rewrite(self, group: str, rows: Sequence[Held]) -> None:
        """Replace held rows by a person's decision: no lease is asked for. Wakes the workers."""
        ...

    async def discard(self, group: str, rows: Sequence[tuple[int, Position]]) -> None:
        """Remove held rows by a person's decision. What waited behind them goes on."""
        ...

    async def get(self, message_id: str) -> list[Entry]:
        """The messages of this id (or of ids that begin so), oldest first, at most 20."""
        ...

    async def starting_with(self, prefix: str, *, limit: int = 10_000) -> list[Entry]:
        """All messages whose id begins with this, in the order of the log."""
        ...

    async def prune(self, older_than_s: float, *, limit: int = 10_000, runs: bool = True, patient: bool = True) -> int:
        """Delete messages that are older, and that every group has done. Returns how many; more than `limit` where whole tables go.

        runs: also the words of choreographed runs, which a run that is not over still needs.
        patient: where the log is cut into tables that can be dropped, wait for that; it comes at most a quarter of the time later.
        """
        ...

    async def close(self) -> None:
        ...


def ended_by_handler(group: str) -> DefinitionError:
    """What to raise when the transaction is over in which effect and mark were to be written together."""
    return DefinitionError(f"a handler of {group} has ended the transaction that it works in, so its effect and the mark of its message cannot commit together",
                           do="let Yaoki commit: write with `tx`, and call neither commit nor rollback, nor use it as a context manager", group=group)
