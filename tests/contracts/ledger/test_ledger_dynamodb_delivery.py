"""A ledger in DynamoDB brings what it sealed to its sinks: in order, again after any death, and one deliverer at a time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from yaoki.errors import FencedError, LedgerError
from yaoki.ledger import Deliverer, Rules
from yaoki.ledger.dynamodb import DynamoLedger
from yaoki.ledger.dynamodb.keeper import DynamoKeeper
from yaoki.ledger.records import Naming, is_beat
from yaoki.ledger.sinks.memory import MemorySink
from yaoki.ledger.store.sqlite import SqliteStore

RULES = Rules(slo_s=0.01, beat_every_s=0.01, seal_every_s=0.01, hold_s=0, audit_every_s=0.01, listing_s=0, clock_error_s=0)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        yield boto3.client("dynamodb", region_name="us-east-1")


async def write(ledger: DynamoLedger, *names: Naming) -> None:
    for key, version in names:
        assert await ledger.append(key, {"n": version}) == version


def order_of(sink: MemorySink) -> dict[str, list[int]]:
    """In which order the versions of each key first arrived."""
    arrived: dict[str, list[int]] = {}
    for key, version in sink.contents:
        arrived.setdefault(key, []).append(version)
    return arrived


async def test_every_sealed_version_comes_to_rest_in_order_and_again_changes_nothing(client: Any) -> None:
    sink = MemorySink()
    async with DynamoLedger(client, "points", partitions=2) as ledger:
        await write(ledger, ("a", 1), ("b", 1), ("a", 2))
        await ledger.seal()
        await ledger.seal()  # an empty epoch
        await write(ledger, ("a", 3), ("c", 1))
        deliverer = Deliverer(ledger, sink)
        await ledger.seal()
        assert await deliverer.backlog() == 5
        done = await deliverer.deliver()
        assert (done.stored, done.present, await deliverer.backlog()) == (5, 0, 0)
        assert order_of(sink) == {"a": [1, 2, 3], "b": [1], "c": [1]}
        assert (await Deliverer(ledger, sink).deliver()).total == 0
        late = MemorySink("late")
        assert (await Deliverer(ledger, late).deliver()).stored == 5, "a new sink is filled from the beginning"
        assert late.contents == sink.contents


async def test_a_poisonous_key_waits_alone_and_goes_on_in_order(client: Any) -> None:
    sink = MemorySink()
    async with DynamoLedger(client, "points", partitions=1) as ledger:
        await write(ledger, ("bad", 1), ("bad", 2), ("good", 1))
        await ledger.seal()
        sink.refusing = {"bad"}
        deliverer = Deliverer(ledger, sink)
        done = await deliverer.deliver()
        assert (done.stored, done.down) == (1, "")
        await write(ledger, ("bad", 3), ("good", 2))
        await ledger.seal()
        await deliverer.deliver()
        waiting = await ledger.bookmarks("memory").waiting(0)
        assert [(each.version, each.reason) for each in waiting] == [(1, "failing"), (2, "behind"), (3, "behind")]
        sink.refusing = set()
        for each in waiting:  # its time has come
            ledger.tables._client.update_item(
                TableName="points-sinks", Key=ledger.bookmarks("memory")._key(f"aside#0#{each.seq:015d}"),
                UpdateExpression="SET next_at = :now", ExpressionAttributeValues={":now": {"N": "0"}})
        await deliverer.deliver()
        assert await ledger.bookmarks("memory").waiting(0) == []
        assert order_of(sink) == {"good": [1, 2], "bad": [1, 2, 3]}


async def test_a_sink_that_is_down_has_nothing_set_aside_and_another_content_is_never_written_over(
        client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = MemorySink()
    async with DynamoLedger(client, "points", partitions=1) as ledger:
        await write(ledger, ("a", 1), ("b", 1))
        await ledger.seal()
        sink.refusing = {"*"}
        deliverer = Deliverer(ledger, sink)
        assert "refuses" in (await deliverer.deliver()).down
        assert await ledger.bookmarks("memory").waiting(0) == []
        sink.refusing, sink.contents = set(), {("a", 1): b"somebody else's"}
        done = await deliverer.deliver()
        assert (done.stored, done.quarantined) == (1, 1)
        assert sink.contents["a", 1] == b"somebody else's"
        marks = ledger.bookmarks("memory")
        assert (await marks.waiting(0), await marks.blocked(0), await marks.conflicts(0)) == ([], set(), [])
        monkeypatch.setattr(type(marks), "now", after_all)  # it is looked at again, and is still there
        monkeypatch.setattr("yaoki.ledger.bookmarks.RETRY_CAP_S", 0.0)
        assert (await deliverer.deliver()).quarantined == 1
        assert [(each.reason, each.attempts) for each in await marks.conflicts(0)] == [("corrupt", 2)]
        sink.refusing = {"*"}
        assert (await deliverer.deliver()).quarantined == 0, "what is there could not be seen"
        sink.refusing, sink.contents = set(), {}  # somebody has made room
        assert (await deliverer.deliver()).stored == 1
        assert (await marks.conflicts(0), list(sink.contents)) == ([], [("a", 1)])


async def test_many_conflicts_keep_nobody_waiting(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yaoki.ledger.dynamodb.bookmarks.MOST_ASIDE", 2)
    sink = MemorySink()
    async with DynamoLedger(client, "points", partitions=1) as ledger:
        await write(ledger, *(("full", version) for version in range(1, 5)), ("bad", 1), ("worse", 1), ("worst", 1), ("good", 1))
        await ledger.seal()
        sink.refusing, sink.contents = {"bad", "worse", "worst"}, {("full", version): b"other" for version in range(1, 5)}
        await Deliverer(ledger, sink).deliver()
        marks = ledger.bookmarks("memory")
        assert [each.key for each in await marks.waiting(0)] == ["bad", "worse"]
        assert await marks.blocked(0) == {"bad", "worse", "worst"}, "all of them, however many are looked at in one go"


async def test_two_transactions_that_meet_are_not_taken_for_a_lost_lease(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with DynamoLedger(client, "points", partitions=1) as ledger:
        marks = ledger.bookmarks("memory")
        lease = await marks.take(0, "me")
        assert lease is not None
        call, meetings = ledger.tables.call, iter(range(2))

        async def meeting(operation: str, **arguments: Any) -> Any:
            for _ in meetings:
                raise ClientError({"Error": {"Code": "TransactionCanceledException", "Message": ""},
                                   "CancellationReasons": [{"Code": "TransactionConflict"}, {"Code": "None"}]}, operation)
            return await call(operation, **arguments)

        monkeypatch.setattr(ledger.tables, "call", meeting)
        await marks.settle(0, lease, [], 7)
        assert await marks.cursor(0) == 7
        meetings = iter(range(1000))
        monkeypatch.setattr("yaoki.ledger.dynamodb.bookmarks.PATIENCE", 2)
        with pytest.raises(LedgerError, match="did not take"):
            await marks.settle(0, lease, [], 8)


async def test_a_deliverer_that_dies_at_any_call_loses_nothing_and_turns_nothing_around(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sink, written = MemorySink(), itertools.count(1)
    async with DynamoLedger(client, "points", partitions=1) as ledger:
        call, calls, dies_at = ledger.tables.call, 0, 0

        async def fragile(operation: str, **arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            answer = await call(operation, **arguments)
            if calls == dies_at:
                raise KeyboardInterrupt  # done, and nobody was told
            return answer

        died = 0
        for dies_at in range(1, 13):  # noqa: B007  the closure reads it
            n = next(written)
            await write(ledger, ("a", n), ("bad", n))
            await ledger.seal()
            sink.refusing = {"bad"} if n % 2 else set()
            calls = 0
            monkeypatch.setattr(ledger.tables, "call", fragile)
            try:
                await Deliverer(ledger, sink).deliver()
            except KeyboardInterrupt:
                died += 1
            monkeypatch.setattr(ledger.tables, "call", call)
        sink.refusing = set()
        monkeypatch.setattr("yaoki.ledger.bookmarks.RETRY_CAP_S", 0.0)
        marks = ledger.bookmarks("memory")
        monkeypatch.setattr(type(marks), "now", after_all)
        for _ in range(3):
            await Deliverer(ledger, sink).deliver()
        assert died > 8
        assert await marks.waiting(0) == []
        assert order_of(sink) == {"a": list(range(1, 13)), "bad": list(range(1, 13))}


async def after_all(_: object) -> float:
    return 4e9


async def test_one_deliverer_at_a_time_and_one_that_was_paused_writes_nothing(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = MemorySink()
    async with DynamoLedger(client, "points", partitions=1) as ledger:
        await write(ledger, ("a", 1), ("b", 1))
        await ledger.seal()
        marks = ledger.bookmarks("memory")
        old = await marks.take(0, "old")
        assert old is not None
        assert await marks.take(0, "new") is None
        assert (await Deliverer(ledger, sink, owner="new").deliver()).total == 0
        assert await marks.take(0, "old") == old, "renewed"
        monkeypatch.setattr(type(marks), "now", after_all)  # its lease has run out
        assert (await Deliverer(ledger, sink, owner="new").deliver()).stored == 2
        with pytest.raises(FencedError):
            await marks.settle(0, old, [], 0)
        assert await marks.cursor(0) == 2
        await marks.release("new")
        monkeypatch.undo()
        assert await marks.take(0, "old") is not None


async def test_a_keeper_beats_seals_delivers_audits_and_repairs(client: Any, tmp_path: Any) -> None:
    sink, notes = MemorySink(), SqliteStore(str(tmp_path / "audit.db"))
    await notes.open()
    async with DynamoLedger(client, "points", partitions=1) as ledger:
        keeper = DynamoKeeper(ledger, [sink], RULES, notes=notes)
        await write(ledger, ("a", 1), ("a", 2))
        sink.losing = True  # it says yes, and nothing arrives
        await keeper.turn()
        sink.losing = False
        async with asyncio.timeout(100):
            while ("a", 2) not in sink.contents:
                await keeper.turn()
                await asyncio.sleep(0.005)
        assert {name for name in sink.contents if not is_beat(name[0])} == {("a", 1), ("a", 2)}
        assert any(each.kind == "missing" and (each.key, each.version) == ("a", 2) for each in keeper.watches[0].auditor.book)
        await keeper.close()
        assert await ledger.bookmarks("memory").take(0, "another") is not None
    await notes.close()
