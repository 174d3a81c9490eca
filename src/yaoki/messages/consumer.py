"""Runs one handler over the log of a store: take partitions, read, handle, settle.

    balance ──▶ read ──▶ lanes ──▶ handler ──▶ settle (done up to here, held, what follows)
       ▲                                          │
       └────────── fenced: begin again ◀──────────┘

Who is next is decided by `lanes`; `handling` calls, alone or in transactions, and says what became of it. A worker that dies
loses nothing: its leases run out, and the next owner reads on from the last settlement. Messages whose effect is in the
store's own database are applied once, because effect and settlement commit together; for others the handler finds a
stable key in `effect.current`, the same in every repetition.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from yaoki import events, runtime
from yaoki.errors import ConfigError, FencedError, StoreError
from yaoki.messages.envelope import PARTS
from yaoki.messages.handlers import Handler
from yaoki.messages.handling import STORE_RETRY_S, Handling
from yaoki.messages.lanes import Lanes
from yaoki.messages.store.bell import Bell
from yaoki.messages.store.port import Store

READ_AT_ONCE = 500
"""Messages per read. Batches of several hundred are where reading stops getting cheaper (benchmarks/messages.py)."""
IDLE_LOOK_S = 1.0
"""How long at most between looks for what is due, or was changed by a person, if nothing rings."""
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
        self.lanes = Lanes(limit=max(2 * READ_AT_ONCE, 2 * handler.in_flight), limit_bytes=handler.in_flight_bytes)
        self._handling = Handling(store, handler, self.lanes, service=service, group=self.group, lease_s=self.pace.lease_s,
                                  begin_again=self._begin_again)
        self._bell = Bell()
        self._declared = False
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining: frozenset[int] = frozenset()
        self._balance_at = 0.0
        self._more = True
        self._full = False

    def stop(self) -> None:
        """Take no further message; `run` returns when those under way have ended."""
        self._stopping = True
        self._bell.ring()

    async def run(self) -> None:
        """Work until `stop`. Cancellation leaves the leases to be taken over at once."""
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
        at = self._balance_at if self._in_batch else min(self._balance_at, self._handling.look_at)
        return max(0.001, at - runtime.monotonic())

    async def _watch(self) -> None:
        """Pass on the store's ring: something was appended, or a person decided something in this process."""
        decisions = self.store.decisions
        while True:
            await self.store.wait_changed(IDLE_LOOK_S)
            if self.store.decisions != decisions:
                decisions, self._handling.look_at = self.store.decisions, 0.0
            self._more = True
            self._bell.ring()

    async def _turn(self) -> None:
        """One round: each part does what it can now."""
        try:
            now = runtime.monotonic()
            if now >= self._balance_at:
                await self._balance()
            await self._settle()
            if now >= self._handling.look_at and not self._in_batch:
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
        if not self._declared:
            await self.store.declare(self.group, self.handler.takes, since=self.handler.since)
            self._declared = True
        await self._settle(all_parts=True)
        share = await self.store.balance(self.group, self.worker, self.pace.lease_s, draining=self._draining,
                                         under_way=self.lanes.under_way)
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
            self._handling.look_at = 0.0
        if before != self.lanes.parts and events.wanted():
            events.emit(events.PartitionsChanged(group=self.group, worker=self.worker, held=len(self.lanes.parts)))

    def _begin_again(self) -> None:
        """Forget everything and take the partitions up anew, from what is durable."""
        events.emit(events.ReaderFenced(group=self.group, worker=self.worker))
        self.lanes.forget()
        self._handling.held.clear()
        self._draining = frozenset()
        self._balance_at = 0.0

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _look(self) -> None:
        """See what is due and which keys wait, both of which others may have changed."""
        parts = self.lanes.parts
        self._handling.look_at = runtime.monotonic() + IDLE_LOOK_S
        blocked = await self.store.blocked_keys(self.group, parts)
        for part in parts:
            self.lanes.block(part, blocked.get(part, ()))
        due = await self.store.due(self.group, parts, now=runtime.unix_time(), limit=READ_AT_ONCE)
        for entry, held in due:
            self._handling.held[entry.part, entry.position] = held
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
                self._spawn(self._handling.batch(self.lanes.take_batch(self.handler.in_flight)))
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
        self._got_on()

    def _got_on(self) -> None:
        """Something has ended: it may be settled, and there may be room again."""
        self._more = self._more or self._full
        self._bell.ring()

    async def _work(self) -> None:
        """Handle one message after the other while there are some that may be handled."""
        handled = 0
        while not self._stopping and (entry := self.lanes.take()) is not None:
            await self._handling.one(entry)
            self._got_on()
            handled += 1
            if handled % YIELD_EVERY == 0:
                await runtime.sleep(0)

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
            try:
                await self.store.settle(self.group, settlement)
            except BaseException:
                self.lanes.forget()  # cancelled, perhaps: then `_leave` must not write what comes after it
                raise
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
            await self.store.release(self.group, self.worker, range(PARTS), leaving=True)
        except (FencedError, StoreError):
            return  # the leases run out by themselves
