"""Who keeps a ledger goes on by itself after its server has crashed and come back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import asyncpg
import pytest

from servers import PostgresServer, running_postgres
from yaoki import events
from yaoki.ledger import Keeper, Ledger, Rules
from yaoki.ledger.sinks.memory import MemorySink

pytestmark = pytest.mark.live

RULES = Rules(slo_s=5, beat_every_s=0.2, seal_every_s=0.2, hold_s=0, audit_every_s=0.2, listing_s=1, clock_error_s=1)


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


async def test_a_keeper_goes_on_when_its_server_has_crashed_and_come_back(server: PostgresServer) -> None:
    sink = MemorySink()
    told: list[events.Event] = []
    async with Ledger(server.new_database(), partitions=2) as ledger:
        keeper = asyncio.create_task(Keeper(ledger, [sink], RULES).run())
        await _append(ledger, "before")
        await _until(lambda: ("before", 1) in sink.contents)
        with events.listen(told.append):
            await asyncio.to_thread(server.stop, "immediate")
            await _until(lambda: any(isinstance(each, events.KeeperStalled) for each in told))
            assert not keeper.done()
            await asyncio.to_thread(server.start)
        await _append(ledger, "after")
        await _until(lambda: ("after", 1) in sink.contents)
        keeper.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeper


async def _append(ledger: Ledger, key: str) -> None:
    """Until it is through: a connection that the crash has cut may still lie about."""
    async with asyncio.timeout(120):
        while True:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                async with ledger.tx() as tx:
                    await tx.append(key, {"n": 1})
                return
            await asyncio.sleep(0.05)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not holds():  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.05)
