"""Decide how old a local copy of pushed data is, and what that means.

    fetched ──age > alarm_after──▶ alarmed (once), still read ──age > valid_for──▶ not read any more
       ▲                               │                                                │
       └────────── fetched ────────────┴────────────────────────────────────────────────┘
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from yaoki.errors import ConfigError

T = TypeVar("T")

NEVER: Any = object()
"""The value of a copy that was never fetched."""


class Copy(Generic[T]):
    """The copy, and when it was fetched. Instants are on the caller's monotonic clock.

    Args:
        valid_for_s: seconds after which the copy is not read any more.
        alarm_after_s: seconds after which somebody is told, at most `valid_for_s`.
    """

    __slots__ = ("_alarmed", "alarm_after_s", "at", "valid_for_s", "value")

    def __init__(self, valid_for_s: float, alarm_after_s: float) -> None:
        if not 0 < alarm_after_s <= valid_for_s:
            raise ConfigError(f"alarm_after={alarm_after_s!r} s is not within valid_for={valid_for_s!r} s",
                              do="give an alarm time above 0 that leaves time to act before the data expires")
        self.valid_for_s = valid_for_s
        self.alarm_after_s = alarm_after_s
        self.at = float("-inf")
        self.value: T = NEVER
        self._alarmed = False

    def put(self, value: T, at: float) -> bool:
        """Take in data as of `at`. False, and nothing changes, when what is held is newer."""
        if at < self.at:
            return False
        self.value, self.at, self._alarmed = value, at, False
        return True

    def age_s(self, now: float) -> float:
        """Seconds since it was fetched; infinite when it never was."""
        return now - self.at

    def is_valid(self, now: float) -> bool:
        return now - self.at <= self.valid_for_s

    def alarms(self, now: float) -> bool:
        """Is it time to tell somebody? True once for each time the copy becomes too old."""
        if self._alarmed or now - self.at <= self.alarm_after_s:
            return False
        self._alarmed = True
        return True
