"""The statements behind `PostgresStore` and the outbox on PostgreSQL.

How a reader skips nothing and keeps keys in order although transactions commit in any order:

    each message gets   x   = the greater of its own transaction id and the latest id that had ended, taken after its
                              key was locked
                        pos = the next row number
    a reader reads      x < W, in the order of (x, pos),  W = the oldest transaction id still running

*Nothing is skipped*: own id <= x < W, so the writer has ended, and whoever comes later gets an x >= W.
*Keys stay in order*: a key is locked until its transaction ends. So what was published for it before has ended, and x is at
least its id and its x; where they are equal, pos is greater. Ordering by the own id alone does not give this: a
transaction can draw its id first and touch the key last (`tests/live/test_messages_outbox.py` shows both, and a naive
reader losing rows).

Under REPEATABLE READ "the latest that had ended" is as of the transaction's snapshot: what it cannot see comes after it.

The log is cut into segments, so that what is old goes by dropping a table: see `postgres_segments`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from yaoki.messages.envelope import Message, meta_of

VERSION = 1
CHANNEL = "yaoki_messages"
NOTIFY = f"SELECT pg_notify('{CHANNEL}', '')"
MANY = 32
"""From here on COPY is worth its second round trip: it writes a message for a third of what INSERT takes."""
LOCK = "SELECT pg_advisory_xact_lock(7230901, hashtext($1))"  # a number of ours, and the group

SCHEMA = """
CREATE UNLOGGED TABLE IF NOT EXISTS yaoki_key_locks (h bigint PRIMARY KEY);
CREATE SEQUENCE IF NOT EXISTS yaoki_messages_pos;
CREATE SEQUENCE IF NOT EXISTS yaoki_messages_segment MINVALUE 0 START 0;
CREATE TABLE IF NOT EXISTS yaoki_messages (
    x bigint NOT NULL, pos bigint NOT NULL DEFAULT nextval('yaoki_messages_pos'), segment integer NOT NULL, part smallint NOT NULL,
    id text COLLATE "C" NOT NULL, source text COLLATE "C" NOT NULL, type text NOT NULL, key text NOT NULL, version integer NOT NULL,
    time double precision NOT NULL, due double precision NOT NULL, data bytea NOT NULL, meta bytea NOT NULL,
    PRIMARY KEY (x, pos, segment), UNIQUE (id, source, segment)) PARTITION BY LIST (segment);
CREATE TABLE IF NOT EXISTS yaoki_segments (
    segment integer PRIMARY KEY, began timestamptz NOT NULL DEFAULT now(), first_pos bigint NOT NULL, ended timestamptz, until_x bigint);
CREATE TABLE IF NOT EXISTS yaoki_groups (
    grp text PRIMARY KEY, types text[] NOT NULL, since_x bigint NOT NULL, since_pos bigint NOT NULL,
    declared timestamptz NOT NULL);
CREATE TABLE IF NOT EXISTS yaoki_members (
    grp text, worker text, lease_until timestamptz NOT NULL, under_way integer NOT NULL, PRIMARY KEY (grp, worker));
CREATE TABLE IF NOT EXISTS yaoki_cursors (
    grp text, part smallint, x bigint NOT NULL, pos bigint NOT NULL, owner text NOT NULL, lease_until timestamptz NOT NULL,
    fence bigint NOT NULL, crashes integer NOT NULL DEFAULT 0, PRIMARY KEY (grp, part)) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0);
CREATE TABLE IF NOT EXISTS yaoki_held (
    grp text, part smallint, pos bigint, x bigint NOT NULL, key text NOT NULL, state text NOT NULL, attempts integer NOT NULL,
    due double precision NOT NULL, error text NOT NULL, first_at double precision NOT NULL, history bytea NOT NULL,
    replays integer NOT NULL, data bytea, PRIMARY KEY (grp, part, pos));
