"""The travel agency with nobody in charge: each service's desk does its part, and a front desk only starts trips and watches.

    python -m yaoki.examples.travel.choreographed --dir /tmp/agency --role hotel
    python -m yaoki.examples.travel.choreographed --dir /tmp/agency --role front --trips 1000

The same saga, the same services and the same faults as orchestrated. Each role is a process with a store of its own; they
share nothing but a broker (`--broker`: a file in the folder, or nats://...), which fails as well while the demo's switch says so:
it delivers twice, mixes the trips' words, loses confirmations, cuts readers off. Kill any process at any instant and start it again.
Told on standard output, one JSON object a line, as the orchestrator does; the front desk ends with `{"claims": {...}}`. With
`--stay` it does not end before a line comes on its standard input: whoever still wants to kill somebody finds all at work.
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

from yaoki.errors import BrokerError, YaokiError
from yaoki.examples.travel import desks
from yaoki.examples.travel.book import book_trip
from yaoki.examples.travel.catalogue import Trip, trips
from yaoki.examples.travel.faults import MESSAGE_FAULTS, Switch
from yaoki.messages import Broker, Messages, Pace, open_broker
from yaoki.messages.brokers.chaotic import ChaoticBroker
from yaoki.messages.choreography import Monitor, participate, start

ROLES = {"hotel": ["hotel"], "flight": ["flight", "ticket"], "points": ["points"], "payment": ["payment"]}
FRONT = "front"
AT_ONCE = 64
TELL_EVERY_S = 0.2
BROKEN_SHARE = 0.25  # of the switch's share: each kind of a broker's faults strikes that often
LEASE_S = 2.0  # short, so that a killed desk's work goes on while somebody watches


async def _broker(role: str, folder: Path, url: str) -> Broker:
    """The broker, as unreliable as the switch says; one that is being started again is waited for."""
    for _ in range(100):
        try:
            return _unreliable(role, folder, await _open(folder, url))
        except BrokerError:
            await asyncio.sleep(0.2)
    return await _open(folder, url)


async def _open(folder: Path, url: str) -> Broker:
    if url.startswith("sqlite") or not url:
        return await open_broker(url or f"sqlite:///{folder / 'broker.db'}", lease_s=LEASE_S)
    return await open_broker(url)


def _unreliable(role: str, folder: Path, broker: Broker) -> Broker:
    """Without a switch in the folder it is left as it is. What is made to fail is written down, as the services do it."""
    path = folder / "faults.switch"
    if not path.exists():
        return broker
    switch, log = Switch(path), os.open(folder / f"desk-{role}.faults", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(kind: str) -> None:
        if kind in MESSAGE_FAULTS:
            os.write(log, f"{MESSAGE_FAULTS[kind]}\t{role}\n".encode())

    return ChaoticBroker(broker, share=lambda: switch.share * BROKEN_SHARE, seed=f"{role}/{os.getpid()}", struck=note)


def _messages(role: str, folder: Path, broker: Broker) -> Messages:
    # A desk is a service of its own beside the service whose counter it stands at.
    return Messages(f"desk-{role}", f"sqlite:///{folder / f'desk-{role}.db'}", broker=broker,
                    pace=Pace(lease_s=LEASE_S, drain_s=2.0))


async def take_part(role: str, folder: Path, broker_url: str) -> None:
    """Do the role's steps of every trip, until the process ends."""
    broker = await _broker(role, folder, broker_url)
    app = _messages(role, folder, broker)
    participate(book_trip, steps=ROLES[role], app=app)
    try:
        async with app:
            print(json.dumps({"ready": role}), flush=True)
            await asyncio.Event().wait()
    finally:
        await desks.close()
        await broker.close()


class Front:
    """Starts `count` trips, some at a time, and says how they end."""

    def __init__(self, folder: Path, broker_url: str, count: int, may_leave: asyncio.Event) -> None:
        self._folder = folder
        self._broker_url = broker_url
        self._count = count
        self._may_leave = may_leave
        self._ended: Counter[str] = Counter()
        self._claims: dict[str, str] = {}
        self._under_way = 0

    async def work(self) -> None:
        broker = await _broker(FRONT, self._folder, self._broker_url)
        app = _messages(FRONT, self._folder, broker)
        monitor = Monitor(book_trip, app, overdue=10.0)
        try:
            async with app:
                beside = [asyncio.create_task(self._tell()), asyncio.create_task(monitor.watch())]
                try:
                    await self._book_all(app, monitor)
                    await self._may_leave.wait()
                finally:
                    for task in beside:
                        task.cancel()
                    await asyncio.gather(*beside, return_exceptions=True)
        finally:
            await broker.close()
        self._say()
        print(json.dumps({"claims": self._claims}), flush=True)

    async def _book_all(self, app: Messages, monitor: Monitor) -> None:
        room = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for trip in trips(self._count):
                await room.acquire()
                group.create_task(self._book(app, monitor, trip)).add_done_callback(lambda _: room.release())

    async def _book(self, app: Messages, monitor: Monitor, trip: Trip) -> None:
        self._under_way += 1
        if await monitor.load(trip.id) is None:
            await start(app, book_trip, trip, id=trip.id)
        state = await monitor.wait(trip.id, timeout=3600)
        self._claims[trip.id] = state.value
        self._ended[state.value] += 1
        self._under_way -= 1

    async def _tell(self) -> None:
        while True:
            self._say()
            await asyncio.sleep(TELL_EVERY_S)

    def _say(self) -> None:
        print(json.dumps({"ended": self._ended, "under_way": self._under_way}), flush=True)


async def _run(role: str, folder: Path, broker_url: str, count: int, *, stay: bool) -> None:
    may_leave = asyncio.Event()
    if not stay:
        may_leave.set()

    def woken() -> None:
        if not os.read(0, 1024):
            os._exit(1)
        may_leave.set()

    with contextlib.suppress(PermissionError):  # standard input is a file: then nobody is watched
        asyncio.get_running_loop().add_reader(0, woken)
    if role == FRONT:
        await Front(folder, broker_url, count, may_leave).work()
    else:
        await take_part(role, folder, broker_url)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m yaoki.examples.travel.choreographed", description="Take part in booking trips.")
    parser.add_argument("--dir", type=Path, required=True, help="folder of the stores")
    parser.add_argument("--role", choices=[*ROLES, FRONT], required=True)
    parser.add_argument("--broker", default="", help="sqlite:///FILE or nats://HOST:PORT; a file in the folder by default")
    parser.add_argument("--trips", type=int, default=1000)
    parser.add_argument("--stay", action="store_true", help="when all is booked, wait for a line on standard input before ending")
    given = parser.parse_args(words)
    try:
        asyncio.run(_run(given.role, given.dir.absolute(), given.broker, given.trips, stay=given.stay))
    except YaokiError as error:
        print(json.dumps({"failed": str(error), "do": error.do}), flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
