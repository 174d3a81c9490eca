"""What a saga costs on SQLite: beside DBOS, and beside what the disk and SQLite themselves allow, in one run.

    python benchmarks/sagas.py [--json] [--quick]

The same saga of four steps that do nothing, and one that fails at its fourth step and is undone, at 1, 16 and 256 runs in
flight. Equal durability: every record is fsynced before the next step begins (SQLite synchronous=FULL on both sides).
The raw limit is SQLite itself: the same rows, with the same keys, 256 runs' worth to a commit.

DBOS runs in an environment of its own (`.yaoki/bench-dbos`, made on the first run from `requirements/bench-dbos.lock`).
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _report import ROOT, Report, arguments, peers_python

STEPS = 4
IN_FLIGHT = (1, 16, 256)


# ── ours ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def our_saga(*, fails: bool) -> Any:
    import msgspec

    from yaoki import DeclinedError, Saga

    class Trip(msgspec.Struct):
        n: int

    saga = Saga("fails" if fails else "done", input=Trip, brake=None)

    @saga.step
    async def a(trip: Trip) -> int:
        return trip.n

    @saga.step
    async def b(trip: Trip, a: int) -> int:
        return a

    @saga.step
    async def c(trip: Trip, b: int) -> int:
        return b

    @saga.step
    async def d(trip: Trip, c: int) -> int:
        if fails:
            raise DeclinedError("no")
        return c

    for step in (a, b, c, d):
        @step.undo
        async def undo(trip: Trip) -> None: ...

    return saga


async def ours(folder: Path, in_flight: int, runs: int, *, fails: bool) -> dict[str, float]:
    import yaoki

    saga = our_saga(fails=fails)
    trip = saga.input_type
    commits = 0

    async with yaoki.open(f"sqlite:///{folder}/ours-{in_flight}-{fails}-{time.monotonic_ns()}.db", sagas=[saga]) as app:
        group = app.journal._group
        commit = group._commit

        async def counted(batch: list[Any]) -> list[Any]:
            nonlocal commits
            commits += 1
            return await commit(batch)

        group._commit = counted
        numbers = iter(range(runs))
        latencies: list[float] = []

        async def client() -> None:
            for n in numbers:
                began = time.perf_counter()
                run = await app.start(saga, trip(n))
                await run.wait()
                latencies.append(time.perf_counter() - began)

        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(client() for _ in range(in_flight)))
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"runs_per_s": runs / wall, "cpu_ms_per_run": cpu / runs * 1000, "commits_per_run": commits / runs,
            "p50_ms": statistics.median(latencies) * 1000, "p99_ms": sorted(latencies)[int(len(latencies) * 0.99)] * 1000}


# ── the machine's own limit ──────────────────────────────────────────────────────────────────────────────────────────


def raw(folder: Path, runs: int) -> dict[str, float]:
    """SQLite alone, with our schema and rows: one header, four records and the end of each run; 256 runs to a commit."""
    from yaoki.saga.journal.schema import DDL

    db = sqlite3.connect(folder / f"raw-{time.monotonic_ns()}.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA wal_autocheckpoint = 4096")
    db.executescript(DDL)
    header = ("INSERT INTO run (no, id, saga, graph, state, input, created_at, updated_at, sum) VALUES "
              "(?, ?, 'done', '0123456789abcdef', 'running', x'7b7d', 1.0, 1.0, 4000000000)")
    began, cpu = time.perf_counter(), time.process_time()
    for first in range(0, runs, 256):
        numbers = range(first, min(first + 256, runs))
        db.execute("BEGIN IMMEDIATE")
        db.executemany(header, [(no + 1, f"{no:032x}") for no in numbers])
        db.execute("COMMIT")
        for seq in range(STEPS):
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO record VALUES (?, ?, 'done', 'a', x'31', 1.0, 4000000000)", [(no + 1, seq) for no in numbers])
            if seq == STEPS - 1:
                db.executemany("UPDATE run SET state = 'completed', result = x'31', updated_at = 2.0, finished_at = 2.0 WHERE no = ?",
                               [(no + 1,) for no in numbers])
            db.execute("COMMIT")
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    db.close()
    return {"runs_per_s": runs / wall, "cpu_ms_per_run": cpu / runs * 1000}


# ── DBOS ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

DBOS_PROGRAM = """
import asyncio, gc, json, sys, time
from dbos import DBOS
folder, in_flight, runs, fails = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1"
DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{folder}/dbos-{in_flight}-{fails}.sqlite",
             "log_level": "CRITICAL", "run_admin_server": False})

