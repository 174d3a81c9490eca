"""One worker of `test_outside_workers.py`: `python outside_worker.py URL NAME FOLDER [stuck] [starts]`. Ends when it is told to, or killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import yaoki
from yaoki import Effect, Saga, heartbeat


class Log:
    """What happens, by the machine's own clock, in one line each; a line is one write, so that all can write at once."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "events.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def __call__(self, *words: object) -> None:
        os.write(self._file, (" ".join([f"{time.monotonic():.6f}", str(os.getpid()), *map(str, words)]) + "\n").encode())


def booking(log: Log) -> Saga[str]:
    """Its input is `run:key,key`. What is between enter and leave is never made by two runs with one key at once."""
    saga = Saga("booking", input=str, lock=lambda trip: trip.split(":")[1].split(","))

    @saga.step
    async def hold(trip: str, effect: Effect) -> str:
        run, keys = trip.split(":")
        for key in keys.split(","):
            log("enter", key, run, effect.fence)
        await asyncio.sleep(0.01)
        return trip

    @hold.undo
    async def free(trip: str, hold: str | None) -> None: ...

    @saga.step(undo=None)
    async def pay(trip: str, hold: str, effect: Effect) -> str:
        run, keys = trip.split(":")
        await asyncio.sleep(0.01)
        for key in keys.split(","):
            log("leave", key, run, effect.fence)
        if run.endswith("x"):
            raise yaoki.DeclinedError("no money")
        return trip

    return saga


def ticking(log: Log) -> Saga[str]:
    saga = Saga("tick", input=str)

    @saga.step(undo=None)
    async def tick(of: str, effect: Effect) -> str:
        log("tick", effect.run, of)
        return of

    return saga


def reporting(log: Log, *, stuck: bool) -> Saga[int]:
    saga = Saga("report", input=int)

    @saga.step(undo=None, heartbeat=0.5, retry=100)
    async def build(n: int, effect: Effect) -> str:
        log("build", effect.run, effect.attempt, effect.detail)
        heartbeat(f"{os.getpid()}")
        if stuck:
            await asyncio.sleep(3600)
        return f"{effect.detail}"

    return saga


def printing(log: Log) -> Saga[int]:
    saga = Saga("print", input=int)

    @saga.external(str, undo=None, heartbeat=3600)
    async def ticket(n: int, effect: Effect) -> None:
        log("token", effect.token)

    return saga


async def main(url: str, name: str, folder: Path, *, stuck: bool, starts: bool) -> None:
    log = Log(folder)
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    tick = ticking(log)
    book, report, prints = booking(log), reporting(log, stuck=stuck), printing(log)
    app = yaoki.open(url, sagas=[book, tick, report, prints], concurrency=64, grace=1.0, name=name)
    app.schedule("tick", tick, every=1.0, input=lambda at: at.isoformat(), overlap="allow")
    async with app:
        log("ready", name)
        if starts:
            await app.start(prints, 1, id="print-1")
            await app.start(report, 1, id="report-1")
            for n in range(8):
                await app.start(book, f"run-{n}:seat", id=f"run-{n}")
        await told.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), stuck="stuck" in sys.argv[4:], starts="starts" in sys.argv[4:]))
