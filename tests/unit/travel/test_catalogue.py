"""The shipped data: whole, consistent, and with the trouble that the demo needs."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import yaoki.examples.travel as package
from yaoki.examples.travel.catalogue import rows, trips

DAYS = [f"2013-06-0{day}" for day in range(1, 8)]


def test_every_trip_names_a_flight_a_hotel_and_a_member_that_exist():
    flights = {row["id"]: row for row in rows("flights")}
    hotels = {row["id"]: row for row in rows("hotels")}
    members = {row["id"]: row for row in rows("members")}
    for trip in trips(2000):
        assert trip.member in members
        assert flights[trip.flight]["dest"] == hotels[trip.hotel]["airport"], "one sleeps where one lands"
        assert flights[trip.flight]["departs"][:10] == trip.check_in
        assert trip.price == int(flights[trip.flight]["price"]) + trip.nights * int(hotels[trip.hotel]["price"])
        assert trip.points >= 1


def test_among_a_thousand_trips_flights_and_hotels_sell_out_and_cards_decline():
    wanted = list(trips(1000))
    free = {row["id"]: int(row["free"]) for row in rows("flights")}
    over = Counter(trip.flight for trip in wanted) - Counter(free)
    assert over.total() > 30, "seats asked for beyond those that are left"
    rooms = {(row["id"], day): int(row["rooms"]) for row in rows("hotels") for day in DAYS}
    nights = Counter((trip.hotel, trip.check_in) for trip in wanted)
    assert (nights - Counter(rooms)).total() > 5
    assert 20 < sum(trip.card == "tok_declined" for trip in wanted) < 100


def test_more_trips_than_are_shipped_are_the_same_trips_under_new_ids():
    more = list(trips(2500))
    assert len({trip.id for trip in more}) == 2500
    assert more[2000].flight == more[0].flight
    assert [trip.id for trip in islice(trips(10_000), 2)] == ["trip-00001", "trip-00002"]


def test_a_seat_left_to_sell_is_a_seat_of_the_airframe():
    for row in rows("flights"):
        assert 0 <= int(row["free"]) <= int(row["seats"])


def test_the_data_is_small_and_says_where_it_comes_from():
    data = Path(package.__file__).parent / "data"
    assert sum(path.stat().st_size for path in data.iterdir() if path.is_file()) < 1_000_000
    assert "CC0" in (data / "README.md").read_text()
