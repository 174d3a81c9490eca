"""Any broker of `yaoki.messages` as a feed: a group of the audit's own is given every message of a type, as all groups are.

A message's key is the key. Its version is in a header, or a field of its data: the ledger's own messages carry one. A message
is acknowledged only after what it said is remembered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from yaoki import runtime
from yaoki.errors import AuditError, BrokerError, InputError
from yaoki.ledger.lint import Danger
from yaoki.ledger.records import check_version
from yaoki.ledger.sinks.broker import VERSION, content_of
from yaoki.ledger.sources.feeds import seen
from yaoki.ledger.sources.shadow import Seen
from yaoki.ledger.subscribed import Subscribed
from yaoki.messages.brokers.port import Broker, Delivery
from yaoki.messages.envelope import Message
from yaoki.messages.store.port import CLASSES

GROUP = "yaoki-audit-source"


class BrokerFeed(Subscribed):
    """Messages of type `kind`. `version`: the header, or the field of the data, that counts a key's messages."""

    heads = False
    vouches = False

    def __init__(self, connect: Callable[[], Awaitable[Broker]], name: str, kind: str, version: str) -> None:
        super().__init__(connect, name, kind=kind, group=GROUP)
        self._version = version
        self._taken: list[Delivery] = []
        self.unreadable = 0

    async def read(self, place: str) -> AsyncIterator[tuple[list[Seen], str]]:
        del place  # the broker knows it
        try:
            async for taken in self.pages():
                self._taken = taken
                yield [each for one in taken for each in self._seen(one.message)], ""
        except BrokerError as error:
            raise AuditError(f"{self.name} cannot be read: {error}", do="check that the broker runs; then try again") from error

    def _seen(self, message: Message) -> list[Seen]:
        try:
            number = message.headers.get(VERSION) or message.headers.get(self._version)
            version = int(number) if number is not None else msgspec.json.decode(message.data)[self._version]
            checked = check_version(version, f"{self._version} of message {message.id} on {self.name}")
        except (ValueError, KeyError, TypeError, IndexError, InputError):
            self.unreadable += 1
            return []
        return [seen(message.key, checked, message.time or runtime.unix_time(), content_of(message))] if message.key else []

    async def settle(self, place: str) -> None:
        del place
        assert self._subscription is not None, "open the feed first"
        await self._subscription.ack(self._taken)
        self._taken = []

    async def dangers(self) -> list[Danger]:
        assert self._broker is not None, "open the feed first"
        found: list[Danger] = []
        given = self._broker.durability
        if given.survives != CLASSES[-1]:
            found.append(("durability", f"{self._broker.name} survives {given.survives!r}: a power cut may lose {given.power_cut}"))
        if self.unreadable:
            found.append(("unreadable", f"{self.unreadable} message(s) had no {self._version}"))
        return found
