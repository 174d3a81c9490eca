"""When a schedule fires. Deciders: an instant in, the next one out; seconds since 1970.

    ┌──── minute 0–59       *  any      a-b  from to     */n, a-b/n  every n-th
    │ ┌──── hour 0–23       a,b  or     names: MON, JAN  @hourly @daily @weekly @monthly @yearly
    │ │ ┌──── day 1–31
    │ │ │ ┌──── month 1–12            a day of the month and one of the week, both given: either is enough, as in cron(8)
    │ │ │ │ ┌──── day of the week 0–7, 0 and 7 are Sunday
    30 2 * * *

The clock of a zone is changed twice a year in many places. What happens to 02:30 then:

                                   spring: 02:00–03:00 is left out         autumn: 02:00–03:00 comes twice
    hours are named (30 2 * * *)   once, when the clock has been changed   once, the first time
    any hour (*/30 * * * *)        what is left out does not fire          both times: every 30 minutes is every 30 minutes

So a job with hours of its own is neither lost nor done twice, and one that runs all day long keeps its rhythm.

Source: cron(8) of Debian, section "Daylight Saving Time and other time changes"; PEP 495 for folds and gaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import floor
from typing import TYPE_CHECKING

from yaoki.errors import ConfigError

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_MONTHS = {name: number for number, name in enumerate(["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"], 1)}
_DAYS = {name: number for number, name in enumerate(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"])}
_NICKNAMES = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *",
              "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *"}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}), ("hour", 0, 23, {}), ("day", 1, 31, {}), ("month", 1, 12, _MONTHS), ("day of the week", 0, 7, _DAYS))

# Clocks are put back by two hours at most, so an instant that comes before another can be named later by so much.
_FOLD_HOURS = 3
# 29 February is up to eight years away, over 2100.
_HORIZON_DAYS = 9 * 366


class Cron:
    """Five fields in a time zone. Raises ConfigError for what cannot be read, or never comes."""

    def __init__(self, expression: str, zone: str = "UTC") -> None:
        from zoneinfo import ZoneInfo  # noqa: PLC0415  most programs have no schedule

        self.expression = expression.strip()
        try:
            self.zone: ZoneInfo = ZoneInfo(zone)
        except (KeyError, ValueError, OSError) as error:
            raise ConfigError(f"there is no time zone {zone!r}", do="name one of the IANA database, as Europe/Berlin; where the system has none, pip install tzdata") from error
        fields = _NICKNAMES.get(self.expression.lower(), self.expression).split()
        if len(fields) != len(_FIELDS):
            raise ConfigError(f"cron={expression!r} has {len(fields)} fields, not 5", do='minute hour day month weekday, as "30 2 * * *"')
        found = [_values(text, *field) for text, field in zip(fields, _FIELDS, strict=True)]
        self._minutes, self._hours, self._days, self._months = (sorted(values) for values in found[:4])
        self._weekdays = {day % 7 for day in found[4]}
        self._either_day = not fields[2].startswith("*") and not fields[4].startswith("*")
        self._named_hours = not fields[1].startswith("*")
        if not any(self._is_day(datetime(2000, 1, 1) + timedelta(days=n)) for n in range(_HORIZON_DAYS)):  # noqa: DTZ001  a calendar's day
            raise ConfigError(f"cron={expression!r} never comes", do="there is no such day in any month")

    def next_after(self, instant: float) -> float:
        """The first instant after this one at which it fires."""
        hour = datetime.fromtimestamp(instant, self.zone).replace(minute=0, second=0, microsecond=0, tzinfo=None, fold=0)
        hour -= timedelta(hours=_FOLD_HOURS)
        best, left = 0.0, 0
        until = hour + timedelta(days=_HORIZON_DAYS)
        while not best or left > 0:
            if not self._is_day(hour) and not best:
                hour = hour.replace(hour=0) + timedelta(days=1)
                assert hour < until
                continue
            if self._is_day(hour) and hour.hour in self._hours:
                coming = [each for each in self._within(hour) if each > instant and (not best or each < best)]
                if coming:
                    best, left = min(coming), left or _FOLD_HOURS + 1
            hour += timedelta(hours=1)
            left -= bool(best)
        return best

    def _is_day(self, day: datetime) -> bool:
        if day.month not in self._months:
            return False
        by_month, by_week = day.day in self._days, day.isoweekday() % 7 in self._weekdays
        return by_month or by_week if self._either_day else by_month and by_week

    def _within(self, hour: datetime) -> Iterator[float]:
        """The instants of one hour of the local clock."""
        first, last = hour.replace(tzinfo=self.zone), (hour + timedelta(minutes=59)).replace(tzinfo=self.zone)
        if len({first.utcoffset(), last.utcoffset(), first.replace(fold=1).utcoffset(), last.replace(fold=1).utcoffset()}) == 1:
            yield from (first.timestamp() + 60.0 * minute for minute in self._minutes)  # nearly always
            return
        for minute in self._minutes:
            yield from self._of_local(first.replace(minute=minute))

    def _of_local(self, local: datetime) -> list[float]:
        """When the local clock shows this: once, twice, or never."""
        early, late = local.replace(fold=0).timestamp(), local.replace(fold=1).timestamp()
        if early == late:
            return [early]
        if early > late:  # left out: between the two the clock is changed
            return [self._change(late, early)] if self._named_hours else []
        return [early] if self._named_hours else [early, late]

    def _change(self, before: float, after: float) -> float:
        """The instant between these at which the offset changes, which is a whole second."""
        low, high = floor(before), floor(after)
        old = datetime.fromtimestamp(low, self.zone).utcoffset()
        while high - low > 1:
            middle = (low + high) // 2
            if datetime.fromtimestamp(middle, self.zone).utcoffset() == old:
                low = middle
            else:
                high = middle
        return float(high)


class Every:
    """Every so many seconds, counted from 1970, so that all workers mean the same instants. offset_s: later by so much."""

    def __init__(self, seconds: float, offset_s: float = 0.0) -> None:
        if not seconds >= 1:
            raise ConfigError(f"every={seconds!r} is not a number of seconds, at least 1", do="every=900 is a quarter of an hour")
        self.seconds = float(seconds)
        self.offset_s = offset_s % self.seconds

    def next_after(self, instant: float) -> float:
        """The first instant after this one at which it fires."""
        number = floor((instant - self.offset_s) / self.seconds)
        # Rounding may name the neighbour; the instants themselves are the same for all, for they come from whole numbers.
        return next(each for n in range(number - 1, number + 3) if (each := n * self.seconds + self.offset_s) > instant)


When = Cron | Every


def iso(instant: float) -> str:
    """`2026-03-29T01:00:00Z`, which is how an instant stands in the id of a run."""
    return datetime.fromtimestamp(instant, UTC).isoformat().replace("+00:00", "Z")


def _values(text: str, name: str, low: int, high: int, names: dict[str, int]) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        begin, dash, end = span.partition("-")
        try:
            every = int(step) if step else 1
            if span == "*":
                first, last = low, high
            else:
                first = _number(begin, names)
                last = _number(end, names) if dash else high if step else first
        except ValueError:
            raise ConfigError(f"{part!r} is not a {name}", do=f"{low} to {high}{', or a name as ' + next(iter(names)) if names else ''}") from None
        if not (low <= first <= last <= high) or every < 1 or (step and not step.isdecimal()):
            raise ConfigError(f"{part!r} is not a {name}: {low} to {high}", do="write a-b with a below b, and */n with n above 0")
        found.update(range(first, last + 1, every))
    return found


def _number(text: str, names: dict[str, int]) -> int:
    return names[text.upper()] if text.upper() in names else int(text)
