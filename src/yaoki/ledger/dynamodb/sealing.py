"""Seal what is committed in DynamoDB: no locks, no leases, no order over keys needed, and nothing sealed twice or not at all.

    append      writes the version, the head, and a row in `unsealed`, in one transaction
    seal        1. read the newest epoch E            2. remove E's rows from `unsealed`
                3. read `unsealed`, backwards          4. put epoch E + 1 if there is none; else another sealer was faster

*Nothing twice*: E + 1 can only be put if it is not there, and before step 3 all rows of E are gone; so are those of every
epoch before, because whoever put E had done the same for E - 1. A sealer that was paused finds E + 1 taken.
*Nothing left out*: a row leaves `unsealed` only after an epoch with its name was put.
*Order of each key*: rows are read backwards. A version is committed after the one before it, so whoever saw version n finds
n - 1 further on in the same reading.

The number of a row is its place in its epoch; within an epoch rows are ordered by key and version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from yaoki import runtime
from yaoki.ledger.dynamodb.tables import Item, Tables, code_of
from yaoki.ledger.epochs import Epoch, Stretch, seal
from yaoki.ledger.records import Naming
from yaoki.ledger.sketch import SIZE_BYTES

MOST_ROWS = 1500
MOST_NAME_BYTES = 250_000
"""An epoch is one item, and an item has 400 KB: 6 for the sketch, the rest for names."""

BACKLOG_ROWS = 50_000
"""Most rows read for one epoch: what is left is read for the next."""

VERSION_DIGITS = 15


def name_of(key: str, version: int) -> str:
    """How a row is named in `unsealed`: so that the versions of a key follow each other."""
    return f"{key}#{version:0{VERSION_DIGITS}d}"


def naming_of(name: str) -> Naming:
    return name[:-VERSION_DIGITS - 1], int(name[-VERSION_DIGITS:])


class Sealed(msgspec.Struct, frozen=True):
    """An epoch with the names of its rows, in the order of their numbers."""

    epoch: Epoch
    names: list[Naming]


class Sealer:
    """Seals the partitions of one ledger. Any number may work at once."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._cleaned: dict[int, int] = {}  # the newest epoch of each partition whose rows are known to be gone

    async def seal(self, part: int) -> Epoch | None:
        """Seal the next epoch of a partition. None: another sealer was faster."""
        last = await self.newest(part)
        if last is not None:
            await self._clean(last)
        rows = await self._unsealed(part)
        names, stretch = _stretch(rows, last.epoch.next_seq if last else 0)
        epoch = seal(last.epoch if last else None, part, stretch, runtime.unix_time())
        sealed = Sealed(epoch, names)
        if not await self._put(sealed):
            return None
        await self._clean(sealed)
        return epoch

    async def newest(self, part: int) -> Sealed | None:
        async for page in self._tables.pages(self._tables.epochs, ScanIndexForward=False, Limit=1, **where_part(part)):
            return sealed_of(page[0]) if page else None
        return None

    async def _clean(self, sealed: Sealed) -> None:
        """Take the rows of an epoch out of `unsealed`."""
        part, number = sealed.epoch.part, sealed.epoch.epoch
        if self._cleaned.get(part, -1) < number:
            await self._tables.remove(self._tables.unsealed, [
                {"part": {"N": str(part)}, "name": {"S": name_of(*name)}} for name in sealed.names])
            self._cleaned[part] = number

    async def _unsealed(self, part: int) -> list[Item]:
        """Rows in no epoch yet, by key and version; if there are very many, only keys that were read to their first row."""
        rows: list[Item] = []
        async for page in self._tables.pages(self._tables.unsealed, ScanIndexForward=False, **where_part(part)):
            rows += page
            if len(rows) >= BACKLOG_ROWS and (whole := _whole_keys(rows)):
                return whole[::-1]
        return rows[::-1]

    async def _put(self, sealed: Sealed) -> bool:
        epoch = sealed.epoch
        body = {name: value for name, value in msgspec.to_builtins(epoch, builtin_types=(bytes,)).items() if name != "sketch"}
        item = {"part": {"N": str(epoch.part)}, "epoch": {"N": str(epoch.epoch)}, "body": {"B": msgspec.json.encode(body)},
                "names": {"B": msgspec.json.encode(sealed.names)}, "sealed_at": {"N": f"{epoch.sealed_at:.6f}"}}
        if epoch.count:
            item["sketch"] = {"B": epoch.sketch}
        try:
            await self._tables.call("put_item", TableName=self._tables.epochs, Item=item,
                                    ConditionExpression="attribute_not_exists(epoch)")
        except ClientError as error:
            if code_of(error) != "ConditionalCheckFailedException":
                raise
            return False
        return True


def where_part(part: int) -> dict[str, Any]:
    return {"KeyConditionExpression": "part = :part", "ExpressionAttributeValues": {":part": {"N": str(part)}}}


def sealed_of(item: Item) -> Sealed:
    body = msgspec.json.decode(bytes(item["body"]["B"]))
    sketch = bytes(item["sketch"]["B"]) if "sketch" in item else bytes(SIZE_BYTES)
    return Sealed(msgspec.convert({**body, "sketch": sketch}, Epoch),
                  msgspec.json.decode(bytes(item["names"]["B"]), type=list[tuple[str, int]]))


def _whole_keys(rows: Sequence[Item]) -> list[Item]:
    """Of rows read backwards, those whose key cannot have an earlier version that was not reached."""
    reached = rows[-1]["name"]["S"]
    return [row for row in rows if name_of(naming_of(row["name"]["S"])[0], 0) >= reached]


def _stretch(rows: Sequence[Item], first_seq: int) -> tuple[list[Naming], Stretch]:
    """As many rows as one epoch holds."""
    size = count = 0
    for row in rows[:MOST_ROWS]:
        size += len(row["name"]["S"].encode()) + 8
        if size > MOST_NAME_BYTES:
            break
        count += 1
    taken = rows[:max(count, 1)]
    names = [naming_of(row["name"]["S"]) for row in taken]
    return names, Stretch(
        [key for key, _ in names], [version for _, version in names], [bytes(row["digest"]["B"]) for row in taken],
        [bytes(row["commitment"]["B"]) for row in taken], (0, first_seq + 1), (0, first_seq + len(names)))
