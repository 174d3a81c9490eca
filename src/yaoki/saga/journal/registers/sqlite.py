"""Registers of a journal in a SQLite file: one statement each, so that another process may write beside the owner."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from yaoki import runtime
from yaoki.saga.journal.registers import Register

T = TypeVar("T")

_WRITE = """
INSERT INTO register (scope, name, data, at, fence) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (scope, name) DO UPDATE SET data = excluded.data, at = excluded.at, fence = excluded.fence
WHERE excluded.fence >= register.fence"""


class SqliteRegisters:
    """For a journal that can `_call` something with its connection."""

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    async def registers(self, scope: str) -> dict[str, Register]:
        sql = "SELECT name, data, at, fence FROM register WHERE scope = ? ORDER BY name"
        return await self._call(lambda c: {name: Register(*rest) for name, *rest in c.execute(sql, (scope,))})

    async def write_register(self, scope: str, name: str, data: bytes, *, fence: int = 0) -> bool:
        values = (scope, name, data, runtime.unix_time(), fence)
        return await self._call(lambda c: c.execute(_WRITE, values).rowcount) > 0

    async def swap_register(self, scope: str, name: str, old: bytes | None, new: bytes | None) -> bool:
        now = runtime.unix_time()

        def work(connection: sqlite3.Connection) -> int:
            if old is None:
                if new is None:
                    return int(connection.execute("SELECT count(*) = 0 FROM register WHERE scope = ? AND name = ?", (scope, name)).fetchone()[0])
                sql = "INSERT INTO register (scope, name, data, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
                return connection.execute(sql, (scope, name, new, now)).rowcount
            if new is None:
                return connection.execute("DELETE FROM register WHERE scope = ? AND name = ? AND data = ?", (scope, name, old)).rowcount
            sql = "UPDATE register SET data = ?, at = ? WHERE scope = ? AND name = ? AND data = ?"
            return connection.execute(sql, (new, now, scope, name, old)).rowcount

        return await self._call(work) > 0

    async def drop_registers(self, scope: str) -> None:
        await self._call(lambda c: c.execute("DELETE FROM register WHERE scope = ?", (scope,)))

    async def sweep_registers(self) -> None:
        sql = ("DELETE FROM register WHERE scope LIKE 'run:%' AND NOT EXISTS"
               " (SELECT 1 FROM run WHERE run.id = substr(scope, 5) AND run.finished_at = 0)")
        await self._call(lambda c: c.execute(sql))
