"""What is made to happen in one execution, as data, and the one line that replays it.

    yk1:payment>payment.book@0=call.lost_ack+journal.commit@3=crash.after_checkpoint,seed=7

A plan is a list of faults, each at the n-th visit (from 0) of a site. A site names what is called and by which step, never
a line number, so that a token outlives edits of the code. A plan whose fault is never reached does not apply any more, and
replaying it says so instead of running something else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from yaoki.chaos import faults
from yaoki.errors import ConfigError

VERSION = "yk1"
_PART = re.compile(r"(?P<site>[^@=+,]+)@(?P<nth>\d+)=(?P<fault>[a-z_.:0-9]+)\Z")


class Planned(msgspec.Struct, frozen=True, order=True):
    """One fault at one place: the `nth` visit, from 0, of `site`."""

    site: str
    nth: int
    fault: str

    def __str__(self) -> str:
        return f"{self.site}@{self.nth}={self.fault}"

    def told(self) -> str:
        """For a person: `payment.book, 2nd time: the effect happened and the reply was lost (call.lost_ack)`."""
        return f"{self.site}, {_ordinal(self.nth + 1)} time: {faults.find(self.fault).says} ({self.fault})"


Plan = tuple[Planned, ...]


class Settings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What else an execution depends on.

    seed: of randomness; order: of what falls due together (0: as it was set); schedule: in which order requests that are under way
    together arrive (0: each in its turn), see `schedules.py`.
    """

    seed: int = 0
    order: int = 0
    schedule: int = 0


PLAIN = Settings()


def token(plan: Plan, settings: Settings = PLAIN) -> str:
    """The line that replays an execution, on any version of Python and with any hash seed."""
    words = ["+".join(map(str, plan)) or "none"]
    words += [f"{name}={value}" for name, value in msgspec.to_builtins(settings).items()]
    return f"{VERSION}:{','.join(words)}"


def parse(text: str) -> tuple[Plan, Settings]:
    """Read what `token` wrote.

    Raises:
        ConfigError: it is not a token, or of a version this program does not know.
    """
    version, _, rest = text.strip().partition(":")
    if version != VERSION or not rest:
        raise ConfigError(f"{text!r} is not a replay token", do=f"a token begins with {VERSION}: and is printed with each counterexample")
    first, *options = rest.split(",")
    parts = [] if first == "none" else first.split("+")
    return tuple(_planned(part) for part in parts), _settings(options)


def _planned(part: str) -> Planned:
    match = _PART.match(part)
    if match is None:
        raise ConfigError(f"{part!r} is not `site@nth=fault`", do="copy the whole token, in quotes")
    faults.find(match["fault"])
    return Planned(match["site"], int(match["nth"]), match["fault"])


def _settings(options: list[str]) -> Settings:
    values: dict[str, int] = {}
    for option in options:
        name, _, value = option.partition("=")
        if name not in Settings.__struct_fields__ or not value.isdigit():
            raise ConfigError(f"{option!r} is not a setting of a replay token", do="copy the whole token, in quotes")
        values[name] = int(value)
    return msgspec.convert(values, Settings)


def lookup(plan: Plan) -> dict[tuple[str, int], str]:
    """The plan as the world asks for it: `(site, nth)` → fault."""
    found: dict[tuple[str, int], str] = {}
    for each in plan:
        if found.setdefault((each.site, each.nth), each.fault) != each.fault:
            raise ConfigError(f"two faults at {each.site}@{each.nth}", do="a visit of a site can fail in one way only")
    return found


def plain(plan: Plan) -> list[Mapping[str, object]]:
    """For JSON."""
    return [{"site": each.site, "nth": each.nth, "fault": each.fault} for each in plan]


def _ordinal(number: int) -> str:
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"
