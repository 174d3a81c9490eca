"""Where a saga can run, for tests of the engine: each journal on a place that outlives it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from yaoki.app import App
from yaoki.saga.define import Saga
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.journal.port import Journal
from yaoki.saga.journal.sqlite import SqliteJournal

Place = Callable[[], Journal]


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    kept = MemoryJournal()
    if request.param == "memory":
        return lambda: kept
    return lambda: SqliteJournal(tmp_path / "journal.db", durability="process")


def app_on(place: Place, *sagas: Saga, concurrency: int = 10) -> App:
    return App(place(), sagas, concurrency=concurrency, grace=1.0)
