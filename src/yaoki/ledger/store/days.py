"""The days into which a ledger in PostgreSQL is divided: made ahead, and dropped whole when all their rows may go.

Dropping a day takes milliseconds and leaves nothing to vacuum, where deleting its rows would take longer than writing them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg

from yaoki.ledger.epochs import Position

LOCK_TIMEOUT = "2s"
"""Dropping a day waits for those who use the table, and those who come meanwhile wait behind it: not for long."""

REST = "yaoki_ledger_version_rest"

DAYS = """SELECT c.oid::regclass::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'yaoki_ledger_version'::regclass AND c.relname <> $1 ORDER BY c.relname"""

# Is there a row that must stay? For each partition of numbers the newest row of the day is looked at, by its index.
MUST_STAY = """SELECT EXISTS (SELECT 1 FROM generate_series(0, (SELECT body::int - 1 FROM yaoki_ledger_note WHERE name = 'partitions')) part
    CROSS JOIN LATERAL (SELECT eff_xid, pos FROM {day} d WHERE d.part = part.part ORDER BY eff_xid DESC, pos DESC LIMIT 1) newest
    LEFT JOIN yaoki_ledger_pruned p ON p.part = part.part
    WHERE p.part IS NULL OR (newest.eff_xid, newest.pos) > (p.until_xid, p.until_pos))"""


async def prepare_days(pool: Any, days: int) -> None:
    """Make room for rows of today and the days after."""
    for ahead in range(days):
        day, following = await pool.fetchrow(
            "SELECT d::text, (d + 1)::text FROM (SELECT current_date + $1::int AS d) AS t", ahead)
        name = "yaoki_ledger_version_" + day.replace("-", "")
        if await pool.fetchval("SELECT to_regclass($1)", name) is None:
            await _make_day(pool, name, day, following)


async def _make_day(pool: Any, name: str, day: str, following: str) -> None:
    try:
        await pool.execute(f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF yaoki_ledger_version "
                           f"FOR VALUES FROM ('{day}') TO ('{following}')")
    except asyncpg.CheckViolationError:
        # Rows of that day are in the default partition already: they stay there, and the next days get their own.
        return


async def remove_days(pool: Any, until: Mapping[int, Position]) -> list[str]:
    """Drop each day of the past whose rows are all pruned, and delete pruned rows that are in no day of their own.

    Returns why a day could not be dropped now, as sentences.
    """
    left = []
    today = "yaoki_ledger_version_" + (await pool.fetchval("SELECT current_date::text")).replace("-", "")
    for (day,) in await pool.fetch(DAYS, REST):
        try:
            if day < today and not await pool.fetchval(MUST_STAY.format(day=day)):
                async with pool.acquire() as connection, connection.transaction():
                    await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                    await connection.execute(f"DROP TABLE {day}")
        except asyncpg.LockNotAvailableError:
            left.append(f"{day} is in use: it goes next time")
        except asyncpg.UndefinedTableError:
            continue  # another process was faster
    for part, position in until.items():
        await pool.execute(f"DELETE FROM {REST} WHERE part = $1 AND (eff_xid, pos) <= ($2, $3)", part, *position)  # noqa: S608
    return left
