"""The outbox on DynamoDB, against moto: in the caller's transaction or not at all, keys in order, and sent once confirmed."""

from __future__ import annotations

import asyncio
import os
import time

import msgspec
import pytest
from aiobotocore.session import get_session
from botocore.exceptions import ClientError

from contracts.messages_world import Placed
from yaoki.errors import BrokerError, StoreError
from yaoki.messages.dynamodb import HEAD_KEPT_S, DynamoOutbox, DynamoRelay

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def endpoint():
    from moto.server import ThreadedMotoServer

    os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "test")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
async def client(endpoint):
    async with get_session().create_client("dynamodb", region_name="eu-central-1", endpoint_url=endpoint) as made:
        for table in ("outbox", "orders"):
            try:
                await made.delete_table(TableName=table)
            except ClientError:
                pass
            await made.create_table(
                TableName=table, BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}])
        yield made


class Sink:
    """A broker that notes what it is sent, and may refuse."""

    name = "sink"

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []
        self.refuses = False

    async def publish(self, messages) -> None:
        if self.refuses:
            raise BrokerError("not now")
        self.sent += [(each.key, msgspec.json.decode(each.data)["n"]) for each in messages]


def order(n: int, *, fails: bool = False) -> dict:
    item = {"Put": {"TableName": "orders", "Item": {"pk": {"S": str(n)}, "sk": {"S": "o"}}}}
    if fails:
        item["Put"]["ConditionExpression"] = "attribute_exists(pk)"
    return item


async def test_events_go_with_the_data_or_not_at_all(client):
    outbox, sink = DynamoOutbox("shop", table="outbox"), Sink()
    for n in range(5):
        await client.transact_write_items(TransactItems=[order(n), *await outbox.items(client, Placed(n), key="k")])
    with pytest.raises(ClientError, match="TransactionCanceled"):
        await client.transact_write_items(TransactItems=[order(99, fails=True), *await outbox.items(client, Placed(99), key="k")])
    await client.transact_write_items(TransactItems=await outbox.items(client, Placed(5), Placed(6), key="k"))
    await client.transact_write_items(TransactItems=await outbox.items(client, Placed(7)))
    relay = DynamoRelay(client, sink, table="outbox")
    assert await relay.send_once() == 8
    assert [n for key, n in sink.sent if key == "k"] == [0, 1, 2, 3, 4, 5, 6]
    assert ("", 7) in sink.sent
    assert await relay.send_once() == 0


async def test_two_writers_of_a_key_cannot_both_take_its_next_version(client):
    outbox, sink = DynamoOutbox("shop", table="outbox"), Sink()
    first, second = await asyncio.gather(*(outbox.items(client, Placed(n), key="k") for n in (1, 2)))
    await client.transact_write_items(TransactItems=first)
    with pytest.raises(ClientError, match="TransactionCanceled"):
        await client.transact_write_items(TransactItems=second)
    await client.transact_write_items(TransactItems=await outbox.items(client, Placed(2), key="k"))
    await DynamoRelay(client, sink, table="outbox").send_once()
    assert [n for _, n in sink.sent] == [1, 2]


async def test_a_head_says_when_it_may_go_and_a_key_without_one_begins_anew(client):
    outbox, sink = DynamoOutbox("shop", table="outbox"), Sink()
    relay = DynamoRelay(client, sink, table="outbox")
    for n in (1, 2):
        await client.transact_write_items(TransactItems=await outbox.items(client, Placed(n), key="k"))
    await relay.send_once()
    head = {"TableName": "outbox", "Key": {"pk": {"S": "head#k"}, "sk": {"S": "head"}}}
    expires = float((await client.get_item(**head))["Item"]["expires"]["N"])
    assert abs(expires - time.time() - HEAD_KEPT_S) < 600
    begun = await outbox.items(client, Placed(3), key="k")
    await client.delete_item(**head)  # as DynamoDB does once it has expired
    with pytest.raises(ClientError, match="TransactionCanceled"):
        await client.transact_write_items(TransactItems=begun)
    for n in (3, 4):
        await client.transact_write_items(TransactItems=await outbox.items(client, Placed(n), key="k"))
    await relay.send_once()
    assert [n for _, n in sink.sent] == [1, 2, 3, 4]


async def test_what_the_broker_does_not_confirm_stays_and_a_lease_keeps_others_away(client):
    outbox, sink = DynamoOutbox("shop", table="outbox"), Sink()
    await client.transact_write_items(TransactItems=await outbox.items(client, Placed(1), key="k"))
    relay, other = (DynamoRelay(client, sink, table="outbox", lease_s=60.0) for _ in range(2))
    sink.refuses = True
    with pytest.raises(BrokerError):
        await relay.send_once()
    sink.refuses = False
    assert await relay.send_once() == 1
    await client.transact_write_items(TransactItems=await outbox.items(client, Placed(2), key="k"))
    assert await other.send_once() == 0, "the first one's lease stands"
    assert await relay.send_once() == 1


async def test_a_table_that_is_not_there_is_said(client):
    with pytest.raises(StoreError, match="cannot be used"):
        await DynamoOutbox("shop", table="nowhere").items(client, Placed(1), key="k")
