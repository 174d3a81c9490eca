"""When a schedule fires: cron's fields, zones, and the two days on which clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from yaoki.errors import ConfigError
from yaoki.saga.schedule.cron import Cron, Every, iso

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def local(cron: Cron, begin: str, count: int) -> list[str]:
    """The next instants as the zone's clock shows them, with its offset."""
    instant, found = at(begin, cron.zone.key), []
    for _ in range(count):
        instant = cron.next_after(instant)
        found.append(datetime.fromtimestamp(instant, cron.zone).strftime("%m-%d %H:%M%z"))
    return found


@pytest.mark.parametrize(("expression", "begin", "expected"), [
    ("0 3 * * *", "2026-01-31T02:59:59", "2026-01-31T03:00:00Z"),
    ("0 3 * * *", "2026-01-31T03:00:00", "2026-02-01T03:00:00Z"),
    ("*/15 9-17 * * MON-FRI", "2026-01-02T17:46", "2026-01-05T09:00:00Z"),
    ("5,50 0 1 JAN,jul *", "2026-02-01T00:00", "2026-07-01T00:05:00Z"),
    ("0 0 29 2 *", "2026-01-01T00:00", "2028-02-29T00:00:00Z"),
    ("0 0 29 2 *", "2096-03-01T00:00", "2104-02-29T00:00:00Z"),
    ("0 0 13 * 5", "2026-01-01T00:00", "2026-01-02T00:00:00Z"),  # the 13th, or any Friday
    ("0 0 * * 7", "2026-01-01T00:00", "2026-01-04T00:00:00Z"),
    ("0 0 */10 * *", "2026-01-02T00:00", "2026-01-11T00:00:00Z"),
    ("3/20 * * * *", "2026-01-01T00:04", "2026-01-01T00:23:00Z"),
    ("@monthly", "2026-01-01T00:00", "2026-02-01T00:00:00Z"),
])
def test_the_next_instant(expression: str, begin: str, expected: str):
    assert iso(Cron(expression).next_after(at(begin))) == expected


@pytest.mark.parametrize("expression", ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8",
                                        "5-1 * * * *", "*/0 * * * *", "a * * * *", "* * * FOO *", "0 0 31 2 *", "0 0 30 FEB *", "*/x * * * *",
                                        "-1 * * * *", "1-2-3 * * * *", "@often"])
def test_what_cannot_be_is_refused(expression: str):
    with pytest.raises(ConfigError) as caught:
        Cron(expression)
    assert caught.value.do


def test_a_zone_that_is_none_is_refused():
    for zone in ("Europe/Berlln", "", "../etc/passwd"):
        with pytest.raises(ConfigError, match="no time zone"):
            Cron("* * * * *", zone)


def test_in_spring_what_is_left_out_comes_once_when_the_clock_has_been_changed():
    assert local(Cron("30 2 * * *", BERLIN), "2026-03-28T00:00", 3) == ["03-28 02:30+0100", "03-29 03:00+0200", "03-30 02:30+0200"]
    # All that the missing hour would have had is one run.
    assert local(Cron("*/10 2 * * *", BERLIN), "2026-03-29T00:00", 2) == ["03-29 03:00+0200", "03-30 02:00+0200"]
    # And what is due at 03:00 anyway is not done twice.
    assert local(Cron("30 2,3 * * *", BERLIN), "2026-03-29T00:00", 3) == ["03-29 03:00+0200", "03-29 03:30+0200", "03-30 02:30+0200"]
    assert local(Cron("0 2,3 * * *", BERLIN), "2026-03-29T00:00", 2) == ["03-29 03:00+0200", "03-30 02:00+0200"]


def test_in_autumn_what_comes_twice_is_done_the_first_time():
    assert local(Cron("30 2 * * *", BERLIN), "2026-10-24T12:00", 2) == ["10-25 02:30+0200", "10-26 02:30+0100"]


def test_what_runs_all_day_long_keeps_its_rhythm_on_both_days():
    assert local(Cron("*/30 * * * *", BERLIN), "2026-03-29T01:15", 3) == ["03-29 01:30+0100", "03-29 03:00+0200", "03-29 03:30+0200"]
    assert local(Cron("*/30 * * * *", BERLIN), "2026-10-25T01:45", 5) == [
        "10-25 02:00+0200", "10-25 02:30+0200", "10-25 02:00+0100", "10-25 02:30+0100", "10-25 03:00+0100"]


def test_clocks_that_are_changed_by_half_an_hour_at_midnight_or_by_a_whole_day():
    assert local(Cron("15 2 * * *", "Australia/Lord_Howe"), "2026-10-03T12:00", 2) == ["10-04 02:30+1100", "10-05 02:15+1100"]
    assert local(Cron("30 0 * * *", "America/Havana"), "2026-03-07T12:00", 2) == ["03-08 01:00-0400", "03-09 00:30-0400"]
    assert local(Cron("0 12 * * *", "Pacific/Apia"), "2011-12-29T00:00", 3) == ["12-29 12:00-1000", "12-31 00:00+1400", "12-31 12:00+1400"]


