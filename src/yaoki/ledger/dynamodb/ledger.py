"""A ledger in DynamoDB: an insert-only table of versions, and beside it the newest version of each key.

    TransactWriteItems   Update heads: version = n + 1 if version = n      all happen, or none;
                         Put versions: (key, n + 1) if there is none       other items of yours may be part of it
                         Put unsealed: (part, key, n + 1)                  until `seal` has put it into an epoch

Sealed epochs (`sealing.py`) say what exists, as in the other ledgers: dense numbers, count, sum, sketch, a chain of hashes.
The table has a stream as well, and its layout is what `yk audit dynamodb://NAME --key key --version version` reads.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from yaoki import events, runtime
from yaoki.errors import ConfigError, ExhaustedError, InDoubtError, InputError, VersionConflictError
from yaoki.events import EpochSealed
from yaoki.ledger.changes import SALT_BYTES, check_key, commitment_of
from yaoki.ledger.dynamodb.bookmarks import DynamoBookmarks
from yaoki.ledger.dynamodb.sealing import MOST_ROWS, Sealed, Sealer, name_of, sealed_of, where_part
from yaoki.ledger.dynamodb.tables import Item, Tables, code_of
from yaoki.ledger.epochs import Epoch, Position, Row, beat_key, partition_of, verify_epoch
from yaoki.ledger.fingerprint import content_digest
from yaoki.ledger.ledger import Version
from yaoki.ledger.records import MAX_VERSION, Naming, is_beat

ATTEMPTS = 12
"""How often an append without `expect` reads the head again when others were faster. Each loses to one who won."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.02, 1.0
OUR_ITEMS, MOST_ITEMS = 3, 100
"""Items of an append, and those that TransactWriteItems takes (Amazon DynamoDB Developer Guide, *Service quotas*)."""

MOST_PARTITIONS = 1024