CREATE INDEX IF NOT EXISTS yaoki_held_due ON yaoki_held (grp, state, due);
CREATE INDEX IF NOT EXISTS yaoki_held_key ON yaoki_held (grp, part, key, x, pos);
CREATE TABLE IF NOT EXISTS yaoki_inbox (
    reader text, source text, id text, at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (reader, source, id));
CREATE INDEX IF NOT EXISTS yaoki_inbox_at ON yaoki_inbox (reader, at);
CREATE TABLE IF NOT EXISTS yaoki_messages_version (version integer NOT NULL);
"""

# Two of these are functions because inside one each statement sees what has been committed up to then (READ COMMITTED): the x of a
# message must be drawn after the wait for its key. Keys are locked by a hash, in one order, so that two publishers of the
# same keys cannot wait for each other. ON CONFLICT locks also the row that it then does not update.
# The table is locked as any INSERT locks it, but before x and the segment are drawn: then a segment that was closed has no
# writer left. What older segments know is looked up row by row: as a join the planner may prefer to read them whole.
# The third walks along the index whatever the statistics say: without fresh ones the planner would rather sort all that is
# left of the log for each page (measured: 28 against 4 us of the server for each message). Its first row, without a pos,
# says how far the log is complete.
_PLACE = """
    LOCK TABLE ONLY yaoki_messages IN ROW EXCLUSIVE MODE;
    INSERT INTO yaoki_key_locks AS l (h) SELECT DISTINCT hashtextextended(k, 0) FROM unnest(keys) AS t (k) WHERE k <> '' ORDER BY 1
    ON CONFLICT (h) DO UPDATE SET h = excluded.h WHERE false;
    SELECT greatest(pg_current_xact_id()::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1), s.last_value,
        (SELECT min(g.segment) FROM yaoki_segments g) INTO at_x, current, first FROM yaoki_messages_segment s;
"""
FUNCTIONS = f"""
CREATE OR REPLACE FUNCTION yaoki_lock_keys(keys text[], OUT at_x bigint, OUT current integer, OUT first integer) LANGUAGE plpgsql AS $$
BEGIN
    {_PLACE}
