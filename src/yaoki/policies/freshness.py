"""Decide what to do with a cached value: serve it, refresh it early, or serve it stale because nothing better is to be had.

    age < ttl                             fresh: serve; perhaps refresh early (below)
    ttl ≤ age < ttl + stale_if_error      stale: fetch, and serve this if the fetch fails
    beyond                                gone

Early refresh (XFetch): a hit is treated as a miss with a chance that grows as expiry comes near and with the time a fetch
takes, so one caller refreshes while the others are still served, and expiry is not a stampede:

    refresh when   now − fetch_s · beta · ln(U(0, 1])  ≥  expires_at

Source: Vattani, Chierichetti and Lowenstein, "Optimal probabilistic cache stampede prevention" (VLDB 2015); RFC 5861.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from math import log
from typing import Generic, Literal, TypeVar

from yaoki.errors import ConfigError
from yaoki.runtime import Random

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

State = Literal["fresh", "early", "stale", "gone"]


class Entry(Generic[V]):
    """One value, or one failure that is worth remembering."""

    __slots__ = ("error", "expires_at", "fetch_s", "gone_at", "sure_until", "value")

    def __init__(self, value: V | None, error: BaseException | None, *, fetch_s: float, expires_at: float, gone_at: float) -> None:
        self.value = value
        self.error = error
        self.fetch_s = fetch_s
        self.expires_at = expires_at
        self.gone_at = gone_at
        self.sure_until = float("-inf")
        """Until then it is fresh without asking: nobody would draw an early refresh."""


class Freshness:
    """The rules of one cache.

    Args:
        ttl_s: seconds a value is fresh, above 0.
        stale_if_error_s: seconds after that in which it may stand in for a fetch that failed.
        negative_ttl_s: seconds a failure that means "there is none" is remembered; 0 for not at all.
        early: XFetch's beta; 1 is optimal for most, 0 switches it off.
    """

    __slots__ = ("early", "negative_ttl_s", "stale_if_error_s", "ttl_s")

    def __init__(self, ttl_s: float, *, stale_if_error_s: float = 0.0, negative_ttl_s: float = 0.0, early: float = 1.0) -> None:
        if not ttl_s > 0:
            raise ConfigError(f"ttl={ttl_s!r} seconds is not above 0", do="give how long a value stays fresh; single_flight() needs none")
        for name, seconds in (("stale_if_error", stale_if_error_s), ("negative_ttl", negative_ttl_s), ("early", early)):
            if not seconds >= 0:
                raise ConfigError(f"{name}={seconds!r} is negative", do="give 0 to switch it off")
        self.ttl_s = ttl_s
        self.stale_if_error_s = stale_if_error_s
        self.negative_ttl_s = negative_ttl_s
        self.early = early

    def state(self, entry: Entry[V], now: float, rng: Random) -> State:
        """What may be done with `entry` at `now`."""
        if now < entry.expires_at:
            if self.early and entry.error is None:
                # 1 − random() is in (0, 1], where the logarithm exists.
                ahead_s = -entry.fetch_s * self.early * log(1.0 - rng.random())
                if now + ahead_s >= entry.expires_at:
                    return "early"
            return "fresh"
        return "stale" if now < entry.gone_at else "gone"

    def value(self, value: V, now: float, fetch_s: float) -> Entry[V]:
        """The entry for a value fetched just now, in `fetch_s` seconds."""
        expires_at = now + self.ttl_s
        entry = Entry(value, None, fetch_s=fetch_s, expires_at=expires_at, gone_at=expires_at + self.stale_if_error_s)
        # Forty fetches ahead of expiry the draw says yes once in e^40 times.
        entry.sure_until = expires_at - 40.0 * fetch_s * self.early
        return entry

    def failure(self, error: BaseException, now: float) -> Entry[V]:
        """The entry for a failure to be remembered."""
        expires_at = now + self.negative_ttl_s
        return Entry(None, error, fetch_s=0.0, expires_at=expires_at, gone_at=expires_at)


class Entries(Generic[K, V]):
    """At most `max_keys` entries; the one used longest ago goes first."""

    __slots__ = ("_held", "max_keys")

    def __init__(self, max_keys: int) -> None:
        if max_keys < 1:
            raise ConfigError(f"max_keys={max_keys!r} is below 1", do="give how many results may be kept")
        self.max_keys = max_keys
        self._held: OrderedDict[K, Entry[V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: K) -> Entry[V] | None:
        entry = self._held.get(key)
        if entry is not None:
            self._held.move_to_end(key)
        return entry

    def put(self, key: K, entry: Entry[V]) -> None:
        self._held[key] = entry
        self._held.move_to_end(key)
        if len(self._held) > self.max_keys:
            self._held.popitem(last=False)

    def forget(self, key: K) -> None:
        self._held.pop(key, None)

    def clear(self) -> None:
        self._held.clear()
