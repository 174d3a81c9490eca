"""Outbox and inbox under FastStream's own brokers, routers and handlers: the real library on a real NATS server."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from faststream import AckPolicy, Context
from faststream.nats import JStream, NatsBroker, NatsMessage, NatsRouter, PullSub
from faststream.redis import RedisBroker, RedisRouter, StreamSub
from pydantic import BaseModel

from contracts.messages_world import until
from contracts.test_messages_brokers import running_nats, running_redis
from yaoki.errors import ConfigError, InputError
from yaoki.integrations.faststream import FastStreamBroker, Once, message_of, take_in
from yaoki.messages import Message, Messages, Outbox, Pace
from yaoki.messages.binary import from_binary, to_binary
from yaoki.messages.compose import compose

pytestmark = pytest.mark.live
PACE = Pace(lease_s=15.0, drain_s=2.0)
SHOP = JStream("shop", subjects=["shop.>"])
PULL = PullSub(timeout=0.2)


class Placed(BaseModel):
    order: str


class Reserved(BaseModel):
    order: str


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory):
    with running_nats(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    with running_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


def where(message: Message) -> dict[str, str]:
    return {"subject": f"shop.{message.type}", "stream": "shop"}


def transactions(path):
    @contextlib.asynccontextmanager
    async def transaction():
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection

    return transaction


def rows(path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT ord FROM rooms ORDER BY rowid")]


async def test_an_order_is_published_with_its_data_and_has_its_effect_once(nats_url, tmp_path):
    broker, hotel_db = NatsBroker(nats_url, logger=None), tmp_path / "hotel.db"
    router = NatsRouter(middlewares=[Once("hotel", transactions(hotel_db))])
    hotel_outbox, tried, heard = Outbox("hotel"), [], []

    @router.subscriber("shop.Placed", stream=SHOP, durable="inn", pull_sub=PULL, ack_policy=AckPolicy.NACK_ON_ERROR)
    async def reserve(placed: Placed, tx: Annotated[Any, Context()]) -> None:
        tried.append(placed.order)
        tx.execute("INSERT INTO rooms VALUES (?)", (placed.order,))
        await hotel_outbox.publish(Reserved(order=placed.order), key=placed.order, connection=tx)
        if placed.order == "2" and tried.count("2") == 1:
            raise ConnectionResetError("after it has written")

    @broker.subscriber("shop.Reserved", stream=SHOP, durable="desk", pull_sub=PULL)
    async def note(reserved: Reserved, message: NatsMessage) -> None:
        heard.append(message_of(message))

    broker.include_router(router)
    outgoing = FastStreamBroker(broker, where)
    shop = Messages("shop", f"sqlite:///{tmp_path}/shop.db", broker=outgoing, pace=PACE)
    hotel = Messages("hotel", f"sqlite:///{hotel_db}", broker=outgoing, pace=PACE)
    async with broker, hotel, shop:
        async with transactions(hotel_db)() as connection:
            connection.execute("CREATE TABLE rooms (ord TEXT)")
        await broker.start()
        sent = [message for n in range(1, 6) for message in await shop.publish(Placed(order=str(n)), key=str(n))]
        await until(lambda: len(heard) == 5)
        for message in sent:  # again, as after a lost confirmation, and by another road than JetStream's own memory
            headers, body = to_binary(message)
            await broker.publish(body, headers=headers, subject="shop.Placed", stream="shop")
        last = (await shop.publish(Placed(order="6"), key="6"))[0]
        await until(lambda: len(heard) == 6)
    assert sorted(rows(hotel_db)) == ["1", "2", "3", "4", "5", "6"]
    assert sorted(tried) == ["1", "2", "2", "3", "4", "5", "6"]
    found = {each.key: each for each in heard}
    assert (found["6"].source, found["6"].cause, found["6"].correlation) == ("hotel", last.id, last.id)
    assert len({each.id for each in heard}) == 6


async def test_the_same_goes_over_another_broker(redis_url, tmp_path):
    """Nothing here knows which of FastStream's brokers it is: Redis Streams, where headers travel inside of the body."""
    broker, db, tried = RedisBroker(redis_url, logger=None), tmp_path / "inn.db", []
    router = RedisRouter(middlewares=[Once("inn", transactions(db))])

    @router.subscriber(stream=StreamSub("shop", group="inn", consumer="one", polling_interval=20))
    async def reserve(placed: Placed, tx: Annotated[Any, Context()]) -> None:
        tried.append(placed.order)
        tx.execute("CREATE TABLE IF NOT EXISTS rooms (ord TEXT)")
        tx.execute("INSERT INTO rooms VALUES (?)", (placed.order,))

    broker.include_router(router)
    shop = Messages("shop", f"sqlite:///{tmp_path}/shop.db", broker=FastStreamBroker(broker, lambda message: {"stream": "shop"}), pace=PACE)
    async with broker, shop:
        await broker.start()
        (sent,) = await shop.publish(Placed(order="1"), key="1")
        await until(lambda: tried == ["1"])
        headers, body = to_binary(sent)
        await broker.publish(body, headers=headers, stream="shop")
        await shop.publish(Placed(order="2"), key="1")
        await until(lambda: "2" in tried)
    assert (tried, rows(db)) == (["1", "2"], ["1", "2"])


