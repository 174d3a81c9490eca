"""The audit against services that are broken on purpose: each kind of damage is found, and whole books are called whole."""

from __future__ import annotations

import sqlite3
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest

from yaoki.errors import DeclinedError
from yaoki.examples.travel.catalogue import Trip, rows, trips
from yaoki.examples.travel.services import flight, hotel, payment, points
from yaoki.saga.participant import Answer, Participant

GOOD = next(trip for trip in trips(100) if trip.card != "tok_declined" and trip.points == 250)
TRIPS = [trip for trip in trips(40) if trip.points == 250]
DECLINED = next(trip for trip in islice(trips(400), 40, None) if trip.card == "tok_declined" and trip.points == 250)


def copies(trip: Trip, count: int) -> list[Trip]:
    return [msgspec.structs.replace(trip, id=f"{trip.id}-{number}") for number in range(count)]


async def test_whole_books_are_clean_with_trips_completed_and_undone(agency: Any) -> None:
    claims = await agency.book([*TRIPS, DECLINED])
    report = agency.audit()
    assert report.clean, report.findings
    assert report.completed == list(claims.values()).count("completed") > 0
    assert report.undone == list(claims.values()).count("undone") > 0
    assert report.trips == len(TRIPS) + 1


async def test_a_service_that_drops_an_undo_leaves_an_orphan(agency: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(hotel, "cancel", lambda *_: None)
    broken = type(agency)(tmp_path / "broken")
    await broken.book([DECLINED])
    report = broken.audit()
    broken.close()
    assert not report.clean
    assert (report.orphaned_effects, report.undone) == (1, 0)
    assert f"{DECLINED.id} is said to be undone, and has room" in report.findings[0]


async def test_a_service_that_forgets_its_keys_duplicates_effects(agency: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Without the participant, a request that is delivered twice is two effects."""
    def forgetful(self: Participant, connection: Any, key: str, work: Any, *, request: Any = b"") -> Answer:
        work()
        return Answer(work())

    monkeypatch.setattr(Participant, "do", forgetful)
    monkeypatch.setattr(payment, "capture", _captures_again)
    broken = type(agency)(tmp_path / "broken")
    await broken.book([GOOD])
    report = broken.audit()
    broken.close()
    assert not report.clean
    assert report.duplicated_effects >= 5  # room, seat, points, ticket, capture
    assert report.charged_twice == 1


def _captures_again(db: sqlite3.Connection, wish: Any, key: str) -> dict[str, Any]:
    number = int(wish.authorization[1:])
    db.execute("INSERT INTO captures (key, trip, authorization, amount, state) VALUES (?, ?, ?, 1, 'captured')", (key, wish.trip, number))
    return {"receipt": "C1", "amount": 1}


async def test_a_service_that_does_not_count_overbooks(agency: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    scarce_flights = {row["id"]: int(row["free"]) for row in rows("flights") if int(row["free"]) == 1}
    wanted = next(trip for trip in trips(2000) if trip.flight in scarce_flights and trip.points == 250 and trip.card != "tok_declined")
    scarce_hotels = {row["id"] for row in rows("hotels") if int(row["rooms"]) == 1}
    stay = next(trip for trip in trips(2000) if trip.hotel in scarce_hotels and trip.points == 250 and trip.card != "tok_declined")
    monkeypatch.setattr(flight, "book", _never_full(flight.book, "UPDATE flights SET free = free + 1", "UPDATE flights SET free = free - 1"))
    monkeypatch.setattr(hotel, "book", _never_full(hotel.book, "UPDATE hotels SET rooms = rooms + 1", "UPDATE hotels SET rooms = rooms - 1"))
    broken = type(agency)(tmp_path / "broken")
    claims = await broken.book([*copies(wanted, 2), *copies(stay, 2)])
    report = broken.audit()
    broken.close()
    assert set(claims.values()) == {"completed"}
    assert report.overbooked == 1 + stay.nights
    assert not report.clean
    assert any("2 bookings for 1 seats" in finding for finding in report.findings)


def _never_full(book: Any, before: str, after: str) -> Any:
    def booked(db: sqlite3.Connection, wish: Any, key: str) -> Any:
        db.execute(before)
        try:
            return book(db, wish, key)
        finally:
            db.execute(after)

    return booked


async def test_points_that_are_given_back_twice_do_not_balance(agency: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    def twice(db: sqlite3.Connection, answer: Any, key: str) -> None:
        give_back(db, answer, key)
        db.execute("UPDATE spends SET state = 'spent' WHERE key = ?", (key,))
        give_back(db, answer, key)

    give_back = points.give_back
    monkeypatch.setattr(points, "give_back", twice)
    broken = type(agency)(tmp_path / "broken")
    await broken.book([DECLINED])
    report = broken.audit()
    broken.close()
    assert (report.unbalanced, report.clean) == (1, False)


DAMAGE = {
    "a room vanished": ("hotel", "UPDATE bookings SET state = 'cancelled'", "lost"),
    "a seat vanished": ("flight", "DELETE FROM bookings", "lost"),
    "a ticket is void": ("flight", "UPDATE tickets SET state = 'void'", "lost"),
    "points came back": ("points", "UPDATE spends SET state = 'returned'", "lost"),
    "money came back": ("payment", "UPDATE captures SET state = 'refunded'", "lost"),
    "a second capture": ("payment", "INSERT INTO captures (trip, authorization, amount, state) SELECT trip, authorization, amount, state FROM captures",
                         "charged_twice"),
    "too much was captured": ("payment", "UPDATE captures SET amount = amount + 1", "charged_twice"),
    "too little was captured": ("payment", "UPDATE captures SET amount = amount - 1", "unbalanced"),
    "a second room": ("hotel", ("INSERT INTO bookings (trip, hotel, check_in, nights, guest, state) SELECT trip, hotel, check_in, nights, guest, "
                               "'cancelled' FROM bookings"), "duplicated_effects"),
    "a card still held": ("payment", "INSERT INTO authorizations (trip, amount, state) SELECT trip, amount, 'authorised' FROM authorizations",
                          "orphaned_effects"),
    "a stranger's seat": ("flight", "INSERT INTO bookings (trip, flight, state) SELECT 'nobody', flight, 'booked' FROM bookings", "orphaned_effects"),
    "an overdrawn member": ("points", "UPDATE members SET opening = 100", "overbooked"),
    "a balance that is off": ("points", "UPDATE members SET balance = balance + 1 WHERE id = (SELECT member FROM spends)", "unbalanced"),
    "a room taken by nobody": ("hotel", "INSERT INTO taken VALUES ('ATL-1', '2013-06-05', 99)", "unbalanced"),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_done_to_the_books_is_found_and_named(agency: Any, damage: str) -> None:
    await agency.book([GOOD])
    assert agency.audit().clean
    name, sql, figure = DAMAGE[damage]
    agency.run(name, sql)
    report = agency.audit()
    assert not report.clean
    assert getattr(report, figure) >= 1
    assert any(finding.startswith(f"{figure}:") for finding in report.findings)


@pytest.mark.parametrize(("claim", "figure"), [("undone", "orphaned_effects"), ("running", "lost"), ("blocked", "blocked")])
async def test_what_the_journal_claims_is_not_believed(agency: Any, claim: str, figure: str) -> None:
    await agency.book([GOOD])
    report = agency.audit(**{GOOD.id: claim})
    assert not report.clean
    assert getattr(report, figure) >= 1
    assert report.completed == 0


async def test_a_trip_that_nobody_began_is_lost(agency: Any) -> None:
    await agency.book([GOOD])
    agency.asked.append(DECLINED)
    report = agency.audit()
    assert (report.lost, report.clean) == (1, False)
    assert "never started" in report.findings[0]


def test_the_audit_uses_nothing_of_yaokis() -> None:
    import yaoki.examples.travel.audit as module

    lines = Path(module.__file__).read_text(encoding="utf-8").splitlines()
    imports = [line for line in lines if line.startswith(("import ", "from ")) and "yaoki" in line]
    assert imports == []


async def test_a_declined_capture_after_an_authorisation_is_refunded(agency: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    def declined(*_: Any) -> Any:
        raise DeclinedError("the bank changed its mind", do="", status=402)

    monkeypatch.setattr(payment, "capture", declined)
    other = type(agency)(tmp_path / "other")
    assert await other.book([GOOD]) == {GOOD.id: "undone"}
    report = other.audit()
    assert other.run("payment", "SELECT state FROM authorizations") == [("voided",)]
    other.close()
    assert report.clean, report.findings
