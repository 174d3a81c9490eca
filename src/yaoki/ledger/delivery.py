"""Bring every sealed version to a sink, at least once, in order for each key, so that repeating it changes nothing.

    cursor (one number a partition) ──▶ rows of the epoch ──▶ put, keys side by side, versions of a key in turn
        stored, or there already      the cursor moves on
        content differs               quarantined as corrupt: never written over; delivered once a person has made room
        fails while others succeed    retried on a schedule that is stored; from then on only its key waits
        all fail                      the sink is down: the cursor stays, nothing is quarantined
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from yaoki import runtime
from yaoki.errors import ContentConflictError
from yaoki.ledger.bookmarks import BEHIND, CONFLICT, FAILING, Aside, Bookmarks, Outcome
from yaoki.ledger.epochs import Row
from yaoki.ledger.fingerprint import content_digest
from yaoki.ledger.leases import Lease
from yaoki.ledger.ledger import Ledger
from yaoki.ledger.records import Naming
from yaoki.ledger.sinks.port import Sink

if TYPE_CHECKING:
    from yaoki.ledger.dynamodb import DynamoLedger

BATCH_ROWS = 200
"""Rows between two renewals of the lease: at 16 side by side and one second each, 13 seconds."""

Progress = Callable[[int, int], object]


class Delivered(msgspec.Struct):
    """What one call did. `down`: nothing went through, and why."""

    stored: int = 0
    present: int = 0
    quarantined: int = 0
    down: str = ""

    @property
    def total(self) -> int:
        return self.stored + self.present


def is_down(outcomes: list[Outcome]) -> bool:
    """Did nothing go through? Then it is the sink, not one poisonous row."""
    tried = [each for each in outcomes if each.state != BEHIND]
    return bool(tried) and all(each.state == FAILING for each in tried)


class Deliverer:
    """Delivers one ledger to one sink. Any number may run: each partition has one at a time, by lease.

    Args:
        ledger: of any kind. at_once: keys delivered side by side.
        rate_per_s: versions a second at most, for a backfill that must not crowd out other users; None: no limit.
    """

    def __init__(self, ledger: Ledger | DynamoLedger, sink: Sink, *, owner: str = "deliverer", at_once: int = 16,
                 rate_per_s: float | None = None) -> None:
        self.ledger = ledger
        self.sink = sink
        self._marks: Bookmarks = ledger.bookmarks(sink.name)
        self._owner = owner
        self._places = asyncio.Semaphore(at_once)
        self._rate = rate_per_s
        self._dropped: set[Naming] = set()
        self._begun = False

    async def deliver(self, *, progress: Progress | None = None) -> Delivered:
        """Deliver all that is sealed, and retry what is due. Returns what was done; stops where the sink is down.

        Args:
            progress: called with (delivered so far, to deliver in all) after each batch.
        """
        done = Delivered()
        if not self._begun:
            await self._marks.begin()
            self._begun = True
        self._dropped = await self._marks.dropped()
        todo = await self.backlog() if progress else 0
        for part in range(self.ledger.partitions):
            lease = await self._marks.take(part, self._owner)
            while lease is not None and await self._batch(part, lease, done):
                if progress:
                    progress(done.total + done.quarantined, todo)
            if lease is not None:
                await self._retry_due(part, lease, done)
                await self._look_at_conflicts(part, lease, done)
        self._marks.close_epoch()
        return done

    async def backlog(self) -> int:
        """How many sealed rows the cursor has not passed, beats included."""
        return sum([await self._marks.end(part) - await self._marks.cursor(part) for part in range(self.ledger.partitions)])

    async def _batch(self, part: int, lease: Lease, done: Delivered) -> bool:
        """Deliver the next rows of a partition. False: none are left, or the sink is down."""
        cursor = await self._marks.cursor(part)
        rows = await self._marks.rows(part, cursor, BATCH_ROWS)
        if not rows:
            return False
        await self._marks.take(part, self._owner)  # renewed for the length of the batch
        outcomes = await self._put_all(rows, await self._marks.blocked(part))
        if is_down(outcomes):
            done.down = next(each.error for each in outcomes if each.state == FAILING)
            return False
        await self._marks.settle(part, lease, [each for each in outcomes if each.is_aside], cursor + len(rows))
        for each in outcomes:
            _count(done, each)
        return True

    async def _put_all(self, rows: list[tuple[int, Row]], blocked: set[str]) -> list[Outcome]:
        by_key: dict[str, list[tuple[int, Row]]] = defaultdict(list)
        for seq, row in rows:
            by_key[row.key].append((seq, row))
        began = runtime.monotonic()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._put_key(its, blocked=key in blocked)) for key, its in by_key.items()]
        if self._rate:
            await runtime.sleep(max(len(rows) / self._rate - (runtime.monotonic() - began), 0.0))
        return [outcome for task in tasks for outcome in task.result()]

    async def _put_key(self, rows: list[tuple[int, Row]], *, blocked: bool) -> list[Outcome]:
        """The versions of one key, in turn; those after a failure wait behind it."""
        outcomes = []
        for seq, row in rows:
            outcome = Outcome(seq, row, BEHIND) if blocked else await self._put(seq, row)
            blocked = blocked or outcome.state == FAILING
            outcomes.append(outcome)
        return outcomes

    async def _put(self, seq: int, row: Row) -> Outcome:
        if row.content is None:
            return Outcome(seq, row, "present")  # erased: there is nothing to deliver, and there must not be
        if (row.key, row.version) in self._dropped:
            return Outcome(seq, row, "stored")  # a drill: lost on purpose, and the audit must find it
        async with self._places:
            try:
                stored = await self.sink.put(row.key, row.version, row.content, row.digest or content_digest(row.content))
            except ContentConflictError as error:
                return Outcome(seq, row, CONFLICT, str(error))
            except Exception as error:
                return Outcome(seq, row, FAILING, f"{type(error).__name__}: {error}"[:500])
        return Outcome(seq, row, "stored" if stored else "present")

    async def _retry_due(self, part: int, lease: Lease, done: Delivered) -> None:
        """Try again what is due: for each key the oldest first, then those behind it."""
        now = await self._marks.now()
        stopped: set[str] = set()
        for each in await self._marks.waiting(part):
            if each.key in stopped:
                continue
            if each.reason == FAILING and each.next_at > now:
                stopped.add(each.key)
                continue
            outcome = await self._put_again(each)
            await self._marks.settle_retry(part, lease, outcome, each.attempts)
            if outcome.state == FAILING:
                stopped.add(each.key)
            _count(done, outcome)

    async def _look_at_conflicts(self, part: int, lease: Lease, done: Delivered) -> None:
        """What was in the way may be gone: a person has removed it, or put the right content there."""
        for each in await self._marks.conflicts(part):
            outcome = await self._put_again(each)
            if outcome.state != FAILING:  # else nobody knows what is there
                await self._marks.settle_retry(part, lease, outcome, each.attempts)
                _count(done, outcome)

    async def _put_again(self, each: Aside) -> Outcome:
        content = await self._marks.content(each.key, each.version)
        digest = content_digest(content) if content is not None else b""
        return await self._put(each.seq, Row((0, 0), each.key, each.version, digest, b"", 0.0, content))


def _count(done: Delivered, outcome: Outcome) -> None:
    if outcome.state == "stored":
        done.stored += 1
    elif outcome.state == "present":
        done.present += 1
    else:
        done.quarantined += 1
