"""A ledger in DynamoDB: an insert-only table of versions, and beside it the newest version of each key.

    TransactWriteItems   Update heads: version = n + 1 if version = n      both happen, or neither;
                         Put versions: (key, n + 1) if there is none       other items of yours may be part of it

The table has a stream, and its layout is what `yk audit dynamodb://NAME --key key --version version` reads: the table itself
keeps a copy of every version, so whatever a sink loses can be repaired for as long as the table lives. Epochs need a
commit order over keys, which DynamoDB does not have; here the stream and the listing of the table do their work.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from yaoki import runtime
from yaoki.errors import ExhaustedError, InDoubtError, InputError, LedgerError, VersionConflictError
from yaoki.ledger.changes import SALT_BYTES, commitment_of
from yaoki.ledger.fingerprint import content_digest
from yaoki.ledger.ledger import Version
from yaoki.ledger.records import Naming, is_beat

ATTEMPTS = 12
"""How often an append without `expect` reads the head again when others were faster. Each loses to one who won."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.02, 1.0
MOST_ITEMS = 100
"""TransactWriteItems takes so many (Amazon DynamoDB Developer Guide, *Service quotas*)."""


class DynamoLedger:
    """The ledger `name`, made when missing: tables NAME and NAME-heads.

    Args:
        client: a boto3 DynamoDB client; its endpoint, region and rights are its owner's business.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._dynamodb = client
        self.name = name
        self._heads = f"{name}-heads"

    async def __aenter__(self) -> Self:
        await self._make(self.name, {"key": "S", "version": "N"},
                         StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"})
        await self._make(self._heads, {"key": "S"})
        return self

    async def __aexit__(self, *exc: object) -> None:
        """The client is its owner's."""

    async def _make(self, table: str, keys: Mapping[str, str], **more: Any) -> None:
        kinds = ("HASH", "RANGE")
        try:
            await runtime.run_blocking(
                self._dynamodb.create_table, TableName=table, BillingMode="PAY_PER_REQUEST",
                KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in zip(keys, kinds, strict=False)],
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": kind} for name, kind in keys.items()], **more)
        except ClientError as error:
            if _code(error) != "ResourceInUseException":  # it is there already
                raise LedgerError(f"the table {table} cannot be made: {error}",
                                  do="make it beforehand, or grant dynamodb:CreateTable") from error
        waiter = self._dynamodb.get_waiter("table_exists")
        await runtime.run_blocking(waiter.wait, TableName=table, WaiterConfig={"Delay": 1, "MaxAttempts": 60})

    async def append(self, key: str, change: Any, *, expect: int | None = None, schema: int = 0,
                     also: Sequence[Mapping[str, Any]] = ()) -> int:
        """Write the next version of `key` and return its number, from 1.

        Args:
            change: bytes, or anything that msgspec turns into JSON.
            expect: the version that this change was made for, 0 for a key that has none yet.
            also: items of your own that are written in the same transaction, as TransactWriteItems takes them; at most 98.

        Raises:
            VersionConflictError: `expect` does not hold; nothing was written.
            ExhaustedError: others were faster each time; nothing was written.
            InDoubtError: no answer came: read the history before writing again.
        """
        if not key or is_beat(key) or len(also) > MOST_ITEMS - 2:
            raise InputError(f"{key!r} with {len(also)} more items cannot be written", do="a key is a text of its own; at most 98 items")
        content = change if isinstance(change, bytes) else msgspec.json.encode(change)
        for attempt in range(ATTEMPTS):
            head = await self.head(key)
            if expect is not None and head != expect:
                raise _conflict(key, expect, head)
            if await self._write(key, head, content, schema, also):
                return head + 1
            wait_s = min(FIRST_WAIT_S * 2.0 ** attempt, LONGEST_WAIT_S)
            await runtime.sleep(runtime.rng().uniform(0, wait_s))
        raise ExhaustedError(f"{key} was changed by others {ATTEMPTS} times while we tried", attempts=ATTEMPTS,
                             do="write less often to one key, or gather changes before writing")

    async def _write(self, key: str, head: int, content: bytes, schema: int, also: Sequence[Mapping[str, Any]]) -> bool:
        """Write version head + 1. False: somebody else was faster, and nothing was written."""
        try:
            # The token makes the client's own repeats of this request one write (for ten minutes).
            await runtime.run_blocking(self._dynamodb.transact_write_items, ClientRequestToken=runtime.new_id(), TransactItems=[
                self._head_update(key, head), self._insert(key, head + 1, content, schema), *also])
        except ClientError as error:
            if _code(error) == "TransactionCanceledException" and _is_ours(error):
                return False
            if _code(error) == "TransactionInProgressException":
                raise InDoubtError(f"version {head + 1} of {key} is still being written", do="read its history") from error
            raise
        except BotoCoreError as error:
            raise InDoubtError(f"no answer came for version {head + 1} of {key}: {error}",
                               do="read its history: the version is there, whole, or not at all") from error
        return True

    def _head_update(self, key: str, head: int) -> dict[str, Any]:
        condition = "version = :old" if head else "attribute_not_exists(version)"
        values = {":new": {"N": str(head + 1)}, **({":old": {"N": str(head)}} if head else {})}
        return {"Update": {"TableName": self._heads, "Key": {"key": {"S": key}}, "UpdateExpression": "SET version = :new",
                           "ConditionExpression": condition, "ExpressionAttributeValues": values}}

    def _insert(self, key: str, version: int, content: bytes, schema: int) -> dict[str, Any]:
        salt = os.urandom(SALT_BYTES)
        item = {"key": {"S": key}, "version": {"N": str(version)}, "content": {"B": content}, "schema": {"N": str(schema)},
                "digest": {"B": content_digest(content)}, "salt": {"B": salt},
                "commitment": {"B": commitment_of(salt, content)}, "written_at": {"N": f"{runtime.unix_time():.6f}"}}
        return {"Put": {"TableName": self.name, "Item": item, "ConditionExpression": "attribute_not_exists(version)"}}

    async def head(self, key: str) -> int:
        """The newest version of `key`, 0 for none."""
        answer = await runtime.run_blocking(self._dynamodb.get_item, TableName=self._heads, Key={"key": {"S": key}},
                                            ConsistentRead=True)
        return int(answer["Item"]["version"]["N"]) if "Item" in answer else 0

    async def history(self, key: str, *, first: int = 1, last: int | None = None) -> list[Version]:
        """The versions of `key`, oldest first."""
        found: list[Version] = []
        start: dict[str, Any] = {}
        while True:
            page = await runtime.run_blocking(
                self._dynamodb.query, TableName=self.name, ConsistentRead=True,
                KeyConditionExpression="#k = :k AND version BETWEEN :first AND :last", ExpressionAttributeNames={"#k": "key"},
                ExpressionAttributeValues={":k": {"S": key}, ":first": {"N": str(first)}, ":last": {"N": str(last or 10**15)}},
                **start)
            found += [_version(item) for item in page["Items"]]
            if "LastEvaluatedKey" not in page:
                return found
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    async def erase(self, key: str) -> int:
        """Erase the contents of `key` for good; its versions stay. Returns how many."""
        erased = 0
        for each in await self.history(key):
            if each.content is not None:
                await runtime.run_blocking(
                    self._dynamodb.update_item, TableName=self.name,
                    Key={"key": {"S": key}, "version": {"N": str(each.version)}}, UpdateExpression="REMOVE content, salt, digest")
                erased += 1
        return erased

    async def keys(self, *, limit: int = 100) -> list[Naming]:
        """(key, newest version) pairs, in no order."""
        page = await runtime.run_blocking(self._dynamodb.scan, TableName=self._heads, Limit=limit, ConsistentRead=True)
        return [(item["key"]["S"], int(item["version"]["N"])) for item in page["Items"]]


def _version(item: Mapping[str, Any]) -> Version:
    content = item.get("content", {}).get("B")
    return Version(item["key"]["S"], int(item["version"]["N"]), bytes(content) if content is not None else None,
                   int(item["schema"]["N"]), float(item["written_at"]["N"]))


def _is_ours(error: ClientError) -> bool:
    """Did the head or the version stand in the way, and none of the caller's own items?"""
    reasons = [each.get("Code", "None") for each in error.response.get("CancellationReasons", [])]
    return any(code in {"ConditionalCheckFailed", "TransactionConflict"} for code in reasons[:2]) \
        and not any(code == "ConditionalCheckFailed" for code in reasons[2:])


def _conflict(key: str, expected: int, actual: int) -> VersionConflictError:
    return VersionConflictError(f"{key} is at version {actual}, not {expected}", do="read its newest version, and decide again",
                                key=key, expected=expected, actual=actual)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
