"""The journals under contract, by name: each is made on a place that outlives it, so that it can be opened again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from yaoki.explore.journal import Platter, SimJournal
from yaoki.explore.shared import SharedPlatter, SharedSimJournal
from yaoki.explore.sqlite_journal import FilePlatter, SimSqliteJournal, SqlitePlatter
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.journal.port import Journal
from yaoki.saga.journal.sqlite import SqliteJournal

Place = Callable[[], Journal]
"""Makes a journal on the same place each time: calling it again is what a restart does."""


def memory(folder: Path) -> Place:
    kept = MemoryJournal()
    return lambda: kept


def sqlite(folder: Path) -> Place:
    return lambda: SqliteJournal(folder / "journal.db", durability="process")


def simulated(folder: Path) -> Place:
    platter = Platter("journal")
    return lambda: SimJournal(None, platter)


def in_a_universe(folder: Path) -> Place:
    platter = SqlitePlatter("journal")
    return lambda: SimSqliteJournal(None, platter)


def in_a_file_of_a_universe(folder: Path) -> Place:
    platter = FilePlatter("journal")
    return lambda: SimSqliteJournal(None, platter)


def shared_in_a_universe(folder: Path) -> Place:
    platter = SharedPlatter("journal")
    return lambda: SharedSimJournal(None, platter, "worker")


PLACES: dict[str, Callable[[Path], Place]] = {
    "memory": memory, "sqlite": sqlite, "simulated": simulated, "sqlite in a universe": in_a_universe, "sqlite in a file": in_a_file_of_a_universe,
    "shared in a universe": shared_in_a_universe}