@DBOS.step()
async def step(n): return n

@DBOS.step()
async def fail(n): raise ValueError("no")

@DBOS.step()
async def undo(n): return None

@DBOS.workflow()
async def four(n):
    for _ in range(3): n = await step(n)
    if not fails:
        return await step(n)
    try:
        return await fail(n)
    except ValueError:
        for _ in range(3): await undo(n)

async def main():
    numbers = iter(range(runs))
    async def client():
        for n in numbers:
            await (await DBOS.start_workflow_async(four, n)).get_result()
    await asyncio.gather(*(client() for _ in range(in_flight)))

DBOS.launch()
gc.collect()
gc.freeze()
began, cpu = time.perf_counter(), time.process_time()
asyncio.run(main())
wall, cpu = time.perf_counter() - began, time.process_time() - cpu
print(json.dumps({"runs_per_s": runs / wall, "cpu_ms_per_run": cpu / runs * 1000}))
DBOS.destroy()
"""


def dbos(folder: Path, in_flight: int, runs: int, *, fails: bool) -> dict[str, float]:
    done = subprocess.run([peers_python("dbos"), "-c", DBOS_PROGRAM, folder, str(in_flight), str(runs), str(int(fails))], check=True,
                          capture_output=True, text=True, env={**os.environ, "DBOS__VMID": ""})
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


# ── memory, recovery, import ─────────────────────────────────────────────────────────────────────────────────────────

HELD = """
import asyncio, resource, sys
sys.path.insert(0, "benchmarks")
import msgspec, yaoki
from yaoki import Saga, runtime

class Trip(msgspec.Struct):
    n: int

saga = Saga("held", input=Trip, brake=None)

@saga.step(undo=None)
async def wait(trip: Trip) -> int:
    await runtime.sleep(3600)
    return 1

