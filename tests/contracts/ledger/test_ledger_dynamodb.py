"""The ledger in DynamoDB keeps the same promises, and is audited like any other table."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from yaoki.errors import AuditError, ExhaustedError, InputError, VersionConflictError
from yaoki.ledger import Rules
from yaoki.ledger.dynamodb import DynamoLedger
from yaoki.ledger.dynamodb import ledger as module
from yaoki.ledger.pipelines import Pipeline, open_audit
from yaoki.ledger.sources.aws import Clients
from yaoki.ledger.sources.dynamodb import DynamoSource
from yaoki.ledger.sources.shadow import Shadow
from yaoki.ledger.store.sqlite import SqliteStore


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield boto3.client("dynamodb", region_name="us-east-1")


async def test_versions_are_contiguous_and_conflicts_write_nothing(client: Any) -> None:
    async with DynamoLedger(client, "points") as ledger:
        assert [await ledger.append("a", n) for n in range(3)] == [1, 2, 3]
        assert await ledger.append("b", "x", expect=0) == 1
        with pytest.raises(VersionConflictError, match="a is at version 3, not 1"):
            await ledger.append("a", 9, expect=1)
        assert [(each.version, each.value()) for each in await ledger.history("a")] == [(1, 0), (2, 1), (3, 2)]
        assert [each.version for each in await ledger.history("a", first=2, last=2)] == [2]
        assert sorted(await ledger.keys()) == [("a", 3), ("b", 1)]


async def test_the_callers_items_are_part_of_it(client: Any) -> None:
    async with DynamoLedger(client, "points") as ledger:
        balance = {"Put": {"TableName": "points-heads", "Item": {"key": {"S": "balance"}, "version": {"N": "1"}},
                           "ConditionExpression": "attribute_not_exists(version)"}}
        assert await ledger.append("a", 1, also=[balance]) == 1
        with pytest.raises(ClientError, match="ConditionalCheckFailed"):
            await ledger.append("a", 2, also=[balance])  # theirs stood in the way: not ours to retry
        assert await ledger.head("a") == 1
        with pytest.raises(InputError):
            await ledger.append("a", 2, also=[balance] * 99)


async def test_losing_every_time_is_an_error_that_wrote_nothing(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    async with DynamoLedger(client, "points") as ledger:
        await ledger.append("a", 1)

        async def stale(_key: str) -> int:
            return 0

        monkeypatch.setattr(ledger, "head", stale)
        with pytest.raises(ExhaustedError, match="changed by others 2 times"):
            await ledger.append("a", 2)
        assert len(await ledger.history("a")) == 1


async def test_erasure_keeps_the_version(client: Any) -> None:
    async with DynamoLedger(client, "points") as ledger:
        await ledger.append("a", "secret")
        assert await ledger.erase("a") == 1
        assert [(each.version, each.content) for each in await ledger.history("a")] == [(1, None)]
        assert await ledger.append("a", "next") == 2


async def audit(tmp_path: Path, table: str = "points", **more: Any) -> list[tuple[str, str, int, str]]:
    rules = Rules(slo_s=0.001, clock_error_s=0, beat_every_s=1, seal_every_s=1, hold_s=0, audit_every_s=1, listing_s=1)
    chosen = Pipeline(source=f"dynamodb://{table}", sink=f"{tmp_path}/sink/{{key}}-{{version}}.log", region="us-east-1",
                      state=str(tmp_path / "audit.db"), rules=rules, **more)
    async with open_audit(chosen) as watch:
        for _ in range(2):
            await watch.look(whole=True)
            await asyncio.sleep(0.05)
        return [(each.kind, each.key, each.version, each.state) for each in watch.auditor.book.open_ones() if each.version >= 0]


async def test_it_is_audited_by_its_stream_and_its_items(client: Any, tmp_path: Path) -> None:
    async with DynamoLedger(client, "points") as ledger:
        for n in range(3):
            await ledger.append("a", n)
    (tmp_path / "sink").mkdir()
    for version in (1, 3):
        (tmp_path / "sink" / f"a-{version}.log").write_text("x")
    assert await audit(tmp_path, scan_every_s=0) == [("missing", "a", 2, "lost")]  # no function is named: nothing repairs
    assert client.describe_table(TableName="points")["Table"]["ItemCount"] == 3  # and nothing was written


async def test_what_cannot_be_audited_is_said_clearly(client: Any, tmp_path: Path) -> None:
    async with DynamoLedger(client, "points") as ledger:
        await ledger.append("a", 1)
    with pytest.raises(AuditError, match="there is no table nowhere"):
        await audit(tmp_path, "nowhere")
    with pytest.raises(AuditError, match="hashid is not a key attribute of points; its key is key and version") as caught:
        await audit(tmp_path, key="hashid")
    assert caught.value.do == "--key key"
    with pytest.raises(AuditError, match="no item of points has an attribute rev"):
        await audit(tmp_path, version="rev")
    with pytest.raises(AuditError, match="has no stream"):
        await audit(tmp_path, "points-heads")


async def test_versions_that_are_no_numbers_name_their_item(client: Any, tmp_path: Path) -> None:
    async with DynamoLedger(client, "points"):
        client.create_table(TableName="letters", BillingMode="PAY_PER_REQUEST",
                            KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}],
                            AttributeDefinitions=[{"AttributeName": "key", "AttributeType": "S"}],
                            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"})
        client.put_item(TableName="letters", Item={"key": {"S": "A1"}, "version": {"S": "seven"}})
    with pytest.raises(InputError, match="attribute version of 'A1' in letters: a version must be a whole number"):
        await audit(tmp_path, "letters")


class Stub:
    """A client that answers as it is told."""

    def __init__(self, **answers: Any) -> None:
        for name, answer in answers.items():
            setattr(self, name, answer)


def refuse(code: str) -> Any:
    def answer(**_: Any) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, "Operation")
    return answer


def described(date: float = 0.0) -> Any:
    def answer(**_: Any) -> Any:
        return {"Table": {"KeySchema": [{"AttributeName": "key"}], "LatestStreamArn": "arn",
                          "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}},
                "ResponseMetadata": {"HTTPHeaders": {"date": formatdate(date or time.time(), usegmt=True)}}}
    return answer


async def source(tmp_path: Path, **answers: Any) -> DynamoSource:
    shadow = Shadow(SqliteStore(tmp_path / "shadow.db"))
    await shadow.store.open()
    await shadow.open()
    clients = Clients(Stub(**answers), Stub(**answers), Stub(**answers))
    return DynamoSource(clients, "points", shadow, key="key", version="version", canary_every_s=None)


async def test_what_is_not_allowed_is_said_with_what_to_grant(tmp_path: Path) -> None:
    made = await source(tmp_path, describe_table=refuse("AccessDeniedException"))
    with pytest.raises(AuditError, match="describe_table is not allowed to us") as caught:
        await made.open()
    assert "audit-a-pipeline.md" in caught.value.do
    await made.shadow.store.close()


async def test_a_clock_that_is_hours_off_is_corrected_and_named(tmp_path: Path) -> None:
    made = await source(tmp_path, describe_table=described(time.time() + 7200))
    await made.open()
    assert abs(await made.now() - time.time() - 7200) < 5
    assert [name for name, _ in await made.dangers()] == ["clock"]
    await made.shadow.store.close()


async def test_a_stream_that_forgot_where_we_were_is_read_from_where_it_begins(tmp_path: Path) -> None:
    asked: list[str] = []

    def iterator(**words: Any) -> Any:
        asked.append(words["ShardIteratorType"])
        if words["ShardIteratorType"] == "AFTER_SEQUENCE_NUMBER":
            refuse("TrimmedDataAccessException")()
        return {"ShardIterator": "begin"}

    made = await source(
        tmp_path, describe_table=described(), scan=lambda **_: {"Items": []}, get_shard_iterator=iterator,
        describe_stream=lambda **_: {"StreamDescription": {"Shards": [{"ShardId": "s1", "SequenceNumberRange": {}}]}},
        get_records=lambda **_: {"Records": [], "NextShardIterator": "next"})
    await made.open()
    await made.shadow.note([], shard="s1", place="17")
    await made.refresh()
    assert asked == ["AFTER_SEQUENCE_NUMBER", "TRIM_HORIZON"]
    await made.shadow.store.close()
