"""Steps that share the journal's transaction: their writes and their record are one, whatever breaks in between."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import yaoki
from cut_proxy import CutProxy
from servers import PostgresServer
from yaoki import DeclinedError, Saga
from yaoki.errors import DefinitionError, RunBlockedError, RunUndoneError
from yaoki.saga.journal.postgres.spares import AT_ONCE

pytestmark = pytest.mark.live


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


def money_saga(fails: list[Exception]) -> Saga[int]:
    """Two transfers side by side, then a receipt: on PostgreSQL."""
    saga = Saga("money", input=int)

    @saga.step(tx=True)
    async def debit(n: int, tx: Any) -> int:
        await tx.execute("INSERT INTO ledger VALUES ('debit', $1)", n)
        if fails:
            raise fails.pop(0)
        return n

    @debit.undo
    async def give_back(n: int, debit: int | None) -> None: ...

    @saga.step(tx=True, undo=None)
    async def credit(n: int, tx: Any) -> int:
        await tx.execute("INSERT INTO ledger VALUES ('credit', $1)", n)
        return n

    @saga.step(undo=None)
    async def receipt(n: int, debit: int, credit: int) -> str:
        return f"{debit} and {credit}"

    return saga


async def booked(url: str) -> list[tuple[str, int]]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT what, n FROM ledger ORDER BY what, n")
    await connection.close()
    return [tuple(row) for row in rows]


async def with_table(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE ledger (what text, n int)")
    await connection.close()


async def test_what_a_step_writes_is_there_exactly_once_with_its_record(url: str):
    await with_table(url)
    saga = money_saga([])
    async with yaoki.open(url, sagas=[saga]) as app:
        runs = [await app.start(saga, n) for n in range(20)]
        assert [await run.result() for run in runs] == [f"{n} and {n}" for n in range(20)]
    assert await booked(url) == [("credit", n) for n in range(20)] + [("debit", n) for n in range(20)]


async def test_a_failed_attempt_is_rolled_back_and_a_refused_one_needs_no_undo(url: str):
    await with_table(url)
    saga = money_saga([ConnectionError("later"), ConnectionError("later")])
    async with yaoki.open(url, sagas=[saga]) as app:
        assert await (await app.start(saga, 1)).result() == "1 and 1"
    assert await booked(url) == [("credit", 1), ("debit", 1)]
    saga = money_saga([DeclinedError("no money")])
    async with yaoki.open(url, sagas=[saga]) as app:
        run = await app.start(saga, 2)
        with pytest.raises(RunUndoneError, match="no money"):
            await run.result()
        assert [record.kind.value for record in (await run.stored()).records if record.step == "debit"] == ["failed"]
    assert ("debit", 2) not in await booked(url)


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_commit_whose_answer_is_lost_is_read_back(postgres: PostgresServer, url: str, *, arrives: bool):
    await with_table(url)
    saga = money_saga([])
    async with CutProxy(postgres.port) as proxy:
        async with yaoki.open(url.replace(str(postgres.port), str(proxy.port)), sagas=[saga]) as app:
            if arrives:
                proxy.cut_answer_to(b"COMMIT")
            else:
                proxy.cut_answer_to(b"FOR SHARE")  # the transaction's last words before its record
            run = await app.start(saga, 7)
            assert await asyncio.wait_for(run.result(), 100) == "7 and 7"
        assert proxy.cuts == 1
    assert await booked(url) == [("credit", 7), ("debit", 7)]


async def test_steps_share_a_few_connections_and_nothing_that_one_has_set_reaches_the_next(url: str):
    saga = Saga("settings", input=int, brake=None)
    seen: list[tuple[int, str]] = []
    at_once = most = 0

    @saga.step(tx=True, undo=None)
    async def set_something(n: int, tx: Any) -> int:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        seen.append((await tx.fetchval("SELECT pg_backend_pid()"), await tx.fetchval("SHOW search_path")))
        await tx.execute("SET search_path TO nowhere")
        at_once -= 1
        return n

    async with yaoki.open(url, sagas=[saga]) as app:
        runs = [await app.start(saga, n) for n in range(60)]
        assert [await run.result() for run in runs] == list(range(60))
    assert {path for _, path in seen} == {'"$user", public'}
    assert most <= AT_ONCE
    assert len({pid for pid, _ in seen}) <= AT_ONCE, "the first ones were used again"


class OutOfStock(Exception):
    """What a careless step makes of every error."""


@pytest.mark.parametrize(("where", "wraps"), [("BEGIN", False), ("INSERT INTO ledger", False), ("SELECT 'checked'", True)])
async def test_a_connection_lost_inside_the_step_is_not_the_steps_failure_and_the_worker_goes_on(
    postgres: PostgresServer, url: str, *, where: str, wraps: bool,
):
    """Found by the torture: it took the worker down, alive enough to keep its lease, so that nobody got its runs."""
    await with_table(url)
    saga = Saga("till", input=int, brake=None)
    made: list[int] = []

    @saga.step(tx=True, undo=None)
    async def debit(n: int, tx: Any) -> int:
        made.append(n)
        try:
            await tx.execute("INSERT INTO ledger VALUES ('debit', $1)", n)
            await tx.execute("SELECT 'checked'")
        except Exception as error:
            if wraps:
                raise OutOfStock from error
            raise
        return n

    async with (CutProxy(postgres.port) as proxy,
                yaoki.open(url.replace(str(postgres.port), str(proxy.port)), sagas=[saga], grace=0.0) as app):
        await app.journal.peek()  # until it has looked, a claim is a transaction too, and would be the one that is cut
        proxy.cut_answer_to(where.encode())
        run = await app.start(saga, 1)
        assert await asyncio.wait_for(run.result(), 100) == 1
        assert proxy.cuts == 1
        assert [record.kind.value for record in (await run.stored()).records] == ["done"], "no failed attempt is told"
        assert await (await app.start(saga, 2)).result() == 2, "the worker is well"
        assert app.journal.incarnation == 1
    assert await booked(url) == [("debit", 1), ("debit", 2)]
    assert made == ([1, 2] if where == "BEGIN" else [1, 1, 2])


def test_a_transaction_that_is_not_taken_is_refused_when_it_is_defined():
    saga = Saga("money", input=int)
    with pytest.raises(DefinitionError, match="does not take it"):
        @saga.step(tx=True, undo=None)
        async def debit(n: int) -> None: ...


# ── SQLite ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def purse_saga(*, commits: bool = False) -> Saga[int]:
    saga = Saga("purse", input=int)

    @saga.step(tx=True, undo=None)
    def debit(n: int, tx: sqlite3.Connection) -> int:
        tx.execute("INSERT INTO ledger VALUES (?)", (n,))
        if commits:
            tx.execute("COMMIT")
        return n

    return saga


async def test_on_sqlite_too_and_beside_other_runs(tmp_path: Path):
    path = tmp_path / "purse.db"
    saga = purse_saga()
    async with yaoki.open(f"sqlite:///{path}", sagas=[saga]) as app:
        await app.journal._call(lambda c: c.execute("CREATE TABLE ledger (n int)"))
        runs = [await app.start(saga, n) for n in range(50)]
        assert [await run.result() for run in runs] == list(range(50))
    with sqlite3.connect(path) as db:
        assert sorted(n for (n,) in db.execute("SELECT n FROM ledger")) == list(range(50))
    db.close()


async def test_a_step_that_commits_by_itself_is_a_bug_and_is_told(tmp_path: Path):
    saga = purse_saga(commits=True)
    async with yaoki.open(f"sqlite:///{tmp_path / 'purse.db'}", sagas=[saga]) as app:
        await app.journal._call(lambda c: c.execute("CREATE TABLE ledger (n int)"))
        with pytest.raises(RunBlockedError):
            await (await app.start(saga, 1)).result()


KILLED = """
import asyncio, sqlite3, sys
sys.path[:0] = sys.argv[2].split(":")
import yaoki
from live.test_exactly_once import purse_saga
async def main():
    saga = purse_saga()
    async with yaoki.open(f"sqlite:///{sys.argv[1]}", sagas=[saga], concurrency=20) as app:
        await app.journal._call(lambda c: c.execute("CREATE TABLE IF NOT EXISTS ledger (n int)"))
        await app.start_many(saga, ((f"r{n}", n) for n in range(3000)))
        print("begun", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


def recorded(path: Path) -> int:
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return int(db.execute("SELECT count(*) FROM record").fetchone()[0])
    except sqlite3.OperationalError:  # at its very beginning
        return 0
    finally:
        db.close()


def test_kill_9_in_the_middle_doubles_and_loses_nothing(tmp_path: Path):
    path = tmp_path / "purse.db"
    for life in range(1, 4):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path), ":".join(sys.path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        until = time.monotonic() + 100
        while recorded(path) < 100 * life:  # of 3000, so it is in their midst
            assert time.monotonic() < until, "it does nothing"
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        db = sqlite3.connect(path)
        done = {n for (n,) in db.execute("SELECT CAST(substr(id, 2) AS integer) FROM run JOIN record ON run.no = record.run")}
        written = [n for (n,) in db.execute("SELECT n FROM ledger")]
        db.close()
        assert len(written) == len(set(written)), "nothing twice"
        assert set(written) == done, "what is written is recorded, and what is recorded is written"
    assert written
