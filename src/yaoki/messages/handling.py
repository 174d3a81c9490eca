"""What becomes of messages in the hands of one handler: called, alone or several in a transaction, and settled or held.

`calling` calls the function, `verdict` says what a failure means, `lanes` is told how each message ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from yaoki import events, runtime
from yaoki.errors import FencedError, StoreError
from yaoki.messages.calling import Caller
from yaoki.messages.envelope import Message
from yaoki.messages.handlers import Handler
from yaoki.messages.lanes import Lanes
from yaoki.messages.store.port import Entry, Held, Position, Settlement, Store
from yaoki.messages.verdict import DIED, after_failure, before_danger

BATCH_S = 0.25
"""A transaction of several messages is committed after this, so that nobody waits long for the database."""
STORE_RETRY_S = 0.5
CRASHES = 2
"""After so many owners died in a row, each message of the partition is written down as failed before it is handled."""


class Handling:
    """Handles the messages of one group in this process.

    Args:
        lanes: which message is next, and what is to be settled.
        begin_again: forget everything that is not durable: another worker has the partition, or the store failed.

    Attributes:
        held: the held rows of messages that were tried before, by place.
        look_at: by when (monotonic) the consumer must look for what is due.
    """

    def __init__(self, store: Store, handler: Handler, lanes: Lanes, *, service: str, group: str, lease_s: float,
                 begin_again: Callable[[], None]) -> None:
        self.store = store
        self.handler = handler
        self.lanes = lanes
        self.group = group
        self.lease_s = lease_s
        self.held: dict[tuple[int, Position], Held] = {}
        self.look_at = 0.0
        self._alone: frozenset[Position] = frozenset()
        self._caller = Caller(handler, service=service, group=group)
        self._begin_again = begin_again

    # ── one message ──────────────────────────────────────────────────────────────────────────────────────────────

    async def one(self, entry: Entry) -> None:
        """Handle a message whose effect is not in the store's database."""
        guarded = self._is_dangerous(entry)
        if guarded and not await self._guard(entry):
            return
        told = events.wanted()
        began = runtime.monotonic() if told else 0.0
        try:
            returned = await self._caller.call(entry)
        except Exception as error:
            self._failed(entry, error)
            return
        self.lanes.finish(entry, publish=returned, guarded=guarded)
        self._handled(entry, runtime.monotonic() - began if told else 0.0)

    # ── several in a transaction ─────────────────────────────────────────────────────────────────────────────────

    async def batch(self, batch: Sequence[Entry], *, guarded: bool = False) -> None:
        """Several messages in one transaction; if one fails, or may kill, each in its own.

        Whoever begins again does so last: until this task has ended, nothing is looked up of what waits.
        """
        if not guarded and any(self._is_dangerous(entry) for entry in batch):
            for entry in batch:
                if self.lanes.is_under_way(entry) and await self._guard(entry):
                    await self.batch([entry], guarded=True)
            return
        if len(batch) > 1 and any(entry.position in self._alone for entry in batch):
            await self._each_alone(batch)
            return
        try:
            handled = await self._in_transaction(batch, guarded=guarded)
        except FencedError:
            self._begin_again()
        except StoreError:
            try:
                await runtime.sleep(STORE_RETRY_S)
            finally:
                self._begin_again()
        except _RefusedError as refused:
            await self._refused(batch, refused.error)
        except Exception as error:
            await self._one_failed(batch, error)
        else:
            for entry, duration_s in handled:
                self._handled(entry, duration_s)

    async def _one_failed(self, batch: Sequence[Entry], error: Exception) -> None:
        if len(batch) == 1:
            self._failed(batch[0], error)
        else:
            await self._each_alone(batch)

    async def _each_alone(self, batch: Sequence[Entry]) -> None:
        for entry in batch:
            if self.lanes.is_under_way(entry):
                await self.batch([entry])

    async def _refused(self, batch: Sequence[Entry], error: Exception) -> None:
        """The database refused the commit, as a constraint does that it checks last. The lanes have all of it for done."""
        try:
            if len(batch) > 1:
                self._alone = frozenset(entry.position for entry in batch)
            elif (fence := self.lanes.fence(batch[0].part)) is not None:
                held = self._after_failure(batch[0], error)
                await self.store.settle(self.group, Settlement(fences={batch[0].part: fence}, hold=[held]))
        except (FencedError, StoreError):
            return  # it is handled again, and refused again
        finally:
            self._begin_again()

    async def _in_transaction(self, batch: Sequence[Entry], *, guarded: bool) -> list[tuple[Entry, float]]:
        handled: list[tuple[Entry, float]] = []
        finished = False
        try:
            async with self.store.transaction() as tx:
                done: list[tuple[Entry, list[Message]]] = []
                began = runtime.monotonic()
                for number, entry in enumerate(batch):
                    at = runtime.monotonic()
                    if done and at - began > BATCH_S:
                        self.lanes.put_back(batch[number:])
                        break
                    done.append((entry, await self._caller.call(entry, tx)))
                    handled.append((entry, runtime.monotonic() - at))
                finished = True
                self._finish(done, guarded=guarded)
                await tx.settle(self.group, self.lanes.settlement())
        except (FencedError, StoreError):
            raise
        except Exception as error:
            if finished:
                raise _RefusedError(error) from error
            raise
        except BaseException:
            if finished:
                self.lanes.forget()  # cancelled: it may have been rolled back, and nothing that comes later may be written
            raise
        self.lanes.written()
        return handled

    def _finish(self, done: Sequence[tuple[Entry, list[Message]]], *, guarded: bool) -> None:
        for entry, returned in done:
            if not self.lanes.finish(entry, publish=returned, guarded=guarded):
                raise FencedError(f"a partition of {self.group} went to another worker while its messages were handled; their transaction is rolled back",
                                  do="nothing: the other worker handles them", group=self.group)

    # ── messages that may kill ───────────────────────────────────────────────────────────────────────────────────

    def _is_dangerous(self, entry: Entry) -> bool:
        """Did owners die over this partition, or over this very message?"""
        if self.lanes.crashes(entry.part) >= CRASHES:
            return True
        held = self.held.get((entry.part, entry.position)) if entry.held else None
        return held is not None and held.error == DIED

    async def _guard(self, entry: Entry) -> bool:
        """Write the failure down before it can happen. False: it has happened often enough, and the message gave up."""
        fence = self.lanes.fence(entry.part)
        if fence is None:
            return False
        retries, now = self.handler.retries, runtime.unix_time()
        before = self.held.get((entry.part, entry.position))
        if before is not None and before.error == DIED and entry.attempts >= retries.attempts:
            state = "quarantined" if retries.poison == "quarantine" else "dead"
            self.lanes.finish(entry, msgspec.structs.replace(before, state=state, due_at=now))
            return False
        row = before_danger(entry, before, msgspec.structs.replace(retries, attempts=retries.attempts + 1), now=now,
                            lease_s=self.lease_s)
        try:
            await self.store.settle(self.group, Settlement(fences={entry.part: fence}, hold=[row]))
        except (FencedError, StoreError):
            self._begin_again()
            return False
        return True

    # ── what became of it ────────────────────────────────────────────────────────────────────────────────────────

    def _failed(self, entry: Entry, error: Exception) -> None:
        self.lanes.finish(entry, self._after_failure(entry, error))

    def _after_failure(self, entry: Entry, error: Exception) -> Held:
        """What is to be held of a message that failed. It is told, and looked for when its time has come."""
        before = self.held.pop((entry.part, entry.position), None)
        now = runtime.unix_time()
        held = after_failure(entry, before, error, self.handler.retries, now=now, rng=runtime.rng())
        if held.state == "retry":
            self.look_at = min(self.look_at, runtime.monotonic() + held.due_at - now)
        if events.wanted():
            events.emit(events.MessageFailed(
                group=self.group, message=entry.message.id, type=entry.message.type, link=entry.message.traceparent,
                error=held.error, attempt=entry.attempts + 1, state=held.state,
                retry_in_s=max(0.0, held.due_at - now)))
        return held

    def _handled(self, entry: Entry, duration_s: float) -> None:
        if self.held and self.held.pop((entry.part, entry.position), None) is not None:
            self.look_at = 0.0  # its key may be free now
        if events.wanted():
            message = entry.message
            events.emit(events.MessageHandled(
                group=self.group, message=message.id, type=message.type, link=message.traceparent,
                duration_s=duration_s, age_s=max(0.0, runtime.unix_time() - message.time), attempt=entry.attempts + 1))


class _RefusedError(Exception):
    """The transaction was refused at its very end, when the lanes had been told that it is done."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error
