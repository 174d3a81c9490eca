"""Messages: publishing with state, consuming, latency; beside a plain SKIP LOCKED loop, Celery, Dramatiq and FastStream.

Everything on one machine in one run, with fsync. The peers run in an environment of their own, made from
requirements/bench-messages.lock. "One by one" is a transaction a message; ours is what the library does unasked.

Ratios are of rates in the same round, so that what else the machine does meets both sides; beside each rate stands what a
message costs: the processor time of this process and of the server, in microseconds.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "benchmarks"))

import asyncpg  # noqa: E402
import msgspec  # noqa: E402
from _cpu import Meter  # noqa: E402
from _report import Report, arguments  # noqa: E402

from servers import running_postgres  # noqa: E402
from yaoki.messages import Message, Messages, Outbox  # noqa: E402
from yaoki.messages.store.opening import open_store  # noqa: E402

HOME = ROOT / ".yaoki" / "bench-messages"
LOCK = ROOT / "requirements" / "bench-messages.lock"
BATCH = 1_000  # what the store itself gathers at most


class Order(msgspec.Struct):
    n: int


async def produce_one_by_one(url: str, count: int) -> float:
    """State and event in a transaction of their own, one connection."""
    connection, outbox = await asyncpg.connect(url), Outbox("shop")
    await connection.execute("CREATE TABLE IF NOT EXISTS orders (n integer)")
    began = time.perf_counter()
    for n in range(count):
        async with connection.transaction():
            await connection.execute("INSERT INTO orders VALUES ($1)", n)
            await outbox.publish(Order(n), key=f"o{n}", connection=connection)
    rate = count / (time.perf_counter() - began)
    await connection.close()
    return rate


async def produce_batched(url: str, count: int) -> float:
    """State and events of `BATCH` orders in a transaction."""
    connection, outbox = await asyncpg.connect(url), Outbox("shop")
    began = time.perf_counter()
    for at in range(0, count, BATCH):
        numbers = range(at, at + BATCH)
        async with connection.transaction():
            await connection.execute("INSERT INTO orders SELECT * FROM unnest($1::integer[])", list(numbers))
            await outbox.publish(*(Order(n) for n in numbers), key=lambda order: f"o{order.n}", connection=connection)
    rate = count / (time.perf_counter() - began)
    await connection.close()
    return rate


async def consume_skip_locked(url: str, count: int, batch: int) -> float:
    """The loop that is in every blog: SELECT ... FOR UPDATE SKIP LOCKED, work, UPDATE."""
    connection = await asyncpg.connect(url)
    await connection.execute("DROP TABLE IF EXISTS queue; CREATE TABLE queue (id bigserial PRIMARY KEY, data text, done boolean NOT NULL DEFAULT false);"
                             "CREATE INDEX ON queue (id) WHERE NOT done")
    await connection.executemany("INSERT INTO queue (data) VALUES ($1)", [(f'{{"n":{n}}}',) for n in range(count)])
    began, left = time.perf_counter(), count
    while left:
        async with connection.transaction():
            rows = await connection.fetch("SELECT id, data FROM queue WHERE NOT done ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED", batch)
            for row in rows:
                msgspec.json.decode(row["data"], type=Order)
            await connection.execute("UPDATE queue SET done = true WHERE id = ANY ($1::bigint[])", [row["id"] for row in rows])
        left -= len(rows)
    rate = count / (time.perf_counter() - began)
    await connection.close()
    return rate


async def fill(url: str, count: int) -> None:
    store = await open_store(url)
    for at in range(0, count, 1000):
        await store.append([Message(id=f"{time.time_ns():020}{n:08}", source="bench", type="Order", key=f"o{n}", data=b'{"n":%d}' % n, time=time.time())
                            for n in range(at, at + 1000)])
    await store.close()


async def consume_ours(url: str, count: int, meter: Meter) -> tuple[float, float]:
    """A handler, started on a full log; from its first message to its last. Messages a second, microseconds of the processor each."""
    app, seen, done = Messages("shop", url), [], asyncio.Event()
    began, used = 0.0, 0.0

    @app.on(Order, in_flight=500)
    async def take(order: Order) -> None:
        nonlocal began, used
        if not seen:
            seen.append(-1)
            began, used = time.perf_counter(), meter.seconds()
        seen.append(order.n)
        if len(seen) > count:
            done.set()

    async with app:
        await done.wait()
        return count / (time.perf_counter() - began), (meter.seconds() - used) / count * 1e6


async def embedded(folder: str, count: int) -> dict[str, float]:
    """Durable publishing with 256 tasks in flight, then reading it all with a handler. And one at a time."""
    app = Messages("shop", f"sqlite:///{folder}/embedded.db")
    async with app:
        numbers = iter(range(count))

        async def publisher() -> None:
            for n in numbers:
                await app.publish(Order(n), key=f"o{n % 1000}")

        began = time.perf_counter()
        await asyncio.gather(*(publisher() for _ in range(256)))
        many = count / (time.perf_counter() - began)
        began = time.perf_counter()
        for n in range(300):
            await app.publish(Order(n), key="alone")
        alone = 300 / (time.perf_counter() - began)
    again, seen, done = Messages("shop", f"sqlite:///{folder}/embedded.db"), 0, asyncio.Event()

    @again.on(Order, in_flight=500)
    async def take(order: Order) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            done.set()

    began = time.perf_counter()
    async with again:
        await done.wait()
        consumed = count / (time.perf_counter() - began)
    return {"publish_256_per_s": many, "publish_1_per_s": alone, "consume_per_s": consumed}


async def latency(url: str, count: int, *, hold_s: float = 0.0) -> list[float]:
    """Milliseconds from `publish` to the handler, on a quiet server; with a snapshot held open for `hold_s` if asked."""
    app, got, found = Messages("latency", url), asyncio.Event(), []

    @app.on(Order, name=f"take{time.time_ns()}", since="now")
    async def take(order: Order) -> None:
        got.set()

    async with app:
        await asyncio.sleep(1.0)
        holder = await asyncpg.connect(url)
        hold = holder.transaction(isolation="repeatable_read", readonly=True)
        if hold_s:
            await hold.start()
            await holder.fetch("SELECT count(*) FROM yaoki_messages")
        began = time.perf_counter()
        while len(found) < count or time.perf_counter() - began < hold_s:
            got.clear()
            sent = time.perf_counter()
            await app.publish(Order(1), key="k")
            await got.wait()
            found.append((time.perf_counter() - sent) * 1000)
            await asyncio.sleep(0.005)
        if hold_s:
            await hold.rollback()
        await holder.close()
    return found


def peers(count: int) -> dict[str, Any]:
    python, stamp = HOME / "bin" / "python", HOME / ".made"
    if not stamp.exists() or stamp.read_text() != LOCK.read_text():
        venv.create(HOME, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r", LOCK], check=True)
        stamp.write_text(LOCK.read_text())
    done = subprocess.run([python, ROOT / "benchmarks" / "_message_peers.py", str(count)], check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def beside_peers(server: Any, meter: Meter, count: int) -> dict[str, Any]:
    """The peers, and our handler before and after them, so that all meet the same machine."""
    measured = []

    def measure() -> None:
        url = server.new_database()
        asyncio.run(fill(url, 20_000))
        measured.append(asyncio.run(consume_ours(url, 20_000, meter)))

    measure()
    found = peers(count)
    measure()
    rates, costs = zip(*measured, strict=True)
    return {"ours_per_s": statistics.mean(rates), "ours_cpu_us": statistics.mean(costs), "peers": found}


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 1), "least": round(min(values), 1), "most": round(max(values), 1), "rounds": len(values)}


class Rounds:
    """Rates by round, and what a message costs of the processor."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.rates: dict[str, list[float]] = {}
        self.cpu_us: dict[str, list[float]] = {}

    async def measure(self, name: str, count: int, work: Awaitable[float]) -> None:
        began = self.meter.seconds()
        rate = await work
        self.keep(name, rate, (self.meter.seconds() - began) / count * 1e6)

    def keep(self, name: str, rate: float, cost_us: float) -> None:
        self.rates.setdefault(name, []).append(rate)
        self.cpu_us.setdefault(name, []).append(cost_us)

    def ratio(self, of: str, to: str) -> float:
        """The median of the ratios of the rates, round by round."""
        return statistics.median(a / b for a, b in zip(self.rates[of], self.rates[to], strict=True))


