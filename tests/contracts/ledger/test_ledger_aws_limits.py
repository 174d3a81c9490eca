"""What the cloud does to an audit: it refuses, splits shards, and has buckets full of other people's things.

Refusals are moto's, which enforces policies of IAM. Neither moto nor ministack splits shards, so there a service is played
below botocore: its clients are real, with all of their encoding, and only the network is not.
"""

from __future__ import annotations

import contextlib
import json
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from moto import mock_aws
from moto import settings as moto_settings
from moto.core.responses import ActionAuthenticatorMixin

from virtual_time import Clock
from yaoki import runtime
from yaoki.errors import AuditError
from yaoki.ledger import Rules, Watch, verdicts
from yaoki.ledger.sinks.memory import MemorySink
from yaoki.ledger.sinks.s3 import S3Sink
from yaoki.ledger.sources.aws import Clients
from yaoki.ledger.sources.dynamodb import DynamoSource
from yaoki.ledger.sources.shadow import Shadow
from yaoki.ledger.store.sqlite import SqliteStore

REGION = "us-east-1"
STREAM_ARN = f"arn:aws:dynamodb:{REGION}:000000000000:table/points/stream/2026-11-21T00:00:00.000"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)


@pytest.fixture
async def shadow(tmp_path: Path) -> Any:
    made = Shadow(SqliteStore(tmp_path / "shadow.db"))
    await made.store.open()
    await made.open()
    yield made
    await made.store.close()


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def keys_allowed_to(*actions: str) -> dict[str, str]:
    """Credentials of a user who may do this and nothing else."""
    iam = boto3.client("iam", region_name=REGION)
    iam.create_user(UserName="auditor")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}
    iam.put_user_policy(UserName="auditor", PolicyName="audit", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="auditor")["AccessKey"]
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"], "region_name": REGION}


@contextlib.contextmanager
def enforced() -> Iterator[None]:
    """moto checks rights from now on."""
    before = moto_settings.INITIAL_NO_AUTH_ACTION_COUNT, ActionAuthenticatorMixin.request_count
    moto_settings.INITIAL_NO_AUTH_ACTION_COUNT, ActionAuthenticatorMixin.request_count = 0, 0
    try:
        yield
    finally:
        moto_settings.INITIAL_NO_AUTH_ACTION_COUNT, ActionAuthenticatorMixin.request_count = before


STREAM = ("dynamodb:DescribeTable", "dynamodb:DescribeStream", "dynamodb:GetShardIterator", "dynamodb:GetRecords")


@pytest.mark.parametrize(("allowed", "missing"), [
    ((), "dynamodb:DescribeTable"), (STREAM[:1], "dynamodb:DescribeStream"), (STREAM, "dynamodb:Scan"),
    ((*STREAM, "dynamodb:Scan"), "dynamodb:PutItem")])
async def test_each_right_that_is_missing_is_named(shadow: Shadow, allowed: tuple[str, ...], missing: str) -> None:
    with mock_aws():
        boto3.client("dynamodb", region_name=REGION).create_table(
            TableName="points", BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "key", "AttributeType": "S"}],
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"})
        mine = keys_allowed_to(*(allowed or ("sts:GetCallerIdentity",)))
        with enforced():
            clients = Clients(*(boto3.client(name, **mine) for name in ("dynamodb", "dynamodbstreams", "lambda")))
            canary = 1.0 if missing.endswith("PutItem") else None
            source = DynamoSource(clients, "points", shadow, key="key", version="version", canary_every_s=canary)
            with pytest.raises(AuditError, match="is not allowed to us") as caught:
                await source.open()
                await source.refresh()
            assert caught.value.do.startswith(f"grant {missing} to the auditor's role")


async def test_a_bucket_that_may_not_be_listed_is_said_with_what_to_grant() -> None:
    with mock_aws():
        boto3.client("s3", region_name=REGION).create_bucket(Bucket="archive")
        mine = keys_allowed_to("s3:GetObject")
        with enforced():
            with pytest.raises(AuditError, match="reading bucket archive is not allowed") as caught:
                await S3Sink(boto3.client("s3", **mine), "archive", "logs/{key}-{version}.log").open()
            assert caught.value.do == "grant s3:ListBucket to the auditor's role"


# ── shards ───────────────────────────────────────────────────────────────────────────────────────────────────────────


FIRST = "shardId-00000000000000000000-0"


