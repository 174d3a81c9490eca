"""The log in PostgreSQL is cut into segments, so that what is old goes by dropping a table and not by deleting rows.

    current segment ──a quarter of what is kept old, and long──▶ closed ──old, and everybody has read it──▶ dropped

*Closing* waits, a moment at most, for a time without a transaction that has published: then every x of the segment is known to lie
below `until_x`, and no message can be written twice, into two segments. If there is none now, there is one later.
Readers begin with the first segment that reaches beyond their position, which soon is the current one; a message whose id was
given is looked for in the older ones, of which there are a few.

*Dropping*: what somebody still needs is carried over first, in its old place of the order: messages that are held, and the words
of choreographed runs for as long as a run may last. A log that never gets long is not cut: there rows are deleted.
"""

from __future__ import annotations

from typing import Any

import asyncpg

SEGMENT_ROWS = 100_000
"""Below this a segment is not worth a table: deleting so many rows takes a second."""
PIECES = 4
"""Segments in the time that is kept: a message may stay for a quarter of it longer."""
MOST_SEGMENTS = 12
"""With a reader that stands still they would come without end, and each costs a look-up for each message with an id of its own."""
CARRIED = 50_000
"""Rows that are carried over at most. With more of them in need, the segment stays."""
LOCK_TIMEOUT = "300ms"
"""Writers wait behind whoever waits for them to end: not for longer than this."""
KEY_LOCKS = 100_000
"""Rows of key locks that may lie about, 4 MB. Beyond that those that nobody holds go; the next message of a key makes it anew."""
LOCK_ROUNDS = 50
"""How often some of them go at each pruning; each time those who want them wait some tens of milliseconds at most."""

CURRENT = """SELECT s.segment, extract(epoch FROM clock_timestamp() - s.began)::float8 AS age_s, p.last_value - s.first_pos + 1 AS rows,
    (SELECT count(*) FROM yaoki_segments) AS segments
FROM yaoki_messages_segment c JOIN yaoki_segments s ON s.segment = c.last_value, yaoki_messages_pos p"""
# A segment that was entered by a transaction whose end got lost with its server.
ENTERED = """INSERT INTO yaoki_segments (segment, first_pos) SELECT c.last_value, p.last_value FROM yaoki_messages_segment c, yaoki_messages_pos p
ON CONFLICT DO NOTHING"""
CLOSE = """UPDATE yaoki_segments SET ended = clock_timestamp(), until_x = pg_snapshot_xmax(pg_current_snapshot())::text::bigint
WHERE ended IS NULL AND segment <= $1"""
OPEN = "INSERT INTO yaoki_segments (segment, first_pos) SELECT $1, last_value + 1 FROM yaoki_messages_pos"

OLD = """SELECT segment, until_x, lead(first_pos) OVER (ORDER BY segment) - first_pos AS rows, ended < to_timestamp($1) AS old
FROM yaoki_segments ORDER BY segment"""
# Groups without types only choose who reads a broker.
UNREAD = """SELECT EXISTS (
    SELECT FROM yaoki_groups g CROSS JOIN generate_series(0, 15) AS p (part)
    LEFT JOIN yaoki_cursors c ON c.grp = g.grp AND c.part = p.part
    WHERE g.types <> '{{}}' AND coalesce(c.x, g.since_x) <= $1 AND EXISTS (
        SELECT FROM yaoki_messages_{segment} m
        WHERE m.part = p.part AND (m.x, m.pos) > (coalesce(c.x, g.since_x), coalesce(c.pos, g.since_pos))))"""
# From what is held, which is little, to the log: OFFSET keeps the planner from doing it the other way round.
NEEDED = f"""SELECT m.x, m.pos FROM yaoki_held h
    CROSS JOIN LATERAL (SELECT m.x, m.pos FROM yaoki_messages_{{segment}} m WHERE m.x = h.x AND m.pos = h.pos OFFSET 0) m WHERE h.x <= $1
UNION SELECT m.x, m.pos FROM yaoki_messages_{{segment}} m WHERE $2 AND m.type LIKE 'saga.%' LIMIT {CARRIED + 1}"""  # noqa: S608 (ours)
CARRY = """UPDATE yaoki_messages m SET segment = (SELECT last_value FROM yaoki_messages_segment)
FROM unnest($2::bigint[], $3::bigint[]) AS n (x, pos) WHERE m.segment = $1 AND m.x = n.x AND m.pos = n.pos"""

