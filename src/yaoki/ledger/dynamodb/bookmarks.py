"""What a ledger in DynamoDB remembers of a sink, in the table NAME-sinks.

    sink | lease#PART        holder, fence, held_until      who delivers the partition
    sink | cursor#PART       next_seq, epoch                how far it has come
    sink | aside#PART#SEQ    key, version, reason, ...      what was set aside

A cursor moves in a transaction that checks the fence, so a deliverer that was paused finds that out and writes nothing. What it may
still put into the sink meanwhile is what the other one puts there as well. Rows are set aside before the cursor moves: if the
process dies in between, the batch is delivered again, which changes nothing.

Leases are by the clocks of those who hold them: DynamoDB has none. Clocks that are far apart cost work done twice, nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from yaoki import runtime
from yaoki.errors import FencedError, LedgerError
from yaoki.ledger.bookmarks import CONFLICT, MOST_ASIDE, MOST_CONFLICTS, Aside, Outcome, retry_at
from yaoki.ledger.dynamodb.sealing import Sealed
from yaoki.ledger.dynamodb.tables import PATIENCE, code_of
from yaoki.ledger.epochs import Row
from yaoki.ledger.leases import LEASE_S, Lease
from yaoki.ledger.records import Naming

if TYPE_CHECKING:
    from yaoki.ledger.dynamodb.ledger import DynamoLedger

SEQ_DIGITS = 15
AT_ONCE = 90
"""Rows set aside in one transaction, of the 100 items that it takes."""


class DynamoBookmarks:
    """Of one ledger and one sink."""

    def __init__(self, ledger: DynamoLedger, sink: str) -> None:
        self.ledger = ledger
        self.partitions = ledger.partitions
        self.sink = sink
        self._tables = ledger.tables
        self._at: dict[int, int] = {}  # the newest epoch of each partition that is known to be delivered
        self._read: Sealed | None = None
        self._rows: list[Row] = []

    async def begin(self) -> None:
        """Nothing is pruned here."""

    async def dropped(self) -> set[Naming]:
        return set()  # drills are a `Keeper`'s

    # ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def take(self, part: int, owner: str) -> Lease | None:
        now = await self.now()
        values = {":me": {"S": owner}, ":until": _number(now + LEASE_S)}
        renewed = await self._update(f"lease#{part}", "SET held_until = :until", "holder = :me", values)
        taken = renewed or await self._update(
            f"lease#{part}", "SET holder = :me, held_until = :until ADD fence :one", "attribute_not_exists(holder) OR held_until < :now",
            {**values, ":one": {"N": "1"}, ":now": _number(now)})
        return Lease(f"deliver/{self.sink}/{part}", owner, int(taken["fence"]["N"])) if taken else None

    async def release(self, owner: str) -> None:
        """Let others in at once: this deliverer ends."""
        for part in range(self.partitions):
            await self._update(f"lease#{part}", "SET held_until = :past", "holder = :me", {":me": {"S": owner}, ":past": {"N": "0"}})

    async def _update(self, item: str, update: str, condition: str, values: dict[str, Any]) -> dict[str, Any] | None:
        try:
            answer = await self._tables.call(
                "update_item", TableName=self._tables.sinks, Key=self._key(item), UpdateExpression=update, ConditionExpression=condition,
                ExpressionAttributeValues=values, ReturnValues="ALL_NEW")
        except ClientError as error:
            if code_of(error) != "ConditionalCheckFailedException":
                raise
            return None
        found: dict[str, Any] = answer["Attributes"]
        return found

    # ── how far ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def cursor(self, part: int) -> int:
        found = await self._tables.find(self._tables.sinks, self._key(f"cursor#{part}"))
        if found is None:
            return 0
        self._at[part] = max(self._at.get(part, 0), int(found["epoch"]["N"]))
        return int(found["next_seq"]["N"])

    async def end(self, part: int) -> int:
        last = await self.ledger.last_epoch(part)
        return last.next_seq if last else 0

    async def rows(self, part: int, cursor: int, limit: int) -> list[tuple[int, Row]]:
        sealed = await self._epoch_at(part, cursor)
        if sealed is None:
            return []
        first = cursor - sealed.epoch.first_seq
        return list(enumerate(self._rows[first:first + limit], cursor))

    async def _epoch_at(self, part: int, cursor: int) -> Sealed | None:
        """The epoch with this row, its rows read. Empty epochs on the way are passed over, and not looked at again."""
        if self._read is not None and self._read.epoch.part == part and self._read.epoch.first_seq <= cursor < self._read.epoch.next_seq:
            return self._read
        async for sealed in self.ledger.epochs(part, first=self._at.get(part, 0)):
            if sealed.epoch.next_seq > cursor:
                self._read, self._rows = sealed, await self._contents(sealed)
                return sealed
            self._at[part] = sealed.epoch.epoch
        return None

    async def _contents(self, sealed: Sealed) -> list[Row]:
        """A row for each name; of one whose item is gone there is nothing to deliver: an audit names it."""
        found = {(row.key, row.version): row for row in await self.ledger.rows(sealed, content=True)}
        return [found.get(name) or Row((0, 0), *name, b"", b"", 0.0, None) for name in sealed.names]

    def close_epoch(self) -> None:
        self._read, self._rows = None, []

    async def blocked(self, part: int) -> set[str]:
        return {each.key async for each in self._aside(part, "<>")}

    async def settle(self, part: int, lease: Lease, aside: Sequence[Outcome], cursor: int) -> None:
        now = await self.now()
        for start in range(0, len(aside), AT_ONCE):
            await self._write(part, lease, [self._set_aside(part, each, now) for each in aside[start:start + AT_ONCE]])
        item = {**self._key(f"cursor#{part}"), "next_seq": {"N": str(cursor)}, "epoch": {"N": str(self._at.get(part, 0))}}
        await self._write(part, lease, [{"Put": {"TableName": self._tables.sinks, "Item": item}}])

    def _set_aside(self, part: int, each: Outcome, now: float) -> dict[str, Any]:
        """A row that is aside already stays as it is: its attempts count on."""
        names = {"#key": "key", "#version": "version", "#reason": "reason", "#error": "error", "#attempts": "attempts", "#next": "next_at"}
        values = {":key": {"S": each.row.key}, ":version": {"N": str(each.row.version)}, ":reason": {"S": each.state},
                  ":error": {"S": each.error}, ":attempts": {"N": "1"}, ":next": _number(retry_at(now, 1))}
        update = "SET " + ", ".join(f"{name} = if_not_exists({name}, :{name[1:]})" for name in names)
        return {"Update": {"TableName": self._tables.sinks, "Key": self._key(_aside(part, each.seq)), "UpdateExpression": update,
                           "ExpressionAttributeNames": names, "ExpressionAttributeValues": values}}

    async def _write(self, part: int, lease: Lease, writes: Sequence[dict[str, Any]]) -> None:
        """Write these while the lease stands. Raises `FencedError`, and writes nothing, if it does not."""
        check = {"ConditionCheck": {
            "TableName": self._tables.sinks, "Key": self._key(f"lease#{part}"), "ConditionExpression": "holder = :me AND fence = :fence",
            "ExpressionAttributeValues": {":me": {"S": lease.owner}, ":fence": {"N": str(lease.fence)}}}}
        token = runtime.new_id()
        for attempt in range(PATIENCE):
            try:
                await self._tables.call("transact_write_items", ClientRequestToken=token, TransactItems=[check, *writes])
            except ClientError as error:
                if code_of(error) != "TransactionCanceledException":
                    raise
                if _reason(error) == "ConditionalCheckFailed":
                    raise FencedError(f"{lease.owner} no longer delivers partition {part} to {self.sink}: another worker took over",
                                      do="nothing: the other worker goes on", name=lease.name, fence=lease.fence) from error
                await runtime.sleep(0.05 * 2.0 ** attempt)  # two transactions met, or it is throttled
            else:
                return
        raise LedgerError(f"{self._tables.sinks} did not take what it was sent", do="it is throttled: try again later")

    # ── what was set aside ───────────────────────────────────────────────────────────────────────────────────────────

    async def waiting(self, part: int) -> list[Aside]:
        return await _first(MOST_ASIDE, self._aside(part, "<>"))

    async def conflicts(self, part: int) -> list[Aside]:
        now = await self.now()
        return await _first(MOST_CONFLICTS, (each async for each in self._aside(part, "=") if each.next_at <= now))

    async def _aside(self, part: int, is_conflict: str) -> AsyncIterator[Aside]:
        async for page in self._tables.pages(
                self._tables.sinks, KeyConditionExpression="sink = :sink AND begins_with(mark, :part)",
                FilterExpression=f"#reason {is_conflict} :conflict", ExpressionAttributeNames={"#reason": "reason"},
                ExpressionAttributeValues={":sink": {"S": self.sink}, ":part": {"S": f"aside#{part}#"}, ":conflict": {"S": CONFLICT}}):
            for each in page:
                yield Aside(int(each["mark"]["S"].rpartition("#")[2]), each["key"]["S"], int(each["version"]["N"]), each["reason"]["S"],
                            int(each["attempts"]["N"]), float(each["next_at"]["N"]))

    async def content(self, key: str, version: int) -> bytes | None:
        found = await self.ledger.history(key, first=version, last=version)
        return found[0].content if found else None

    async def settle_retry(self, part: int, lease: Lease, outcome: Outcome, attempts: int) -> None:
        key = self._key(_aside(part, outcome.seq))
        if not outcome.is_aside:
            await self._write(part, lease, [{"Delete": {"TableName": self._tables.sinks, "Key": key}}])
            return
        values = {":reason": {"S": outcome.state}, ":error": {"S": outcome.error}, ":attempts": {"N": str(attempts + 1)},
                  ":next": _number(retry_at(await self.now(), attempts + 1))}
        names = {"#reason": "reason", "#error": "error", "#attempts": "attempts", "#next": "next_at"}
        await self._write(part, lease, [{"Update": {
            "TableName": self._tables.sinks, "Key": key, "UpdateExpression": "SET " + ", ".join(f"{name} = :{name[1:]}" for name in names),
            "ExpressionAttributeNames": names, "ExpressionAttributeValues": values}}])

    async def now(self) -> float:
        return runtime.unix_time()

    def _key(self, mark: str) -> dict[str, Any]:
        return {"sink": {"S": self.sink}, "mark": {"S": mark}}


def _aside(part: int, seq: int) -> str:
    return f"aside#{part}#{seq:0{SEQ_DIGITS}d}"


async def _first(count: int, asides: AsyncIterator[Aside]) -> list[Aside]:
    found = []
    async for each in asides:
        found.append(each)
        if len(found) == count:
            break
    return found


def _reason(error: ClientError) -> str:
    """Why the first item of a transaction, which is the lease, did not let it through."""
    reasons = error.response.get("CancellationReasons") or [{}]
    return str(reasons[0].get("Code", ""))


def _number(value: float) -> dict[str, str]:
    return {"N": f"{value:.6f}"}
