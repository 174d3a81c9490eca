"""The peers of benchmarks/messages.py, measured in their own environment: Celery and Dramatiq on Redis, FastStream on NATS.

Each enqueues messages one by one as its documentation shows, and a worker with its default settings consumes them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _cpu import Meter

BIN = Path(sys.executable).parent
HERE = Path(__file__).resolve()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int) -> None:
    for _ in range(1000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit(f"nothing listens on {port}")


def redis_url() -> str:
    return os.environ["PEERS_REDIS"]


if os.environ.get("PEERS_REDIS"):
    import celery
    import dramatiq
    import redis
    from dramatiq.brokers.redis import RedisBroker

    app = celery.Celery("peers", broker=redis_url())
    dramatiq.set_broker(RedisBroker(url=redis_url()))
    counter = redis.Redis.from_url(redis_url())

    @app.task(name="celery_take")
    def celery_take(n: int) -> None:
        counter.incr("done-celery")

    @dramatiq.actor
    def dramatiq_take(n: int) -> None:
        counter.incr("done-dramatiq")


def measure(count: int, name: str, send, worker: list[str]) -> dict[str, float]:
    began = time.perf_counter()
    for n in range(count):
        send(n)
    sent = time.perf_counter() - began
    process = subprocess.Popen(worker, cwd=HERE.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    meter = Meter(process.pid, int(os.environ["PEERS_REDIS_PID"]))
    try:
        starting = time.perf_counter()
        while not int(counter.get(name) or 0):  # its start does not count
            time.sleep(0.005)
            if time.perf_counter() - starting > 60:
                raise SystemExit(f"no worker of {name} came to work")
        first, began, used = int(counter.get(name)), time.perf_counter(), meter.others()
        while int(counter.get(name)) < count:
            time.sleep(0.005)
            if time.perf_counter() - began > 60:
                break
        took = time.perf_counter() - began
        done = int(counter.get(name)) - first
        return {"enqueue_per_s": count / sent, "consume_per_s": done / took, "consume_cpu_us": (meter.others() - used) / done * 1e6}
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def faststream(url: str, count: int) -> dict[str, float]:
    from faststream.nats import JStream, NatsBroker, PullSub

    broker, seen, done = NatsBroker(url), 0, asyncio.Event()
    stream = JStream("peers")

    @broker.subscriber("peers.take", stream=stream, pull_sub=PullSub(batch_size=100), durable="peers")
    async def take(n: int) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            done.set()

    await broker.connect()
    await broker.start()
    began = time.perf_counter()
    for n in range(count):
        await broker.publish(n, "peers.take", stream="peers")
    sent = time.perf_counter() - began
    await asyncio.wait_for(done.wait(), 60)
    took = time.perf_counter() - began
    await broker.stop()
    return {"enqueue_per_s": count / sent, "both_per_s": count / took}


def main() -> None:
    count = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        redis_port, nats_port = free_port(), free_port()
        servers = [
            subprocess.Popen([BIN / "redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", folder],
                             stdout=subprocess.DEVNULL),
            subprocess.Popen([BIN / "nats-server", "-js", "-sd", folder, "-a", "127.0.0.1", "-p", str(nats_port)],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
        try:
            for port in (redis_port, nats_port):
                wait_for(port)
            os.environ |= {"PEERS_REDIS": f"redis://127.0.0.1:{redis_port}/0", "PEERS_REDIS_PID": str(servers[0].pid)}
            found = json.loads(subprocess.run([sys.executable, HERE, "tasks", str(count)], check=True, stdout=subprocess.PIPE, text=True).stdout)
            found["faststream on NATS"] = asyncio.run(faststream(f"nats://127.0.0.1:{nats_port}", count))
        finally:
            for each in servers:
                each.kill()
                each.wait()
    from importlib.metadata import version

    print(json.dumps(found | {"versions": {name: version(name) for name in ("celery", "dramatiq", "faststream", "redis")}}))


if __name__ == "__main__":
    if sys.argv[1] == "tasks":
        number = int(sys.argv[2])
        print(json.dumps({
            "celery on Redis": measure(number, "done-celery", celery_take.delay,
                                       [str(BIN / "celery"), "-A", "_message_peers:app", "worker", "-l", "error"]),
            "dramatiq on Redis": measure(5 * number, "done-dramatiq", dramatiq_take.send,
                                         [str(BIN / "dramatiq"), "_message_peers", "-p", "1"])}))
    else:
        main()
