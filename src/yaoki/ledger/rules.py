"""The settings of an audit, and the promise that follows from them: within what time a loss is named.

    a loss is named within    seal + hold + slo + audit + listing + 2 · clock error     after the change was committed
    a standstill is named within    beat + slo + audit + listing + 2 · clock error      after it began

The auditor exports both numbers, measures the real delays, and fails its own test when one is exceeded.
"""

from __future__ import annotations

import msgspec

from yaoki.errors import ConfigError


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """How soon things must have happened. All in seconds.

    Attributes:
        slo_s: a version must be at rest in the sink this long after it was committed.
        beat_every_s: how often each partition writes a heartbeat.
        seal_every_s: an epoch is sealed at least this often.
        hold_s: how long an open transaction may hold sealing back before that is a finding of its own.
        audit_every_s: how often the auditor looks.
        listing_s: how long reading the sink takes at most.
        clock_error_s: how far two clocks may differ.
    """

    slo_s: float = 60.0
    beat_every_s: float = 30.0
    seal_every_s: float = 5.0
    hold_s: float = 30.0
    audit_every_s: float = 10.0
    listing_s: float = 10.0
    clock_error_s: float = 1.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not value >= 0 or (value == 0 and name in {"slo_s", "beat_every_s", "seal_every_s", "audit_every_s"}):
                raise ConfigError(f"{name} must be above 0 seconds, got {value!r}", do="give a number of seconds")

    @property
    def loss_bound_s(self) -> float:
        """Longest time from the commit of a change to the finding that names its loss."""
        return (self.seal_every_s + self.hold_s + self.slo_s + self.audit_every_s + self.listing_s
                + 2 * self.clock_error_s)

    @property
    def stuck_bound_s(self) -> float:
        """Longest time from a standstill to the verdict that names it."""
        return self.beat_every_s + self.slo_s + self.audit_every_s + self.listing_s + 2 * self.clock_error_s

    @property
    def source_silent_after_s(self) -> float:
        """A source whose newest beat is older than this is not heard from. One beat may come late."""
        return 2 * self.beat_every_s + self.hold_s + 2 * self.clock_error_s
