"""NATS JetStream: one stream, a subject for each type, a durable consumer for each group. Needs `yaoki[nats]`.

What it survives depends on how the server syncs. By default it answers before it has synced and syncs every two minutes: a
process may die, but if all replicas lose power together everything since the last sync is gone, and a stream younger than
that with it (measured: all of 51 110 acknowledged messages). With `sync_interval: always` in the server's configuration
nothing is. A client cannot see that setting, so it is declared here (`sync_always=True`).

Source: JetStream model deep dive (docs.nats.io), and our own runs with three nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, Self
from urllib.parse import quote

import nats
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, NotFoundError

from yaoki.errors import BrokerError, ConfigError, InputError
from yaoki.messages.brokers.port import Delivery
from yaoki.messages.brokers.waves import waves
from yaoki.messages.envelope import Message, received, to_cloudevent
from yaoki.messages.store.port import Durability

CONFIRM_S = 10.0
"""How long a confirmation may take. A stream without a leader needs 5 to 9 s to find one (measured, kill -9 of it)."""
CONNECT_S = 6.0
ACK_WAIT_S = 60.0
FAILURES = (NatsError, TimeoutError, OSError)


class NatsBroker:
    """JetStream as a broker. Open it with `await NatsBroker.open("nats://host:4222")`, or several hosts with commas.

    Args of `open`:
        stream: its name, and the first token of its subjects. replicas: 1, 3 or 5.
        keep_s: how long messages are kept. sync_always: the servers run with `sync_interval: always`.
    """

    name = "nats"

    def __init__(self, client: Any, *, stream: str, durability: Durability) -> None:
        self.client = client
        self.js = client.jetstream(timeout=CONFIRM_S)
        self.stream = stream
        self.durability = durability

    @classmethod
    async def open(cls, url: str, *, stream: str = "yaoki", replicas: int = 1, keep_s: float = 7 * 86_400.0,
                   sync_always: bool = False) -> Self:
        """Connect, and create the stream if it is missing. Raises `BrokerError`."""
        if replicas not in {1, 3, 5}:
            raise ConfigError(f"replicas={replicas} cannot be", do="give 1, 3 or 5: a majority must be able to decide")
        client: Any = None
        try:
            # Once connected it reconnects for ever; the first time somebody waits for an answer.
            async with asyncio.timeout(CONNECT_S):
                client = await nats.connect(url.split(","), max_reconnect_attempts=-1, reconnect_time_wait=0.2,
                                            connect_timeout=2, error_cb=_quiet)
            self = cls(client, stream=stream, durability=_durability(sync_always=sync_always, replicas=replicas))
            await self._create(replicas, keep_s)
        except FAILURES as error:
            if client is not None:
                await client.close()
            raise BrokerError(f"NATS at {url} cannot be used: {type(error).__name__}: {error}",
                              do="start it with JetStream (nats-server -js), and see that the address is right") from error
        return self

    async def _create(self, replicas: int, keep_s: float) -> None:
        try:
            await self.js.stream_info(self.stream)
        except NotFoundError:
            await self.js.add_stream(StreamConfig(
                name=self.stream, subjects=[f"{self.stream}.>"], num_replicas=replicas, storage=StorageType.FILE,
                retention=RetentionPolicy.LIMITS, discard=DiscardPolicy.OLD, max_age=keep_s))

    def subject(self, type_: str) -> str:
        """One token for any name of a type: dots and wildcards in it mean nothing to the server."""
        return f"{self.stream}.{quote(type_, safe='').replace('.', '%2E')}"

    def address(self, type_: str) -> str:
        """Where messages of a type travel, as AsyncAPI documents say it."""
        return self.subject(type_)

    async def publish(self, messages: Sequence[Message]) -> None:
        for wave in waves(messages):
            ended = await asyncio.gather(*(self._publish(each) for each in wave), return_exceptions=True)
            failed = [each for each in ended if isinstance(each, BaseException)]
            if any(isinstance(each, MaxPayloadError) for each in failed):
                raise InputError(f"one of {len(wave)} messages is larger than the {self.client.max_payload} bytes that this NATS takes",
                                 do="publish a reference to the data, kept elsewhere, or raise max_payload of the server")
            if failed:
                raise BrokerError(f"NATS did not confirm {len(failed)} of {len(wave)} messages: {failed[0]!r}",
                                  do="nothing: they are sent again; if it stays, see that the stream has a leader "
                                     "(nats stream info)") from failed[0]

    async def _publish(self, message: Message) -> None:
        await self.js.publish(self.subject(message.type), to_cloudevent(message), stream=self.stream,
                              headers={"Nats-Msg-Id": message.identity}, timeout=CONFIRM_S)

    async def subscribe(self, group: str, types: Collection[str]) -> NatsSubscription:
        durable = quote(group, safe="").replace(".", "-").replace("%", "_")
        try:
            start = await self._forget_deliveries(durable)
            config = ConsumerConfig(
                durable_name=durable, filter_subjects=sorted(self.subject(each) for each in types),
                ack_policy=AckPolicy.EXPLICIT, ack_wait=ACK_WAIT_S, max_ack_pending=10_000,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE if start else DeliverPolicy.ALL, opt_start_seq=start)
            await self.js.add_consumer(self.stream, config)
            pull = await self.js.pull_subscribe_bind(durable, stream=self.stream)
        except FAILURES as error:
            raise BrokerError(f"NATS does not let {group} read: {type(error).__name__}: {error}",
                              do="see that the stream has a leader; this is tried again") from error
        return NatsSubscription(pull, self.name)

    async def _forget_deliveries(self, durable: str) -> int | None:
        """Where the consumer must start so that what was delivered and not acknowledged comes again in order, and now.

        Left alone, the server would deliver it once its ack wait is over, after messages that follow it. If this dies
        after the deletion, the next one starts from the beginning, and the inbox passes over what it knows.
        """
        try:
            info = await self.js.consumer_info(self.stream, durable)
        except NotFoundError:
            return None
        await self.js.delete_consumer(self.stream, durable)
        return int(info.ack_floor.stream_seq) + 1 if info.ack_floor.stream_seq else None

    async def close(self) -> None:
        await self.client.close()


class NatsSubscription:
    """A pull consumer: nothing comes that was not asked for."""

    def __init__(self, pull: Any, broker: str) -> None:
        self._pull = pull
        self._broker = broker

    async def fetch(self, limit: int, wait_s: float) -> list[Delivery]:
        try:
            found = await self._pull.fetch(limit, timeout=max(0.05, wait_s))
        except TimeoutError:
            return []
        except (*FAILURES, APIError) as error:
            raise BrokerError(f"NATS does not deliver: {type(error).__name__}: {error}",
                              do="nothing: reading begins again from the last acknowledgement") from error
        return [Delivery(received(each.data, self._broker), each) for each in found]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        try:
            for each in deliveries[:-1]:
                await each.token.ack()
            if deliveries:
                await deliveries[-1].token.ack_sync(timeout=CONFIRM_S)
        except FAILURES as error:
            raise BrokerError(f"NATS did not take an acknowledgement: {type(error).__name__}: {error}",
                              do="nothing: the messages come again and are passed over") from error

    async def close(self) -> None:
        try:
            await self._pull.unsubscribe()
        except FAILURES:
            return  # the connection is gone, and the subscription with it


def _durability(*, sync_always: bool, replicas: int) -> Durability:
    if sync_always:
        return Durability(survives="power", kill="nothing", power_cut="nothing")
    shared = "" if replicas == 1 else " if all replicas share the power"
    return Durability(survives="process", kill="nothing",
                      power_cut=f"everything since the last sync, by default up to two minutes,{shared} and streams younger than it")


async def _quiet(_error: Exception) -> None:
    """The client reconnects by itself; what matters is raised where it is awaited."""
