"""The queries behind `SqliteStore`: plain functions over the reading connection, called in its thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from yaoki.messages.envelope import PARTS, message_of
from yaoki.messages.store.port import Entry, GroupLag, Held, Page, Position

COLUMNS = "m.pos, m.part, m.id, m.source, m.type, m.key, m.version, m.time, m.due, m.data, m.meta"

_history = msgspec.json.Decoder(tuple[tuple[float, str], ...])


def data_version(connection: sqlite3.Connection) -> int:
    """Changes when another connection has committed."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def read(connection: sqlite3.Connection, types: Collection[str] | None, after: Mapping[int, Position], limit: int) -> Page:
    """Partitions that stand at the same place are read together, which soon is all of them."""
    if not after or min(after.values())[1] >= _end(connection):
        return Page([], {})  # whoever only looks, as most do, needs no snapshot
    together: dict[int, list[int]] = {}
    for part, (_, pos) in after.items():
        together.setdefault(pos, []).append(part)
    entries: list[Entry] = []
    read_to: dict[int, Position] = {}
    connection.execute("BEGIN")  # one snapshot for the end and the rows
    try:
        end = _end(connection)
        for pos, parts in sorted(together.items()):
            rows = _rows_after(connection, types, pos, parts, limit - len(entries))
            entries += rows
            reached = rows[-1].position if len(entries) >= limit else (0, max(end, pos))
            read_to.update(dict.fromkeys(parts, reached))
            if len(entries) >= limit:
                break
    finally:
        connection.execute("COMMIT")
    return Page(sorted(entries, key=_position), read_to, more=len(entries) >= limit)


def _end(connection: sqlite3.Connection) -> int:
    """Where the log ends."""
    return connection.execute("SELECT coalesce(max(pos), 0) FROM yaoki_messages").fetchone()[0]  # type: ignore[no-any-return]


def _position(entry: Entry) -> Position:
    return entry.position


def _rows_after(connection: sqlite3.Connection, types: Collection[str] | None, pos: int, parts: list[int],
                limit: int) -> list[Entry]:
    wanted = None if types is None else msgspec.json.encode(sorted(types)).decode()
    rows = connection.execute(
        f"""SELECT {COLUMNS} FROM yaoki_messages m
            WHERE m.pos > :pos AND (:all_parts OR m.part IN (SELECT value FROM json_each(:parts)))
            AND (:types IS NULL OR m.type IN (SELECT value FROM json_each(:types))) ORDER BY m.pos LIMIT :limit""",  # noqa: S608 (only our own column lists)
        {"pos": pos, "all_parts": len(parts) == PARTS, "parts": msgspec.json.encode(parts).decode(), "types": wanted,
         "limit": limit})
    return [entry_of(row) for row in rows]


def entry_of(row: tuple[Any, ...], *, attempts: int = 0, held: bool = False, data: bytes | None = None) -> Entry:
    pos, part, id_, source, type_, key, version, time, due, body, meta = row
    message = message_of(id_, source, type_, key, version, time, due, body if data is None else data, meta)
    return Entry((0, pos), part, message, attempts, held)


HELD = "h.part, h.pos, h.key, h.state, h.attempts, h.due, h.error, h.first_at, h.history, h.replays, h.data"


def _held_of(row: tuple[Any, ...]) -> Held:
    part, pos, key, state, attempts, due_at, error, first_at, history, replays, data = row
    return Held(part=part, position=(0, pos), key=key, state=state, attempts=attempts, due_at=due_at, error=error,
                first_at=first_at, history=_history.decode(history), replays=replays, data=data)


def _pair(row: tuple[Any, ...]) -> tuple[Entry, Held]:
    held_row = _held_of(row[:11])
    return entry_of(row[11:], attempts=held_row.attempts, held=True, data=held_row.data), held_row


def held_beyond(connection: sqlite3.Connection, group: str, after: Mapping[int, Position]) -> list[tuple[int, Position]]:
    rows = connection.execute(
        """SELECT h.part, h.pos FROM yaoki_held h JOIN json_each(?) a ON h.part = a.value ->> 0 AND h.pos > a.value ->> 1
           WHERE h.grp = ?""", (msgspec.json.encode([(part, pos) for part, (_, pos) in after.items()]).decode(), group))
    return [(part, (0, pos)) for part, pos in rows]


def is_done(connection: sqlite3.Connection, group: str, part: int, pos: int) -> bool:
    row = connection.execute("SELECT pos >= ? FROM yaoki_cursors WHERE grp = ? AND part = ?", (pos, group, part)).fetchone()
    return bool(row and row[0])


