"""One line that makes a service take part: in messages that are there already, or with a broker and nothing else.

    participate(book_trip, steps=["hotel"], app=hotel)                     # before `async with hotel`

    async with participate(book_trip, steps=["hotel"], broker="postgresql://..."):     # opens what it needs
        await asyncio.Event().wait()
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any, Self, overload

from yaoki.errors import ConfigError
from yaoki.messages.app import Messages
from yaoki.messages.brokers.opening import open_broker
from yaoki.messages.brokers.port import Broker
from yaoki.messages.brokers.stored import StoredBroker
from yaoki.messages.choreography import fitting
from yaoki.messages.choreography.participant import Participant
from yaoki.messages.consumer import Pace
from yaoki.saga.define import Saga


class Joined:
    """A part with messages of its own: takes part as long as its `async with` block lasts.

    Attributes:
        app: its messages, inside the block: to `start` runs with, or to register a `Monitor` with before it.
    """

    def __init__(self, saga: Saga[Any], steps: Collection[str], broker: str | Broker, *, store: str, service: str,
                 pace: Pace | None) -> None:
        self._saga = saga
        self._steps = tuple(steps)
        self._broker = broker
        self._store = store
        self._service = service or f"{saga.name}-{'-'.join(sorted(self._steps))}"
        self._pace = pace
        self._stack = contextlib.AsyncExitStack()
        self.app: Messages

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self.app = await self._messages(stack)
            Participant(self._saga, self._steps, self.app)
            await stack.enter_async_context(self.app)
            self._stack = stack.pop_all()
        return self

    async def _messages(self, stack: contextlib.AsyncExitStack) -> Messages:
        broker = self._broker
        if isinstance(broker, str) and not self._store and _is_store(broker):
            return Messages(self._service, broker, pace=self._pace)
        if isinstance(broker, str):
            broker = await open_broker(broker)
            stack.push_async_callback(broker.close)
        if isinstance(broker, StoredBroker) and not self._store:
            return Messages(self._service, broker.store, pace=self._pace)
        return Messages(self._service, self._store, broker=broker, pace=self._pace)

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


@overload
def participate(saga: Saga[Any], *, steps: Collection[str], app: Messages) -> Participant: ...
@overload
def participate(saga: Saga[Any], *, steps: Collection[str], broker: str | Broker, store: str = ..., service: str = ...,
                pace: Pace | None = ...) -> Joined: ...


def participate(saga: Saga[Any], *, steps: Collection[str], app: Messages | None = None, broker: str | Broker = "",
                store: str = "", service: str = "", pace: Pace | None = None) -> Participant | Joined:
    """Let a service do these steps of `saga`, and undo them.

    Args:
        app: its messages; call this before they are opened. Or, without them:
        broker: an address, or an open broker. Then what is returned is to be entered with `async with`.
        store: with `broker`: the service's own database. A broker that is a database itself needs none; others do.
        service: with `broker`: its name; default: of the saga and the steps. Every process of a service gives the same.
        pace: with `broker`: see `Messages`.

    Raises:
        DefinitionError: a step that the saga does not have, or one that a choreography cannot do.
        ConfigError: neither `app` nor `broker`, or both; or a broker that keeps nothing, and no `store`.
    """
    if (app is None) == (not broker):
        raise ConfigError("participate takes either the service's messages or a broker",
                          do='give app=Messages(...), or broker="sqlite:///agency.db" or the like')
    if app is not None:
        return Participant(saga, steps, app)
    fitting.check(saga, steps, service or "this service")
    if not store and not (_is_store(broker) if isinstance(broker, str) else isinstance(broker, StoredBroker)):
        raise ConfigError(f"{broker if isinstance(broker, str) else broker.name} only carries messages, and a participant must keep some",
                          do='name the service\'s own database as well: store="sqlite:///hotel.db"')
    return Joined(saga, steps, broker, store=store, service=service, pace=pace)


def _is_store(address: str) -> bool:
    return address.startswith(("sqlite:", "postgresql:", "postgres:"))
