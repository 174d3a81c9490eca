"""What really happened, read from the services' databases. It trusts nothing else, and uses nothing of Yaoki's.

The orchestrator's journal says only which trips there are and what it claims became of them; whether that is so is asked
of the services. A trip has five effects: a room, a seat, spent points, captured money, a ticket.

    completed           claimed so, and each of the five exists exactly once, for the right amount
    undone              claimed so, and none of them exists, nor a held authorisation
    blocked             claimed so: a person is needed
    lost                neither ended nor blocked, or claimed completed and an effect is missing
    duplicated_effects  effects made more than once for one trip, even if taken back since
    orphaned_effects    effects that exist for a trip that is not completed, or that nobody asked for
    charged_twice       trips with more than one live capture, or more money captured than the price
    overbooked          nights and flights sold beyond their capacity, members spent beyond their points
    unbalanced          a service whose own figures contradict each other
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

# (effect, database, table, the state in which it exists)
EFFECTS = (
    ("room", "hotel", "bookings", "booked"),
    ("seat", "flight", "bookings", "booked"),
    ("points", "points", "spends", "spent"),
    ("capture", "payment", "captures", "captured"),
    ("ticket", "flight", "tickets", "issued"),
)
HOLD = ("authorisation", "payment", "authorizations", "authorised")
FINDINGS_KEPT = 1000


@dataclass
class Report:
    """The audit's figures; `findings` says them in words, each with its trip or place."""

    trips: int = 0
    completed: int = 0
    undone: int = 0
    blocked: int = 0
    lost: int = 0
    duplicated_effects: int = 0
    orphaned_effects: int = 0
    charged_twice: int = 0
    overbooked: int = 0
    unbalanced: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return self.completed + self.undone == self.trips and not any(self.wrong().values())

    def wrong(self) -> dict[str, int]:
        """The figures that must be 0."""
        names = ("blocked", "lost", "duplicated_effects", "orphaned_effects", "charged_twice", "overbooked", "unbalanced")
        return {name: getattr(self, name) for name in names}

    def find(self, figure: str, what: str, count: int = 1) -> None:
        setattr(self, figure, getattr(self, figure) + count)
        if len(self.findings) < FINDINGS_KEPT:
            self.findings.append(f"{figure}: {what}")


def audit(folder: Path, asked: Mapping[str, int], claims: Mapping[str, str]) -> Report:
    """Audit the agency in `folder`.

    Args:
        asked: the price of every trip that was asked for, by id.
        claims: what the journal says became of each.
    """
    books = {name: _Book(folder / f"{name}.db") for name in ("hotel", "flight", "points", "payment")}
    report = Report(trips=len(asked))
    live = {effect: _live(books[where], table, state) for effect, where, table, state in (*EFFECTS, HOLD)}
    for trip, price in asked.items():
        _judge(report, trip, claims.get(trip, "never started"), {effect: found[trip] for effect, found in live.items()})
        _money(report, trip, price, books["payment"])
    _strangers(report, live, asked)
    _duplicates(report, books)
    _capacity(report, books)
    _balance(report, books)
    return report


