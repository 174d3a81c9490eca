"""Runs one handler over the log of a store: take partitions, read, handle, settle.

    balance ──▶ read ──▶ lanes ──▶ handler ──▶ settle (done up to here, held, what follows)
       ▲                                          │
       └────────── fenced: begin again ◀──────────┘

What is decided here is decided by `lanes` (who is next) and `verdict` (what becomes of a failure). A worker that dies
loses nothing: its leases run out, and the next owner reads on from the last settlement. Messages whose effect is in the
store's own database are applied once, because effect and settlement commit together; for others the handler finds a
stable key in `effect.current`, the same in every repetition.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from yaoki import effect, events, runtime
from yaoki.errors import ConfigError, FencedError, StoreError
from yaoki.messages.compose import follow_ups
from yaoki.messages.current import handling
from yaoki.messages.envelope import Message
from yaoki.messages.handlers import Handler
from yaoki.messages.lanes import Lanes
from yaoki.messages.schema import decode
from yaoki.messages.store.bell import Bell
from yaoki.messages.store.port import Entry, Held, Settlement, Store, Tx
from yaoki.messages.verdict import DIED, after_failure, before_danger

READ_AT_ONCE = 500
"""Messages per read. Batches of several hundred are where reading stops getting cheaper (benchmarks/messages.py)."""
IDLE_LOOK_S = 1.0
"""How long at most between looks for what is due, or was changed by a person, if nothing rings."""
BATCH_S = 0.25
"""A transaction of several messages is committed after this, so that nobody waits long for the database."""
STORE_RETRY_S = 0.5
CRASHES = 2
"""After so many owners died in a row, each message of the partition is written down as failed before it is handled."""
YIELD_EVERY = 32
"""Handlers that never wait let others have the loop after so many messages."""


class Pace(msgspec.Struct, frozen=True):
    """How a worker holds its partitions.

    Args:
        lease_s: a silent worker's partitions are taken over after this many seconds.
        drain_s: how long a stopping worker lets handlers finish before it cancels them.
    """

    lease_s: float = 15.0
    drain_s: float = 30.0

    def __post_init__(self) -> None:
        if self.lease_s <= 0 or self.drain_s < 0:
            raise ConfigError(f"lease_s={self.lease_s} and drain_s={self.drain_s} cannot be",
                              do="give lease_s above 0 (15 is a good start) and drain_s of at least 0")


class Consumer:
    """One handler at work in this process.

    Args:
        store: where the messages are. handler: what to do with them.
        service: the name under which its follow-ups are published; its group is `service.handler`.
    """

    def __init__(self, store: Store, handler: Handler, *, service: str, pace: Pace | None = None) -> None:
        self.store = store
        self.handler = handler
        self.service = service
        self.group = f"{service}.{handler.name}"
        self.pace = pace or Pace()
        self.worker = runtime.new_id()
        self.lanes = Lanes(limit=max(2 * READ_AT_ONCE, 2 * handler.in_flight))
        self._bell = Bell()
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: dict[tuple[int, Any], Held] = {}
        self._draining: frozenset[int] = frozenset()
        self._balance_at = 0.0
        self._look_at = 0.0
        self._more = True
        self._full = False

    def stop(self) -> None:
        """Take no further message; `run` returns when those under way have ended."""
        self._stopping = True
        self._bell.ring()

    async def run(self) -> None:
        """Work until `stop`. Cancellation leaves the leases to be taken over at once."""
        await self.store.declare(self.group, self.handler.takes, since=self.handler.since)
        watcher = runtime.spawn(self._watch(), name=f"{self.group}-watch")
        try:
            while not self._stopping:
                heard = self._bell.rings
                await self._turn()
                await runtime.sleep(0)
                if not self._more:
                    await self._bell.wait(heard, self._idle_s())
            await self._drain()
        finally:
            watcher.cancel()
            await self._leave()

    def _idle_s(self) -> float:
        """How long nothing has to be done unless something rings. Above 0, so that others get their turn."""
        at = self._balance_at if self._in_batch else min(self._balance_at, self._look_at)
        return max(0.001, at - runtime.monotonic())

    async def _watch(self) -> None:
        """Pass on the store's ring: something was appended, or a person decided something in this process."""
        decisions = self.store.decisions
        while True:
            await self.store.wait_changed(IDLE_LOOK_S)
            if self.store.decisions != decisions:
                decisions, self._look_at = self.store.decisions, 0.0
            self._more = True
            self._bell.ring()

    async def _turn(self) -> None:
        """One round: each part does what it can now."""
        try:
            now = runtime.monotonic()
            if now >= self._balance_at:
                await self._balance()
            await self._settle()
            if now >= self._look_at and not self._in_batch:
                await self._look()
            if self._more:
                await self._read()
            self._start()
        except FencedError:
            self._begin_again()
        except StoreError as error:
            # Nothing is lost: what was not settled is in the log. The lanes are filled again from there.
            events.emit(events.RelayStalled(broker=self.store.url, error=str(error), failures=1,
                                            retry_in_s=STORE_RETRY_S))
            self._begin_again()
            await runtime.sleep(STORE_RETRY_S)

    # ── partitions ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _balance(self) -> None:
        await self._settle(all_parts=True)
        share = await self.store.balance(self.group, self.worker, self.pace.lease_s, draining=self._draining)
        self._balance_at = runtime.monotonic() + share.check_in_s
        before = self.lanes.parts
        new = self.lanes.grant(share.leases.values())
        self._draining = (self._draining | share.surplus) & self.lanes.parts
        done = [part for part in self._draining if self.lanes.is_idle(part)]
        if done and not self._in_batch:
            await self._settle(all_parts=True)
            await self.store.release(self.group, self.worker, done, leaving=False)
            self.lanes.grant(lease for part, lease in share.leases.items() if part not in done)
            self._draining -= set(done)
        elif self._draining:
            self._balance_at = min(self._balance_at, runtime.monotonic() + 0.05)
        if new:
            places = await self.store.held_beyond(self.group, {part: share.leases[part].position for part in new})
            self.lanes.skip(places)
            self._more = True
            self._look_at = 0.0
        if before != self.lanes.parts and events.wanted():
            events.emit(events.PartitionsChanged(group=self.group, worker=self.worker, held=len(self.lanes.parts)))

    def _begin_again(self) -> None:
        """Forget everything and take the partitions up anew, from what is durable."""
        events.emit(events.ReaderFenced(group=self.group, worker=self.worker))
        for part in self.lanes.parts:
            self.lanes.revoke(part)
        self._held.clear()
        self._draining = frozenset()
        self._balance_at = 0.0

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _look(self) -> None:
        """See what is due and which keys wait, both of which others may have changed."""
        parts = self.lanes.parts
        self._look_at = runtime.monotonic() + IDLE_LOOK_S
        blocked = await self.store.blocked_keys(self.group, parts)
        for part in parts:
            self.lanes.block(part, blocked.get(part, ()))
        due = await self.store.due(self.group, parts, now=runtime.unix_time(), limit=READ_AT_ONCE)
        for entry, held in due:
            self._held[entry.part, entry.position] = held
        self.lanes.offer_held(entry for entry, _ in due)

    async def _read(self) -> None:
        self._more = False
        room = min(self.lanes.room, READ_AT_ONCE)
        self._full = room <= 0
        if self._full:
            return  # until something has ended
        page = await self.store.read(self.handler.takes, self.lanes.after(self._draining), room)
        self._more = self._more or page.more
        self.lanes.offer(page, now=runtime.unix_time())

    # ── handling ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self) -> None:
        if self.handler.transactional:
            if not self._tasks and self.lanes.ready:
                self._spawn(self._handle_batch(self.lanes.take_batch(self.handler.in_flight)))
            return
        # Twice as many each turn: handlers that never wait are worked off by one task, those that do by enough of them.
        ready = self.lanes.ready
        wanted = min(ready, self.handler.in_flight - len(self._tasks), max(1, len(self._tasks)))
        for _ in range(wanted):
            self._spawn(self._work())
        if ready > wanted > 0:
            self._bell.ring()

    def _spawn(self, work: Any) -> None:
        task = runtime.spawn(work, name=self.group)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"handling messages of {self.group} failed", "exception": error, "task": task})
        self._more = self._more or self._full
        self._bell.ring()

    async def _work(self) -> None:
        """Handle one message after the other while there are some that may be handled."""
        handled = 0
        while not self._stopping and (entry := self.lanes.take()) is not None:
            await self._handle_one(entry)
            self._more = self._more or self._full
            self._bell.ring()
            handled += 1
            if handled % YIELD_EVERY == 0:
                await runtime.sleep(0)

    async def _handle_one(self, entry: Entry) -> None:
        guarded = self._is_dangerous(entry)
        if guarded and not await self._guard(entry):
            return
        began = runtime.monotonic()
        try:
            returned = await self._call(entry, None)
        except Exception as error:
            self._failed(entry, error)
            return
        self.lanes.finish(entry, publish=returned, guarded=guarded)
        self._handled(entry, runtime.monotonic() - began)

    # ── messages that may kill ───────────────────────────────────────────────────────────────────────────────────

    def _is_dangerous(self, entry: Entry) -> bool:
        """Did owners die over this partition, or over this very message?"""
        held = self._held.get((entry.part, entry.position)) if entry.held else None
        return self.lanes.crashes(entry.part) >= CRASHES or (held is not None and held.error == DIED)

    async def _guard(self, entry: Entry) -> bool:
        """Write the failure down before it can happen. False: it has happened often enough, and the message gave up."""
        fence = self.lanes.fence(entry.part)
        if fence is None:
            return False
        before = self._held.get((entry.part, entry.position))
        if before is not None and before.error == DIED and entry.attempts >= self.handler.retries.attempts:
            state = "quarantined" if self.handler.retries.poison == "quarantine" else "dead"
            self.lanes.finish(entry, msgspec.structs.replace(before, state=state, due_at=runtime.unix_time()))
            return False
        row = before_danger(entry, before, msgspec.structs.replace(self.handler.retries, attempts=self.handler.retries.attempts + 1),
                            now=runtime.unix_time(), lease_s=self.pace.lease_s)
        try:
            await self.store.settle(self.group, Settlement(fences={entry.part: fence}, hold=[row]))
        except (FencedError, StoreError):
            self._begin_again()
            return False
        return True

    async def _handle_batch(self, batch: Sequence[Entry], *, guarded: bool = False) -> None:
        """Several messages in one transaction; if one fails, or may kill, each in its own."""
        if not guarded and any(self._is_dangerous(entry) for entry in batch):
            for entry in batch:
                if self.lanes.is_under_way(entry) and await self._guard(entry):
                    await self._handle_batch([entry], guarded=True)
            return
        try:
            handled = await self._in_transaction(batch, guarded=guarded)
        except FencedError:
            self._begin_again()
            return
        except StoreError:
            self._begin_again()
            await runtime.sleep(STORE_RETRY_S)
            return
        except Exception as error:
            if len(batch) == 1:
                self._failed(batch[0], error)
                return
            for entry in batch:
                if self.lanes.is_under_way(entry):
                    await self._handle_batch([entry])
            return
        for entry, duration_s in handled:
            self._handled(entry, duration_s)

    async def _in_transaction(self, batch: Sequence[Entry], *, guarded: bool) -> list[tuple[Entry, float]]:
        handled: list[tuple[Entry, float]] = []
        async with self.store.transaction() as tx:
            began = runtime.monotonic()
            done: list[tuple[Entry, list[Message]]] = []
            for number, entry in enumerate(batch):
                at = runtime.monotonic()
                if done and at - began > BATCH_S:
                    self.lanes.put_back(batch[number:])
                    break
                done.append((entry, await self._call(entry, tx)))
                handled.append((entry, runtime.monotonic() - at))
            for entry, returned in done:
                self.lanes.finish(entry, publish=returned, guarded=guarded)
            await tx.settle(self.group, self.lanes.settlement())
        self.lanes.written()
        return handled

    async def _call(self, entry: Entry, tx: Tx | None) -> list[Message]:
        """Call the user's function; what it returns becomes messages."""
        message = entry.message
        under_way = effect.Effect(message.identity, self.group, self.group, attempt=entry.attempts + 1,
                                  traceparent=message.traceparent)
        as_message, as_effect = handling.set(message), effect.current.set(under_way)
        try:
            payload = decode(self.handler.takes[message.type], message)
            arguments: dict[str, Any] = {"message": message} if self.handler.wants_message else {}
            if tx is not None:
                arguments["tx"] = tx.connection
            async with asyncio.timeout(self.handler.timeout_s):
                if self.handler.is_async:
                    returned = await self.handler.fn(payload, **arguments)
                else:
                    returned = await runtime.run_blocking(self.handler.fn, payload, **arguments)
            return [] if returned is None else follow_ups(returned, cause=message, source=self.service, group=self.group)
        finally:
            effect.current.reset(as_effect)
            handling.reset(as_message)

    def _failed(self, entry: Entry, error: Exception) -> None:
        before = self._held.pop((entry.part, entry.position), None)
        now = runtime.unix_time()
        held = after_failure(entry, before, error, self.handler.retries, now=now, rng=runtime.rng())
        self.lanes.finish(entry, held)
        if held.state == "retry":
            self._look_at = min(self._look_at, runtime.monotonic() + held.due_at - now)
        if events.wanted():
            events.emit(events.MessageFailed(
                group=self.group, message=entry.message.id, type=entry.message.type, link=entry.message.traceparent,
                error=held.error, attempt=entry.attempts + 1, state=held.state,
                retry_in_s=max(0.0, held.due_at - now)))

    def _handled(self, entry: Entry, duration_s: float) -> None:
        if self._held.pop((entry.part, entry.position), None) is not None:
            self._look_at = 0.0  # its key may be free now
        if events.wanted():
            message = entry.message
            events.emit(events.MessageHandled(
                group=self.group, message=message.id, type=message.type, link=message.traceparent,
                duration_s=duration_s, age_s=max(0.0, runtime.unix_time() - message.time), attempt=entry.attempts + 1))

    # ── settling ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _in_batch(self) -> bool:
        return self.handler.transactional and bool(self._tasks)

    async def _settle(self, *, all_parts: bool = False) -> None:
        """Write what is done. While a transaction is open only it may say so: it could still be rolled back."""
        if self._in_batch:
            return
        settlement = self.lanes.settlement(all_parts=all_parts)
        if settlement:
            await self.store.settle(self.group, settlement)
        self.lanes.written()

    async def _drain(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.pace.drain_s)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _leave(self) -> None:
        """Cancelled or stopped: let nothing go on, write what is done, and free the partitions."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        try:
            await self._settle(all_parts=True)
            await self.store.release(self.group, self.worker, self.lanes.parts, leaving=True)
        except (FencedError, StoreError):
            return  # the leases run out by themselves
