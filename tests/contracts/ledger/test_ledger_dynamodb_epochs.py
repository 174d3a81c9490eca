"""Epochs in DynamoDB: dense numbers, chained, nothing twice, nothing left out, whoever seals and whenever it dies."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from yaoki import runtime
from yaoki.ledger import Deliverer, Rules, Watch, verdicts
from yaoki.ledger.dynamodb import DynamoLedger, sealing
from yaoki.ledger.dynamodb.sealing import Sealer, name_of, naming_of
from yaoki.ledger.records import Naming, is_beat
from yaoki.ledger.sinks.memory import MemorySink
from yaoki.ledger.sources.dynamodb_ledger import DynamoLedgerSource
from yaoki.ledger.store.sqlite import SqliteStore


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield boto3.client("dynamodb", region_name="us-east-1")


async def names(ledger: DynamoLedger, part: int = 0) -> list[Naming]:
    return [name for part in range(ledger.partitions) async for sealed in ledger.epochs(part) for name in sealed.names]


async def unsealed(ledger: DynamoLedger) -> int:
    return int((await ledger.tables.call("scan", TableName=ledger.tables.unsealed, ConsistentRead=True))["Count"])


async def test_epochs_are_dense_chained_and_say_what_there_is(client: Any) -> None:
    async with DynamoLedger(client, "points", partitions=2) as ledger:
        for n in range(12):
            await ledger.append(f"k{n % 5}", n)
        await ledger.beat()
        first, second = await ledger.seal(), await ledger.seal()
        assert sum(epoch.rows for epoch in first) == 14
        assert sum(epoch.count for epoch in first) == 12
        assert [(epoch.rows, epoch.beat) for epoch in second] == [(0, 1), (0, 1)]
        assert [a.next_seq for a in first] == [b.first_seq for b in second]
        assert await unsealed(ledger) == 0
        assert await ledger.verify() == []
        tally = first[0].tally()
        assert tally.count == first[0].count
        for part in range(2):
            async for sealed in ledger.epochs(part):
                rows = await ledger.rows(sealed)
                assert [(row.key, row.version) for row in rows] == sealed.names
    async with DynamoLedger(client, "points", partitions=7) as again:
        assert again.partitions == 2  # fixed when it was made


async def test_tampering_and_removal_show_and_erasure_does_not(client: Any) -> None:
    async with DynamoLedger(client, "points", partitions=1) as ledger:
        for key in ("a", "b", "c"):
            await ledger.append(key, "secret")
        await ledger.seal()
        assert await ledger.erase("b") == 1
        assert await ledger.verify() == []
        client.update_item(TableName="points", Key={"key": {"S": "a"}, "version": {"N": "1"}},
                           UpdateExpression="SET commitment = :c", ExpressionAttributeValues={":c": {"B": b"x" * 32}})
        assert await ledger.verify() == ["partition 0, epoch 0: a row in it was changed"]
        client.delete_item(TableName="points", Key={"key": {"S": "c"}, "version": {"N": "1"}})
        assert await ledger.verify() == ["partition 0, epoch 0: it was sealed with 3 rows and has 2"]
        await ledger.append("d", 1)
        await ledger.seal()
        client.delete_item(TableName="points-epochs", Key={"part": {"N": "0"}, "epoch": {"N": "0"}})
        assert ["does not follow the epoch before" in fault for fault in await ledger.verify()] == [True]


async def test_a_sealer_that_dies_at_any_call_leaves_nothing_twice_and_nothing_out(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with DynamoLedger(client, "points", partitions=1) as ledger:
        call, calls, dies_at, before = ledger.tables.call, 0, 0, True

        async def fragile(operation: str, **arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == dies_at and before:
                raise KeyboardInterrupt
            answer = await call(operation, **arguments)
            if calls == dies_at:
                raise KeyboardInterrupt  # done, and nobody was told
            return answer

        for dies_at, before in itertools.product(range(1, 8), (True, False)):  # noqa: B007  the closure reads them
            await ledger.append("a", dies_at)
            await ledger.append("b", dies_at)
            calls = 0
            monkeypatch.setattr(ledger.tables, "call", fragile)
            with pytest.raises(KeyboardInterrupt):
                for _ in range(3):
                    await Sealer(ledger.tables).seal(0)
            monkeypatch.setattr(ledger.tables, "call", call)
        await ledger.seal()
        assert sorted(await names(ledger)) == [(key, n) for key in "ab" for n in range(1, 15)]
        assert await ledger.verify() == []
        assert await unsealed(ledger) == 0


async def test_of_two_sealers_at_once_one_writes_the_epoch(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with DynamoLedger(client, "points", partitions=1) as ledger:
        await ledger.append("a", 1)
        slow, fast = Sealer(ledger.tables), Sealer(ledger.tables)
        put = slow._put

        async def paused(sealed: Any) -> bool:
            await fast.seal(0)  # another sealer comes between reading and writing
            await ledger.append("a", 2)
            await fast.seal(0)
            return await put(sealed)

        monkeypatch.setattr(slow, "_put", paused)
        assert await slow.seal(0) is None
        assert await names(ledger) == [("a", 1), ("a", 2)]
        assert await ledger.verify() == []


async def test_a_backlog_is_sealed_in_pieces_that_keep_the_order_of_keys(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MOST_ROWS", 7)
    monkeypatch.setattr(sealing, "BACKLOG_ROWS", 5)
    pages = sealing.Tables.pages
    monkeypatch.setattr(sealing.Tables, "pages", lambda self, table, **query: pages(self, table, **{"Limit": 4, **query}))
    async with DynamoLedger(client, "points", partitions=1) as ledger:
        for n in range(30):
            await ledger.append(f"k{n % 3}" if n < 20 else "z#0", n)
        for _ in range(20):
            await ledger.seal()
        found = await names(ledger)
        assert len(found) == len(set(found)) == 30
        newest: dict[str, int] = {}
        for key, version in found:
            assert version == newest.get(key, 0) + 1
            newest[key] = version


def test_a_rows_name_can_be_read_back_whatever_the_key() -> None:
    for key in ("a", "a#1", "a#000000000000001", "käse\n", "#"):
        assert naming_of(name_of(key, 7)) == (key, 7)
    assert name_of("a", 9) < name_of("a", 10)


async def test_an_audit_from_its_epochs_proves_quiet_names_losses_and_repairs(client: Any, tmp_path: Any) -> None:
    rules = Rules(slo_s=0.001, clock_error_s=0, beat_every_s=1, seal_every_s=1, hold_s=0, audit_every_s=1, listing_s=1)
    sink, store = MemorySink(), SqliteStore(tmp_path / "audit.db")
    await store.open()
    async with DynamoLedger(client, "points", partitions=2) as ledger:
        source = DynamoLedgerSource(ledger)
        watch = Watch(store, source, sink, rules)

        async def deliver(*, but: set[Naming] = frozenset()) -> None:  # type: ignore[assignment]
            await ledger.beat()
            await ledger.seal()
            for part in range(2):
                async for sealed in ledger.epochs(part):
                    for row in await ledger.rows(sealed, content=True):
                        if (row.key, row.version) not in but and row.content is not None:
                            await sink.put(row.key, row.version, row.content, row.digest)

        for n in range(6):
            await ledger.append(f"k{n % 2}", n)
        await deliver()
        await asyncio.sleep(0.05)
        assert {each.kind for each in await watch.look(whole=True)} <= set(verdicts.HEALTHY)
        await ledger.append("k0", "lost")
        await ledger.append("k1", "erased before it left")
        await deliver(but={("k0", 4), ("k1", 4)})
        await asyncio.sleep(0.05)
        await watch.look()
        assert [(each.kind, each.key, each.version) for each in watch.auditor.book.open_ones()] == [
            ("missing", "k0", 4), ("missing", "k1", 4)]
        await ledger.erase("k1")
        assert await source.redeliver([("k0", 4), ("k1", 4)], sink) == {}
        await watch.look(whole=True, repaired=[("k0", 4)])
        kinds = {(each.kind, each.key, each.version) for each in watch.auditor.book.open_ones()}
        assert kinds == {("extra", "k1", n) for n in (1, 2, 3)}  # copies of what was erased are named
    await store.close()


@pytest.mark.live
@pytest.mark.timeout(600)
async def test_writers_and_sealers_beside_each_other_on_a_real_server() -> None:
    from yaoki.examples.history.cloud import Cloud

    rng, done, sink = random.Random(4), False, MemorySink()
    async with Cloud() as cloud, DynamoLedger(cloud.client("dynamodb"), "points", partitions=2) as ledger:
        async def write() -> None:
            for _ in range(12):
                await ledger.append(f"k{rng.randrange(4)}", "x")

        async def keep_sealing() -> None:
            other = DynamoLedger(cloud.client("dynamodb"), "points", partitions=2)
            owner = runtime.new_id()
            while not done:
                await other.seal()
                await Deliverer(other, sink, owner=owner).deliver()
            await other.bookmarks(sink.name).release(owner)

        sealers = [asyncio.ensure_future(keep_sealing()) for _ in range(2)]
        await asyncio.gather(*(write() for _ in range(4)))
        done = True
        await asyncio.gather(*sealers)
        await ledger.seal()
        await Deliverer(ledger, sink, owner="last").deliver()
        found = [name for name in await names(ledger) if not is_beat(name[0])]
        assert len(found) == len(set(found)) == 48
        assert sorted(sink.contents) == sorted(found)
        for key in {key for key, _ in found}:
            arrived = [version for each, version in sink.contents if each == key]
            assert arrived == sorted(arrived)
        newest: dict[str, int] = {}
        for key, version in found:
            assert version == newest.get(key, 0) + 1, "order of a key was broken"
            newest[key] = version
        assert dict(await ledger.keys()) == newest
        assert await ledger.verify() == []
