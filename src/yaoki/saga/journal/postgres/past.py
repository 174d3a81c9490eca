"""Ended runs: moved, history included, to the partition of the day on which they ended; retention drops whole days.

So the live tables stay small, whatever has happened in a year, and forgetting a day costs no more than forgetting a file.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import floor

from yaoki.saga.journal.postgres import statements as sql
from yaoki.saga.journal.postgres.link import Connection

DAY_S = 86_400

# Not `to_regclass`: see `schema._TABLES`.
_IS_THERE = "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'yaoki' AND c.relname = $1)"


def partition_of(day: int) -> str:
    """The name of the partition of a day, counted from 1970."""
    return f"past_{datetime.fromtimestamp(day * DAY_S, UTC):%Y%m%d}"


async def archive(connection: Connection, before: float, limit: int) -> int:
    """Move up to `limit` runs that ended before then. Returns how many. Any number of workers may do this at once."""
    oldest = await connection.fetchval(sql.OLDEST_ENDED, before)
    if oldest is None:
        return 0
    day = floor(oldest / DAY_S)
    async with connection.transaction():
        await connection.execute(sql.MOVED)  # first: whoever waits for it has no other lock yet
        await make_partition(connection, day)
        done: str = await connection.execute(sql.ARCHIVE, min(before, (day + 1.0) * DAY_S), limit)
    return int(done.rpartition(" ")[2])


async def make_partition(connection: Connection, day: int) -> None:
    name = partition_of(day)
    if not await connection.fetchval(_IS_THERE, name):
        # Two at once: the second waits here, and then finds it made.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('yaoki.past'))")
        if await connection.fetchval(_IS_THERE, name):
            return
        # Attached, for that lets others read and write `past` meanwhile: they may have done so in a long transaction of their own.
        await connection.execute(f"CREATE TABLE yaoki.{name} (LIKE yaoki.past INCLUDING ALL)")
        await connection.execute(f"ALTER TABLE yaoki.past ATTACH PARTITION yaoki.{name} "
                                 f"FOR VALUES FROM ({day * DAY_S}) TO ({(day + 1) * DAY_S})")


async def drop_days(connection: Connection, before: float) -> int:
    """Drop the partitions of days that ended before then. Returns how many runs they held."""
    last = partition_of(floor(before / DAY_S))
    names = [row[0] for row in await connection.fetch(sql.PARTITIONS) if row[0].startswith("past_") and row[0] < last]
    held = 0
    for name in names:
        held += await connection.fetchval(f"SELECT count(*) FROM yaoki.{name}")
        await connection.execute(sql.FORGET_ATTRIBUTES.format(name=name))
        await connection.execute(f"DROP TABLE yaoki.{name}")
    return held
