"""What is pruned is gone, what is not is kept, and everything that is left can still be proven."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from yaoki.errors import LedgerError
from yaoki.ledger import Deliverer, Keeper, Ledger, Rules, Watch
from yaoki.ledger.notes import load_findings
from yaoki.ledger.retention import prune
from yaoki.ledger.sinks.memory import MemorySink
from yaoki.ledger.sources.ledger import LedgerSource

RULES = Rules(slo_s=0.001, clock_error_s=0, beat_every_s=60, seal_every_s=1, hold_s=0, audit_every_s=1, listing_s=1)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.live)])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    url = f"sqlite:///{tmp_path}/ledger.db" if request.param == "sqlite" else request.getfixturevalue("postgres")
    async with Ledger(url, partitions=2) as ledger:
        yield ledger


async def write(ledger: Ledger, *names: str) -> None:
    async with ledger.tx() as tx:
        await tx.append_many([(name, {"n": n}) for n, name in enumerate(names)])
    await ledger.seal()


async def move_to_yesterday(ledger: Ledger) -> None:
    """PostgreSQL: today's rows as if they had been written into a day that is over."""
    if ledger.name.startswith("postgres"):
        async with ledger.store.transaction() as tx:
            ((today,),) = await tx.fetch("SELECT to_char(current_date, 'YYYYMMDD')")
            await tx.execute(f"ALTER TABLE yaoki_ledger_version_{today} RENAME TO yaoki_ledger_version_20200101")
            await tx.execute("ALTER TABLE yaoki_ledger_version DETACH PARTITION yaoki_ledger_version_20200101")
            await tx.execute("ALTER TABLE yaoki_ledger_version_20200101 DISABLE TRIGGER ALL")
            await tx.execute("UPDATE yaoki_ledger_version_20200101 SET written_at = '2020-01-01 12:00'")
            await tx.execute("ALTER TABLE yaoki_ledger_version_20200101 ENABLE TRIGGER ALL")
            await tx.execute("ALTER TABLE yaoki_ledger_version ATTACH PARTITION yaoki_ledger_version_20200101 "
                             "FOR VALUES FROM ('2020-01-01') TO ('2020-01-02')")
        await ledger.store.prepare_days(1)


async def rows(ledger: Ledger) -> int:
    ((count,),) = await ledger.store.fetch("SELECT count(*) FROM yaoki_ledger_version")
    return int(count)


async def test_what_is_pruned_is_gone_and_the_rest_is_proven(ledger: Ledger) -> None:
    sink = MemorySink()
    await write(ledger, "a", "b", "a", "gone")
    await move_to_yesterday(ledger)
    between = await ledger.store.now()
    await write(ledger, "a", "c")
    await Deliverer(ledger, sink).deliver()
    watch = Watch(ledger.store, LedgerSource(ledger), sink, RULES)
    await watch.look(whole=True)
    assert (await prune(ledger, between, dry_run=True)).rows == 4
    assert await rows(ledger) == 6
    result = await prune(ledger, between)
    assert (result.rows, result.held, result.waiting, await rows(ledger)) == (4, {}, [], 2)
    assert await ledger.verify() == []
    assert [each.version for each in await ledger.history("a")] == [3]
    assert await ledger.history("gone") == []
    with pytest.raises(LedgerError, match="a is kept from version 3 on"):
        await ledger.state("a", lambda state, change: [*(state or []), change])
    await watch.look(whole=True)  # the sink still has what was pruned, and is right to
    assert await load_findings(ledger.store) == []
    sink.contents["gone", 2] = sink.contents["a", 3]  # but this was never written
    await watch.look(whole=True)
    assert [(each.kind, each.key, each.version) for each in await load_findings(ledger.store)] == [("extra", "gone", 2)]
    async with ledger.tx() as tx:
        assert await tx.append_many([("gone", 1), ("a", 1)]) == [2, 4]  # numbers go on
    assert (await prune(ledger, between)).rows == 0
    late = MemorySink()
    late.name = "late"
    await ledger.seal()
    await Deliverer(ledger, late).deliver()
    assert {name for name in late.contents if not name[0].startswith("__")} == {("a", 3), ("a", 4), ("c", 1), ("gone", 2)}


async def test_nothing_goes_that_a_sink_still_needs(ledger: Ledger) -> None:
    sink = MemorySink()
    await write(ledger, "a", "b", "c", "d")
    now = await ledger.store.now() + 1
    async with ledger.store.transaction() as tx:
        await tx.execute("INSERT INTO yaoki_ledger_cursor VALUES ('slow', 0, 1)")
        await tx.execute("INSERT INTO yaoki_ledger_cursor VALUES ('slow', 1, 1)")
    result = await prune(ledger, now)
    assert result.rows == 0
    assert set(result.held.values()) == {"slow has not all of it yet"}
    async with ledger.store.transaction() as tx:
        await tx.execute("UPDATE yaoki_ledger_cursor SET next_seq = 100")
    await Deliverer(ledger, sink).deliver()
    del sink.contents["b", 1]
    watch = Watch(ledger.store, LedgerSource(ledger), sink, RULES)
    await watch.look(whole=True)
    result = await prune(ledger, now)
    assert any("is open" in why for why in result.held.values())
    assert await rows(ledger) == 4 or ledger.name.startswith("sqlite")
    assert [each.version for each in await ledger.history("b")] == [1]  # the copy that repair will need


async def test_a_keeper_lets_go_of_what_is_old(ledger: Ledger) -> None:
    await write(ledger, "a", "b")
    await move_to_yesterday(ledger)
    keeper = Keeper(ledger, [MemorySink()], RULES, keep_s=0)
    await keeper.turn()
    assert [name for name in ("a", "b") for _ in await ledger.history(name)] == []
    assert await ledger.verify() == []
    await keeper.close()


async def test_rows_that_were_not_pruned_cannot_be_deleted(ledger: Ledger) -> None:
    await write(ledger, "a")
    await prune(ledger, await ledger.store.now() + 1)
    await write(ledger, "a")
    with pytest.raises((sqlite3.IntegrityError, asyncpg.RaiseError), match="append-only"):
        async with ledger.store.transaction() as tx:
            await tx.execute("DELETE FROM yaoki_ledger_version")


@pytest.mark.live
async def test_a_day_that_is_in_use_goes_next_time_and_two_may_prune_at_once(postgres: str) -> None:
    async with Ledger(postgres, partitions=2) as ledger:
        await write(ledger, "a", "b")
        await move_to_yesterday(ledger)
        reader = await asyncpg.connect(postgres)
        transaction = reader.transaction()
        await transaction.start()
        await reader.fetch("SELECT * FROM yaoki_ledger_version")  # a report that takes its time
        (sentence,) = (await prune(ledger, await ledger.store.now() + 1)).waiting
        assert sentence == "yaoki_ledger_version_20200101 is in use: it goes next time"
        assert await rows(ledger) == 2
        await transaction.rollback()
        await reader.close()
        before = await ledger.store.now() + 1
        both = await asyncio.gather(prune(ledger, before), prune(ledger, before))
        assert {each for one in both for each in one.waiting} <= {sentence}, "at most, on a slow machine, one of the two leaves it to the other"
        assert [] in [each.waiting for each in both]
        assert await rows(ledger) == 0
        assert await ledger.verify() == []
