"""A queue with limits: how many of its runs may be under way at once, and how many may begin in a second. A decider.

    mail = Queue("mail", concurrency=20, per_worker=5, rate="100/s")
    send_mail = Saga("send-mail", input=Mail, queue=mail)             # its runs wait there, unless start(queue=...) says otherwise

Limits hold over all workers of a journal, by the journal's clock. A run *has a place* from when a worker takes it up until it
ends, is blocked, or is given back to wait (for a time, an answer, another worker). Whoever takes runs up first asks here:

    places left = min(concurrency - placed anywhere, per_worker - placed here)          and by GCRA: what the rate allows now

Source of GCRA: `policies/gcra.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil, inf

import msgspec

from yaoki.errors import ConfigError
from yaoki.policies.gcra import Gcra, Rate
from yaoki.runtime import Random

# A burst of this many seconds' worth unless the user says otherwise: takers look some ten times a second, not once a run.
BURST_S = 0.1

# Looking again sooner than this would cost more than the runs that it finds.
LOOK_S = 0.02

_RATE = re.compile(r"\s*([0-9.]+)\s*/\s*(s|m|h|d)\s*")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Queue(msgspec.Struct, frozen=True, omit_defaults=True):
    """A name under which runs wait for their turn, and the limits of it.

    Args:
        name: letters, digits, `-`, `_`, `.`.
        concurrency: runs under way at once, over all workers; None: no limit.
        per_worker: runs under way at once in one worker; None: no limit.
        rate: runs taken up in a second, over all workers; a number, or text as "100/s", "10/m", "1000/h"; None: no limit.
            A run that waits in between (a sleep, an answer) counts again when it is taken up again.
        burst: how many may be taken up at once after a rest; a tenth of a second's worth by default, at least 1.

    Raises:
        ConfigError: a limit that cannot be kept.
    """

    name: str
    concurrency: int | None = None
    per_worker: int | None = None
    rate: float | str | None = None
    burst: int | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise ConfigError(f"a queue's name is letters, digits, '-', '_' and '.', not {self.name!r}", do="rename it")
        for what, value in (("concurrency", self.concurrency), ("per_worker", self.per_worker), ("burst", self.burst)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigError(f"queue {self.name!r}: {what} is a whole number, at least 1, not {value!r}",
                                  do="leave it out for no limit; to stop a queue, pause it: yk pause queue " + self.name)
        if self.burst is not None and self.rate is None:
            raise ConfigError(f"queue {self.name!r}: burst= goes with rate=, and there is none", do="give rate=")
        if self.rate is not None:
            msgspec.structs.force_setattr(self, "rate", per_second(self.rate, f"queue {self.name!r}: rate"))

    @property
    def is_limited(self) -> bool:
        return (self.concurrency, self.per_worker, self.rate) != (None, None, None)

    @property
    def gcra(self) -> Rate | None:
        if self.rate is None:
            return None
        assert not isinstance(self.rate, str)
        return Rate(self.rate, self.burst or max(1, ceil(self.rate * BURST_S)))

    def limits(self) -> dict[str, float | None]:
        """The limits alone, for JSON."""
        assert not isinstance(self.rate, str)
        return {"concurrency": self.concurrency, "per_worker": self.per_worker, "rate": self.rate, "burst": self.burst}


class Usage(msgspec.Struct, frozen=True):
    """What a queue has in use. placed: runs under way anywhere; here: in this worker. tat: of its GCRA, by the journal's clock."""

    placed: int = 0
    here: int = 0
    tat: float = 0.0


class Admission(msgspec.Struct, frozen=True):
    """How many runs may be taken up now, and, when the rate is what holds back more, at which time to look again (else inf)."""

    count: int
    again_at: float = inf


def admit(queue: Queue, usage: Usage, now: float, wanted: int) -> Admission:
    """Decide how many of `wanted` runs may be taken up at `now`."""
    places = min(_left(queue.concurrency, usage.placed), _left(queue.per_worker, usage.here), wanted)
    rate = queue.gcra
    if rate is None or places <= 0:
        return Admission(int(max(0, places)))
    meter = Gcra(rate)
    meter.tat = usage.tat
    free = int(meter.free(now) + 1e-6)
    if free >= places:
        return Admission(int(places))
    again_at = taken_up(queue, usage.tat, now, free) + rate.interval_s - rate.burst_s
    return Admission(free, max(again_at, now + LOOK_S))


def taken_up(queue: Queue, tat: float, now: float, count: int) -> float:
    """The queue's new `tat` once `count` runs were taken up."""
    rate = queue.gcra
    return tat if rate is None or not count else max(tat, now) + count * rate.interval_s


class Due(msgspec.Struct, frozen=True):
    """Runs of one lane that could begin now: those of one queue, priority and tenant. `count`: up to as many as are wanted."""

    lane: int
    queue: str
    priority: int
    count: int


def deal(lanes: Sequence[Due], left: Mapping[str, float], wanted: int, rng: Random) -> dict[int, int]:
    """How many to take from each lane: urgent ones first, equals in turn, no queue more than it has `left`."""
    order = list(lanes)
    rng.shuffle(order)
    found: dict[int, int] = {}
    free = dict(left)
    for priority in sorted({each.priority for each in order}):
        equals = [each for each in order if each.priority == priority]
        while wanted > 0 and (equals := [each for each in equals if found.get(each.lane, 0) < each.count and free.get(each.queue, inf) >= 1]):
            peers = Counter(each.queue for each in equals)
            shares = {queue: max(1, min(wanted // len(equals), free.get(queue, inf) // count)) for queue, count in peers.items()}
            for each in equals:
                took = int(min(shares[each.queue], wanted, free.get(each.queue, inf), each.count - found.get(each.lane, 0)))
                if took > 0:
                    found[each.lane] = found.get(each.lane, 0) + took
                    free[each.queue] = free.get(each.queue, inf) - took
                    wanted -= took
    return found


def _left(limit: int | None, used: int) -> float:
    return inf if limit is None else limit - used


def per_second(rate: float | str, what: str = "rate") -> float:
    """`100`, `"100/s"`, `"10/m"` as runs a second. Raises ConfigError."""
    found = _RATE.fullmatch(rate) if isinstance(rate, str) else None
    try:
        value = float(found[1]) / _SECONDS[found[2]] if found else float(rate)
    except (TypeError, ValueError):
        value = 0.0
    if isinstance(rate, bool) or not 0 < value < inf:
        raise ConfigError(f"{what} is a number above 0 a second, or text as '100/s', '10/m', '1000/h', not {rate!r}",
                          do="100 is a hundred a second")
    return value