class _Book:
    """One service's database, read only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cache: dict[str, list[Any]] = {}

    def all(self, sql: str) -> list[Any]:
        found = self._cache.get(sql)
        if found is None:
            with closing(sqlite3.connect(f"file:{quote(str(self.path.absolute()))}?mode=ro", uri=True)) as db:
                found = self._cache[sql] = db.execute(sql).fetchall()
        return found


def _live(book: _Book, table: str, state: str) -> Counter[str]:
    return Counter(trip for trip, found in book.all(f"SELECT trip, state FROM {table}") if found == state)  # noqa: S608  our own names


def _judge(report: Report, trip: str, claim: str, live: Mapping[str, int]) -> None:
    """Compare what is claimed of one trip with what exists."""
    existing = {effect: count for effect, count in live.items() if count}
    if claim == "blocked":
        report.find("blocked", f"{trip} needs a person; existing: {_named(existing)}")
    elif claim == "completed":
        missing = [effect for effect, *_ in EFFECTS if not live[effect]]
        if missing:
            report.find("lost", f"{trip} is said to be completed, and has no {', '.join(missing)}")
        if live["authorisation"]:
            report.find("orphaned_effects", f"{trip} is completed, and an authorisation is still held", live["authorisation"])
        if not missing and not live["authorisation"]:
            report.completed += 1
    elif claim in {"undone", "cancelled"}:
        if existing:
            report.find("orphaned_effects", f"{trip} is said to be {claim}, and has {_named(existing)}", sum(existing.values()))
        else:
            report.undone += 1
    else:
        report.find("lost", f"{trip} is {claim}; existing: {_named(existing)}")
        if existing:
            report.find("orphaned_effects", f"{trip} is {claim}, and has {_named(existing)}", sum(existing.values()))


def _money(report: Report, trip: str, price: int, payment: _Book) -> None:
    amounts = _captured(payment).get(trip, [])
    if len(amounts) > 1 or sum(amounts) > price:
        report.find("charged_twice", f"{trip} costs {price}, and {' + '.join(map(str, amounts))} was captured")
    elif amounts and sum(amounts) != price:
        report.find("unbalanced", f"{trip} costs {price}, and {sum(amounts)} was captured")


def _captured(payment: _Book) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for trip, amount, state in payment.all("SELECT trip, amount, state FROM captures"):
        if state == "captured":
            found[trip].append(amount)
    return found


def _strangers(report: Report, live: Mapping[str, Counter[str]], asked: Mapping[str, int]) -> None:
    for effect, found in live.items():
        for trip, count in found.items():
            if trip not in asked:
                report.find("orphaned_effects", f"{trip}, which nobody asked for, has {effect}", count)


def _duplicates(report: Report, books: Mapping[str, _Book]) -> None:
    """One trip, one effect of a kind, ever: a second one is wrong even after it was taken back."""
    for effect, where, table, _ in (*EFFECTS, HOLD):
        for trip, count in Counter(row[0] for row in books[where].all(f"SELECT trip FROM {table}")).items():  # noqa: S608
            if count > 1:
                report.find("duplicated_effects", f"{trip} had {count} of {effect}", count - 1)


def _capacity(report: Report, books: Mapping[str, _Book]) -> None:
    rooms = dict(books["hotel"].all("SELECT id, rooms FROM hotels"))
    for (hotel, night), taken in _nights(books["hotel"]).items():
        if taken > rooms.get(hotel, 0):
            report.find("overbooked", f"hotel {hotel} on {night}: {taken} bookings for {rooms.get(hotel, 0)} rooms", taken - rooms.get(hotel, 0))
    free = dict(books["flight"].all("SELECT id, free FROM flights"))
    seats = Counter(flight for flight, state in books["flight"].all("SELECT flight, state FROM bookings") if state == "booked")
    for flight, taken in seats.items():
        if taken > free.get(flight, 0):
            report.find("overbooked", f"flight {flight}: {taken} bookings for {free.get(flight, 0)} seats", taken - free.get(flight, 0))
    opening = dict(books["points"].all("SELECT id, opening FROM members"))
    for member, spent in _spent(books["points"]).items():
        if spent > opening.get(member, 0):
            report.find("overbooked", f"member {member} spent {spent} of {opening.get(member, 0)} points")


def _nights(hotel: _Book) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for name, check_in, nights, state in hotel.all("SELECT hotel, check_in, nights, state FROM bookings"):
        if state == "booked":
            first = date.fromisoformat(check_in)
            found.update((name, (first + timedelta(days=day)).isoformat()) for day in range(nights))
    return found


def _spent(points: _Book) -> Counter[str]:
    found: Counter[str] = Counter()
    for member, amount, state in points.all("SELECT member, points, state FROM spends"):
        if state == "spent":
            found[member] += amount
    return found


def _balance(report: Report, books: Mapping[str, _Book]) -> None:
    """Each service's own figures against each other."""
    spent = _spent(books["points"])
    for member, opening, balance in books["points"].all("SELECT id, opening, balance FROM members"):
        if opening - spent[member] != balance:
            report.find("unbalanced", f"member {member}: {opening} opening - {spent[member]} spent is not {balance}")
    taken = Counter((hotel, night) for hotel, night in books["hotel"].all("SELECT hotel, night FROM taken"))
    for place, count in ((taken - _nights(books["hotel"])) + (_nights(books["hotel"]) - taken)).items():
        report.find("unbalanced", f"hotel {place[0]} on {place[1]}: rooms taken and bookings differ by {count}")
    states = dict(books["payment"].all("SELECT id, state FROM authorizations"))
    for capture, number, state in books["payment"].all("SELECT id, authorization, state FROM captures"):
        if states.get(number) != state:
            report.find("unbalanced", f"capture C{capture} is {state}, its authorisation {states.get(number)}")


def _named(existing: Mapping[str, int]) -> str:
    return ", ".join(effect if count == 1 else f"{count} of {effect}" for effect, count in existing.items()) or "nothing"


def prices(trips: Iterable[Any]) -> dict[str, int]:
    """What `audit` takes as `asked`, from trips."""
    return {trip.id: trip.price for trip in trips}
