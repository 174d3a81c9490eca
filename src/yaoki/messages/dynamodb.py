"""The outbox on DynamoDB: events go into the caller's own `TransactWriteItems`, and a relay takes them to a broker.

    outbox = DynamoOutbox("shop", table="outbox")
    items = await outbox.items(client, OrderPlaced(...), key="order-42")
    await client.transact_write_items(TransactItems=[*my_items, *items])        # together, or not at all

Each key has a head with a version. An event is put as `part#P / key#version`, and the head moves from version to version + 1,
in one transaction: so a key's versions have no holes, and their order is the order of the commits. Two writers of one key at
once: one of them is cancelled (ConditionalCheckFailed) and repeats its transaction with new items.

The relay deletes what the broker has confirmed, so it needs no cursor, and what commits late is found all the same.
A head says when nobody needs it any more (`expires`, `HEAD_KEPT_S` after its last event): with DynamoDB's Time to Live on that attribute, keys
that are done leave nothing behind. A key whose head has gone begins with version 1 again, which is in order as long as the relay
has not stood still for so long.

Limits: 100 items a transaction, 400 KB an item (Amazon DynamoDB Developer Guide, quotas). The table needs the keys `pk, sk` (text).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from yaoki import events, runtime
from yaoki.errors import InputError, MessagesError, StoreError
from yaoki.messages.brokers.port import Broker
from yaoki.messages.compose import compose
from yaoki.messages.envelope import PARTS, from_cloudevent, to_cloudevent

FAILURES = (BotoCoreError, ClientError, OSError, TimeoutError)
LEASE_S = 15.0
PAUSE_S = 0.5
HEAD_KEPT_S = 30 * 86_400
"""Longer than a relay may stand still."""
DELETE_AT_ONCE = 25


class DynamoOutbox:
    """Makes the items of events.

    Args:
        service: the name under which they are published. table: where they wait for the relay.
    """

    def __init__(self, service: str, *, table: str) -> None:
        self.service = service
        self.table = table

    async def items(self, client: Any, *payloads: object, key: str = "") -> list[dict[str, Any]]:
        """What to add to `TransactItems` so that these events are published with it.

        Args:
            client: of aiobotocore; the key's head is read with it. A transaction that is cancelled because somebody else
                published for the key meanwhile is repeated with new items.
        """
        messages = [compose(each, source=self.service, key=key) for each in payloads]
        version = await self._version(client, key) if key else 0
        made = [self._put(message.part, f"{key or message.id}#{version + number:012}", to_cloudevent(message))
                for number, message in enumerate(messages, 1)]
        return [*made, self._move(key, version, version + len(messages))] if key else made

    async def _version(self, client: Any, key: str) -> int:
        try:
            found = await client.get_item(TableName=self.table, Key=_key(f"head#{key}", "head"), ConsistentRead=True)
        except FAILURES as error:
            raise _unusable(self.table, error) from error
        return int(found.get("Item", {}).get("version", {"N": "0"})["N"])

    def _put(self, part: int, place: str, event: bytes) -> dict[str, Any]:
        item = {**_key(f"part#{part}", place), "event": {"B": event}}
        return {"Put": {"TableName": self.table, "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}}

    def _move(self, key: str, before: int, after: int) -> dict[str, Any]:
        condition = "version = :before" if before else "attribute_not_exists(version)"
        values = {":after": {"N": str(after)}, ":expires": {"N": str(int(runtime.unix_time()) + HEAD_KEPT_S)}} | ({":before": {"N": str(before)}} if before else {})
        return {"Update": {"TableName": self.table, "Key": _key(f"head#{key}", "head"), "UpdateExpression": "SET version = :after, expires = :expires",
                           "ConditionExpression": condition, "ExpressionAttributeValues": values}}


class DynamoRelay:
    """Sends what is in the table to a broker, key by key in order, and deletes what is confirmed. Several may run: each
    partition has a lease with a fence.
    """

    def __init__(self, client: Any, broker: Broker, *, table: str, lease_s: float = LEASE_S) -> None:
        self.client = client
        self.broker = broker
        self.table = table
        self.lease_s = lease_s
        self.worker = runtime.new_id()
        self._stopping = False

    def stop(self) -> None:
        self._stopping = True

    async def run(self) -> None:
        """Send until `stop`."""
        while not self._stopping:
            try:
                sent = await self.send_once()
            except (MessagesError, InputError) as error:  # InputError: the broker will never take one of them
                sent = 0
                events.emit(events.RelayStalled(broker=self.broker.name, error=str(error), failures=1, retry_in_s=PAUSE_S))
            if not sent:
                await runtime.sleep(PAUSE_S)

    async def send_once(self) -> int:
        """One pass over all partitions that nobody else holds. Returns how many events were sent."""
        sent = 0
        for part in range(PARTS):
            if await self._lease(part):
                sent += await self._send(part)
        return sent

    async def _lease(self, part: int) -> bool:
        """Take or renew a partition. Two with clocks apart may both send for a while; receivers recognize duplicates."""
        now = runtime.unix_time()
        try:
            await self.client.update_item(
                TableName=self.table, Key=_key(f"lease#{part}", "lease"), UpdateExpression="SET worker = :me, valid_until = :until",
                ConditionExpression="attribute_not_exists(worker) OR worker = :me OR valid_until < :now",
                ExpressionAttributeValues={
                    ":me": {"S": self.worker}, ":now": {"N": str(now)}, ":until": {"N": str(now + self.lease_s)}})
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "ConditionalCheckFailedException":
                return False
            raise _unusable(self.table, error) from error
        except FAILURES as error:
            raise _unusable(self.table, error) from error
        return True

    async def _send(self, part: int) -> int:
        """Page by page: a page is confirmed whole before any of it is deleted."""
        sent = 0
        while True:
            try:
                page = await self.client.query(
                    TableName=self.table, KeyConditionExpression="pk = :pk", ConsistentRead=True, Limit=500,
                    ExpressionAttributeValues={":pk": {"S": f"part#{part}"}})
            except FAILURES as error:
                raise _unusable(self.table, error) from error
            items = page.get("Items", [])
            if not items:
                return sent
            await self.broker.publish([from_cloudevent(bytes(item["event"]["B"])) for item in items])
            await self._delete(items)
            sent += len(items)

    async def _delete(self, items: Sequence[dict[str, Any]]) -> None:
        for at in range(0, len(items), DELETE_AT_ONCE):
            wanted = [{"DeleteRequest": {"Key": {"pk": item["pk"], "sk": item["sk"]}}} for item in items[at:at + DELETE_AT_ONCE]]
            try:
                while wanted:
                    answer = await self.client.batch_write_item(RequestItems={self.table: wanted})
                    wanted = answer.get("UnprocessedItems", {}).get(self.table, [])
            except FAILURES as error:
                raise _unusable(self.table, error) from error


def _key(pk: str, sk: str) -> dict[str, Any]:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _unusable(table: str, error: BaseException) -> StoreError:
    return StoreError(f"the outbox in DynamoDB table {table} cannot be used: {type(error).__name__}: {error}",
                      do="see that the table exists with the keys pk and sk (text), and that credentials and network allow it", table=table)


__all__ = ["DynamoOutbox", "DynamoRelay"]
