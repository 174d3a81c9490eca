"""Registers of a journal in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from yaoki import runtime
from yaoki.saga.journal.registers import Register

T = TypeVar("T")


class MemoryRegisters:
    """A dictionary. `_beside` is where the simulated journal puts its faults."""

    _registers: dict[tuple[str, str], Register]

    async def _beside(self, what: str, write: Callable[[], T]) -> T:
        del what
        return write()

    async def registers(self, scope: str) -> dict[str, Register]:
        return {name: found for (of, name), found in sorted(self._registers.items()) if of == scope}

    async def write_register(self, scope: str, name: str, data: bytes, *, fence: int = 0) -> bool:
        def write() -> bool:
            known = self._registers.get((scope, name))
            if known is not None and known.fence > fence:
                return False
            self._registers[scope, name] = Register(data, runtime.unix_time(), fence)
            return True

        return await self._beside(f"register:{name}", write)

    async def swap_register(self, scope: str, name: str, old: bytes | None, new: bytes | None) -> bool:
        def write() -> bool:
            known = self._registers.get((scope, name))
            if (known.data if known is not None else None) != old:
                return False
            if new is None:
                self._registers.pop((scope, name), None)
            else:
                self._registers[scope, name] = Register(new, runtime.unix_time())
            return True

        return await self._beside(f"register:{name}", write)

    async def sweep_registers(self) -> None:
        """Who ends a run here drops them, or the whole journal is gone."""

    async def drop_registers(self, scope: str) -> None:
        for key in [key for key in self._registers if key[0] == scope]:
            del self._registers[key]