PUBLISH_ONE, PUBLISH_MANY = "publish with state, one by one", f"publish with state, {BATCH} a transaction"
LOOP_ONE, LOOP_MANY, CONSUME = "SKIP LOCKED loop, one by one", "SKIP LOCKED loop, 100 at a time", "consume, a handler"


async def ours(server: Any, rounds: Rounds, *, quick: bool) -> dict[str, Any]:
    times, many, few = (3, 10_000, 300) if quick else (7, 20_000, 600)
    # How long a disk takes for a commit differs from second to second, so these two take turns most often.
    for _ in range(3 * times):
        url = server.new_database()
        await (await open_store(url)).close()
        await rounds.measure(PUBLISH_ONE, few, produce_one_by_one(url, few))
        await rounds.measure(PUBLISH_MANY, many, produce_batched(url, many))
    for _ in range(times):
        url = server.new_database()
        await fill(url, many)
        await rounds.measure(LOOP_ONE, few, consume_skip_locked(url, few, 1))
        rate, cost_us = await consume_ours(url, many, rounds.meter)
        rounds.keep(CONSUME, rate, cost_us)
        await rounds.measure(LOOP_MANY, 3_000, consume_skip_locked(url, 3_000, 100))
        with tempfile.TemporaryDirectory() as folder:
            for name, value in (await embedded(folder, many)).items():
                rounds.rates.setdefault(f"embedded {name}", []).append(value)
    url = server.new_database()
    hold_s = 4.0 if quick else 12.0
    idle = await latency(url, 200)
    held = await latency(url, 200, hold_s=hold_s)
    third = len(held) // 3
    return {"rates_per_s": {name: spread(values) for name, values in rounds.rates.items()},
            "cpu_us_per_message": {name: spread(values) for name, values in rounds.cpu_us.items()},
            "latency_ms": {"p50 idle": statistics.median(idle), "p99 idle": statistics.quantiles(idle, n=100)[98],
                           "held for_s": hold_s, "p50 held, first third": statistics.median(held[:third]),
                           "p50 held, last third": statistics.median(held[-third:])}}