def due(connection: sqlite3.Connection, group: str, parts: Sequence[int], now: float, limit: int) -> list[tuple[Entry, Held]]:
    rows = connection.execute(
        f"""WITH heads AS (SELECT part, pos, key, state FROM yaoki_held WHERE grp = :grp
                           AND state IN ('retry', 'scheduled') AND due <= :now
                           AND part IN (SELECT value FROM json_each(:parts)) ORDER BY pos LIMIT :limit)
            SELECT {HELD}, {COLUMNS} FROM yaoki_held h JOIN yaoki_messages m ON m.pos = h.pos
            WHERE h.grp = :grp AND h.part IN (SELECT value FROM json_each(:parts)) AND (
                EXISTS (SELECT 1 FROM heads WHERE heads.part = h.part AND heads.pos = h.pos)
                OR h.state = 'behind' AND EXISTS (SELECT 1 FROM heads WHERE heads.part = h.part AND heads.key = h.key
                                                  AND heads.state = 'retry' AND heads.pos < h.pos))
            ORDER BY h.pos LIMIT :limit""",  # noqa: S608 (only our own column lists)
        {"grp": group, "now": now, "parts": msgspec.json.encode(parts).decode(), "limit": limit})
    return [_pair(row) for row in rows]


class Blocked(msgspec.Struct, frozen=True):
    """Keys that wait, by partition; `orphans`: some wait behind nothing, as after a purge by hand."""

    keys: dict[int, set[str]]
    orphans: bool


def blocked(connection: sqlite3.Connection, group: str, parts: Sequence[int]) -> Blocked:
    keys: dict[int, set[str]] = {}
    orphans = False
    for part, key, heads in connection.execute(
        """SELECT part, key, sum(state <> 'behind') FROM yaoki_held WHERE grp = ? AND key <> ''
           AND part IN (SELECT value FROM json_each(?)) AND state IN ('retry', 'quarantined', 'behind')
           GROUP BY part, key""", (group, msgspec.json.encode(parts).decode())):
        keys.setdefault(part, set()).add(key)
        orphans = orphans or not heads
    return Blocked(keys, orphans)


def held(connection: sqlite3.Connection, group: str | None, states: Sequence[str], key: str | None,
         limit: int) -> list[tuple[str, Entry, Held]]:
    rows = connection.execute(
        f"""SELECT h.grp, {HELD}, {COLUMNS} FROM yaoki_held h JOIN yaoki_messages m ON m.pos = h.pos
            WHERE (:grp IS NULL OR h.grp = :grp) AND (:key IS NULL OR h.key = :key)
            AND h.state IN (SELECT value FROM json_each(:states)) ORDER BY h.pos, h.grp LIMIT :limit""",  # noqa: S608 (only our own column lists)
        {"grp": group, "key": key, "states": msgspec.json.encode(states).decode(), "limit": limit})
    return [(row[0], *_pair(row[1:])) for row in rows]


def get(connection: sqlite3.Connection, message_id: str) -> list[Entry]:
    return starting_with(connection, message_id, 20)


def starting_with(connection: sqlite3.Connection, prefix: str, limit: int) -> list[Entry]:
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM yaoki_messages m WHERE m.id >= ? AND m.id < ? ORDER BY m.pos LIMIT ?",  # noqa: S608 (only our own column lists)
        (prefix, prefix + "\U0010ffff", limit))
    return [entry_of(row) for row in rows]


def lag(connection: sqlite3.Connection, group: str | None, now: float) -> list[GroupLag]:
    groups = connection.execute("SELECT grp, types, since FROM yaoki_groups WHERE ? IS NULL OR grp = ? ORDER BY grp",
                                (group, group)).fetchall()
    return [_lag_of(connection, name, types, since, now) for name, types, since in groups]


def _lag_of(connection: sqlite3.Connection, group: str, types: str, since: int, now: float) -> GroupLag:
    waiting, oldest = connection.execute(
        """SELECT count(*), min(m.time) FROM yaoki_messages m
           LEFT JOIN yaoki_cursors c ON c.grp = :grp AND c.part = m.part
           WHERE m.pos > coalesce(c.pos, :since) AND (:types = '["*"]' OR m.type IN (SELECT value FROM json_each(:types)))""",
        {"grp": group, "since": since, "types": types}).fetchone()
    states = dict(connection.execute("SELECT state, count(*) FROM yaoki_held WHERE grp = ? AND state <> 'done' GROUP BY state", (group,)))
    keys = connection.execute("SELECT count(DISTINCT key) FROM yaoki_held WHERE grp = ? AND state = 'quarantined'", (group,))
    workers = connection.execute("SELECT count(*), coalesce(sum(under_way), 0) FROM yaoki_members WHERE grp = ? AND lease_until >= ?", (group, now))
    parts = connection.execute("SELECT count(*) FROM yaoki_cursors WHERE grp = ? AND owner <> '' AND lease_until >= ?",
                               (group, now))
    alive, under_way = workers.fetchone()
    return GroupLag(group=group, waiting=waiting, oldest_s=max(0.0, now - oldest) if oldest else 0.0, states=states,
                    keys_blocked=keys.fetchone()[0], workers=alive, parts=parts.fetchone()[0],
                    under_way=under_way)
