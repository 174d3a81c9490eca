"""Registers of a journal on PostgreSQL."""

from __future__ import annotations

from yaoki.saga.journal.postgres.link import Link
from yaoki.saga.journal.postgres.statements import NOW
from yaoki.saga.journal.registers import Register

_READ = "SELECT name, data, at, fence FROM yaoki.register WHERE scope = $1 ORDER BY name"
_WRITE = f"""
INSERT INTO yaoki.register (scope, name, data, at, fence) VALUES ($1, $2, $3, {NOW}, $4)
ON CONFLICT (scope, name) DO UPDATE SET data = excluded.data, at = excluded.at, fence = excluded.fence
WHERE excluded.fence >= register.fence"""
_ADD = f"INSERT INTO yaoki.register (scope, name, data, at) VALUES ($1, $2, $3, {NOW}) ON CONFLICT DO NOTHING"
_CHANGE = f"UPDATE yaoki.register SET data = $4, at = {NOW} WHERE scope = $1 AND name = $2 AND data = $3"
_REMOVE = "DELETE FROM yaoki.register WHERE scope = $1 AND name = $2 AND data = $3"
_SWEEP = """
DELETE FROM yaoki.register WHERE scope LIKE 'run:%'
    AND NOT EXISTS (SELECT FROM yaoki.run WHERE run.id = substr(register.scope, 5) AND run.finished_at = 0)"""
_MISSES = "SELECT FROM yaoki.register WHERE scope = $1 AND name = $2"


class PostgresRegisters:
    """For a journal with a `_side` link."""

    _side: Link

    async def registers(self, scope: str) -> dict[str, Register]:
        return {row[0]: Register(row[1], row[2], row[3]) for row in await self._side.fetch(_READ, scope)}

    async def write_register(self, scope: str, name: str, data: bytes, *, fence: int = 0) -> bool:
        return _changed(await self._side.execute(_WRITE, scope, name, data, fence))

    async def swap_register(self, scope: str, name: str, old: bytes | None, new: bytes | None) -> bool:
        if old is None and new is None:
            return not await self._side.fetch(_MISSES, scope, name)
        if old is None:
            return _changed(await self._side.execute(_ADD, scope, name, new))
        if new is None:
            return _changed(await self._side.execute(_REMOVE, scope, name, old))
        return _changed(await self._side.execute(_CHANGE, scope, name, old, new))

    async def sweep_registers(self) -> None:
        await self._side.execute(_SWEEP)

    async def drop_registers(self, scope: str) -> None:
        await self._side.execute("DELETE FROM yaoki.register WHERE scope = $1", scope)


def _changed(tag: str) -> bool:
    return not tag.endswith(" 0")