class Service:
    """DynamoDB with a stream, played below botocore: shards split, end, and are read to their end."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self.open = [FIRST]
        self.shards: dict[str, list[dict[str, Any]]] = {FIRST: []}
        self.parents: dict[str, str] = {}
        self.ended: set[str] = set()
        self.number = 0

    def client(self, name: str) -> Any:
        made = boto3.client(name, region_name=REGION)
        made.meta.events.register("before-send", self.answer)
        return made

    def answer(self, request: Any, **_: Any) -> AWSResponse:
        headers = {name.lower(): value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()}
        operation = headers["x-amz-target"].rpartition(".")[2]
        body = json.dumps(getattr(self, operation)(**json.loads(request.body or "{}"))).encode()
        return AWSResponse(request.url, 200, {"content-type": "application/x-amz-json-1.0"}, Raw(body))

    def split(self) -> None:
        """Every open shard ends, and two others go on."""
        before, self.open = self.open, []
        for parent in before:
            self.ended.add(parent)
            for half in "ab":
                child = f"{parent}{half}"
                self.open.append(child)
                self.shards[child] = []
                self.parents[child] = parent

    def write(self, key: str, version: int) -> None:
        self.PutItem(Item={"key": {"S": key}, "version": {"N": str(version)}})

    def PutItem(self, Item: Any, **_: Any) -> Any:  # noqa: N803  the service's own words
        self.items[Item["key"]["S"]] = Item
        self.number += 1
        shard = self.open[zlib.crc32(Item["key"]["S"].encode()) % len(self.open)]
        self.shards[shard].append({"eventName": "MODIFY", "eventID": str(self.number), "dynamodb": {
            "Keys": {"key": Item["key"]}, "NewImage": Item, "SequenceNumber": f"{self.number:021d}",
            "ApproximateCreationDateTime": runtime.unix_time()}})
        return {}

    def DescribeTable(self, **_: Any) -> Any:
        return {"Table": {"KeySchema": [{"AttributeName": "key", "KeyType": "HASH"}], "LatestStreamArn": STREAM_ARN,
                          "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}}}

    def Scan(self, **_: Any) -> Any:
        return {"Items": list(self.items.values()), "Count": len(self.items), "ScannedCount": len(self.items)}

    def DescribeStream(self, **_: Any) -> Any:
        return {"StreamDescription": {"StreamArn": STREAM_ARN, "Shards": [
            {"ShardId": name, "SequenceNumberRange": {"StartingSequenceNumber": "0" * 21,
             **({"EndingSequenceNumber": "9" * 21} if name in self.ended else {})},
             **({"ParentShardId": self.parents[name]} if name in self.parents else {})} for name in self.shards]}}

    def GetShardIterator(self, ShardId: str, SequenceNumber: str = "", **_: Any) -> Any:  # noqa: N803
        after = sum(each["dynamodb"]["SequenceNumber"] <= SequenceNumber for each in self.shards[ShardId])
        return {"ShardIterator": f"{ShardId}/{after}"}

    def GetRecords(self, ShardIterator: str, **_: Any) -> Any:  # noqa: N803
        shard, _, at = ShardIterator.partition("/")
        page = self.shards[shard][int(at):int(at) + 3]
        is_end = shard in self.ended and int(at) + len(page) == len(self.shards[shard])
        return {"Records": page, **({} if is_end else {"NextShardIterator": f"{shard}/{int(at) + len(page)}"})}


class Raw:
    """A body as botocore reads it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._body


async def test_shards_may_split_and_nothing_is_missed_or_raised(shadow: Shadow) -> None:
    service, sink, clock = Service(), MemorySink(), Clock()
    rules = Rules(slo_s=15, clock_error_s=1, beat_every_s=10, seal_every_s=1, hold_s=0, audit_every_s=10, listing_s=1)
    sink.knows_digests = False
    clients = Clients(service.client("dynamodb"), service.client("dynamodbstreams"), service.client("lambda"))
    with runtime.use(clock):
        source = DynamoSource(clients, "points", shadow, key="key", version="version", canary_every_s=10.0, scan_every_s=3600)
        await source.open()
        watch = Watch(shadow.store, source, sink, rules)
        delivered, seen = 0, set()
        for turn in range(1, 13):
            for key in ("a", "b", "c", "d"):
                service.write(key, turn)
            delivered = await deliver(service, sink, delivered)
            if turn in {4, 7}:
                service.split()
            seen |= {each.kind for each in await watch.look()}
            clock.now += 10
        for _ in range(4):
            delivered = await deliver(service, sink, delivered)
            seen |= {each.kind for each in await watch.look()}
            clock.now += 10
        known = {(each.key, each.version) async for batch in shadow.versions() for each in batch}
        assert known == {(key, n) for key in "abcd" for n in range(1, 13)}
        assert [(each.kind, each.key, each.version) for each in watch.auditor.book if each.version >= 0] == [("missing", "a", 5)]
        assert seen <= {verdicts.UNKNOWN, verdicts.QUIET, verdicts.FLOWING, verdicts.LOSS}
        assert len(service.open) == 4
        lanes = {each.part for each in await source.lanes()}
        assert lanes >= set(service.open), "every open shard has a canary of its own again"


async def deliver(service: Service, sink: MemorySink, delivered: int) -> int:
    """The owner's function, which works all the time, but for one version that it drops."""
    records = sorted((each for its in service.shards.values() for each in its), key=lambda each: int(each["eventID"]))
    for each in records[delivered:]:
        image = each["dynamodb"]["NewImage"]
        if (image["key"]["S"], image["version"]["N"]) != ("a", "5"):
            await sink.put(image["key"]["S"], int(image["version"]["N"]), b"", b"")
    return len(records)


# ── other people's things ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_bucket_of_very_many_foreign_objects_takes_no_memory_and_is_one_remark() -> None:
    pages, names = 40, [f"logs/photo-{n}.jpg" for n in range(998)]

    class Bucket:
        page = 0

        def list_objects_v2(self, **_: Any) -> Any:
            Bucket.page += 1
            found = [{"Key": name, "LastModified": Moment(), "ETag": '"0"'} for name in [*names, f"logs/a-{Bucket.page}.log"]]
            return {"Contents": found, "IsTruncated": Bucket.page < pages, "NextContinuationToken": "more"}

    class Moment:
        def timestamp(self) -> float:
            return 1.0

    sink = S3Sink(Bucket(), "archive", "logs/{key}-{version}.log")
    tracemalloc.start()
    found = [each.version async for batch in sink.listing() for each in batch]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == list(range(1, pages + 1))
    assert (sink.foreign.count, sink.foreign.examples) == (998 * pages, names[:5])
    assert peak < 3_000_000, f"{peak} bytes for {998 * pages} foreign names"