ZONES = ("UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "America/Havana", "Asia/Kathmandu", "Africa/Casablanca", "America/Sao_Paulo",
         "Pacific/Apia", "Antarctica/Troll")
minutes = st.sampled_from(("0", "30", "*/15", "7,52", "*"))
hours = st.sampled_from(("*", "*/2", "2", "0", "1-3", "23", "0,12"))
days = st.sampled_from(("*", "*", "1", "*/7", "28-31"))
weekdays = st.sampled_from(("*", "*", "0", "MON-FRI"))


def by_counting(cron: Cron, begin: float, end: float) -> list[float]:
    """Every minute of real time, looked at one by one: what fires by the rules, said in another way."""
    found: list[float] = []
    instant = float((int(begin) // 60 + 1) * 60)
    before = datetime.fromtimestamp(instant - 60, cron.zone)
    for _ in range(int(end - begin) // 60 + 1):
        if instant > end:
            break
        now = datetime.fromtimestamp(instant, cron.zone)
        naive = now.replace(tzinfo=None, fold=0)
        fits = cron._is_day(naive) and naive.hour in cron._hours and naive.minute in cron._minutes
        gap = [before.replace(tzinfo=None, fold=0) + timedelta(minutes=n) for n in range(1, int((naive - before.replace(
            tzinfo=None, fold=0)).total_seconds()) // 60)] if naive > before.replace(tzinfo=None, fold=0) else []
        left_out = any(cron._is_day(each) and each.hour in cron._hours and each.minute in cron._minutes for each in gap)
        if cron._named_hours:
            first_time = not now.fold
            if (fits and first_time) or left_out:
                found.append(instant)
        elif fits:
            found.append(instant)
        before = now
        instant += 60
    return found


@cache
def changes(zone: str, year: int) -> list[float]:
    """The hours of a year in which the zone's clock is changed."""
    begin, of = datetime(year, 1, 1, tzinfo=UTC).timestamp(), ZoneInfo(zone)
    offsets = [datetime.fromtimestamp(begin + 3600.0 * n, of).utcoffset() for n in range(365 * 24)]
    return [begin + 3600.0 * n for n, (one, other) in enumerate(pairwise(offsets)) if one != other] or [begin]


@given(st.sampled_from(ZONES), st.tuples(minutes, hours, days, weekdays), st.integers(-18 * 3600, 6 * 3600), st.sampled_from((2011, 2024, 2026)),
       st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_around_a_change_it_fires_when_counting_the_minutes_says_so(zone: str, fields: tuple[str, ...], second: int, year: int, which: int):
    minute, hour, day, weekday = fields
    cron = Cron(f"{minute} {hour} {day} * {weekday}", zone)
    found = changes(zone, year)
    begin = found[which % len(found)] + second
    end = begin + 30 * 3600
    expected, instant, fired = by_counting(cron, begin, end), begin, []
    while (instant := cron.next_after(instant)) <= end:
        fired.append(instant)
    assert [iso(each) for each in fired] == [iso(each) for each in expected]


@given(st.sampled_from(ZONES), minutes, hours, st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_it_only_goes_forward_and_a_named_time_of_the_day_comes_once_a_day(zone: str, minute: str, hour: str, begin: int):
    """Also on the days of a change, and whatever the zone does."""
    cron = Cron(f"{minute} {hour} * * *", zone)
    instants = [cron.next_after(float(begin))]
    for _ in range(20):
        instants.append(cron.next_after(instants[-1]))
    assert all(one < other for one, other in pairwise(instants))
    assert instants[0] > begin
    # From just before an instant, the next one is that instant: whoever asks when, all workers mean the same ones.
    assert all(cron.next_after(each - 0.001) == each for each in instants)
    once = Cron("30 2 * * *", zone)
    day = [datetime.fromtimestamp(once.next_after(float(begin) + n * 86_400.0), once.zone).date() for n in range(8)]
    assert all(other - one <= timedelta(days=2) for one, other in pairwise(day))


@given(st.floats(1, 1e6), st.floats(0, 1e6), st.floats(0, 2e9))
@example(6.9, 132.0, 132.0)
def test_an_interval_means_the_same_instants_to_all(seconds: float, offset: float, begin: float):
    every = Every(seconds, offset)
    after = every.next_after(begin)
    assert begin < after <= begin + seconds * 1.001 + 1e-3
    assert every.next_after((begin + after) / 2) == after or (begin + after) / 2 in {begin, after}


def test_an_interval_is_a_second_at_least():
    with pytest.raises(ConfigError):
        Every(0.5)
