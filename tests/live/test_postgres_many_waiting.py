"""However many runs wait, taking a few is a short walk along an index; and a tenant with very many delays nobody."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import asyncpg
import pytest

from servers import PostgresServer
from yaoki.saga.journal.port import NewRun
from yaoki.saga.journal.postgres import PostgresJournal, statements
from yaoki.saga.journal.postgres.lanes import HEAD, PEEK, WINDOW
from yaoki.saga.journal.postgres.link import PLANS
from yaoki.saga.journal.queues import postgres as queues
from yaoki.saga.queue import Queue

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

FILL = """
INSERT INTO yaoki.run (id, saga, graph, state, input, created_at, updated_at, lane, due_at)
SELECT $1 || n, 'mail', 'h', 'running', '1', 1, 1, $2, $3 FROM generate_series(1, $4::int) AS n"""


async def filled(url: str, count: int) -> tuple[PostgresJournal, Any]:
    """A limited queue in which so many runs of one tenant are due, and as many sleep; and a connection that plans as ours do."""
    journal = PostgresJournal(url)
    await journal.open()
    await journal.declare([Queue("mail", concurrency=1000)])
    await journal.create(NewRun("seed", "mail", "h", b"1", keep=False, queue="mail", tenant="big"))
    connection = await asyncpg.connect(url, server_settings=PLANS, command_timeout=200)
    lane = await connection.fetchval("SELECT no FROM yaoki.lane")
    await connection.execute(FILL, "due-", lane, 1.0, count)
    await connection.execute(FILL, "asleep-", lane, 4e9, count)
    await connection.execute("ANALYZE yaoki.run")
    return journal, connection


async def rows_looked_at(connection: Any, statement: str, *values: Any) -> int:
    """The most rows that any node of the statement's plan has put out or thrown away; nothing is changed by it."""
    transaction = connection.transaction()
    await transaction.start()
    (plan,) = await connection.fetchrow("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, *values)
    await transaction.rollback()
    return _most(json.loads(plan)[0]["Plan"])


def _most(node: dict[str, Any]) -> int:
    here = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return max([here, *(_most(each) for each in node.get("Plans", []))])


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
async def test_a_claim_from_a_limited_queue_looks_at_what_it_takes_and_no_more(postgres: PostgresServer, count: int):
    journal, connection = await filled(postgres.new_database(), count)
    try:
        assert await rows_looked_at(connection, queues._TAKE, 1, 1, "mail", 10, ["h"], []) <= HEAD
        assert await rows_looked_at(connection, queues._LOCKED, ["h"], None, []) <= HEAD
        assert await rows_looked_at(connection, PEEK, ["h"], None) <= HEAD
    finally:
        await connection.close()
        await journal.close()


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("queue", ["mail", "default"])
async def test_ten_runs_are_not_delayed_by_another_tenants_million(postgres: PostgresServer, count: int, queue: str):
    url = postgres.new_database()
    journal, connection = await filled(url, count)
    if queue == "default":
        await journal.create(NewRun("plain", "mail", "h", b"1", keep=False, tenant="big"))
        lane = await connection.fetchval("SELECT no FROM yaoki.lane WHERE queue = 'default'")
        await connection.execute("UPDATE yaoki.run SET lane = $1", lane)
    try:
        for n in range(10):
            await journal.create(NewRun(f"small-{n}", "mail", "h", b"1", keep=False, queue=queue, tenant="small"))
        await journal.peek()
        found = [stored.header.id for stored in await journal.take(40)]
        assert len(found) == 30, "each gives its share; what is left over goes with the next look"
        assert sum(name.startswith("small") for name in found) == 10
    finally:
        await connection.close()
        await journal.close()


# ── many lanes: tenants, queues, priorities, definitions ─────────────────────────────────────────────────────────────

LANES = """
INSERT INTO yaoki.lane (saga, graph, queue, priority, tenant) SELECT 's', 'h', 'default', 5, 't' || n FROM generate_series(1, $1::int) AS n"""
ONE_EACH = """
INSERT INTO yaoki.run (id, saga, graph, state, input, created_at, updated_at, lane, due_at)
SELECT $1 || l.no, 's', 'h', 'running', '1', 1, 1, l.no, $2 FROM yaoki.lane l WHERE l.tenant LIKE 't%'"""


async def many_lanes(url: str, count: int) -> tuple[PostgresJournal, Any]:
    """So many tenants, each with a run that sleeps; and a connection that plans as ours do."""
    journal = PostgresJournal(url)
    await journal.open()
    connection = await asyncpg.connect(url, server_settings=PLANS, command_timeout=200)
    await connection.execute(LANES, count)
    await connection.execute(ONE_EACH, "asleep-", 4e9)
    await connection.execute("ANALYZE yaoki.run")
    await connection.execute("ANALYZE yaoki.lane")
    return journal, connection


async def test_lanes_without_anything_due_are_not_looked_at(postgres: PostgresServer):
    journal, connection = await many_lanes(postgres.new_database(), 3000)
    await journal.create(NewRun("due", "s", "h", b"1", keep=False, tenant="t7"))
    try:
        assert await rows_looked_at(connection, PEEK, ["h"], None) <= 10
        claim = (statements.CLAIM, journal.incarnation, journal._claim + 1, 10, ["h"], None, 8, [])
        assert await rows_looked_at(connection, *claim) <= 10
        assert await journal.peek() == (True, False)
        assert [stored.header.id for stored in await journal.take(10)] == ["due"]
        assert await journal.peek() == (False, False)
    finally:
        await connection.close()
        await journal.close()


async def test_behind_one_tenants_thousands_hundreds_of_others_have_their_turns(postgres: PostgresServer):
    # A window begins at a lane that is drawn: that forty of them leave one out comes about once in a million times.
    journal, connection = await many_lanes(postgres.new_database(), 5 * WINDOW // 2)
    big = await connection.fetchval("SELECT min(no) FROM yaoki.lane")
    await connection.execute(FILL, "big-", big, 1.0, 4000)
    await connection.execute(ONE_EACH, "small-", 2.0)
    try:
        left = {row["id"] for row in await connection.fetch("SELECT id FROM yaoki.run WHERE id LIKE 'small-%'")}
        assert await rows_looked_at(connection, PEEK, ["h"], None) <= 10 * WINDOW, "a bounded number of lanes, however many there are"
        for _ in range(39):  # those of the big one alone would be forty
            left -= {stored.header.id for stored in await journal.take(100)}
        assert {name for name in left if name != f"small-{big}"} == set()
    finally:
        await connection.close()
        await journal.close()


async def test_what_hides_behind_runs_that_nobody_may_take_is_found(postgres: PostgresServer):
    """The oldest that are due are of a paused saga, and there are more lanes than a look goes through."""
    journal, connection = await many_lanes(postgres.new_database(), 3 * WINDOW)
    await journal.create(NewRun("held", "paused", "h", b"1", keep=False))
    lane = await connection.fetchval("SELECT no FROM yaoki.lane WHERE saga = 'paused'")
    await connection.execute(FILL, "held-", lane, 1.0, 2 * HEAD)
    await journal.pause("saga", "paused", who="me", why="to see")
    last = await connection.fetchval("SELECT max(no) FROM yaoki.lane WHERE saga <> 'paused'")
    await connection.execute("UPDATE yaoki.run SET due_at = 2 WHERE lane = $1", last)
    try:
        assert (await journal.peek())[0]
        assert [stored.header.id for stored in await journal.take(10)] == [f"asleep-{last}"]
        journal._walk_at = inf
        assert not (await journal.peek())[0], "and all lanes are asked for a small share of the time only"
    finally:
        await connection.close()
        await journal.close()
