"""A PostgreSQL table by a logical replication slot of our own: every committed change of it, in order, with its content.

For tables that keep only the newest version of each key: the slot sees each version as it is committed, so that one the
sink lost can be brought back. What was read is remembered first and only then released in the slot, so a crash loses
nothing. A slot that nobody reads holds the server's log for ever: drop it when the audit ends for good
(`SELECT pg_drop_replication_slot('NAME'); DROP PUBLICATION NAME`). Needs `wal_level = logical`, the REPLICATION right, and
to own the table (for its publication).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping

from yaoki import runtime
from yaoki.errors import AuditError, ConfigError
from yaoki.ledger.lint import Danger
from yaoki.ledger.records import check_version
from yaoki.ledger.sources.feeds import seen
from yaoki.ledger.sources.pgoutput import Decoder
from yaoki.ledger.sources.shadow import Seen
from yaoki.ledger.sources.tables import CONTENTS, PostgresReader

PAGE = 2000

PEEK = """SELECT lsn::text, data FROM pg_logical_slot_peek_binary_changes(
    (?1::text)::name, NULL, ?2, 'proto_version', '1', 'publication_names', ?1::text)"""


class SlotFeed:
    """Changes of `table` through the slot and publication `slot`, both made when missing."""

    heads = False
    vouches = False

    def __init__(self, reader: PostgresReader, name: str, table: str, *, slot: str, key: str, version: str) -> None:
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", slot):
            raise ConfigError(f"{slot!r} is not a name of a slot", do="use lower-case letters, digits and underscores")
        self._reader = reader
        self.name = f"{name}?slot={slot}"
        self._table = table if "." in table else f"public.{table}"
        self._slot = slot
        self._key = key
        self._version = version
        self._released = ""
        self._decoder = Decoder()

    async def open(self) -> None:
        """Find slot and publication, or make them. Raises `AuditError` where the server cannot."""
        columns = await self._reader.columns(self._table)
        for name in (self._key, self._version):
            if name not in columns:
                raise AuditError(f"{self._table} has no column {name}; it has {', '.join(columns) or 'none, for it is not there'}",
                                 do="name the table after #, and the columns that name a version: --key and --version")
        try:
            if not await self._reader.fetch("SELECT 1 FROM pg_publication WHERE pubname = ?1", self._slot):
                quoted = ".".join(f'"{part}"' for part in self._table.split("."))
                await self._reader.fetch(f"CREATE PUBLICATION {self._slot} FOR TABLE {quoted}")
            if not await self._reader.fetch("SELECT 1 FROM pg_replication_slots WHERE slot_name = ?1", self._slot):
                await self._reader.fetch("SELECT pg_create_logical_replication_slot(?1, 'pgoutput')", self._slot)
        except Exception as error:
            raise AuditError(f"the slot {self._slot} cannot be made: {error}",
                             do="set wal_level = logical and restart; give the role REPLICATION and the table") from error

    async def read(self, place: str) -> AsyncIterator[tuple[list[Seen], str]]:
        if place and place != self._released:
            await self.settle(place)  # remembered, but the process died before it was released
        while True:
            rows = await self._reader.fetch(PEEK, self._slot, PAGE)
            if not rows:
                return
            now = runtime.unix_time()
            changes = [self._decoder.row(message) for _, message in rows]
            yield [self._seen(columns, now) for table, columns in filter(None, changes) if table == self._table], rows[-1][0]

    def _seen(self, columns: Mapping[str, str | None], now: float) -> Seen:
        key, version = columns[self._key], columns[self._version]
        number = int(version) if version is not None and version.isdecimal() else version
        content = next((columns[name] for name in CONTENTS if name in columns), None)
        return seen(str(key), check_version(number, f"column {self._version} of {key!r} in {self._table}"), now,
                    as_bytes(content))

    async def settle(self, place: str) -> None:
        await self._reader.fetch("SELECT pg_replication_slot_advance(?1, (?2::text)::pg_lsn)", self._slot, place)
        self._released = place

    async def dangers(self) -> list[Danger]:
        # Between looks nobody reads our own slot: that is as it should be.
        return [each for each in await self._reader.dangers() if each[0] != f"slot_inactive:{self._slot}"]


def as_bytes(value: str | None) -> bytes | None:
    r"""A content as it is in the table: bytea comes as `\x...`."""
    if value is None:
        return None
    if re.fullmatch(r"\\x([0-9a-f]{2})*", value):
        return bytes.fromhex(value[2:])
    return value.encode()
