"""One trip under every fault: the real saga, the real desks and the real services, in one process, in virtual time.

    yk explore yaoki.examples.travel --faults 2

The four services run as they are, on SQLite in memory; before each execution their databases are put back to what they
were. What each holds for the trip is read from those databases, as the demo's audit does it.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from yaoki.app import App
from yaoki.examples.travel import desks
from yaoki.examples.travel.audit import EFFECTS, HOLD
from yaoki.examples.travel.book import book_trip
from yaoki.examples.travel.catalogue import SERVICES, Trip, trips
from yaoki.examples.travel.services import make
from yaoki.explore import Scenario, World
from yaoki.explore.sagas import supervised

ACCOUNTS = (*EFFECTS, HOLD)


class Agency:
    """The services, made once, and what their databases hold before the trip."""

    def __init__(self, trip: Trip) -> None:
        self.trip = trip
        self.apps: dict[str, Any] = {}
        self.opening: dict[str, bytes] = {}
        # Made once: what their policies remember the explorer puts back for each life of the program.
        self.desks = {name: desks.Desk(name, f"http://{name}") for name in SERVICES}
        with tempfile.TemporaryDirectory() as folder:
            for name in SERVICES:
                app = self.apps[name] = make(name, f"sqlite:///{Path(folder) / name}.db")
                self.opening[name] = _only_what_is_needed(app.state.store.db, trip)
                app.state.store.db.close()
                app.state.store.db = sqlite3.connect(":memory:", isolation_level=None)

    def open(self, world: World) -> None:
        """Put the databases back, and the services on the network."""
        for name, app in self.apps.items():
            app.state.store.db.deserialize(self.opening[name])
            world.host(name, app, lifespan=False)  # as their server runs them

    def holds(self, _world: World) -> dict[tuple[str, str], int]:
        """What exists for the trip: `(service, TRIP/effect)` → how many."""
        found: Counter[tuple[str, str]] = Counter()
        for effect, where, table, state in ACCOUNTS:
            for trip, was in self._rows(where, table):
                found[where, f"{trip}/{effect}"] += was == state
        return dict(found)

    def one_of_each(self, _world: World) -> str:
        """No effect was made twice, not even for a while."""
        for effect, where, table, _ in ACCOUNTS:
            made = len(self._rows(where, table))
            if made > 1:
                return f"{made} of {effect} were made for one trip"
        return ""

    def _rows(self, where: str, table: str) -> list[tuple[str, str]]:
        return self.apps[where].state.store.db.execute(f"SELECT trip, state FROM {table}").fetchall()  # type: ignore[no-any-return]  # noqa: S608  our own names


def _only_what_is_needed(db: sqlite3.Connection, trip: Trip) -> bytes:
    """The database without the rest of the catalogue, which would only have to be copied for every execution."""
    for table, key, wanted in (("hotels", "id", trip.hotel), ("flights", "id", trip.flight), ("members", "id", trip.member)):
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
            db.execute(f"DELETE FROM {table} WHERE {key} != ?", (wanted,))  # noqa: S608  our own names
    db.execute("PRAGMA journal_mode=DELETE")  # a database in memory has no write-ahead log
    db.execute("VACUUM")
    return db.serialize()


def scenario_of(trip: Trip, **settings: Any) -> Scenario:
    """One trip, booked by a program that starts again after a power cut."""
    agency = Agency(trip)

    async def book(world: World) -> str:
        desks.install(agency.desks)
        return await supervised(world, one_trip, book_trip)

    async def one_trip(app: App) -> str:
        run = await app.start(book_trip, trip, id=trip.id)
        return (await run.wait()).value

    return Scenario(book, name="travel", setup=agency.open, effects=agency.holds, invariants=[agency.one_of_each], **settings)


def scenario() -> Scenario:
    """The default scenario of `yk explore yaoki.examples.travel`."""
    return scenario_of(next(trips(1)))
