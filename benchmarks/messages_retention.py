"""Messages with millions behind them: what publishing, reading and forgetting cost then, on PostgreSQL.

Two databases on one server, one with a full log and one with none, worked on in turns within one run: the ratio of the server's and
this process's processor time says what lies behind costs. Then what is old is let go: a segment that is dropped, beside deleting as many
rows.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "benchmarks"))

import msgspec  # noqa: E402
from _report import Report, arguments  # noqa: E402

from servers import running_postgres  # noqa: E402
from yaoki.messages.compose import compose_all  # noqa: E402
from yaoki.messages.envelope import PARTS  # noqa: E402
from yaoki.messages.store import postgres_segments as segments  # noqa: E402
from yaoki.messages.store import postgres_write  # noqa: E402
from yaoki.messages.store.opening import open_store  # noqa: E402

BATCH = 500
FILL = """INSERT INTO yaoki_messages (x, segment, part, id, source, type, key, version, time, due, data, meta)
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, $3::integer, n % 16, 'id-' || lpad(n::text, 12, '0'), 'shop', 'Order', 'o' || n, 1,
       0, 0, convert_to('{"n":' || n || '}', 'UTF8'), '{}' FROM generate_series($1::bigint, $2::bigint) AS n"""


class Order(msgspec.Struct):
    n: int


async def fill(store: Any, count: int, pieces: int) -> float:
    """Write `count` messages in `pieces` closed segments, and have one reader done with them. Returns seconds."""
    began = time.perf_counter()
    async with store.pool.acquire() as connection:
        for piece in range(pieces):
            first = piece * (count // pieces)
            await connection.execute(FILL, first, first + count // pieces - 1, piece, timeout=3600)
            await segments.roll(connection, piece)
        await connection.execute("VACUUM ANALYZE yaoki_messages", timeout=3600)
    return time.perf_counter() - began


async def publish(store: Any, rounds: int, *, own_ids: bool) -> float:
    """Seconds for a batch, the median: with ids made for them, or with ids that may be known."""
    found = []
    for number in range(rounds):
        messages = compose_all([Order(n) for n in range(BATCH)], source="shop", key=lambda order: f"k{order.n}")
        if own_ids:
            messages = [msgspec.structs.replace(each, id=f"own-{time.time_ns()}-{number}-{n}") for n, each in enumerate(messages)]
        began = time.perf_counter()
        async with store.pool.acquire() as connection, connection.transaction():
            await (postgres_write.append if own_ids else postgres_write.append_new)(connection, messages)
        found.append(time.perf_counter() - began)
    return statistics.median(found)


async def read(store: Any, after: Any, rounds: int) -> float:
    """Seconds for a page of `BATCH` just written, the median."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        page = await store.read(["Order"], dict.fromkeys(range(PARTS), after), BATCH)
        found.append(time.perf_counter() - began)
        assert len(page.entries) == BATCH
    return statistics.median(found)


async def end(store: Any) -> Any:
    row = await store.pool.fetchrow("SELECT x, pos FROM yaoki_messages ORDER BY x DESC, pos DESC LIMIT 1")
    return (row["x"], row["pos"]) if row else (0, 0)


async def compare(full: Any, empty: Any, rounds: int) -> dict[str, list[float]]:
    """Ratios full / empty of each of the three, round by round."""
    ratios: dict[str, list[float]] = {"publish": [], "publish with own ids": [], "read": []}
    for _ in range(rounds):
        ends = [await end(each) for each in (full, empty)]
        for name, own in (("publish", False), ("publish with own ids", True)):
            ratios[name].append(await publish(full, 8, own_ids=own) / await publish(empty, 8, own_ids=own))
        pages = [await read(store, after, 20) for store, after in zip((full, empty), ends, strict=True)]
        ratios["read"].append(pages[0] / pages[1])
    return ratios


async def forget(store: Any, rows: int) -> tuple[float, float]:
    """Microseconds for each message: of a segment that is dropped, and of rows that are deleted from the next one."""
    async with store.pool.acquire() as connection:
        old = await connection.fetch(segments.OLD, time.time() + 10)
        began = time.perf_counter()
        assert await segments._drop(connection, old[0]["segment"], old[0]["until_x"], runs=True)
        dropped = (time.perf_counter() - began) / rows * 1e6
        began = time.perf_counter()
        some = min(rows, 50_000)
        done = await connection.execute(segments.PRUNE, time.time(), some, True, old[1]["segment"], timeout=600)
        assert done == f"DELETE {some}", done
        await connection.execute(f"VACUUM yaoki_messages_{old[1]['segment']}", timeout=600)
        return dropped, (time.perf_counter() - began) / some * 1e6


async def measure(server: Any, report: Report, count: int, pieces: int, rounds: int) -> dict[str, Any]:
    full, empty = [await open_store(server.new_database()) for _ in range(2)]
    try:
        filled_s = await fill(full, count, pieces)
        report.line(f"{count:,} messages in {pieces} segments, written in {filled_s:.0f} s")
        await publish(full, 4, own_ids=True), await publish(empty, 4, own_ids=True)
        ratios = await compare(full, empty, rounds)
        dropped_us, deleted_us = await forget(full, count // pieces)
    finally:
        await full.close()
        await empty.close()
    for name, found in ratios.items():
        bar = 1.5 if name != "publish with own ids" else 2.5  # these are looked for in each segment
        report.claim(f"{name}, {count:,} behind / none behind", statistics.median(found), at_most=bar)
    report.claim("microseconds for a message that goes with its segment", dropped_us, at_most=1.0)
    report.claim("deleting a row / dropping it with its segment", deleted_us / dropped_us, at_least=10)
    return {"messages": count, "segments": pieces, "ratios": ratios, "dropped_us": dropped_us, "deleted_us": deleted_us}


def main() -> int:
    options = arguments(__doc__)
    report = Report("messages_retention", options)
    with tempfile.TemporaryDirectory(), running_postgres(settings="-c max_wal_size=4GB") as server:
        count, pieces, rounds = (400_000, 4, 3) if options.quick else (10_000_000, 5, 7)
        raw = asyncio.run(measure(server, report, count, pieces, rounds))
    return report.end(raw)


if __name__ == "__main__":
    sys.exit(main())
