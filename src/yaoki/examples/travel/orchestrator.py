"""The process that books: it starts a run for every trip, and waits until each has ended or needs a person.

    python -m yaoki.examples.travel.orchestrator --dir /tmp/agency --trips 1000

Kill it at any instant and start it again: the same trip is the same run, and what was begun goes on. Told on standard
output, one JSON object a line, five times a second: `{"ended": {"completed": 12, "undone": 3}, "under_way": 64}`. It ends
when its standard input does, so that it never outlives its maker. With `--stay` it does not end when all is booked: whoever
still wants to kill it finds it there, however fast the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections import Counter
from pathlib import Path

import yaoki
from yaoki.errors import YaokiError
from yaoki.examples.travel import desks
from yaoki.examples.travel.book import book_trip
from yaoki.examples.travel.catalogue import Trip, trips

RUNS_IN_MEMORY = 64  # some four at each of sixteen connections to a service; more would only wait in line
STARTED_AHEAD = 256  # starts that wait for their commit together: group commit makes one of them
TELL_EVERY_S = 0.2


class Orchestrator:
    """Books `count` trips on the journal in `folder`."""

    def __init__(self, folder: Path, count: int, *, stay: bool = False) -> None:
        self._url = f"sqlite:///{folder.absolute() / 'trips.db'}"
        self._count = count
        self._stay = stay
        self._ended: Counter[str] = Counter()
        self._under_way = 0

    async def work(self) -> None:
        async with yaoki.open(self._url, sagas=[book_trip], concurrency=RUNS_IN_MEMORY) as app:
            telling = asyncio.create_task(self._tell())
            try:
                await self._book_all(app)
                if self._stay:
                    await telling
            finally:
                telling.cancel()
                await desks.close()
            self._say()

    async def _book_all(self, app: yaoki.App) -> None:
        room = asyncio.Semaphore(STARTED_AHEAD)
        async with asyncio.TaskGroup() as group:
            for trip in trips(self._count):
                await room.acquire()
                group.create_task(self._book(app, trip)).add_done_callback(lambda _: room.release())

    async def _book(self, app: yaoki.App, trip: Trip) -> None:
        self._under_way += 1
        run = await app.start(book_trip, trip, id=trip.id)
        state = await run.wait()
        self._ended[state.value] += 1
        self._under_way -= 1

    async def _tell(self) -> None:
        while True:
            self._say()
            await asyncio.sleep(TELL_EVERY_S)

    def _say(self) -> None:
        print(json.dumps({"ended": self._ended, "under_way": self._under_way}), flush=True)


async def _until_orphaned(work: Orchestrator) -> None:
    def woken() -> None:
        if not os.read(0, 1024):
            os._exit(1)

    with contextlib.suppress(PermissionError):  # standard input is a file: then nobody is watched
        asyncio.get_running_loop().add_reader(0, woken)
    await work.work()


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m yaoki.examples.travel.orchestrator", description="Book trips.")
    parser.add_argument("--dir", type=Path, required=True, help="folder of the journal")
    parser.add_argument("--trips", type=int, default=1000)
    parser.add_argument("--stay", action="store_true", help="do not end when all is booked, but wait to be killed")
    given = parser.parse_args(words)
    try:
        asyncio.run(_until_orphaned(Orchestrator(given.dir, given.trips, stay=given.stay)))
    except YaokiError as error:
        print(json.dumps({"failed": str(error), "do": error.do}), flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
