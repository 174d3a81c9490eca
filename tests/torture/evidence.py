"""What is kept of a campaign that found something, for whoever has to find out why: rows of the journal, and where the workers' tasks stand."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import asyncpg

TABLES = {
    "left": "SELECT id FROM yaoki.run WHERE finished_at = 0 ORDER BY no",
    "visits": "SELECT * FROM public.visit ORDER BY at",
    "runs": "SELECT no, id, saga, state, fence, owner, claim, due_at, created_at, updated_at, finished_at, lane, reason FROM yaoki.run ORDER BY no",
    "records": "SELECT * FROM yaoki.record ORDER BY run, seq LIMIT 50000",
    "requests": "SELECT * FROM yaoki.request ORDER BY no",
    "workers": "SELECT * FROM yaoki.worker ORDER BY no",
    "lanes": "SELECT * FROM yaoki.lane ORDER BY no",
    "locks": "SELECT * FROM yaoki.lock ORDER BY key, no",
    "queues": "SELECT * FROM yaoki.queue",
    "places": "SELECT * FROM yaoki.place",
    "pauses": "SELECT * FROM yaoki.pause",
    "operations": "SELECT * FROM yaoki.operation ORDER BY no",
    "registers": "SELECT * FROM yaoki.register",
    "activity": "SELECT pid, application_name, state, wait_event_type, wait_event, xact_start::text, query_start::text, query "
                "FROM pg_stat_activity WHERE datname = current_database()",
    "waits": "SELECT pid, pg_blocking_pids(pid) AS by FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0",
}


async def keep(url: str, folder: Path) -> None:
    """Write `left.json`."""
    connection = await asyncpg.connect(url)
    try:
        found: dict[str, Any] = {"now": await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")}
        for name, statement in TABLES.items():
            found[name] = [dict(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()
    (folder / "left.json").write_text(json.dumps(found, indent=1, default=_shown))


async def tell_tasks(workers: Iterable[subprocess.Popen[bytes]]) -> None:
    """Have each worker say in its log where its tasks stand."""
    for process in workers:
        process.send_signal(signal.SIGUSR1)
    await asyncio.sleep(0.5)


def _shown(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
