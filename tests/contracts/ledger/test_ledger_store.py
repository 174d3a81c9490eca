"""What every ledger keeps, whatever database it lives in."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from yaoki import runtime
from yaoki.errors import ConfigError, FencedError, InputError, LedgerError, UsageError, VersionConflictError
from yaoki.ledger.epochs import Epoch, partition_of
from yaoki.ledger.leases import give_up, take
from yaoki.ledger.ledger import Ledger

Open = Callable[[], Ledger]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.live)])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    url = f"sqlite:///{tmp_path}/ledger.db" if request.param == "sqlite" else request.getfixturevalue("postgres")
    return lambda: Ledger(url, partitions=3)


@pytest.fixture
async def ledger(opened: Open) -> AsyncIterator[Ledger]:
    async with opened() as ledger:
        yield ledger


async def write(ledger: Ledger, *names: str) -> list[int]:
    async with ledger.tx() as tx:
        return await tx.append_many([(name, {"n": n}) for n, name in enumerate(names)])


async def seal_at_last(ledger: Ledger) -> list[Epoch]:
    """The server itself may be under way, tidying up some other database: what came after it began is sealed later."""
    async with asyncio.timeout(100):
        while (await ledger.store.held())[0]:  # noqa: ASYNC110  it is a server that is asked
            await asyncio.sleep(0.02)
    return await ledger.seal()


async def sealed(ledger: Ledger) -> list[tuple[str, int]]:
    return [(each.key, each.version) async for batch in ledger.sealed() for each in batch]


async def test_versions_are_contiguous_for_each_key(ledger: Ledger) -> None:
    assert await write(ledger, "a", "b", "a") == [1, 1, 2]
    assert await write(ledger, "a") == [3]
    assert [each.version for each in await ledger.history("a")] == [1, 2, 3]
    assert await ledger.keys() == [("a", 3), ("b", 1)]


async def test_what_is_rolled_back_leaves_no_hole(ledger: Ledger) -> None:
    await write(ledger, "a")
    with pytest.raises(RuntimeError, match="no"):
        async with ledger.tx() as tx:
            assert await tx.append("a", 1) == 2
            raise RuntimeError("no")
    assert await write(ledger, "a") == [2]
    await ledger.seal()
    assert sorted(await sealed(ledger)) == [("a", 1), ("a", 2)]


async def test_a_change_made_for_an_old_version_is_refused_and_nothing_is_written(ledger: Ledger) -> None:
    async with ledger.tx() as tx:
        assert await tx.append("a", "x", expect=0) == 1
        with pytest.raises(VersionConflictError, match="a is at version 1, not 0") as caught:
            await tx.append("a", "y", expect=0)
        assert (caught.value.actual, caught.value.expected) == (1, 0)
        with pytest.raises(VersionConflictError, match="at version 0, not 4"):
            await tx.append("new", "y", expect=4)
        assert await tx.append("a", "z", expect=1) == 2
    assert [each.value() for each in await ledger.history("a")] == ["x", "z"]
    assert await ledger.history("new") == []


async def test_state_at_a_version_and_at_a_time(ledger: Ledger) -> None:
    for points in (10, 20, -5):
        async with ledger.tx() as tx:
            await tx.append("A1", {"points": points})
    total = lambda state, change: (state or 0) + change["points"]
    assert await ledger.state("A1", total) == 25
    assert await ledger.state("A1", total, version=2) == 30
    second = (await ledger.history("A1"))[1]
    assert await ledger.state("A1", total, at=second.written_at) == 30
    newest = await ledger.version("A1")
    assert newest is not None
    assert newest.value() == {"points": -5}
    assert await ledger.version("A1", at=0.0) is None


async def test_epochs_are_dense_and_empty_ones_are_statements(ledger: Ledger) -> None:
    await write(ledger, *(f"k{n}" for n in range(20)))
    await ledger.beat()
    first, second = await ledger.seal(), await ledger.seal()
    assert sum(epoch.rows for epoch in first) == 23
    assert sum(epoch.count for epoch in first) == 20
    assert [epoch.rows for epoch in second] == [0, 0, 0]
    assert [epoch.beat for epoch in second] == [1, 1, 1]
    assert await ledger.verify() == []
    for part in range(3):
        rows = await ledger.rows(first[part], content=True)
        assert len(rows) == first[part].rows
        for offset in range(len(rows)):
            found = await ledger.epoch_at(part, offset)
            assert found is not None
            assert found.epoch == 0
        assert await ledger.epoch_at(part, len(rows)) is None


async def test_erasure_removes_the_content_and_keeps_numbers_and_chain(ledger: Ledger) -> None:
    await write(ledger, "p", "p", "q")
    await ledger.seal()
    assert await ledger.erase("p", versions=[1]) == 1
    assert await ledger.erase("p") == 1
    assert [each.content for each in await ledger.history("p")] == [None, None]
    with pytest.raises(LedgerError, match="was erased"):
        (await ledger.history("p"))[0].value()
    assert await ledger.verify() == []
    assert await write(ledger, "p") == [3]
    assert await ledger.contents([("p", 1), ("q", 1), ("q", 9)]) == {("p", 1): None, ("q", 1): b'{"n":2}'}


@pytest.mark.parametrize("change", [
    "DELETE FROM yaoki_ledger_version",
    "UPDATE yaoki_ledger_version SET content = 'x'",
    "UPDATE yaoki_ledger_version SET content = NULL, version = 7"])
async def test_the_past_cannot_be_changed_by_accident(ledger: Ledger, change: str) -> None:
    await write(ledger, "a")
    with pytest.raises((sqlite3.IntegrityError, asyncpg.RaiseError), match="append-only"):
        async with ledger.store.transaction() as tx:
            await tx.execute(change.replace("'x'", "CAST('x' AS bytea)") if "postgres" in ledger.name else change)


async def test_tampering_with_what_is_sealed_shows(ledger: Ledger) -> None:
    await write(ledger, "a", "b", "c")
    await ledger.seal()
    async with ledger.store.transaction() as tx:
        await tx.execute("DROP TRIGGER yaoki_ledger_keep ON yaoki_ledger_version" if "postgres" in ledger.name
                         else "DROP TRIGGER yaoki_ledger_no_update")
        await tx.execute("UPDATE yaoki_ledger_version SET commitment = ?1 WHERE key = 'b'", b"x" * 32)
        await tx.execute("UPDATE yaoki_ledger_epoch SET count = 77 WHERE part = ?1 AND epoch = 0", (partition_of("b", 3) + 1) % 3)
    faults = await ledger.verify()
    assert len(faults) == 2
    assert any("its record was changed" in fault for fault in faults)
    assert any("a row in it was changed" in fault for fault in faults)


async def test_only_the_holder_of_the_lease_seals(ledger: Ledger) -> None:
    held = await take(ledger.store, "seal/0", "one", lease_s=30)
    assert held is not None
    assert await take(ledger.store, "seal/0", "two") is None
    assert await take(ledger.store, "seal/0", "one") == held
    assert [epoch.part for epoch in await ledger.seal("two")] == [1, 2]
    await give_up(ledger.store, held)
    after = await take(ledger.store, "seal/0", "two")
    assert after is not None
    assert after.fence > held.fence
    with pytest.raises(FencedError, match="another worker took over"):
        await ledger.seal_part(0, held)
    assert (await ledger.seal_part(0, after)).epoch == 0


async def test_partitions_are_fixed_when_the_ledger_is_made(opened: Open) -> None:
    async with opened() as ledger:
        await write(ledger, "a")
    other = opened()
    other.partitions = 5
    async with other:
        assert other.partitions == 3


async def test_sketches_can_be_trimmed_and_the_chain_still_holds(ledger: Ledger) -> None:
    await write(ledger, "a", "b")
    await ledger.seal()
    await ledger.trim_sketches(await ledger.store.now() + 1)
    assert {epoch.sketch for part in range(3) for epoch in await ledger.epochs(part)} == {b""}
    assert await ledger.verify() == []


@pytest.mark.parametrize("key", ["", "a\0b", "__beat/0", 7])
async def test_a_key_that_cannot_be_one_is_refused(ledger: Ledger, key: Any) -> None:
    async with ledger.tx() as tx:
        with pytest.raises(InputError):
            await tx.append(key, 1)


def test_a_url_that_names_no_ledger_is_refused() -> None:
    with pytest.raises(ConfigError, match="mysql"):
        Ledger("mysql://db")
    with pytest.raises(ConfigError, match="partitions"):
        Ledger("sqlite://", partitions=0)


# ── the caller's own transaction ─────────────────────────────────────────────────────────────────────────────────────


async def test_appends_commit_and_roll_back_with_the_callers_sqlite_transaction(tmp_path: Path) -> None:
    async with Ledger(f"sqlite:///{tmp_path}/l.db") as ledger:
        with contextlib.closing(sqlite3.connect(tmp_path / "l.db")) as own:
            own.execute("CREATE TABLE points (key TEXT, n INT)")
            for commit in (False, True):
                own.execute("INSERT INTO points VALUES ('a', 1)")
                async with ledger.tx(own) as tx:
                    assert await tx.append("a", 1) == 1
                own.commit() if commit else own.rollback()
            assert own.execute("SELECT count(*) FROM points").fetchone() == (1,)
            async with ledger.tx(own) as tx:  # not in a transaction: one is begun and committed
                assert await tx.append("a", 2) == 2
        assert len(await ledger.history("a")) == 2
        with pytest.raises(UsageError, match="kept in SQLite"):
            async with ledger.tx(object()):
                pass


@pytest.mark.live
async def test_appends_commit_and_roll_back_with_the_callers_postgres_transaction(postgres: str) -> None:
    async with Ledger(postgres) as ledger:
        own = await asyncpg.connect(postgres)
        await own.execute("CREATE TABLE points (key TEXT, n INT)")
        for commit in (False, True):
            transaction = own.transaction()
            await transaction.start()
            await own.execute("INSERT INTO points VALUES ('a', 1)")
            async with ledger.tx(own) as tx:
                assert await tx.append("a", 1) == 1
            await (transaction.commit() if commit else transaction.rollback())
        assert await own.fetchval("SELECT count(*) FROM points") == 1
        await own.close()
        async with await psycopg.AsyncConnection.connect(postgres) as other:
            async with ledger.tx(other) as tx:
                assert await tx.append_many([("a", 2), ("b", 1)]) == [2, 1]
                with pytest.raises(VersionConflictError):
                    await tx.append("a", 3, expect=1)
            await other.rollback() if other.info.transaction_status else None
        assert len(await ledger.history("a")) == 2


async def test_cancelling_a_commit_leaves_no_transaction_behind(tmp_path: Path) -> None:
    async with Ledger(f"sqlite:///{tmp_path}/l.db") as ledger:
        async def write_one() -> None:
            async with ledger.tx() as tx:
                await tx.append("a", 1)

        for spins in range(8):  # wherever the cancellation falls
            task = asyncio.ensure_future(write_one())
            for _ in range(spins):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            before = len(await ledger.history("a"))
            await write_one()
            assert [each.version for each in await ledger.history("a")] == list(range(1, before + 2))


async def test_a_writer_waits_for_another_process_and_may_be_cancelled_meanwhile(tmp_path: Path) -> None:
    async with Ledger(f"sqlite:///{tmp_path}/l.db") as ledger:
        with contextlib.closing(sqlite3.connect(tmp_path / "l.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.ensure_future(write(ledger, "a"))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.sleep(0.05)
            other.execute("COMMIT")
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
        assert await write(ledger, "a") == [1]


# ── many writers ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.live
async def test_postgres_loses_nothing_and_keeps_the_order_of_keys_whatever_writers_do(postgres: str) -> None:
    """Writers that begin early and commit late, roll back, and touch keys others touched: the sealer runs beside them."""
    rng, done, committed = random.Random(5), False, 0
    keys = [f"k{n}" for n in range(12)]

    async def writer(ledger: Ledger) -> None:
        nonlocal committed
        for _ in range(25):
            with contextlib.suppress(RuntimeError):
                async with ledger.tx() as tx:
                    await tx.sql.fetch("SELECT pg_current_xact_id()::text")  # the transaction's id is drawn here
                    await runtime.sleep(rng.random() * 0.01)
                    first, second = sorted(rng.sample(keys, 2))
                    await tx.append(first, 1)
                    await runtime.sleep(rng.random() * 0.005)
                    await tx.append(second, 2)
                    if rng.random() < 0.1:
                        raise RuntimeError("roll back")
                committed += 2

    async with Ledger(postgres, partitions=2) as ledger:
        async def sealing() -> None:
            while not done:
                await ledger.seal()
                await runtime.sleep(0.003)

        beside = asyncio.ensure_future(sealing())
        await asyncio.gather(*(writer(ledger) for _ in range(6)))
        done = True
        await beside
        await seal_at_last(ledger)
        found = await sealed(ledger)
        assert len(found) == len(set(found)) == committed
        newest: dict[str, int] = {}
        for key, version in found:
            assert version == newest.get(key, 0) + 1, "order of a key was broken"
            newest[key] = version
        assert dict(await ledger.keys()) == newest
        assert await ledger.verify() == []


@pytest.mark.live
async def test_a_transaction_that_holds_sealing_back_is_named(postgres: str) -> None:
    async with Ledger(postgres, partitions=1) as ledger:
        other = await asyncpg.connect(postgres)
        transaction = other.transaction()
        await transaction.start()
        await other.execute("CREATE TABLE unrelated (n INT)")
        await write(ledger, "a")
        epochs: list[Epoch] = await ledger.seal()
        assert [epoch.rows for epoch in epochs] == [0]
        seconds, holder = await ledger.store.held()
        assert seconds > 0
        assert "CREATE TABLE unrelated" in holder
        await transaction.rollback()
        assert [epoch.rows for epoch in await seal_at_last(ledger)] == [1]
        assert await ledger.store.held() == (0.0, "")
        await other.close()


@pytest.mark.live
async def test_a_process_that_waits_hears_at_once_that_another_has_sealed(postgres: str) -> None:
    async with Ledger(postgres, partitions=1) as here, Ledger(postgres) as there:
        heard = there.store.heard
        await there.store.wait(heard, 5.0)  # it listens now
        heard = there.store.heard
        waiting = asyncio.ensure_future(there.store.wait(heard, 60.0))
        await asyncio.sleep(0.05)
        await here.seal()  # nothing in it: nobody is woken
        assert not waiting.done()
        await write(here, "a")
        await here.seal()
        await asyncio.wait_for(waiting, 30)
        async with here.store.transaction() as tx:  # the listener's connection is lost: waiting ends with its time, and it comes back
            await tx.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND pid <> pg_backend_pid()")
        await there.store.wait(there.store.heard, 0.05)
        await there.store.wait(there.store.heard, 30.0)
