"""Sends what a service published from its outbox to a broker, until the broker has confirmed it.

It is a reader of the store's log like any other: leased partitions, fenced cursors. A batch is what is there, up to
`BATCH`: one message at once when all is quiet, hundreds together when it is not. A batch that is not confirmed is sent
again whole, with the same ids; a cursor moves only after the confirmation. So nothing is skipped, keys stay in order,
and a duplicate is recognized by whoever receives it. What a broker will never take, because it is too large, is a dead
letter: its key goes on without it, until a person corrects it.
"""

from __future__ import annotations

from collections.abc import Sequence

from yaoki import events, runtime
from yaoki.errors import FencedError, InputError, MessagesError
from yaoki.messages.brokers.port import Broker
from yaoki.messages.carrier import Carrier
from yaoki.messages.consumer import Pace
from yaoki.messages.lanes import Lanes
from yaoki.messages.store.port import Entry, Held, Position, Store
from yaoki.messages.verdict import Retries, after_failure

BATCH = 500
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 1.0
"""A broker that is back is found so soon."""
LOOK_S = 1.0


class Relay(Carrier):
    """The way out of one service's store.

    Args:
        service: only what it published is sent; what it took in is in the same log.
    """

    def __init__(self, store: Store, broker: Broker, *, service: str, pace: Pace | None = None) -> None:
        super().__init__(store, broker, service=service, role="relay", pace=pace)
        self.lanes = Lanes(limit=2 * BATCH)

    async def run(self) -> None:
        """Send until `stop`, and then what is in the store yet."""
        ringer = runtime.spawn(self._ring(), name=f"{self.group}-ring")
        try:
            while True:
                heard, stopping = self._bell.rings, self._stopping
                sent = await self._turn()
                if stopping and (not sent or self.failures):
                    break
                if self.failures and not self._stopping:
                    heard = self._bell.rings  # what was published meanwhile is no reason to be back sooner
                if not sent or self.failures:
                    await self._bell.wait(heard, self._pause_s())
        finally:
            ringer.cancel()
            await self._leave()

    async def _turn(self) -> bool:
        """One batch. True if there was something, and it was sent."""
        try:
            if runtime.monotonic() >= self._balance_at:
                await self._balance()
            sent = await self._send()
        except FencedError:
            self._begin_again()
            return True
        except MessagesError as error:  # of the broker, or of the store itself
            self._begin_again()
            self.failures += 1
            events.emit(events.RelayStalled(broker=self.broker.name, error=str(error), failures=self.failures,
                                            retry_in_s=self._pause_s()))
            return False
        self.failures = 0
        return sent

    async def _ring(self) -> None:
        while True:
            await self.store.wait_changed(LOOK_S)
            if not self.failures:  # else the pause is there to be kept, however much is published meanwhile
                self._bell.ring()

    def _pause_s(self) -> float:
        look = max(0.0, self._balance_at - runtime.monotonic())
        return min(look, LOOK_S) if not self.failures else min(
            LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self.failures - 1, 20))

    async def _balance(self) -> None:
        if not self._declared:
            await self.store.declare(self.group, ["*"], since="beginning")
            self._declared = True
        share = await self.store.balance(self.group, self.worker, self.pace.lease_s)
        self._balance_at = runtime.monotonic() + share.check_in_s
        # Between two batches nothing is under way, so surplus partitions can be given back at once.
        if share.surplus:
            await self.store.release(self.group, self.worker, share.surplus, leaving=False)
        self.lanes.grant(lease for part, lease in share.leases.items() if part not in share.surplus)
        redriven = await self.store.due(self.group, self.lanes.parts, now=runtime.unix_time(), limit=BATCH)
        self.lanes.offer_held(entry for entry, _ in redriven)

    async def _send(self) -> bool:
        page = await self.store.read(None, self.lanes.after(), BATCH)
        self.lanes.offer(page, now=float("inf"))
        batch = self.lanes.take_batch(2 * BATCH)
        own = [entry for entry in batch if entry.message.source == self.service]
        refused = await self._publish(own) if own else {}
        for entry in batch:
            self.lanes.finish(entry, refused.get(entry.position))
        settlement = self.lanes.settlement()
        if settlement:
            await self.store.settle(self.group, settlement)
        self.lanes.written()
        return bool(batch)

    async def _publish(self, entries: Sequence[Entry]) -> dict[Position, Held]:
        """Returns what the broker will never take; what else is in its batch goes message by message."""
        try:
            await self.broker.publish([entry.message for entry in entries])
        except InputError as error:
            if len(entries) == 1:
                return {entries[0].position: self._refused(entries[0], error)}
            found: dict[Position, Held] = {}
            for entry in entries:
                found |= await self._publish([entry])
            return found
        return {}

    def _refused(self, entry: Entry, error: InputError) -> Held:
        held = after_failure(entry, None, error, Retries(poison="skip"), now=runtime.unix_time(), rng=runtime.rng())
        message = entry.message
        events.emit(events.MessageFailed(group=self.group, message=message.id, type=message.type, link=message.traceparent,
                                         error=held.error, attempt=held.attempts, state=held.state, retry_in_s=0.0))
        return held

    def _begin_again(self) -> None:
        """Read again from what is confirmed."""
        self.lanes.forget()
        self._balance_at = 0.0

    async def _leave(self) -> None:
        try:
            settlement = self.lanes.settlement(all_parts=True)
            if settlement:
                await self.store.settle(self.group, settlement)
            await self.store.release(self.group, self.worker, self.lanes.parts, leaving=True)
        except (MessagesError, FencedError):
            return  # the leases run out by themselves
