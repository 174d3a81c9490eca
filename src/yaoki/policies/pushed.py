"""Pushed: a local copy of data that others push ahead of need, readable while their source is down.

    prices = Pushed("prices", dict[str, int], poll=fetch_prices, every=30, path="prices.json", valid_for=6 * 3600)

    async with prices:                       # loads the saved copy, then keeps it fresh
        price = prices.get()["LIS"]          # a plain read: no await, no call, no dependency

A call that asks another service can fail whenever that service does. Data that changes slowly need not be asked for: it is
fetched ahead of time, held in memory, saved to disk, and good for hours. The source may be down for as long as the copy is
valid; the process may restart meanwhile.

    fetched ──age > alarm_after──▶ alarmed (once), still read ──age > valid_for──▶ StaleDataError
       ▲                               │
       └────────── fetched ────────────┘

Work is constant: the whole is fetched at a fixed pace, whether it has changed or not, whether the last fetch failed or not.
So an outage, and its end, look to the source like any other minute. The first fetch comes at a random moment of the first
period, so that a fleet that was restarted together does not fetch together.

Source: C. MacCárthaigh, "Reliability, constant work, and a good cup of coffee" (AWS Builders' Library).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextvars import copy_context
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

import msgspec

from yaoki import events, runtime
from yaoki.errors import ConfigError, StaleDataError, UsageError
from yaoki.policies import fuse, sync
from yaoki.policies.policy import seconds
from yaoki.policies.staleness import NEVER, Copy

T = TypeVar("T")

LEFT_BEHIND_S = 600.0  # no write takes ten minutes


class Saved(msgspec.Struct, forbid_unknown_fields=True):
    """What is on disk. `at`: when it was fetched, seconds since 1970."""

    at: float
    data: msgspec.Raw


class Pushed(Generic[T]):
    """A local copy of one piece of data. `get` may be called from any thread; the copy is replaced as a whole, never changed.

    Args:
        name: for events and errors.
        type: of the data, as msgspec knows it: what is read from disk is checked against it.
        poll: fetches the whole; a plain function (run in a thread on an event loop) or a coroutine function.
        every: seconds or timedelta between two fetches, and before a lost subscription is taken up again.
        subscribe: returns an async iterator of whole copies, in place of `poll` or beside it (as its safety net).
        path: where the copy is saved; None for memory only.
        valid_for: seconds or timedelta a copy may be read after it was fetched.
        alarm_after: after which a `PushedStale` event is told; ten periods when not given, within `valid_for`.
        on_update: called with each new copy.
    """

    def __init__(self, name: str, type: Any, *, poll: Callable[[], T | Awaitable[T]] | None = None,  # noqa: A002 - msgspec's word
                 every: float | timedelta = 30.0, subscribe: Callable[[], AsyncIterator[T]] | None = None,
                 path: str | os.PathLike[str] | None = None, valid_for: float | timedelta = 6 * 3600.0,
                 alarm_after: float | timedelta | None = None, on_update: Callable[[T], object] | None = None) -> None:
        if poll is None and subscribe is None:
            raise ConfigError(f"pushed data {name!r} has no source", do="Give poll= or subscribe=.")
        self.name = name
        self.type = type
        self.poll = poll
        self.subscribe = subscribe
        self.every_s = seconds("every", every)
        self.path = Path(path) if path is not None else None
        self.on_update = on_update
        valid_for_s = seconds("valid_for", valid_for)
        alarm_after_s = min(valid_for_s, 10 * self.every_s) if alarm_after is None else seconds("alarm_after", alarm_after)
        self.copy: Copy[T] = Copy(valid_for_s, alarm_after_s)
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._thread: Future[None] | None = None
        self._stop = threading.Event()

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def get(self) -> T:
        """The copy.

        Raises:
            StaleDataError: there is none, or it is older than `valid_for` (`age_s`).
        """
        copy = self.copy
        value, at = copy.value, copy.at
        age_s = runtime.monotonic() - at
        if age_s > copy.valid_for_s:
            self.check()
            state = f"is {age_s:.0f} s old, and valid for {copy.valid_for_s:g} s" if value is not NEVER else "was never fetched"
            raise StaleDataError(f"pushed data {self.name!r} {state}.", age_s=age_s if value is not NEVER else None,
                                 do="Look at its source: PushedFailed events say why fetching fails.")
        return value

    @property
    def age_s(self) -> float:
        """Seconds since the copy was fetched; infinite when it never was."""
        return self.copy.age_s(runtime.monotonic())

    def check(self) -> bool:
        """Is the copy younger than its alarm? Tells, once, when it is not."""
        now = runtime.monotonic()
        with self._lock:
            alarms, age_s = self.copy.alarms(now), self.copy.age_s(now)
        if alarms and events.wanted():
            events.emit(events.PushedStale(service=self.name, age_s=age_s, valid_for_s=max(0.0, self.copy.valid_for_s - age_s)))
        return age_s <= self.copy.alarm_after_s

    # ── keeping it fresh ─────────────────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        await runtime.run_blocking(self.load)
        if self.poll is not None:
            if not self.copy.is_valid(runtime.monotonic()):
                await self.refresh()
            self._tasks.append(runtime.spawn(self._keep_polling(), name=f"yaoki-pushed-{self.name}"))
        if self.subscribe is not None:
            self._tasks.append(runtime.spawn(self._keep_listening(), name=f"yaoki-pushed-{self.name}-feed"))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def __enter__(self) -> Self:
        if self.poll is None or fuse.kind_of(self.poll).is_async:
            raise UsageError(f"pushed data {self.name!r} has an async source, and `with` has no event loop.",
                             do="Use `async with`, or give a plain function as poll=.")
        self.load()
        if not self.copy.is_valid(runtime.monotonic()):
            self.refresh_blocking()
        self._stop.clear()
        self._thread = sync.submit(copy_context().run, self._keep_polling_blocking)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.result()
            self._thread = None

    async def refresh(self) -> bool:
        """Fetch now. False when that failed: the copy stays as it is, and a `PushedFailed` event says why."""
        assert self.poll is not None, "there is a source to poll"
        try:
            if fuse.kind_of(self.poll).is_async:
                value = await cast("Awaitable[T]", self.poll())
            else:
                value = await runtime.run_blocking(cast("Callable[[], T]", self.poll))
            await runtime.run_blocking(self.put, value)
        except Exception as error:
            self._failed(error)
            return False
        finally:
            self.check()
        return True

    def refresh_blocking(self) -> bool:
        """As `refresh`, from a plain program."""
        assert self.poll is not None, "there is a source to poll"
        try:
            self.put(cast("T", self.poll()))
        except Exception as error:
            self._failed(error)
            return False
        finally:
            self.check()
        return True

    async def _keep_polling(self) -> None:
        await runtime.sleep(self.every_s * runtime.rng().random())
        while True:
            await self.refresh()
            await runtime.sleep(self.every_s)

    def _keep_polling_blocking(self) -> None:
        wait_s = self.every_s * runtime.rng().random()
        while not self._stop.wait(wait_s):
            self.refresh_blocking()
            wait_s = self.every_s

    async def _keep_listening(self) -> None:
        assert self.subscribe is not None, "there is a source to listen to"
        while True:
            try:
                async with contextlib.aclosing(cast("Any", self.subscribe())) as feed:
                    async for value in feed:
                        await runtime.run_blocking(self.put, value)
                self._failed(EOFError("the subscription ended"))
            except Exception as error:
                self._failed(error)
            self.check()
            # Somewhere in the next period: subscribers that were cut off together do not come back together.
            await runtime.sleep(self.every_s * runtime.rng().uniform(0.5, 1.0))

    def put(self, value: T) -> None:
        """Make `value` the copy, and save it. (Disk trouble is told, and the copy is in force all the same.)"""
        with self._lock:
            self.copy.put(value, runtime.monotonic())
        size = 0
        if self.path is not None:
            try:
                with self._saving:
                    if self.copy.value is value:  # or a newer one has come meanwhile, from the other source, and is saved by who put it
                        size = self._save(value)
            except Exception as error:
                self._failed(error)
        if events.wanted():
            events.emit(events.PushedUpdated(service=self.name, bytes=size))
        if self.on_update is not None:
            try:
                self.on_update(value)
            except Exception:
                events.log.exception("on_update of pushed data %r failed", self.name)

    # ── on disk ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def load(self) -> bool:
        """Take up the saved copy, if there is one that is whole, of the right type and newer than what is held."""
        if self.path is None:
            return False
        self._sweep(self.path)
        try:
            saved = msgspec.json.decode(self.path.read_bytes(), type=Saved)
            value = msgspec.json.decode(saved.data, type=self.type)
        except FileNotFoundError:
            return False
        except Exception as error:
            self._failed(error)
            return False
        # A clock that went back would make it younger than new.
        age_s = max(0.0, runtime.unix_time() - saved.at)
        with self._lock:
            return self.copy.put(value, runtime.monotonic() - age_s)

    def _save(self, value: T) -> int:
        """Write beside, flush to the disk, then replace: whoever reads finds the old copy or the new one, whole."""
        assert self.path is not None, "there is a place to save to"
        text = msgspec.json.encode({"at": runtime.unix_time(), "data": value})
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}.{threading.get_ident()}.new")
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # or a power cut may undo the renaming
        finally:
            os.close(folder)
        return len(text)

    @staticmethod
    def _sweep(path: Path) -> None:
        """Remove what processes that were killed while writing left beside the copy."""
        with contextlib.suppress(OSError):
            for left in path.parent.glob(f".{path.name}.*.new"):
                if runtime.unix_time() - left.stat().st_mtime > LEFT_BEHIND_S:
                    left.unlink(missing_ok=True)

    def _failed(self, error: Exception) -> None:
        if events.wanted():
            events.emit(events.PushedFailed(service=self.name, error=repr(error), age_s=self.age_s))

    def __repr__(self) -> str:
        return f"Pushed({self.name!r}, age {self.age_s:.0f} s of {self.copy.valid_for_s:g})"
