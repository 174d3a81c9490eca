"""A DynamoDB table whose stream drives a Lambda function, as the source of an audit. Nothing in that pipeline is changed.

    stream ──second reader──▶ shadow: a copy of every record, within its 24 hours
    table ──scan──▶ newest version of each key: what existed before, or beside, the stream
    canaries ──written──▶ table ──▶ stream: the shard of each is learned by seeing where its record comes out
    repair: the owner's own function is invoked with the record as the stream had it

A shard serves two readers: this is the second. Canaries are items of their own (`__beat-canary-...`) and pass through the
owner's function like any other; it must be able to digest them.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from yaoki import runtime
from yaoki.errors import AuditError
from yaoki.ledger import lint
from yaoki.ledger.notes import load_note, save_note
from yaoki.ledger.records import Batch, Naming, Record, check_version, is_beat
from yaoki.ledger.sinks.port import Sink
from yaoki.ledger.sketch import Tally
from yaoki.ledger.sources.aws import Clients, plain
from yaoki.ledger.sources.canaries import canaries_due
from yaoki.ledger.sources.port import Lane
from yaoki.ledger.sources.shadow import Seen, Shadow

RECENT_MOST = 5000
PAGES_A_LOOK = 1000


class DynamoSource:
    """`table`, its stream, and the function behind it.

    Args:
        shadow: where what is seen is kept.
        key, version: names of the attributes that name a version.
        function: the function that the stream drives; "" if unknown: then nothing can be repaired.
        first: the first version of a key: 0, or 1.
        canary_every_s: how often canaries are written; None: never, and nothing can be proven quiet.
        canary_item: further attributes of canaries, in DynamoDB's JSON, for functions that need them.
        scan_every_s: how often the table's newest versions are read; the first look always does.
    """

    knows_digests = False
    complete = True
    vouches = False

    def __init__(self, clients: Clients, table: str, shadow: Shadow, *, key: str, version: str, function: str = "",
                 first: int = 1, canary_every_s: float | None = 30.0, canary_item: Mapping[str, Any] | None = None,
                 scan_every_s: float = 900.0) -> None:
        self._clients = clients
        self.table = table
        self.shadow = shadow
        self.name = f"dynamodb://{table}"
        self._key = key
        self._version = version
        self._function = function
        self.first = first
        self._canary_every_s = canary_every_s
        self._canary_item = dict(canary_item or {})
        self._scan_every_s = scan_every_s
        self._scanned_at = -math.inf
        self._beaten_at = -math.inf
        self._clock_off_s = 0.0
        self._stream = ""
        self._view = ""
        self._open_shards: list[str] = []
        self.without_version = 0

    # ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Find the table and its stream. Raises `AuditError` saying what is not there or not allowed."""
        answer = await self._ask("dynamodb", "describe_table", TableName=self.table)
        self._learn_clock(answer)
        description = answer["Table"]
        self._check_keys(description)
        self._stream = description.get("LatestStreamArn", "")
        self._view = description.get("StreamSpecification", {}).get("StreamViewType", "none")
        if not description.get("StreamSpecification", {}).get("StreamEnabled"):
            raise AuditError(f"the table {self.table} has no stream", do="enable one with NEW_AND_OLD_IMAGES, or audit table "
                             "against sink alone with --no-stream", table=self.table)

    def _check_keys(self, description: Mapping[str, Any]) -> None:
        names = [each["AttributeName"] for each in description["KeySchema"]]
        if self._key not in names:
            raise AuditError(f"{self._key} is not a key attribute of {self.table}; its key is {' and '.join(names)}",
                             do=f"--key {names[0]}", table=self.table)
        others = [name for name in names if name not in {self._key, self._version, *self._canary_item}]
        if others and self._canary_every_s is not None:
            raise AuditError(f"the key of {self.table} also has {others[0]}, which a canary cannot guess",
                             do="give it in --canary-item, or use --no-canary", table=self.table)

    def _learn_clock(self, answer: Mapping[str, Any]) -> None:
        """The difference to the service's clock, from the Date of its answer: a skew of hours must not look like lateness."""
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        if date:
            off = parsedate_to_datetime(date).timestamp() - runtime.unix_time()
            self._clock_off_s = off if abs(off) > 2 else 0.0  # the header has whole seconds

    async def now(self) -> float:
        return runtime.unix_time() + self._clock_off_s

    def part_of(self, key: str) -> str:  # noqa: ARG002  a key's shard is the service's secret
        return ""

    # ── what each look does first ────────────────────────────────────────────────────────────────────────────────────

    async def refresh(self) -> None:
        await self._beat()
        await self._read_stream()
        if runtime.monotonic() - self._scanned_at >= self._scan_every_s:
            self._scanned_at = runtime.monotonic()
            await self._read_heads()

    async def _read_stream(self) -> None:
        """Read every shard on from where the last look left it."""
        places = await self.shadow.places()
        shards = await self._shards()
        self._open_shards = [each["ShardId"] for each in shards if "EndingSequenceNumber" not in each["SequenceNumberRange"]]
        for each in shards:
            place, closed = places.get(each["ShardId"], ("", False))
            if not closed:
                await self._read_shard(each["ShardId"], place)

    async def _shards(self) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        start: dict[str, str] = {}
        while True:
            page = await self._ask("streams", "describe_stream", StreamArn=self._stream, **start)
            found += page["StreamDescription"]["Shards"]
            if "LastEvaluatedShardId" not in page["StreamDescription"]:
                return found
            start = {"ExclusiveStartShardId": page["StreamDescription"]["LastEvaluatedShardId"]}

    async def _read_shard(self, shard: str, place: str) -> None:
        start = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": place} if place else \
            {"ShardIteratorType": "TRIM_HORIZON"}
        try:
            answer = await self._ask("streams", "get_shard_iterator", StreamArn=self._stream, ShardId=shard, **start)
        except AuditError as error:
            if error.aws != "TrimmedDataAccessException":
                raise
            # Nobody read for 24 hours: what the stream forgot meanwhile is known from the table only.
            answer = await self._ask("streams", "get_shard_iterator", StreamArn=self._stream, ShardId=shard,
                                     ShardIteratorType="TRIM_HORIZON")
        iterator = answer.get("ShardIterator")
        for _ in range(PAGES_A_LOOK):
            page = await self._ask("streams", "get_records", ShardIterator=iterator, Limit=1000)
            records = page["Records"]
            iterator = page.get("NextShardIterator")
            if records:
                place = records[-1]["dynamodb"]["SequenceNumber"]
            await self.shadow.note([seen for each in records for seen in self._seen(each, shard)],
                                   shard=shard, place=place, closed=iterator is None)
            if not records or iterator is None:
                return

    def _seen(self, record: Mapping[str, Any], shard: str) -> list[Seen]:
        change = record["dynamodb"]
        image = change.get("NewImage")
        if image is None and record["eventName"] != "REMOVE":
            image = change["Keys"]  # KEYS_ONLY: only a version that is part of the key is known
        if image is None or self._version not in image or self._key not in image:
            return []
        name = self._name(image)
        event = json.dumps(self._event(record), separators=(",", ":"))
        at = change["ApproximateCreationDateTime"]
        return [Seen(*name, at.timestamp() if isinstance(at, datetime) else float(at), shard, event)]

    def _event(self, record: Mapping[str, Any]) -> Any:
        """The record as the function gets it: times as seconds, bytes as base64."""
        return plain({**record, "eventSourceARN": self._stream})

    def _name(self, item: Mapping[str, Any]) -> Naming:
        ((kind, value),) = item[self._version].items()
        try:
            version = int(value) if kind == "N" else None
        except ValueError:
            version = None
        ((_, key),) = item[self._key].items()
        where = f"attribute {self._version} of {key!r} in {self.table}"
        return str(key), check_version(value if version is None else version, where)

    async def _read_heads(self) -> None:
        """Read key and version of every item: what exists, whatever the stream still knows."""
        now, seen = await self.now(), 0
        start: dict[str, Any] = {}
        self.without_version = 0
        while True:
            page = await self._ask("dynamodb", "scan", TableName=self.table, ConsistentRead=True,
                                   ProjectionExpression="#k, #v", ExpressionAttributeNames={"#k": self._key, "#v": self._version},
                                   **start)
            items = [item for item in page["Items"] if self._version in item and self._key in item]
            self.without_version += len(page["Items"]) - len(items)
            seen += len(items)
            heads: dict[str, int] = {}
            for key, version in map(self._name, items):
                heads[key] = max(heads.get(key, -1), version)
            await self.shadow.note_heads([each for each in heads.items() if not is_beat(each[0])], now, first=self.first)
            if "LastEvaluatedKey" not in page:
                break
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
        if self.without_version and not seen:
            raise AuditError(f"no item of {self.table} has an attribute {self._version}",
                             do="name the attribute that counts a key's changes: --version", table=self.table)

    # ── canaries ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _beat(self) -> None:
        if self._canary_every_s is None or runtime.monotonic() - self._beaten_at < self._canary_every_s:
            return
        self._beaten_at = runtime.monotonic()
        keys = await self.shadow.beat_keys()
        for key, number in canaries_due(keys, self._open_shards).items():
            at = await self.now()
            await self.shadow.note_beat(key, number, at)
            try:
                await self._ask("dynamodb", "put_item", TableName=self.table, Item={
                    **self._canary_item, self._key: {"S": key}, self._version: {"N": str(number)}})
            except AuditError:
                await self.shadow.forget_beat(key, number)
                raise

    async def lanes(self) -> list[Lane]:
        """One lane for each shard that a canary comes out of, and one for canaries that have not come out yet."""
        lanes: dict[str, Lane] = {}
        for key, (shard, _) in (await self.shadow.beat_keys()).items():
            if shard in lanes:
                continue
            beats, transported = await self.shadow.beats(key)
            lanes[shard] = Lane(part=shard or "not learned yet", beats=beats, transported=transported,
                                names=[(key, beat.number) for beat in beats])
        if "" in lanes and len(lanes) > 1:
            del lanes[""]  # others prove the path; this one will soon be learned
        return list(lanes.values()) or [Lane(part="whole table", beats=[], names=[])]

    # ── what a source is asked ───────────────────────────────────────────────────────────────────────────────────────

    def expected(self) -> AsyncIterator[Batch]:
        return self.shadow.versions()

    async def recent(self, after: float, until: float) -> list[Record] | None:
        return await self.shadow.recent(after, until, RECENT_MOST)

    async def known(self) -> Tally | None:
        return None

    async def forgotten(self, names: Sequence[Naming]) -> set[Naming]:  # noqa: ARG002
        return set()  # nothing is ever forgotten here

    async def read(self, names: Sequence[Naming]) -> list[Record]:
        return await self.shadow.read(names)

    async def has_copies(self, names: Sequence[Naming]) -> set[Naming]:
        if not self._function:
            return set()
        return {*await self.shadow.records(names), *await self._heads_among(names)}

    async def _heads_among(self, names: Sequence[Naming]) -> dict[Naming, Mapping[str, Any]]:
        """Those that the table itself still holds, because they are the newest version of their key."""
        found = {}
        for key, version in names:
            answer = await self._ask("dynamodb", "query", TableName=self.table, ConsistentRead=True,
                                     KeyConditionExpression="#k = :k", ExpressionAttributeNames={"#k": self._key},
                                     ExpressionAttributeValues={":k": {"S": key}})
            for item in answer["Items"]:
                if self._version in item and self._name(item) == (key, version):
                    found[key, version] = item
        return found

    async def redeliver(self, names: Sequence[Naming], sink: Sink) -> dict[Naming, str]:  # noqa: ARG002  the function knows its sink
        """Invoke the owner's function with each record, oldest version first."""
        copies = await self.shadow.records(names)
        heads = await self._heads_among([name for name in names if name not in copies])
        failed = {}
        for name in sorted({*copies, *heads}):
            event = json.loads(copies[name]) if name in copies else self._rebuilt(heads[name])
            try:
                answer = await self._ask("functions", "invoke", FunctionName=self._function,
                                         Payload=json.dumps({"Records": [event]}).encode())
            except AuditError as error:
                failed[name] = str(error)
                continue
            if answer.get("FunctionError"):
                failed[name] = f"the function failed: {answer['Payload'].read()[:300].decode(errors='replace')}"
        return failed

    def _rebuilt(self, item: Mapping[str, Any]) -> Any:
        """The record that the stream would have had for the newest version of a key."""
        keys = {self._key: item[self._key]}
        return plain({"eventID": runtime.new_id(), "eventName": "MODIFY", "eventVersion": "1.1", "eventSource": "aws:dynamodb",
                      "eventSourceARN": self._stream, "dynamodb": {"Keys": keys, "NewImage": dict(item),
                                                                   "StreamViewType": self._view}})

    # ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def dangers(self) -> list[lint.Danger]:
        """What is dangerous about the pipeline's settings, before anything is lost."""
        found: list[lint.Danger] = []
        if self._function:
            mappings = await self._mappings()
            answer = await self._ask("functions", "get_function_concurrency", FunctionName=self._function)
            found += lint.lint_pipeline(mappings, view=self._view, concurrency=answer.get("ReservedConcurrentExecutions"))
            seen, changed = lint.changed_since(mappings, await load_note(self.shadow.store, "mappings") or "")
            found += changed
            if not changed:
                async with self.shadow.store.transaction() as tx:
                    await save_note(tx, "mappings", seen)
        if self._clock_off_s:
            found.append(("clock", f"this machine's clock is {-self._clock_off_s:.0f} s off the service's; the service's is used"))
        if self.without_version:
            found.append(("no_version", (f"{self.without_version} item(s) of {self.table} have no attribute {self._version}: "
                          "they cannot be audited")))
        return found

    async def _mappings(self) -> list[Mapping[str, Any]]:
        answer = await self._ask("functions", "list_event_source_mappings", FunctionName=self._function,
                                 EventSourceArn=self._stream)
        return list(answer["EventSourceMappings"])

    async def _ask(self, client: str, operation: str, **arguments: Any) -> Any:
        return await self._clients.ask(client, operation, f"table {self.table}", **arguments)