async def main(url, waiting):
    async with yaoki.open(url, sagas=[saga], concurrency=1000, grace=0) as app:
        for first in range(0, waiting, 1000):
            await asyncio.gather(*(app.start(saga, Trip(n)) for n in range(first, first + 1000)))
        print(app.engine.in_memory, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""

RECOVERY = """
import asyncio, resource, sys, time
import msgspec, yaoki
from yaoki import Saga, events

class Trip(msgspec.Struct):
    n: int

saga = Saga("held", input=Trip, brake=None)

@saga.step(undo=None)
async def wait(trip: Trip) -> int:
    return trip.n

async def main(url, expected):
    began = time.perf_counter()
    first, ended, most = 0.0, 0, 0
    over = asyncio.Event()
    def heard(event):
        nonlocal first, ended
        first = first or time.perf_counter() - began
        ended += 1
        if ended == expected:
            over.set()
    with events.listen(heard, kinds=(events.RunFinished,)):
        async with yaoki.open(url, sagas=[saga], concurrency=500) as app:
            while not over.is_set():
                most = max(most, app.engine.in_memory)
                try:
                    await asyncio.wait_for(over.wait(), 0.01)
                except TimeoutError:
                    pass
    print(first, time.perf_counter() - began, most)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def child(program: str, *words: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", program, *words], check=True, capture_output=True, text=True, cwd=ROOT)
    return [float(word) for word in done.stdout.split()]


def import_s(program: str) -> float:
    """CPU seconds that this import takes, above a bare interpreter; best of five."""
    def cpu(program: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, "-I", "-c", program], check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    return min(cpu(program) for _ in range(5)) - min(cpu("pass") for _ in range(5))


# ── all together ─────────────────────────────────────────────────────────────────────────────────────────────────────


def rounds(quick: bool) -> Iterator[tuple[int, bool, int, int]]:
    """(in flight, fails, our runs, the peer's runs) of each cell of the table."""
    for in_flight in IN_FLIGHT:
        for fails in (False, True):
            if quick and in_flight == 16:
                continue
            ours = {1: 150, 16: 2000, 256: 6000}[in_flight] * (1 if quick else 4)
            yield in_flight, fails, ours, {1: 20, 16: 100, 256: 96}[in_flight] * (1 if quick else 6)


def main() -> int:
    options = arguments(__doc__)
    report = Report("sagas", options)
    peers_python("dbos")
    (ROOT / ".yaoki").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".yaoki") as name:
        folder = Path(name)
        table: dict[str, Any] = {"peer": "dbos 3.4.0, SQLite, its defaults"}
        for in_flight, fails, our_runs, their_runs in rounds(options.quick):
            tries = [asyncio.run(ours(folder, in_flight, our_runs, fails=fails)) for _ in range(1 if options.quick else 3)]
            mine = max(tries, key=lambda each: each["runs_per_s"])
            theirs = dbos(folder, in_flight, their_runs, fails=fails)
            cell = {"yaoki": mine, "dbos": theirs, "times": mine["runs_per_s"] / theirs["runs_per_s"]}
            if in_flight == 256 and not fails:
                cell["raw"] = max((raw(folder, our_runs) for _ in range(3)), key=lambda each: each["runs_per_s"])
            table[f"{in_flight}{' failing' if fails else ''}"] = cell
            report.line(f"{in_flight:>4} in flight{', failing' if fails else '':<10} yaoki {mine['runs_per_s']:>9.0f} runs/s"
                        f" {mine['cpu_ms_per_run']:.3f} ms CPU  {mine['commits_per_run']:.2f} commits a run"
                        f"   DBOS {theirs['runs_per_s']:>7.1f} runs/s {theirs['cpu_ms_per_run']:.1f} ms   x {cell['times']:.0f}")
        waiting = 10_000 if options.quick else 100_000
        in_memory, kilobytes = child(HELD, f"sqlite:///{folder}/held.db", str(waiting))
        table["memory"] = {"waiting": waiting, "in_flight": in_memory, "rss_mb": kilobytes / 1024}
        unfinished = 10_000
        child(HELD, f"sqlite:///{folder}/recover.db", str(unfinished))
        first, total, most = child(RECOVERY, f"sqlite:///{folder}/recover.db", str(unfinished))
        table["recovery"] = {"unfinished": unfinished, "first_end_s": first, "total_s": total, "most_in_memory": most}
        table["import_cpu_s"] = import_s("import yaoki")
        table["import_names_cpu_s"] = import_s("from yaoki import App, Saga, Service, open")
    at_256, at_1 = table["256"], table["1"]
    report.claim("times DBOS, 256 in flight", at_256["times"], at_least=100)
    report.claim("times DBOS, 256 in flight, failing at step 4", table["256 failing"]["times"], at_least=100)
    report.claim("share of the raw limit, 256 in flight", at_256["yaoki"]["runs_per_s"] / at_256["raw"]["runs_per_s"], at_least=0.12)
    report.claim("CPU ms a run, 256 in flight", at_256["yaoki"]["cpu_ms_per_run"], at_most=0.25)
    report.claim("times DBOS, 1 in flight", at_1["times"], at_least=5)
    report.claim("commits a run, 1 in flight", at_1["yaoki"]["commits_per_run"], at_most=6)
    report.claim(f"MB with {waiting} waiting and 1000 in flight", table["memory"]["rss_mb"], at_most=300)
    report.claim("s to the first end of 10 000 recovered runs", table["recovery"]["first_end_s"], at_most=2)
    report.claim("runs in memory while recovering 10 000", table["recovery"]["most_in_memory"], at_most=500)
    report.claim("CPU s of import yaoki", table["import_cpu_s"], at_most=0.15)
    return report.end(table)


if __name__ == "__main__":
    sys.exit(main())
