"""The whole travel agency in one process: the real services on real databases, the real saga, no sockets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest

import yaoki
from yaoki.examples.travel import desks
from yaoki.examples.travel.audit import Report, audit, prices
from yaoki.examples.travel.book import book_trip
from yaoki.examples.travel.catalogue import SERVICES, Trip
from yaoki.examples.travel.services import make


class Agency:
    """Four services in `folder`; `claims` is what the journal says became of each trip booked so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.apps: dict[str, Any] = {name: make(name, f"sqlite:///{folder / name}.db") for name in SERVICES}
        self.claims: dict[str, str] = {}
        self.asked: list[Trip] = []

    def store(self, name: str) -> Any:
        return self.apps[name].state.store

    async def book(self, trips: Iterable[Trip]) -> dict[str, str]:
        """Book trips, one after the other, over ASGI."""
        for name, app in self.apps.items():
            desks.connect(name, f"http://{name}", httpx.ASGITransport(app, raise_app_exceptions=False))
        try:
            async with yaoki.open("memory:", sagas=[book_trip]) as app:
                for trip in trips:
                    self.asked.append(trip)
                    run = await app.start(book_trip, trip, id=trip.id)
                    self.claims[trip.id] = (await run.wait()).value
        finally:
            await desks.close()
        return self.claims

    def audit(self, **claims: str) -> Report:
        return audit(self.folder, prices(self.asked), {**self.claims, **claims})

    def run(self, name: str, sql: str, *values: Any) -> list[Any]:
        return list(self.store(name).db.execute(sql, values))

    def close(self) -> None:
        for name in self.apps:
            self.store(name).close()


@pytest.fixture
def agency(tmp_path: Path) -> Any:
    made = Agency(tmp_path)
    yield made
    made.close()
