"""What a look and a claim cost beside 10, 1 000, 10 000 and 100 000 lanes (tenants, queues, priorities, definitions), in one run.

    python benchmarks/sagas_postgres_lanes.py [--json] [--quick] [--save]

In each lane a run sleeps. *Idle*: nothing is due. *Few*: ten runs of ten tenants are. *Backlog*: thousands of one tenant are, so that the runs
that are due longest say nothing about the other lanes, and a claim goes through a bounded number of them. Pages that the statements touch
are counted besides the time, for they do not depend on the machine's load.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import asyncpg
from _report import Report, arguments
from sagas_postgres import planned

from servers import running_postgres
from yaoki.saga.journal.port import NewRun
from yaoki.saga.journal.postgres import PostgresJournal
from yaoki.saga.journal.postgres import statements as sql
from yaoki.saga.journal.postgres.lanes import PEEK
from yaoki.saga.journal.postgres.link import PLANS

TRIES = 15


async def measured(url: str, counts: tuple[int, ...]) -> list[dict[str, Any]]:
    journal = PostgresJournal(url)
    await journal.open()
    await journal.serve(["g"])
    connection = await asyncpg.connect(url, command_timeout=600, server_settings=PLANS)
    cells, there = [], 0
    for count in counts:
        await connection.execute("INSERT INTO yaoki.lane (saga, graph, queue, priority, tenant) SELECT 's', 'g', 'default', 5, 't' || n "
                                 "FROM generate_series($1::int, $2::int) AS n", there, count - 1)
        await connection.execute("INSERT INTO yaoki.run (id, saga, graph, state, input, created_at, updated_at, lane, due_at) "
                                 "SELECT 'asleep-' || l.no, 's', 'g', 'running', '1', 1, 1, l.no, 4e9 FROM yaoki.lane l ON CONFLICT DO NOTHING")
        await connection.execute("VACUUM (ANALYZE) yaoki.run")
        await connection.execute("VACUUM (ANALYZE) yaoki.lane")
        there = count
        cells.append({"lanes": count, "idle": await look(journal, connection), "few": await few(journal, connection, count),
                      "backlog": await backlog(journal, connection, count)})
    await connection.close()
    await journal.close()
    return cells


async def look(journal: PostgresJournal, connection: Any) -> dict[str, Any]:
    took = [await timed(journal.peek()) for _ in range(TRIES)]
    return {"look_ms": statistics.median(took), **await planned(connection, PEEK, ["g"], None)}


async def claim(journal: PostgresJournal, connection: Any, runs: int) -> dict[str, Any]:
    return await planned(connection, sql.CLAIM, journal.incarnation, journal._claim + 1, runs, ["g"], None, 8, journal._hints)


async def few(journal: PostgresJournal, connection: Any, count: int) -> dict[str, Any]:
    took = []
    for n in range(TRIES):
        await asyncio.gather(*(journal.create(NewRun(f"few-{count}-{n}-{i}", "s", "g", b"1", keep=False, tenant=f"t{i}")) for i in range(10)))
        if n == 0:
            plan = await claim(journal, connection, 10)
        began = time.perf_counter()
        found = await journal.take(10)
        took.append((time.perf_counter() - began) * 1000)
        assert len(found) == 10
    return {"claim_ms": statistics.median(took), **plan}


async def backlog(journal: PostgresJournal, connection: Any, count: int) -> dict[str, Any]:
    await asyncio.gather(*(journal.create(NewRun(f"many-{count}-{i}", "s", "g", b"1", keep=False, tenant="t1")) for i in range(3000)))
    took, looks = [], []
    plan = await claim(journal, connection, 100)
    for _ in range(TRIES):
        looks.append(await timed(journal.peek()))
        began = time.perf_counter()
        found = await journal.take(100)
        took.append((time.perf_counter() - began) * 1000)
        assert len(found) == 100
    await connection.execute("DELETE FROM yaoki.run WHERE id LIKE 'many-%'")
    await connection.execute("VACUUM yaoki.run")
    return {"claim_ms": statistics.median(took), "look_ms": statistics.median(looks), **plan}


async def timed(work: Any) -> float:
    began = time.perf_counter()
    await work
    return (time.perf_counter() - began) * 1000


def main() -> int:
    options = arguments(__doc__)
    report = Report("sagas_postgres_lanes", options)
    counts = (10, 1000, 10_000) if options.quick else (10, 1000, 10_000, 100_000)
    with tempfile.TemporaryDirectory(prefix="lanes-") as name, running_postgres(Path(name)) as server:
        cells = asyncio.run(measured(server.new_database(), counts))
        version = server.run_sql("SHOW server_version")
    for cell in cells:
        idle, due, much = cell["idle"], cell["few"], cell["backlog"]
        report.line(f"{cell['lanes']:>7} lanes   a look when idle {idle['look_ms']:.2f} ms, {idle['pages']} pages   a claim of ten {due['claim_ms']:.2f} ms, "
                    f"{due['pages']} pages   in a backlog: a look {much['look_ms']:.2f} ms, a claim of a hundred {much['claim_ms']:.2f} ms, {much['pages']} pages")
    few_lanes, thousand, most = cells[0], cells[1], cells[-1]
    beside = f"beside {most['lanes']} lanes, times"
    report.claim(f"pages of an idle look {beside} those beside 10", most["idle"]["pages"] / few_lanes["idle"]["pages"], at_most=2)
    report.claim(f"pages of a claim of ten {beside} those beside 10", most["few"]["pages"] / few_lanes["few"]["pages"], at_most=2)
    report.claim(f"pages of a claim in a backlog {beside} those beside 1000", most["backlog"]["pages"] / thousand["backlog"]["pages"], at_most=2)
    report.claim(f"ms of an idle look beside {most['lanes']} lanes", most["idle"]["look_ms"], at_most=5)
    report.line("\n".join(most["backlog"]["plan"]))
    return report.end({"server": version, "cells": cells})


if __name__ == "__main__":
    sys.exit(main())
