"""The tables of a ledger in DynamoDB, and the calls to them.

    NAME            key, version     every version, insert-only; has the stream
    NAME-heads      key              the newest version of each key
    NAME-unsealed   part, name       what is committed and in no epoch yet; a row lives here for seconds
    NAME-epochs     part, epoch      sealed epochs, each with the names of its rows
    NAME-sinks      sink, mark       what was delivered to whom
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from yaoki import runtime
from yaoki.errors import LedgerError

DELETES_A_CALL, READS_A_CALL = 25, 100
"""Limits of BatchWriteItem and BatchGetItem (Amazon DynamoDB Developer Guide, *Service quotas*)."""

PATIENCE = 8
"""How often items that the service did not get to are asked for again, with a wait that doubles from 50 ms."""

Item = Mapping[str, Any]


class Tables:
    """Calls on worker threads, as boto3 blocks. `client`: a boto3 DynamoDB client; `name`: of the ledger."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self.versions = name
        self.heads = f"{name}-heads"
        self.unsealed = f"{name}-unsealed"
        self.epochs = f"{name}-epochs"
        self.sinks = f"{name}-sinks"

    async def make(self) -> None:
        """Make those that are missing."""
        stream = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
        await self._make(self.versions, {"key": "S", "version": "N"}, StreamSpecification=stream)
        await self._make(self.heads, {"key": "S"})
        await self._make(self.unsealed, {"part": "N", "name": "S"})
        await self._make(self.epochs, {"part": "N", "epoch": "N"})
        await self._make(self.sinks, {"sink": "S", "mark": "S"})

    async def _make(self, table: str, keys: Mapping[str, str], **more: Any) -> None:
        kinds = ("HASH", "RANGE")
        try:
            await self.call(
                "create_table", TableName=table, BillingMode="PAY_PER_REQUEST",
                KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in zip(keys, kinds, strict=False)],
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": kind} for name, kind in keys.items()], **more)
        except ClientError as error:
            if code_of(error) != "ResourceInUseException":  # it is there already
                raise LedgerError(f"the table {table} cannot be made: {error}",
                                  do="make it beforehand, or grant dynamodb:CreateTable") from error
        waiter = self._client.get_waiter("table_exists")
        await runtime.run_blocking(waiter.wait, TableName=table, WaiterConfig={"Delay": 1, "MaxAttempts": 60})

    async def call(self, operation: str, **arguments: Any) -> Any:
        return await runtime.run_blocking(getattr(self._client, operation), **arguments)

    async def find(self, table: str, key: Item) -> Item | None:
        """One item, as it was last committed."""
        found: Item | None = (await self.call("get_item", TableName=table, Key=key, ConsistentRead=True)).get("Item")
        return found

    async def pages(self, table: str, **query: Any) -> AsyncIterator[list[Item]]:
        """The pages of a consistent query."""
        start: dict[str, Any] = {}
        while True:
            page = await self.call("query", TableName=table, ConsistentRead=True, **query, **start)
            yield page["Items"]
            if "LastEvaluatedKey" not in page:
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    async def find_many(self, table: str, keys: Sequence[Item]) -> list[Item]:
        """Those of these items that are there, in no order."""
        found: list[Item] = []
        for some in _cut(keys, READS_A_CALL):
            todo: Any = {table: {"Keys": some, "ConsistentRead": True}}
            for attempt in range(PATIENCE):
                answer = await self.call("batch_get_item", RequestItems=todo)
                found += answer["Responses"].get(table, [])
                todo = answer.get("UnprocessedKeys")
                if not todo:
                    break
                await runtime.sleep(0.05 * 2.0 ** attempt)
            else:
                raise LedgerError(f"{table} did not give what it was asked for", do="it is throttled: try again later")
        return found

    async def remove(self, table: str, keys: Sequence[Item]) -> None:
        """Remove these items; harmless for those that are gone."""
        for some in _cut(keys, DELETES_A_CALL):
            todo: Any = {table: [{"DeleteRequest": {"Key": key}} for key in some]}
            for attempt in range(PATIENCE):
                todo = (await self.call("batch_write_item", RequestItems=todo)).get("UnprocessedItems")
                if not todo:
                    break
                await runtime.sleep(0.05 * 2.0 ** attempt)
            else:
                raise LedgerError(f"{table} did not take what it was sent", do="it is throttled: try again later")


def _cut(keys: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (keys[start:start + size] for start in range(0, len(keys), size))


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
