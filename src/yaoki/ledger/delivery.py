"""Bring every sealed version to a sink, at least once, in order for each key, so that repeating it changes nothing.

    cursor (one number a partition) ──▶ rows of the epoch ──▶ put, keys side by side, versions of a key in turn
        stored, or there already      the cursor moves on
        content differs               quarantined as corrupt: never written over, a person decides
        fails while others succeed    retried on a schedule that is stored; from then on only its key waits
        all fail                      the sink is down: the cursor stays, nothing is quarantined
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

import msgspec

from yaoki import runtime
from yaoki.errors import ContentConflictError
from yaoki.ledger.epochs import Epoch, Row
from yaoki.ledger.fingerprint import content_digest
from yaoki.ledger.leases import Lease, prove, take
from yaoki.ledger.ledger import Ledger
from yaoki.ledger.notes import drills
from yaoki.ledger.records import Naming
from yaoki.ledger.sinks.port import Sink

CONFLICT, FAILING, BEHIND = "corrupt", "failing", "behind"
BATCH_ROWS = 200
"""Rows between two renewals of the lease: at 16 side by side and one second each, 13 seconds."""

RETRY_FIRST_S, RETRY_CAP_S = 1.0, 300.0

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


class Outcome(msgspec.Struct, frozen=True):
    """How one row fared. state: stored, present, corrupt, failing, behind."""

    seq: int
    row: Row
    state: str
    error: str = ""


def retry_at(now: float, attempts: int) -> float:
    """When to try again after so many attempts: 1, 2, 4, ... seconds, at most 5 minutes."""
    return now + min(RETRY_FIRST_S * 2.0 ** (attempts - 1), RETRY_CAP_S)


def is_down(outcomes: list[Outcome]) -> bool:
    """Did nothing go through? Then it is the sink, not one poisonous row."""
    tried = [each for each in outcomes if each.state != BEHIND]
    return bool(tried) and all(each.state == FAILING for each in tried)


class Deliverer:
    """Delivers one ledger to one sink. Any number may run: each partition has one at a time, by lease.

    Args:
        at_once: keys delivered side by side.
        rate_per_s: versions a second at most, for a backfill that must not crowd out other users; None: no limit.
    """

    def __init__(self, ledger: Ledger, sink: Sink, *, owner: str = "deliverer", at_once: int = 16,
                 rate_per_s: float | None = None) -> None:
        self.ledger = ledger
        self.sink = sink
        self._owner = owner
        self._places = asyncio.Semaphore(at_once)
        self._rate = rate_per_s
        self._dropped: set[Naming] = set()
        self._read = (-1, -1)
        self._epoch_rows: list[tuple[int, Row]] = []

    async def deliver(self, *, progress: Progress | None = None) -> Delivered:
        """Deliver all that is sealed, and retry what is due. Returns what was done; stops where the sink is down.

        Args:
            progress: called with (delivered so far, to deliver in all) after each batch.
        """
        done = Delivered()
        self._dropped = await drills(self.ledger.store, self.sink.name)
        todo = await self.backlog() if progress else 0
        for part in range(self.ledger.partitions):
            lease = await take(self.ledger.store, f"deliver/{self.sink.name}/{part}", self._owner)
            while lease is not None and await self._batch(part, lease, done):
                if progress:
                    progress(done.total + done.quarantined, todo)
            if lease is not None:
                await self._retry_due(part, lease, done)
        self._read, self._epoch_rows = (-1, -1), []  # contents may be erased before the next call
        return done

    async def backlog(self) -> int:
        """How many sealed rows the cursor has not passed, beats included."""
        waiting = 0
        for part in range(self.ledger.partitions):
            last = await self.ledger.last_epoch(part)
            waiting += (last.next_seq if last else 0) - await self._cursor(part)
        return waiting

    async def _cursor(self, part: int) -> int:
        """The number of the next row to deliver. What was pruned before a sink was added cannot reach it any more."""
        rows = await self.ledger.store.fetch(
            "SELECT coalesce(max(n), 0) FROM (SELECT next_seq AS n FROM yaoki_ledger_cursor WHERE sink = ?1 AND part = ?2 "
            "UNION ALL SELECT next_seq FROM yaoki_ledger_pruned WHERE part = ?2) AS either", self.sink.name, part)
        return int(rows[0][0])

    async def _batch(self, part: int, lease: Lease, done: Delivered) -> bool:
        """Deliver the next rows of a partition. False: none are left, or the sink is down."""
        cursor = await self._cursor(part)
        epoch = await self.ledger.epoch_at(part, cursor)
        if epoch is None:
            return False
        await take(self.ledger.store, lease.name, lease.owner)  # renewed for the length of the batch
        rows = await self._rows(epoch, cursor)
        outcomes = await self._put_all(rows, await self._blocked_keys(part))
        if is_down(outcomes):
            done.down = next(each.error for each in outcomes if each.state == FAILING)
            return False
        await self._settle(part, lease, outcomes, cursor + len(rows))
        for each in outcomes:
            _count(done, each)
        return True

    async def _rows(self, epoch: Epoch, cursor: int) -> list[tuple[int, Row]]:
        if self._read != (epoch.part, epoch.epoch):  # one reading serves all batches of an epoch
            self._epoch_rows = list(enumerate(await self.ledger.rows(epoch, content=True), epoch.first_seq))
            self._read = epoch.part, epoch.epoch
        first = cursor - epoch.first_seq
        return self._epoch_rows[first:first + BATCH_ROWS]

    async def _blocked_keys(self, part: int) -> set[str]:
        rows = await self.ledger.store.fetch(
            "SELECT DISTINCT key FROM yaoki_ledger_quarantine WHERE sink = ?1 AND part = ?2 AND reason <> ?3",
            self.sink.name, part, CONFLICT)
        return {key for (key,) in rows}

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

    async def _settle(self, part: int, lease: Lease, outcomes: list[Outcome], cursor: int) -> None:
        """Move the cursor and remember the exceptions, in one transaction that stands only with the lease."""
        async with self.ledger.store.transaction() as tx:
            await prove(tx, lease)
            now = await tx.now()
            for each in outcomes:
                if each.state in {CONFLICT, FAILING, BEHIND}:
                    # A conflict does not hold up its key: the next versions are other names.
                    await tx.execute(
                        "INSERT INTO yaoki_ledger_quarantine VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, ?8, ?9) "
                        "ON CONFLICT (sink, part, seq) DO NOTHING", self.sink.name, part, each.seq, each.row.key,
                        each.row.version, each.state, each.error, now, retry_at(now, 1))
            await tx.execute("INSERT INTO yaoki_ledger_cursor VALUES (?1, ?2, ?3) ON CONFLICT (sink, part) "
                             "DO UPDATE SET next_seq = excluded.next_seq", self.sink.name, part, cursor)

    async def _retry_due(self, part: int, lease: Lease, done: Delivered) -> None:
        """Try again what is due: for each key the oldest first, then those behind it."""
        now = await self.ledger.store.now()
        waiting = await self.ledger.store.fetch(
            "SELECT seq, key, version, reason, attempts, next_at FROM yaoki_ledger_quarantine "
            "WHERE sink = ?1 AND part = ?2 ORDER BY seq LIMIT 5000", self.sink.name, part)
        stopped: set[str] = set()
        for seq, key, version, reason, attempts, next_at in waiting:
            if key in stopped or reason == CONFLICT:
                continue
            if reason == FAILING and next_at > now:
                stopped.add(key)
                continue
            (found,) = await self.ledger.history(key, first=version, last=version)
            digest = content_digest(found.content) if found.content is not None else b""
            outcome = await self._put(seq, Row((0, 0), key, version, digest, b"", 0.0, found.content))
            await self._settle_retry(part, lease, outcome, attempts, now)
            if outcome.state == FAILING:
                stopped.add(key)
            _count(done, outcome)

    async def _settle_retry(self, part: int, lease: Lease, outcome: Outcome, attempts: int, now: float) -> None:
        async with self.ledger.store.transaction() as tx:
            await prove(tx, lease)
            if outcome.state in {"stored", "present"}:
                await tx.execute("DELETE FROM yaoki_ledger_quarantine WHERE sink = ?1 AND part = ?2 AND seq = ?3",
                                 self.sink.name, part, outcome.seq)
            else:
                await tx.execute(
                    "UPDATE yaoki_ledger_quarantine SET reason = ?4, attempts = ?5, error = ?6, next_at = ?7 "
                    "WHERE sink = ?1 AND part = ?2 AND seq = ?3", self.sink.name, part, outcome.seq, outcome.state,
                    attempts + 1, outcome.error, retry_at(now, attempts + 1))


def _count(done: Delivered, outcome: Outcome) -> None:
    if outcome.state == "stored":
        done.stored += 1
    elif outcome.state == "present":
        done.present += 1
    else:
        done.quarantined += 1