END $$;
CREATE OR REPLACE FUNCTION yaoki_append(
    parts smallint[], ids text[], sources text[], types text[], keys text[], versions integer[], times double precision[],
    dues double precision[], datas bytea[], metas bytea[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    at_x bigint;
    current integer;
    first integer;
BEGIN
    {_PLACE}
    IF first = current THEN
        INSERT INTO yaoki_messages (x, segment, part, id, source, type, key, version, time, due, data, meta)
        SELECT at_x, current, t.* FROM unnest(parts, ids, sources, types, keys, versions, times, dues, datas, metas) AS t
        ON CONFLICT DO NOTHING;
    ELSE
        INSERT INTO yaoki_messages (x, segment, part, id, source, type, key, version, time, due, data, meta)
        SELECT at_x, current, t.*
        FROM unnest(parts, ids, sources, types, keys, versions, times, dues, datas, metas) AS t (part, id, source)
        WHERE 0 = (SELECT count(*) FROM (SELECT FROM yaoki_messages m WHERE m.id = t.id AND m.source = t.source
                                         AND m.segment < current LIMIT 1) known)
        ON CONFLICT DO NOTHING;
    END IF;
END $$;
CREATE OR REPLACE FUNCTION yaoki_read(
    after_x bigint, after_pos bigint, in_parts smallint[], of_types text[], most integer) RETURNS SETOF yaoki_messages
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
DECLARE
    w bigint := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
    first integer := (SELECT min(s.segment) FROM yaoki_segments s WHERE s.until_x IS NULL OR s.until_x >= after_x);
    complete yaoki_messages;
BEGIN
    complete.x := w;
    RETURN NEXT complete;
    RETURN QUERY SELECT * FROM yaoki_messages m
        WHERE m.segment >= first AND (m.x, m.pos) > (after_x, after_pos) AND m.x < w AND (in_parts IS NULL OR m.part = ANY (in_parts))
        AND (of_types IS NULL OR m.type = ANY (of_types)) ORDER BY m.x, m.pos LIMIT most;
END $$;
"""  # noqa: S608 (ours)
APPEND = """SELECT yaoki_append($1::smallint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::integer[],
    $7::double precision[], $8::double precision[], $9::bytea[], $10::bytea[])"""
LOCK_KEYS = "SELECT * FROM yaoki_lock_keys($1::text[])"
KNOWN = """
SELECT EXISTS (SELECT FROM unnest($1::text[], $2::text[]) AS t (id, source) WHERE 0 < (
    SELECT count(*) FROM (SELECT FROM yaoki_messages m WHERE m.id = t.id AND m.source = t.source LIMIT 1) known))"""
COPIED = ("part", "id", "source", "type", "key", "version", "time", "due", "data", "meta", "x", "segment")
W = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
"""The oldest transaction id still running: what lies below is complete."""

COLUMNS = "m.x, m.pos, m.part, m.id, m.source, m.type, m.key, m.version, m.time, m.due, m.data, m.meta"
HELD = """h.part, h.x AS h_x, h.pos AS h_pos, h.key, h.state, h.attempts, h.due, h.error, h.first_at, h.history,
          h.replays, h.data"""

READ = "SELECT x, pos, part, id, source, type, key, version, time, due, data, meta FROM yaoki_read($1, $2, $3, $4, $5)"

# One statement: all fences stand, and all cursors move; or no row comes back and nothing was written.
SETTLE = """
WITH want AS (SELECT * FROM unnest($2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[]) AS t (part, fence, x, pos)),
standing AS (
    SELECT c.part FROM yaoki_cursors c JOIN want ON want.part = c.part AND want.fence = c.fence
    WHERE c.grp = $1 ORDER BY c.part FOR UPDATE OF c)
UPDATE yaoki_cursors c SET
    x = CASE WHEN (want.x, want.pos) > (c.x, c.pos) THEN want.x ELSE c.x END,
    pos = CASE WHEN (want.x, want.pos) > (c.x, c.pos) THEN want.pos ELSE c.pos END,
    crashes = CASE WHEN (want.x, want.pos) > (c.x, c.pos) THEN 0 ELSE c.crashes END
FROM want WHERE c.grp = $1 AND c.part = want.part AND (SELECT count(*) FROM standing) = (SELECT count(*) FROM want)
RETURNING c.part
"""

HOLD = """
INSERT INTO yaoki_held (grp, part, pos, x, key, state, attempts, due, error, first_at, history, replays, data)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (grp, part, pos) DO UPDATE SET state = excluded.state, attempts = excluded.attempts, due = excluded.due,
    error = excluded.error, first_at = excluded.first_at, history = excluded.history, replays = excluded.replays,
    data = excluded.data
"""

DROP = """
WITH gone AS (DELETE FROM yaoki_held WHERE grp = $1 AND part = $2 AND pos = $3 RETURNING key)
UPDATE yaoki_held SET state = 'retry', due = $4 WHERE grp = $1 AND part = $2 AND state = 'behind' AND pos = (
    SELECT h.pos FROM yaoki_held h, gone WHERE h.grp = $1 AND h.part = $2 AND h.key = gone.key AND gone.key <> ''
    AND h.pos <> $3 AND h.state IN ('retry', 'quarantined', 'behind') ORDER BY h.x, h.pos LIMIT 1)
"""

HELD_BEYOND = """
SELECT h.part, h.x, h.pos FROM yaoki_held h
JOIN unnest($2::smallint[], $3::bigint[], $4::bigint[]) AS a (part, x, pos)
ON h.part = a.part AND (h.x, h.pos) > (a.x, a.pos) WHERE h.grp = $1
"""

DUE = f"""
WITH heads AS (SELECT part, pos, x, key, state FROM yaoki_held WHERE grp = $1 AND state IN ('retry', 'scheduled')
               AND due <= $3 AND part = ANY ($2::smallint[]) ORDER BY x, pos LIMIT $4)
SELECT {HELD}, {COLUMNS} FROM yaoki_held h JOIN yaoki_messages m ON m.x = h.x AND m.pos = h.pos
WHERE h.grp = $1 AND h.part = ANY ($2::smallint[]) AND (
    EXISTS (SELECT 1 FROM heads WHERE heads.part = h.part AND heads.pos = h.pos)
    OR h.state = 'behind' AND EXISTS (SELECT 1 FROM heads WHERE heads.part = h.part AND heads.key = h.key
                                      AND heads.state = 'retry' AND (heads.x, heads.pos) < (h.x, h.pos)))
ORDER BY h.x, h.pos LIMIT $4
"""  # noqa: S608 (only our own column lists)

BLOCKED = """
SELECT part, key, count(*) FILTER (WHERE state <> 'behind') AS heads FROM yaoki_held
WHERE grp = $1 AND key <> '' AND part = ANY ($2::smallint[]) AND state IN ('retry', 'quarantined', 'behind')
GROUP BY part, key
"""

WAKE_ORPHANS = """
UPDATE yaoki_held h SET state = 'retry', due = 0 WHERE grp = $1 AND state = 'behind' AND part = ANY ($2::smallint[])
AND NOT EXISTS (SELECT 1 FROM yaoki_held o WHERE o.grp = h.grp AND o.part = h.part AND o.key = h.key
                AND (o.x, o.pos) < (h.x, h.pos) AND o.state IN ('retry', 'quarantined', 'behind'))
"""

HELD_ROWS = f"""
SELECT h.grp, {HELD}, {COLUMNS} FROM yaoki_held h JOIN yaoki_messages m ON m.x = h.x AND m.pos = h.pos
WHERE ($1::text IS NULL OR h.grp = $1) AND ($2::text IS NULL OR h.key = $2) AND h.state = ANY ($3::text[])
ORDER BY h.x, h.pos, h.grp LIMIT $4
"""  # noqa: S608 (only our own column lists)

STARTING_WITH = f"""
SELECT {COLUMNS} FROM yaoki_messages m WHERE m.id >= $1 AND m.id < $2 ORDER BY m.x, m.pos LIMIT $3
"""  # noqa: S608 (only our own column lists)

DECLARE = f"""
INSERT INTO yaoki_groups (grp, types, since_x, since_pos, declared)
VALUES ($1, $2, CASE WHEN $3 THEN {W} ELSE 0 END, CASE WHEN $3 THEN
        coalesce(pg_sequence_last_value(pg_get_serial_sequence('yaoki_messages', 'pos')), 0) ELSE 0 END, clock_timestamp())
ON CONFLICT (grp) DO UPDATE SET types = excluded.types, declared = excluded.declared
"""  # noqa: S608 (ours)

OWNED = """
SELECT part, owner, extract(epoch FROM lease_until - clock_timestamp())::float8 AS left_s FROM yaoki_cursors
WHERE grp = $1 ORDER BY part FOR UPDATE
"""
TAKE = """
INSERT INTO yaoki_cursors (grp, part, x, pos, owner, lease_until, fence)
SELECT g.grp, t.part, g.since_x, g.since_pos, $2, clock_timestamp() + make_interval(secs => $4), 1
FROM yaoki_groups g, unnest($3::smallint[]) AS t (part) WHERE g.grp = $1
ON CONFLICT (grp, part) DO UPDATE SET owner = excluded.owner, lease_until = excluded.lease_until,
    fence = yaoki_cursors.fence + 1, crashes = yaoki_cursors.crashes + (yaoki_cursors.owner <> '')::integer
"""
RENEW = "UPDATE yaoki_cursors SET lease_until = clock_timestamp() + make_interval(secs => $3) WHERE grp = $1 AND owner = $2"
FORGET_DONE = """
DELETE FROM yaoki_held h USING yaoki_cursors c
WHERE h.grp = $1 AND h.state = 'done' AND c.grp = h.grp AND c.part = h.part AND (h.x, h.pos) <= (c.x, c.pos)
"""
MINE = "SELECT part, x, pos, fence, crashes FROM yaoki_cursors WHERE grp = $1 AND owner = $2"
JOIN = """
INSERT INTO yaoki_members VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3), $4)
ON CONFLICT (grp, worker) DO UPDATE SET lease_until = excluded.lease_until, under_way = excluded.under_way
"""

LAG = """
SELECT g.grp,
    count(m.pos) AS waiting, coalesce(min(m.time), 0) AS oldest,
    (SELECT count(DISTINCT key) FROM yaoki_held h WHERE h.grp = g.grp AND h.state = 'quarantined') AS keys_blocked,
    (SELECT count(*) FROM yaoki_members s WHERE s.grp = g.grp AND s.lease_until >= clock_timestamp()) AS workers,
    (SELECT coalesce(sum(under_way), 0) FROM yaoki_members s WHERE s.grp = g.grp AND s.lease_until >= clock_timestamp()) AS under_way,
    (SELECT count(*) FROM yaoki_cursors c WHERE c.grp = g.grp AND c.owner <> '' AND c.lease_until >= clock_timestamp()) AS parts
