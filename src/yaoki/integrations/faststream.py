"""FastStream with an outbox and an inbox: publish with your data, and let each message have its effect once.

    app = Messages("orders", "postgresql://...", broker=FastStreamBroker(broker, lambda message: {"subject": message.type, "stream": "shop"}))

    async with app, pool.acquire() as connection, connection.transaction():
        await connection.execute("INSERT INTO orders ...")
        await app.publish(OrderPlaced(...), key="order-42", connection=connection)      # sent by FastStream's broker, once it is committed

    router = NatsRouter(middlewares=[Once("hotel", transaction)])

    @router.subscriber("OrderPlaced", stream="shop", ack_policy=AckPolicy.NACK_ON_ERROR)
    async def reserve(placed: OrderPlaced, tx: Annotated[Any, Context()]) -> None:
        await tx.execute("INSERT INTO rooms ...")                                       # commits with the mark that it was done

Nothing here knows which of FastStream's brokers it is (tested on NATS JetStream and Redis Streams); messages are CloudEvents in binary mode, so that its handlers get the payload. Needs `faststream`,
0.6 or newer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from faststream import BaseMiddleware, StreamMessage

from yaoki.errors import BrokerError, ConfigError
from yaoki.messages import Inbox, Message, Messages
from yaoki.messages.binary import from_binary, to_binary
from yaoki.messages.brokers.port import Subscription
from yaoki.messages.brokers.waves import waves
from yaoki.messages.current import handling
from yaoki.messages.store.port import Durability

Where = Callable[[Message], Mapping[str, Any]]
"""What FastStream's `publish` takes beside body and headers: `subject` and `stream`, `topic` and `key`, `queue`, ..."""

UNKNOWN = Durability(survives="memory", kill="what FastStream's broker has not confirmed, which nobody declared",
                     power_cut="what its server had not synced, which nobody declared")


class FastStreamBroker:
    """FastStream's broker as the way out of an outbox. It only sends: what FastStream is given goes to its own handlers (`Once`), or
    into our log (`take_in`).

    Args:
        broker: of FastStream; its owner starts and stops it. While it is not connected, messages wait.
        where: from a message to where it goes. A broker without confirmation (NATS without `stream`) makes every send a guess.
        durability: what a confirmed message survives there, as you know it.
    """

    delivers = False

    def __init__(self, broker: Any, where: Where, *, durability: Durability = UNKNOWN) -> None:
        self.broker = broker
        self.name = f"faststream:{type(broker).__name__}"
        self.durability = durability
        self._where = where

    async def publish(self, messages: Sequence[Message]) -> None:
        for wave in waves(messages):
            ended = await asyncio.gather(*map(self._send, wave), return_exceptions=True)
            failed = [each for each in ended if isinstance(each, BaseException)]
            if failed:
                raise BrokerError(f"FastStream did not send {len(failed)} of {len(wave)} messages: {failed[0]!r}",
                                  do="nothing: they are sent again; see that its broker is started and its server runs") from failed[0]

    async def _send(self, message: Message) -> None:
        headers, body = to_binary(message)
        more = dict(self._where(message))
        # By this header JetStream knows a repetition; others pass it on.
        headers |= {"Nats-Msg-Id": message.identity, "message_id": message.id, **more.pop("headers", {})}
        await self.broker.publish(body, headers=headers, correlation_id=message.correlation or message.id, **more)

    async def subscribe(self, group: str, types: Collection[str]) -> Subscription:
        raise ConfigError(f"{group} cannot read {', '.join(sorted(types))} through FastStream's broker",
                          do="let a subscriber of FastStream's take them: with `Once`, or into the log with `take_in`")

    async def close(self) -> None:
        """The broker is its owner's."""


def message_of(given: StreamMessage[Any]) -> Message:
    """The message that FastStream was given. Raises `InputError` if it is no CloudEvent."""
    return from_binary({"content-type": given.content_type or "", **given.headers}, given.body)


async def take_in(app: Messages, given: StreamMessage[Any]) -> None:
    """Put what FastStream was given into the log of `app`, once, for the handlers of `app`. When it returns, it may be acknowledged.

    Raises:
        InputError: it is no CloudEvent. StoreError: it could not be stored.
    """
    await app.store.append([message_of(given)])


class Once:
    """A middleware for a broker or a router: each message's handler, and the mark that it was done, in one transaction.

    What was done before is passed over, and FastStream acknowledges it. If the handler raises, nothing of it stays, and FastStream
    does what its `ack_policy` says: NACK_ON_ERROR brings it again, while the default of most brokers drops it. The handler gets the connection
    by `tx: Annotated[Any, Context()]`; what it publishes through an `Outbox` with it follows from the message, and goes out if the transaction
    commits. What it returns to a `@publisher` is sent by FastStream before that, and may be sent twice.

    Args:
        reader: whose marks: one for each handler or group that must see a message once.
        transaction: opens a transaction that commits when the block ends, and gives its connection.
        identity: (source, id) of a message; default: those of its CloudEvent.
        keep_s: how long marks are kept: longer than a message may take to come again.
    """

    def __init__(self, reader: str, transaction: Callable[[], AbstractAsyncContextManager[Any]], *,
                 identity: Callable[[StreamMessage[Any]], tuple[str, str]] | None = None, keep_s: float = 30 * 86_400) -> None:
        self.inbox = Inbox(reader, keep_s=keep_s)
        self.transaction = transaction
        self.identity = identity

    def __call__(self, msg: Any, /, *, context: Any) -> BaseMiddleware[Any, Any]:
        return _OnceEach(msg, self, context=context)


class _OnceEach(BaseMiddleware[Any, Any]):
    """One message on its way through."""

    def __init__(self, msg: Any, once: Once, *, context: Any) -> None:
        super().__init__(msg, context=context)
        self._once = once

    async def consume_scope(self, call_next: Callable[[Any], Any], msg: StreamMessage[Any]) -> Any:
        once = self._once
        message = message_of(msg) if once.identity is None else None
        source, id_ = once.identity(msg) if once.identity else (message.source, message.id) if message else ("", "")
        token = handling.set(message)
        try:
            async with once.transaction() as connection:
                if not await once.inbox.once_async(source, id_, connection=connection):
                    return None
                with self.context.scope("tx", connection):
                    return await call_next(msg)
        finally:
            handling.reset(token)


__all__ = ["FastStreamBroker", "Once", "message_of", "take_in"]
