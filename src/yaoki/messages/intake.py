"""Takes in what other services said: each message once, in the service's own database, before the broker forgets it.

    broker ──fetch──▶ store (known by source and id: passed over) ──durable──▶ ack ──▶ handlers, from the store

From then on retries, quarantine and once-ness are the store's, whatever the broker can do. A message is recognized for
as long as the store keeps it (`prune`), also when it comes by another broker or is redriven.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from yaoki import events, runtime
from yaoki.errors import MessagesError
from yaoki.messages.brokers.port import Broker, Subscription
from yaoki.messages.carrier import Carrier
from yaoki.messages.consumer import Pace
from yaoki.messages.envelope import ECHO, PARTS, SAGA_TYPES, Message
from yaoki.messages.store.port import Store

BATCH = 500
FETCH_WAIT_S = 0.3
PAUSE_S = 0.5


class Intake(Carrier):
    """The way into one service's store. One process of a service does it at a time: the one with partition 0.

    Args:
        types: what to take in.

    Attributes:
        is_reading: has it been subscribed? Brokers that keep nothing for whoever comes later (SQS) keep it from then on.
    """

    def __init__(self, store: Store, broker: Broker, *, service: str, types: Collection[str],
                 pace: Pace | None = None) -> None:
        super().__init__(store, broker, service=service, role="intake", pace=pace)
        self.types = frozenset(types)
        self.is_reading = False
        self._leads = False

    async def run(self) -> None:
        """Take in until `stop`; the batch under way is finished."""
        subscription: Subscription | None = None
        try:
            while not self._stopping:
                heard = self._bell.rings
                try:
                    await self._balance()
                    if not self._leads:
                        await _close(subscription)
                        subscription = None
                        await self._bell.wait(heard, max(0.01, self._balance_at - runtime.monotonic()))
                        continue
                    subscription = subscription or await self.broker.subscribe(self.service, self.types)
                    self.is_reading = True
                    await self._take_in(subscription)
                    self.failures = 0
                except MessagesError as error:
                    # What was fetched and not acknowledged comes again, in order, to a new subscription.
                    self.failures += 1
                    events.emit(events.RelayStalled(broker=self.broker.name, error=str(error), failures=self.failures,
                                                    retry_in_s=PAUSE_S))
                    await _close(subscription)
                    subscription = None
                    await self._bell.wait(heard, PAUSE_S)
        finally:
            await _close(subscription)
            await self._leave()

    async def _balance(self) -> None:
        if runtime.monotonic() < self._balance_at:
            return
        if not self._declared:
            # The group only leads an election; it reads nothing of the log.
            await self.store.declare(self.group, [], since="now")
            self._declared = True
        share = await self.store.balance(self.group, self.worker, self.pace.lease_s)
        self._balance_at = runtime.monotonic() + share.check_in_s
        surplus = share.surplus - {0}
        if surplus:
            await self.store.release(self.group, self.worker, surplus, leaving=False)
        self._leads = 0 in share.leases

    async def _take_in(self, subscription: Subscription) -> None:
        deliveries = await subscription.fetch(BATCH, FETCH_WAIT_S)
        if not deliveries:
            return
        await self.store.append([self._landed(each.message) for each in deliveries])
        await subscription.ack(deliveries)

    def _landed(self, message: Message) -> Message:
        """What this service said itself is in its log already, and is passed over there.

        Except what belongs to a choreographed run: there the broker's order is what all participants agree on, so each
        takes its own words from the broker as well, under a source of their own.
        """
        if message.source == self.service and message.type.startswith(SAGA_TYPES):
            return msgspec.structs.replace(message, source=f"{self.service}{ECHO}")
        return message

    async def _leave(self) -> None:
        try:
            await self.store.release(self.group, self.worker, range(PARTS), leaving=True)
        except MessagesError:
            return  # the lease runs out by itself


async def _close(subscription: Subscription | None) -> None:
    if subscription is not None:
        try:
            await subscription.close()
        except MessagesError:
            return  # the broker will notice by itself