FROM yaoki_groups g
LEFT JOIN LATERAL (
    SELECT m.pos, m.time FROM yaoki_messages m LEFT JOIN yaoki_cursors c ON c.grp = g.grp AND c.part = m.part
    WHERE (m.x, m.pos) > (coalesce(c.x, g.since_x), coalesce(c.pos, g.since_pos))
    AND (g.types = ARRAY['*'] OR m.type = ANY (g.types))) m ON true
WHERE $1::text IS NULL OR g.grp = $1 GROUP BY g.grp ORDER BY g.grp
"""
STATES = """
SELECT grp, state, count(*) AS n FROM yaoki_held WHERE ($1::text IS NULL OR grp = $1) AND state <> 'done'
GROUP BY grp, state
"""

HELD_BACK = f"SELECT {W} AS w, EXISTS (SELECT 1 FROM yaoki_messages WHERE x >= {W}) AS waiting"  # noqa: S608 (ours)
HOLDERS = """
SELECT holder FROM (
    SELECT 'process ' || pid || ' of ' || coalesce(datname, '?') || ' since ' || date_trunc('second', xact_start) || ': '
           || left(query, 120) AS holder, age(backend_xid) AS age
    FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
    UNION ALL
    SELECT 'prepared transaction ' || gid || ' of ' || database || ' since ' || date_trunc('second', prepared),
           age(transaction) FROM pg_prepared_xacts) h