def main() -> int:
    options = arguments(__doc__)
    report = Report("messages", options)
    with running_postgres() as server:
        rounds = Rounds(Meter.of_file(server.folder / "postmaster.pid"))
        raw = asyncio.run(ours(server, rounds, quick=options.quick))
        raw["beside peers"] = [beside_peers(server, rounds.meter, 300 if options.quick else 1_000) for _ in range(1 if options.quick else 3)]
    raw["peers"] = raw["beside peers"][-1]["peers"]
    rates, cpu = ({name: cell["median"] for name, cell in raw[kind].items()} for kind in ("rates_per_s", "cpu_us_per_message"))
    for name, cell in raw["rates_per_s"].items():
        cost = f"  {cpu[name]:.0f} us of the processor" if name in cpu else ""
        report.line(f"{name:<44}{cell['median']:>10.0f}/s  ({cell['least']:.0f} .. {cell['most']:.0f}){cost}")
    for name, cell in raw["peers"].items():
        report.line(f"{name:<44}{cell}")
    for each in raw["beside peers"]:
        report.line(f"beside the peers, a handler: {each['ours_per_s']:.0f}/s, {each['ours_cpu_us']:.0f} us of the processor")
    report.line(f"latency, ms: {raw['latency_ms']}")
    report.claim("publish with state, batched, x one by one", rounds.ratio(PUBLISH_MANY, PUBLISH_ONE), at_least=50)
    report.claim("consume, x SKIP LOCKED one by one", rounds.ratio(CONSUME, LOOP_ONE), at_least=40)
    # By the processor: Dramatiq waits for no disk, so beside it a busy machine slows nobody but us.
    report.claim("consume, x Dramatiq, by processor time a message", statistics.median(
        each["peers"]["dramatiq on Redis"]["consume_cpu_us"] / each["ours_cpu_us"] for each in raw["beside peers"]), at_least=20)
    report.claim("embedded, durable, 256 in flight, messages/s", rates["embedded publish_256_per_s"], at_least=10_000)
    report.claim("latency p50 on an idle PostgreSQL, ms", raw["latency_ms"]["p50 idle"], at_most=20)
    report.claim("latency p50 late in a held snapshot, x early", raw["latency_ms"]["p50 held, last third"] / raw["latency_ms"]["p50 held, first third"], at_most=1.5)
    return report.end(raw)


if __name__ == "__main__":
    sys.exit(main())
