"""What anybody may ask of the journal, its owners and those who only look on."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from yaoki.saga.journal.port import Query
from yaoki.saga.journal.postgres import statements as sql
from yaoki.saga.journal.postgres.link import Link
from yaoki.saga.journal.postgres.rows import KINDS, STATES, header_of, where
from yaoki.saga.records import Header, Record, RunState, Stored


class Reading:
    """For a journal with a `_side` link."""

    _side: Link

    async def read(self, run_id: str) -> Stored | None:
        for row in await self._side.fetch(sql.READ, run_id):
            return (await self._with_records([header_of(row)]))[0]
        for row in await self._side.fetch(sql.READ_PAST, run_id):
            records = [Record(KINDS[kind], step, base64.b64decode(data), at)
                       for kind, step, data, at in msgspec.json.decode(row["records"])]
            return Stored(header_of(row), records)
        return None

    async def headers(self, run_ids: Sequence[str]) -> list[Header]:
        """The headers of these runs; of those that exist."""
        return [header_of(row) for row in await self._side.fetch(sql.HEADERS, list(run_ids))]

    async def search(self, query: Query) -> list[Header]:
        condition, values = where(query)
        # Each side gives its newest, so that neither is read further than the page is long.
        newest = f"{condition} ORDER BY no DESC LIMIT {int(query.limit)}"
        statement = (f"SELECT * FROM ((SELECT {sql.HEADER} FROM yaoki.run {newest}) UNION ALL (SELECT {sql.HEADER} FROM yaoki.past {newest}))"
                     f" AS found ORDER BY no DESC LIMIT {int(query.limit)}")
        return [header_of(row) for row in await self._side.fetch(statement, *values)]

    async def counts(self, saga: str = "") -> dict[RunState, int]:
        return {STATES[state]: n for state, n in await self._side.fetch(sql.COUNTS, saga)}

    async def workers(self, dead_for_s: float = 3600.0) -> list[dict[str, Any]]:
        """Live workers, and those that ended in the last `dead_for_s` seconds."""
        return [dict(row) for row in await self._side.fetch(sql.WORKERS, dead_for_s)]

    async def _with_records(self, headers: list[Header]) -> list[Stored]:
        stored = {header.no: Stored(header, []) for header in headers}
        if stored:
            for no, kind, step, data, at in await self._side.fetch(sql.RECORDS, list(stored)):
                stored[no].records.append(Record(KINDS[kind], step, data, at))
        return list(stored.values())

    async def save_graph(self, graph_hash: str, saga: str, graph: bytes) -> None:
        await self._side.execute(sql.SAVE_GRAPH, graph_hash, saga, graph)

    async def load_graph(self, graph_hash: str) -> bytes | None:
        rows = await self._side.fetch("SELECT graph FROM yaoki.definition WHERE hash = $1", graph_hash)
        return rows[0][0] if rows else None

    async def graphs(self, sagas: Sequence[str]) -> list[tuple[str, bytes]]:
        rows = await self._side.fetch("SELECT hash, graph FROM yaoki.definition WHERE saga = ANY($1)", list(sagas))
        return [(row[0], row[1]) for row in rows]

    async def stranded(self) -> list[tuple[str, str, int]]:
        return [(row[0], row[1], row[2]) for row in await self._side.fetch(sql.STRANDED)]