ORDER BY age DESC LIMIT 1
"""


def columns_of(messages: Sequence[Message]) -> tuple[list[Any], ...]:
    """The arguments of `APPEND`."""
    return (
        [each.part for each in messages], [each.id for each in messages], [each.source for each in messages],
        [each.type for each in messages], [each.key for each in messages], [each.version for each in messages],
        [each.time for each in messages], [each.due for each in messages], [each.data for each in messages],
        [meta_of(each) for each in messages])


def noting(statement: str, *, notify: bool) -> str:
    """`APPEND` or `LOCK_KEYS`, which also wakes the readers at commit if asked to."""
    return f"{statement}, pg_notify('{CHANNEL}', '')" if notify else statement


def rows_of(messages: Sequence[Message]) -> list[tuple[Any, ...]]:
    """Rows of `COPIED`, but for the x and the segment at their end."""
    return [(each.part, each.id, each.source, each.type, each.key, each.version, each.time, each.due, each.data, meta_of(each))
            for each in messages]


def append_for_psycopg(messages: Sequence[Message], *, notify: bool) -> tuple[str, tuple[Any, ...]]:
    """`append` with psycopg's placeholders, and its values."""
    statement = noting(APPEND, notify=notify)
    for number in range(10, 0, -1):
        statement = statement.replace(f"${number}", "%s")
    return statement, columns_of(messages)
