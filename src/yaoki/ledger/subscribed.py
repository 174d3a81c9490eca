"""A group of the audit's own on any broker of `yaoki.messages`: opened and closed in one piece, for the sink and the feed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from yaoki import runtime
from yaoki.errors import AuditError, YaokiError
from yaoki.messages.brokers.port import Broker, Delivery, Subscription

PAGE = 500
WAIT_S = 0.2
"""How long to wait for more before taking it that everything was read."""


class Subscribed:
    """Messages of type `kind`, as `group` is given them.

    Args:
        connect: opens the broker.
        name: for findings; without secrets.
    """

    def __init__(self, connect: Callable[[], Awaitable[Broker]], name: str, *, kind: str, group: str) -> None:
        self.name = name
        self._connect = connect
        self._kind = kind
        self._group = group
        self._broker: Broker | None = None
        self._subscription: Subscription | None = None

    async def open(self) -> None:
        try:
            self._broker = await self._connect()
            self._subscription = await self._broker.subscribe(self._group, [self._kind])
        except YaokiError as error:
            await self.close()
            raise AuditError(f"{self.name} cannot be used: {error}", do="check the address and the account's rights") from error

    async def pages(self) -> AsyncIterator[list[Delivery]]:
        """What was there when it was asked for; the caller acknowledges. It is not gone on with for as long as somebody publishes."""
        assert self._subscription is not None, "open it first"
        began = runtime.unix_time()
        while page := await self._subscription.fetch(PAGE, WAIT_S):
            yield page
            if all(each.message.time > began for each in page):
                return

    async def close(self) -> None:
        if self._subscription is not None:
            await self._subscription.close()
        if self._broker is not None:
            await self._broker.close()
        self._subscription = self._broker = None