class DynamoLedger:
    """The ledger `name`, made when missing: tables NAME, NAME-heads, NAME-unsealed, NAME-epochs, NAME-sinks.

    Args:
        client: a boto3 DynamoDB client; its endpoint, region and rights are its owner's business.
        partitions: how many streams of numbers it has, fixed when the ledger is made. One takes some hundred changes a second
            (DynamoDB allows 1 000 write units a second for one key of `unsealed`).
    """

    def __init__(self, client: Any, name: str, *, partitions: int = 8) -> None:
        if not 1 <= partitions <= MOST_PARTITIONS:
            raise ConfigError(f"partitions must be from 1 to {MOST_PARTITIONS}, got {partitions}", do="8 is right for most")
        self.tables = Tables(client, name)
        self.name = name
        self.partitions = partitions
        self._sealer = Sealer(self.tables)

    async def __aenter__(self) -> Self:
        await self.tables.make()
        await self._keep_partitions()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """The client is its owner's."""

    async def _keep_partitions(self) -> None:
        key = {"part": {"N": "-1"}, "epoch": {"N": "0"}}
        try:
            await self.tables.call("put_item", TableName=self.tables.epochs, Item={**key, "partitions": {"N": str(self.partitions)}},
                                   ConditionExpression="attribute_not_exists(epoch)")
        except ClientError as error:
            if code_of(error) != "ConditionalCheckFailedException":
                raise
            stored = await self.tables.find(self.tables.epochs, key)
            assert stored is not None
            self.partitions = int(stored["partitions"]["N"])  # what it was made with: keys would move between partitions otherwise

    async def append(self, key: str, change: Any, *, expect: int | None = None, schema: int = 0,
                     also: Sequence[Item] = ()) -> int:
        """Write the next version of `key` and return its number, from 1.

        Args:
            change: bytes, or anything that msgspec turns into JSON.
            expect: the version that this change was made for, 0 for a key that has none yet.
            also: items of your own that are written in the same transaction, as TransactWriteItems takes them; at most 97.

        Raises:
            VersionConflictError: `expect` does not hold; nothing was written.
            ExhaustedError: others were faster each time; nothing was written.
            InDoubtError: no answer came: read the history before writing again.
        """
        check_key(key)
        if len(also) > MOST_ITEMS - OUR_ITEMS:
            raise InputError(f"{len(also)} items more than one transaction takes", do=f"at most {MOST_ITEMS - OUR_ITEMS} beside ours")
        return await self._append(key, change if isinstance(change, bytes) else msgspec.json.encode(change), expect, schema, also)

    async def _append(self, key: str, content: bytes, expect: int | None = None, schema: int = 0,
                      also: Sequence[Item] = ()) -> int:
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

    async def _write(self, key: str, head: int, content: bytes, schema: int, also: Sequence[Item]) -> bool:
        """Write version head + 1. False: somebody else was faster, and nothing was written."""
        try:
            # The token makes the client's own repeats of this request one write (for ten minutes).
            await self.tables.call("transact_write_items", ClientRequestToken=runtime.new_id(), TransactItems=[
                self._head_update(key, head), *self._inserts(key, head + 1, content, schema), *also])
        except ClientError as error:
            if code_of(error) == "TransactionCanceledException" and _is_ours(error):
                return False
            if code_of(error) == "TransactionInProgressException":
                raise InDoubtError(f"version {head + 1} of {key} is still being written", do="read its history") from error
            raise
        except BotoCoreError as error:
            raise InDoubtError(f"no answer came for version {head + 1} of {key}: {error}",
                               do="read its history: the version is there, whole, or not at all") from error
        return True

    def _head_update(self, key: str, head: int) -> dict[str, Any]:
        condition = "version = :old" if head else "attribute_not_exists(version)"
        values = {":new": {"N": str(head + 1)}, **({":old": {"N": str(head)}} if head else {})}
        return {"Update": {"TableName": self.tables.heads, "Key": {"key": {"S": key}}, "UpdateExpression": "SET version = :new",
                           "ConditionExpression": condition, "ExpressionAttributeValues": values}}

    def _inserts(self, key: str, version: int, content: bytes, schema: int) -> list[dict[str, Any]]:
        """The version itself, and its row for the next epoch."""
        salt = os.urandom(SALT_BYTES)
        prints = {"digest": {"B": content_digest(content)}, "commitment": {"B": commitment_of(salt, content)}}
        item = {"key": {"S": key}, "version": {"N": str(version)}, "content": {"B": content}, "schema": {"N": str(schema)},
                "salt": {"B": salt}, "written_at": {"N": f"{runtime.unix_time():.6f}"}, **prints}
        row = {"part": {"N": str(partition_of(key, self.partitions))}, "name": {"S": name_of(key, version)}, **prints}
        return [{"Put": {"TableName": self.tables.versions, "Item": item, "ConditionExpression": "attribute_not_exists(version)"}},
                {"Put": {"TableName": self.tables.unsealed, "Item": row}}]

    async def head(self, key: str) -> int:
        """The newest version of `key`, 0 for none."""
        found = await self.tables.find(self.tables.heads, {"key": {"S": key}})
        return int(found["version"]["N"]) if found else 0

    async def history(self, key: str, *, first: int = 1, last: int | None = None) -> list[Version]:
        """The versions of `key`, oldest first."""
        found: list[Version] = []
        async for page in self.tables.pages(
                self.tables.versions, KeyConditionExpression="#k = :k AND version BETWEEN :first AND :last",
                ExpressionAttributeNames={"#k": "key"}, ExpressionAttributeValues={
                    ":k": {"S": key}, ":first": {"N": str(first)}, ":last": {"N": str(last or MAX_VERSION)}}):
            found += map(_version, page)
        return found

    async def erase(self, key: str) -> int:
        """Erase the contents of `key` for good; its versions stay. Returns how many."""
        erased = 0
        for each in await self.history(key):
            if each.content is not None:
                await self.tables.call(
                    "update_item", TableName=self.tables.versions,
                    Key={"key": {"S": key}, "version": {"N": str(each.version)}}, UpdateExpression="REMOVE content, salt, digest")
                erased += 1
        return erased

    async def keys(self, *, limit: int = 100) -> list[Naming]:
        """(key, newest version) pairs, in no order; beats left out."""
        page = await self.tables.call("scan", TableName=self.tables.heads, Limit=limit + self.partitions, ConsistentRead=True)
        names = [(item["key"]["S"], int(item["version"]["N"])) for item in page["Items"]]
        return [name for name in names if not is_beat(name[0])][:limit]

    # ── epochs ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def beat(self) -> None:
        """Write one heartbeat into each partition: an ordinary version, on the ordinary path."""
        for part in range(self.partitions):
            await self._append(beat_key(part), b"beat")

    async def seal(self, *, parts: Sequence[int] | None = None) -> list[Epoch]:
        """Seal what is committed in each partition, an empty epoch if nothing is, and return the epochs.

        Any number of processes may do it at once: an epoch is written by one of them.
        """
        sealed: list[Epoch] = []
        todo = list(range(self.partitions) if parts is None else parts)
        while todo:
            fresh = [epoch for part in todo if (epoch := await self._sealer.seal(part)) is not None]
            sealed += fresh
            todo = [epoch.part for epoch in fresh if epoch.rows == MOST_ROWS]
        if events.wanted():
            for epoch in sealed:
                events.emit(EpochSealed(ledger=self.name, part=epoch.part, epoch=epoch.epoch, rows=epoch.rows))
        return sealed

    async def last_epoch(self, part: int) -> Epoch | None:
        newest = await self._sealer.newest(part)
        return newest.epoch if newest else None

    async def epochs(self, part: int, *, first: int = 0) -> AsyncIterator[Sealed]:
        """The epochs of a partition with the names of their rows, oldest first."""
        where = {"KeyConditionExpression": "part = :part AND epoch >= :first",
                 "ExpressionAttributeValues": {":part": {"N": str(part)}, ":first": {"N": str(first)}}}
        async for page in self.tables.pages(self.tables.epochs, **where):
            for item in page:
                yield sealed_of(item)

    async def newest_first(self, part: int) -> AsyncIterator[Sealed]:
        """The same backwards, for whoever stops soon."""
        async for page in self.tables.pages(self.tables.epochs, ScanIndexForward=False, Limit=20, **where_part(part)):
            for item in page:
                yield sealed_of(item)

    async def rows(self, sealed: Sealed, *, content: bool = False) -> list[Row]:
        """The rows of an epoch, in order; those whose item is gone are left out."""
        keys = [{"key": {"S": key}, "version": {"N": str(version)}} for key, version in sealed.names]
        found = {(item["key"]["S"], int(item["version"]["N"])): item
                 for item in await self.tables.find_many(self.tables.versions, keys)}
        return [_row(found[name], (0, sealed.epoch.first_seq + at), content=content)
                for at, name in enumerate(sealed.names, 1) if name in found]

    def bookmarks(self, sink: str) -> DynamoBookmarks:
        """What is remembered of a sink: see `Deliverer`."""
        return DynamoBookmarks(self, sink)

    async def verify(self) -> list[str]:
        """What does not fit the sealed hashes, as sentences; empty: nothing sealed was changed, added or removed."""
        faults = []
        for part in range(self.partitions):
            previous: Epoch | None = None
            async for each in self.epochs(part):
                fault = verify_epoch(each.epoch, previous, await self.rows(each))
                faults += [f"partition {part}, epoch {each.epoch.epoch}: {fault}"] if fault else []
                previous = each.epoch
        return faults


def _row(item: Item, position: Position, *, content: bool) -> Row:
    kept = _version(item)
    return Row(position, kept.key, kept.version, bytes(item["digest"]["B"]) if "digest" in item else b"",
               bytes(item["commitment"]["B"]), kept.written_at, kept.content if content else None, kept.schema)


def _version(item: Item) -> Version:
    content = item.get("content", {}).get("B")
    return Version(item["key"]["S"], int(item["version"]["N"]), bytes(content) if content is not None else None,
                   int(item["schema"]["N"]), float(item["written_at"]["N"]))


def _is_ours(error: ClientError) -> bool:
    """Did the head or the version stand in the way, and none of the caller's own items?"""
    reasons = [each.get("Code", "None") for each in error.response.get("CancellationReasons", [])]
    return any(code in {"ConditionalCheckFailed", "TransactionConflict"} for code in reasons[:OUR_ITEMS]) \
        and not any(code == "ConditionalCheckFailed" for code in reasons[OUR_ITEMS:])


def _conflict(key: str, expected: int, actual: int) -> VersionConflictError:
    return VersionConflictError(f"{key} is at version {actual}, not {expected}", do="read its newest version, and decide again",
                                key=key, expected=expected, actual=actual)
