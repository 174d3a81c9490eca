"""Lengths of time as people write and read them: `250ms`, `2s`, `5m`, `1h30m`, `30d`."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from yaoki.errors import ConfigError

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_DO = "write a number with a unit: 250ms, 2s, 5m, 1h30m, 30d"


def parse_duration(text: str | float, what: str = "a duration") -> float:
    """Seconds. A bare number is refused, because nobody can tell seconds from milliseconds by looking; 0 needs no unit.

    Raises ConfigError, naming `what`.
    """
    plain = str(text).strip().replace(" ", "").lower()
    if plain in {"0", "0.0"}:
        return 0.0
    if not plain or _PART.sub("", plain):
        raise ConfigError(f"{what} is a length of time, not {text!r}", do=_DO)
    return sum(float(number) * UNITS[unit] for number, unit in _PART.findall(plain))


def parse_instant(text: str, now: float, what: str = "--since") -> float:
    """Seconds since 1970, of "an hour ago" written as `1h`, or of an ISO 8601 date or time (UTC unless it says otherwise)."""
    try:
        return now - parse_duration(text, what)
    except ConfigError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{what} is a length of time back from now, or a date, not {text!r}",
                          do="write 15m, 2h, 7d, 2026-11-21 or 2026-11-21T09:30") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def show_duration(seconds: float) -> str:
    """Two units at most: `850 ms`, `4.2 s`, `3 m 05 s`, `2 h 10 m`, `5 d 3 h`."""
    if seconds < 0:
        return "-" + show_duration(-seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def show_age(at: float, now: float) -> str:
    """How long ago: `12 s ago`. A clock that went back shows as now."""
    age = now - at
    return "now" if age < 0.5 else f"{age:.0f} s ago" if age < 60 else f"{show_duration(age)} ago"


def show_instant(at: float) -> str:
    """UTC, to the millisecond, as ISO 8601; "" for 0, which means never."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else ""
