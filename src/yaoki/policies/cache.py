"""cache: keep answers for a while, and serve an old one rather than none.

    pipeline(cache(ttl=60, stale_if_error=3600), deadline(2.0), retry(3), ...)
    cache(ttl=60, negative=(NotFound,), negative_ttl=5)        # "there is none" is an answer too

What to do with a kept answer is decided in `freshness.py`; calls that miss at the same time become one (`single_flight.py`).
On an event loop an early refresh runs beside the caller, who is served at once; in plain threads the caller makes it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from yaoki import events, runtime
from yaoki.errors import ConfigError
from yaoki.policies.classify import classify
from yaoki.policies.freshness import Entries, Entry, Freshness
from yaoki.policies.policy import Finding, Policy, Site, seconds
from yaoki.policies.single_flight import Flights, Key, ThreadFlights, key_maker

Negative = tuple[type[BaseException], ...] | Callable[[BaseException], bool]


class Cache(Policy):
    """Answers from memory while they are fresh. Thread-safe; each decorated function keeps its own answers.

    A failed fetch raises the service's own error, unless an answer not yet too old can stand in for it. An answer that
    means "no" (`classify` finds the service healthy) is never papered over with an old one.
    """

    kind = "cache"
    once = False

    def __init__(self, rules: Freshness, *, key: Key | None = None, negative: Negative = (), max_keys: int = 10_000) -> None:
        if negative and not rules.negative_ttl_s:
            raise ConfigError("negative= is given without negative_ttl=, so no failure would ever be kept.",
                              do="Give negative_ttl= in seconds as well.")
        self.rules = rules
        self.key = key
        self.max_keys = max_keys
        self._negative = negative
        self._kept: list[Kept] = []

    def wrap(self, inner: Callable[..., Any], site: Site) -> Callable[..., Any]:
        kept = Kept(self, site)
        self._kept.append(kept)
        if site.is_async:
            return _async_shell(kept, inner)
        return _sync_shell(kept, inner)

    def forget(self, *args: Any, **kwargs: Any) -> None:
        """Drop the answer to the call with these arguments, after a write that made it wrong.

        A fetch under way may have read before that write: who waits for it gets its answer, but it is not kept, and who asks
        from now on does not wait for it.
        """
        for kept in self._kept:
            kept.forget(args, kwargs)

    def clear(self) -> None:
        """Drop every answer, those under way included."""
        for kept in self._kept:
            kept.clear()

    def __len__(self) -> int:
        """Answers held."""
        return sum(len(kept.entries) for kept in self._kept)

    def is_negative(self, error: BaseException) -> bool:
        """Is this failure an answer worth keeping?"""
        return isinstance(error, self._negative) if isinstance(self._negative, tuple) else self._negative(error)

    def describe(self) -> str:
        rules = self.rules
        return (f"cache(ttl={rules.ttl_s:g}, stale_if_error={rules.stale_if_error_s:g}, "
                f"negative_ttl={rules.negative_ttl_s:g}, early={rules.early:g})")

    def lint(self, outer: Sequence[Policy], inner: Sequence[Policy], site: Site) -> Iterable[Finding]:  # noqa: ARG002
        for policy in outer:
            if policy.kind in ("retry", "hedge", "breaker", "rate"):
                yield Finding("cache", f"it stands inside {policy.kind}, which then counts answers that cost nothing.",
                              "Put cache outside everything but fallback.")
                return


class Fetch:
    """One answer under way: what calls that miss at the same time have in common."""

    __slots__ = ("__weakref__", "forgotten")

    def __init__(self) -> None:
        self.forgotten = False


class Kept:
    """The answers of one decorated function."""

    def __init__(self, cache: Cache, site: Site) -> None:
        self.cache = cache
        self.site = site
        self.entries: Entries[Hashable, Any] = Entries(cache.max_keys)
        self.name = key_maker(cache.key, site)
        self.lock = threading.Lock()
        self._fetches: weakref.WeakValueDictionary[Hashable, Fetch] = weakref.WeakValueDictionary()

    def fetch_of(self, key: Hashable) -> Fetch:
        """The fetch of `key` that is under way, or a new one; it lasts while somebody holds it."""
        with self.lock:
            found = self._fetches.get(key)
            if found is None:
                found = self._fetches[key] = Fetch()
            return found

    def put(self, key: Hashable, entry: Entry[Any], fetch: Fetch) -> None:
        with self.lock:
            if not fetch.forgotten:
                self.entries.put(key, entry)

    def forget(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        key = self.name(args, kwargs)
        with self.lock:
            self.entries.forget(key)
            fetch = self._fetches.pop(key, None)
            if fetch is not None:
                fetch.forgotten = True

    def clear(self) -> None:
        with self.lock:
            self.entries.clear()
            for fetch in list(self._fetches.values()):
                fetch.forgotten = True
            self._fetches.clear()

    def fetched(self, key: Hashable, value: Any, began_at: float, fetch: Fetch) -> None:
        now = runtime.monotonic()
        self.put(key, self.cache.rules.value(value, now, now - began_at), fetch)

    def failed(self, key: Hashable, error: Exception, fetch: Fetch) -> None:
        if self.cache.rules.negative_ttl_s and self.cache.is_negative(error):
            self.put(key, self.cache.rules.failure(error, runtime.monotonic()), fetch)

    def stand_in(self, entry: Entry[Any] | None, error: Exception) -> bool:
        """May the old answer be served in place of this failure? Says so if it is."""
        now = runtime.monotonic()
        if entry is None or entry.error is not None or now >= entry.gone_at:
            return False
        if self.cache.is_negative(error) or classify(error).healthy:
            return False
        if events.wanted():
            age_s = now - entry.expires_at + self.cache.rules.ttl_s
            events.emit(events.StaleServed(service=self.site.service or self.site.name, age_s=age_s, error=repr(error)))
        return True


def served(entry: Entry[Any]) -> Any:
    """The kept value, or raise the kept failure."""
    if entry.error is not None:
        raise entry.error.with_traceback(None)
    return entry.value


def _async_shell(kept: Kept, inner: Callable[..., Any]) -> Callable[..., Any]:
    flights: Flights[Any] = Flights()
    rules, name, lock, get, current = kept.cache.rules, kept.name, kept.lock, kept.entries.get, runtime.current
    plain = kept.cache.key is None  # then the arguments are the name, and mostly there are no keywords

    async def fetch(this: Fetch, key: Hashable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        began_at = runtime.monotonic()
        try:
            value = await inner(*args, **kwargs)
        except Exception as error:
            kept.failed(key, error, this)
            raise
        kept.fetched(key, value, began_at, this)
        return value

    async def cached(*args: Any, **kwargs: Any) -> Any:
        key = args if plain and not kwargs else name(args, kwargs)
        with lock:
            entry = get(key)
        if entry is not None:
            rt = current()
            now = rt.monotonic()
            if now < entry.sure_until:
                return entry.value
            state = rules.state(entry, now, rt.rng)
            if state == "early":
                this = kept.fetch_of(key)
                flights.start(this, partial(fetch, this, key, args, kwargs), kept=True)
            if state in ("fresh", "early"):
                return served(entry)
        this = kept.fetch_of(key)
        try:
            return await flights.join(this, partial(fetch, this, key, args, kwargs))
        except Exception as error:
            if this.forgotten or not kept.stand_in(entry, error):
                raise
        assert entry is not None
        return entry.value

    return cached


def _sync_shell(kept: Kept, inner: Callable[..., Any]) -> Callable[..., Any]:
    flights: ThreadFlights[Any] = ThreadFlights()
    rules, name, lock, get, current = kept.cache.rules, kept.name, kept.lock, kept.entries.get, runtime.current
    plain = kept.cache.key is None  # then the arguments are the name, and mostly there are no keywords

    def fetch(this: Fetch, key: Hashable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        began_at = runtime.monotonic()
        try:
            value = inner(*args, **kwargs)
        except Exception as error:
            kept.failed(key, error, this)
            raise
        kept.fetched(key, value, began_at, this)
        return value

    def cached(*args: Any, **kwargs: Any) -> Any:
        key = args if plain and not kwargs else name(args, kwargs)
        with lock:
            entry = get(key)
        if entry is not None:
            rt = current()
            now = rt.monotonic()
            if now < entry.sure_until:
                return entry.value
            if rules.state(entry, now, rt.rng) == "fresh":
                return served(entry)
        this = kept.fetch_of(key)
        try:
            return flights.join(this, partial(fetch, this, key, args, kwargs))
        except Exception as error:
            if this.forgotten or not kept.stand_in(entry, error):
                raise
        assert entry is not None
        return entry.value

    return cached


def cache(*, ttl: float | timedelta, stale_if_error: float | timedelta = 0.0, early: float = 1.0, negative: Negative = (),
          negative_ttl: float | timedelta = 0.0, key: Key | None = None, max_keys: int = 10_000) -> Cache:
    """Keep answers in memory.

    Args:
        ttl: seconds or timedelta an answer is fresh.
        stale_if_error: how much longer it may stand in for a fetch that failed.
        early: how eagerly to refresh before expiry (XFetch's beta); 0 for never.
        negative: errors, or a function of an error, that mean "there is none" and are kept for `negative_ttl`.
        key: of a call's arguments, what names the answer; all of them when not given.
        max_keys: answers kept; the one used longest ago goes first.
    """
    rules = Freshness(seconds("ttl", ttl), stale_if_error_s=seconds("stale_if_error", stale_if_error, zero=True),
                      negative_ttl_s=seconds("negative_ttl", negative_ttl, zero=True), early=early)
    return Cache(rules, key=key, negative=negative, max_keys=max_keys)