async def test_what_faststream_was_given_goes_into_the_log_once_and_our_handlers_do_the_rest(nats_url, tmp_path):
    broker, seen, taken = NatsBroker(nats_url, logger=None), [], []
    bank = Messages("bank", f"sqlite:///{tmp_path}/bank.db", pace=PACE)

    @bank.on(Placed)
    async def charge(placed: Placed, tx: sqlite3.Connection) -> None:
        tx.execute("CREATE TABLE IF NOT EXISTS paid (ord TEXT)")
        tx.execute("INSERT INTO paid VALUES (?)", (placed.order,))
        seen.append(placed.order)

    @broker.subscriber("till.Placed")
    async def hear(message: NatsMessage) -> None:
        await take_in(bank, message)
        taken.append(message.message_id)

    headers, body = to_binary(compose(Placed(order="1"), source="shop", key="1"))
    async with broker, bank:
        await broker.start()
        for _ in range(3):
            await broker.publish(body, headers=headers, subject="till.Placed")
        await until(lambda: len(taken) == 3 and seen)
        await asyncio.sleep(0.2)
    assert seen == ["1"]


async def test_a_broker_that_is_not_connected_keeps_messages_waiting_and_says_so(nats_url, tmp_path):
    broker, heard = NatsBroker(nats_url, logger=None), []

    @broker.subscriber("shop.Late", stream=SHOP, durable="late", pull_sub=PULL)
    async def note(body: dict[str, str]) -> None:
        heard.append(body)

    class Late(BaseModel):
        order: str

    app = Messages("late", f"sqlite:///{tmp_path}/late.db", broker=FastStreamBroker(broker, where), pace=PACE)
    async with app:
        await app.publish(Late(order="1"))
        await asyncio.sleep(0.2)
        async with broker:
            await broker.start()
            await until(lambda: heard == [{"order": "1"}])
    with pytest.raises(ConfigError, match="cannot read Late"):
        await app.broker.subscribe("late", ["Late"])


def test_the_example_of_the_page_runs(nats_url, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "use-faststream.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", block.replace("nats://127.0.0.1:4222", nats_url)], cwd=tmp_path, capture_output=True,
                          text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "hotel.db") == ["42"]


def test_a_message_travels_in_binary_mode_and_comes_back_the_same():
    sent = compose(Placed(order="42"), source="shop", key='order "42" 100 % ü', due=1e9, reply_to="reply.desk", headers={"tenant": "a b"})
    headers, body = to_binary(sent)
    assert all(value.isascii() and value.isprintable() and " " not in value for value in headers.values())
    assert body == b'{"order":"42"}'
    again = from_binary(headers, body)
    assert Message(**{**vars_of(again), "time": sent.time}) == sent
    assert abs(again.time - sent.time) < 1e-5
    for prefix in ("ce_", "cloudEvents:"):
        assert from_binary({name.replace("ce-", prefix): value.encode() for name, value in headers.items()}, body) == again
    with pytest.raises(InputError, match="no CloudEvent"):
        from_binary({"content-type": "application/json"}, body)


def vars_of(message: Message) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.__struct_fields__}