FORGET_DEAD_READERS = """
DELETE FROM yaoki_groups g WHERE g.types[1] LIKE 'reply.%' AND g.declared < to_timestamp($1)
AND NOT EXISTS (SELECT 1 FROM yaoki_members s WHERE s.grp = g.grp AND s.lease_until >= clock_timestamp())
"""
PRUNE = """
DELETE FROM yaoki_messages WHERE ($4::integer IS NULL OR segment = $4) AND (x, pos) IN (
    SELECT m.x, m.pos FROM yaoki_messages m WHERE ($4::integer IS NULL OR m.segment = $4) AND m.time < $1
    AND m.x < pg_snapshot_xmin(pg_current_snapshot())::text::bigint AND ($3 OR m.type NOT LIKE 'saga.%')
    AND NOT EXISTS (SELECT 1 FROM yaoki_groups g LEFT JOIN yaoki_cursors c ON c.grp = g.grp AND c.part = m.part
                    WHERE g.types <> '{}' AND (coalesce(c.x, g.since_x), coalesce(c.pos, g.since_pos)) < (m.x, m.pos))
    AND NOT EXISTS (SELECT 1 FROM yaoki_held h WHERE h.part = m.part AND h.x = m.x AND h.pos = m.pos)
    ORDER BY m.x, m.pos LIMIT $2)
"""
# Whoever publishes for a key locks its row; what is locked is passed over, and whoever comes while it goes makes it anew.
FREE_KEY_LOCKS = f"""
DELETE FROM yaoki_key_locks WHERE ctid = ANY (ARRAY(
    SELECT l.ctid FROM yaoki_key_locks l WHERE (SELECT count(*) FROM (SELECT FROM yaoki_key_locks LIMIT {KEY_LOCKS + 1}) many) > {KEY_LOCKS}
    LIMIT $1 FOR UPDATE OF l SKIP LOCKED))
"""  # noqa: S608 (ours)


async def make_first(connection: Any) -> None:
    """The first segment, in the transaction that makes the tables."""
    await connection.execute("CREATE TABLE yaoki_messages_0 PARTITION OF yaoki_messages FOR VALUES IN (0)")
    await connection.execute("INSERT INTO yaoki_segments (segment, first_pos) VALUES (0, 1)")


async def prune(connection: Any, before: float, kept_s: float, limit: int, *, runs: bool, patient: bool) -> int:
    """Let go of messages published before then (seconds since 1970) that everybody has done, and of locks that nobody holds.

    patient: what lies in a long segment waits until that can be dropped whole; else its rows are deleted now.
    Returns how many messages went; of a segment that is dropped, about.
    """
    await connection.execute(FORGET_DEAD_READERS, before)
    for _ in range(LOCK_ROUNDS):
        if await connection.execute(FREE_KEY_LOCKS, limit) != f"DELETE {limit}":
            break
    await connection.execute(ENTERED)
    gone = await _drop_old(connection, before, runs=runs)
    current = await connection.fetchrow(CURRENT)
    long = current["rows"] >= SEGMENT_ROWS
    if long and current["age_s"] >= kept_s / PIECES and current["segments"] < MOST_SEGMENTS:
        await roll(connection, current["segment"])
    if not long or not patient:
        done: str = await connection.execute(PRUNE, before, limit, runs, current["segment"] if patient else None)
        gone += int(done.rsplit(maxsplit=1)[-1])
    return gone


async def roll(connection: Any, segment: int) -> bool:
    """Close this segment and enter the next. False: writers were under way all the time, or another process was faster."""
    await _make(connection, segment + 1)
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            await connection.execute("LOCK TABLE ONLY yaoki_messages IN SHARE ROW EXCLUSIVE MODE")  # readers go on
            if await connection.fetchval("SELECT last_value FROM yaoki_messages_segment") != segment:
                return False
            await connection.execute(CLOSE, segment)
            await connection.execute(OPEN, segment + 1)
            # Last, because a sequence is not rolled back. If only this much of the transaction lasts, see ENTERED.
            await connection.execute("SELECT setval('yaoki_messages_segment', $1)", segment + 1)
    except asyncpg.LockNotAvailableError:
        return False
    return True


async def _make(connection: Any, segment: int) -> None:
    """The table of a segment. Attached, because that lets others read and write meanwhile."""
    name = f"yaoki_messages_{segment}"
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(7230901, 1)")
        if await connection.fetchval("SELECT to_regclass($1)", name) is None:
            await connection.execute(f"CREATE TABLE {name} (LIKE yaoki_messages INCLUDING ALL)")
            await connection.execute(f"ALTER TABLE yaoki_messages ATTACH PARTITION {name} FOR VALUES IN ({segment})")


async def _drop_old(connection: Any, before: float, *, runs: bool) -> int:
    gone = 0
    for row in await connection.fetch(OLD, before):
        if row["old"] and await _drop(connection, row["segment"], row["until_x"], runs=runs):
            gone += row["rows"]
    return gone


async def _drop(connection: Any, segment: int, until_x: int, *, runs: bool) -> bool:
    """Drop one segment, if nobody has yet to read it."""
    try:
        async with connection.transaction():
            if await connection.fetchval(UNREAD.format(segment=segment), until_x):
                return False
            needed = await connection.fetch(NEEDED.format(segment=segment), until_x, not runs)
            if len(needed) > CARRIED:
                return False
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            if needed:
                await connection.execute(CARRY, segment, [row["x"] for row in needed], [row["pos"] for row in needed])
            await connection.execute("DELETE FROM yaoki_segments WHERE segment = $1", segment)
            await connection.execute(f"DROP TABLE yaoki_messages_{segment}")
    except (asyncpg.LockNotAvailableError, asyncpg.UndefinedTableError):
        return False  # writers were under way all the time, or another process was faster
    return True
