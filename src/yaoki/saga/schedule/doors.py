"""`app.schedule(...)`: what a program says about runs that the clock starts."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from yaoki.saga.journal.port import NORMAL

if TYPE_CHECKING:
    from yaoki.saga.define import Saga
    from yaoki.saga.engine import Engine
    from yaoki.saga.queue import Queue

T = TypeVar("T")


class Schedules:
    """For an app with an engine."""

    engine: Engine

    def schedule(self, name: str, saga: Saga[Any], *, cron: str = "", zone: str = "UTC", every: float | timedelta = 0.0,
                 offset: float = 0.0, input: Any | Callable[[datetime], Any] = None, overlap: str = "skip",  # noqa: A002
                 catch_up: float = 3600.0, jitter: float = 0.0, queue: str | Queue = "", priority: int = NORMAL, tenant: str = "",
                 attributes: Mapping[str, Any] | None = None) -> None:
        """Start a run of this saga at each instant of a schedule: once, whatever the number of workers that say the same.

        The run's id is `name@2026-03-29T01:00:00Z`. The schedule begins when it is first said, and is kept in the journal:
        `yk schedules list`. To be called before the app is opened, or while it is open; never in the middle of a step.

        Args:
            name: letters, digits, `-` and `_`. Never change it while it matters what has been started already.
            cron: five fields in the time `zone`; see `yaoki.saga.schedule.cron` for the days on which clocks are changed.
            every: instead of it: seconds or a timedelta, counted from 1970, `offset` seconds later.
            input: what each run starts with, or a plain function of the instant (UTC) that returns it.
            overlap: when the last run has not ended: "skip" the new one, "buffer" one until then, "allow" both, or "cancel" the
                last one, and start the new one when that has undone itself.
            catch_up: seconds after its instant within which a run is started yet, when no worker was there in time.
            jitter: each start is put off by up to so many seconds; the same on every worker.
            queue, priority, tenant, attributes: of each run, as of `App.start`; the saga's queue by default.

        Raises:
            ConfigError, DefinitionError, InputError: nothing is scheduled.
        """
        self.engine.keeper.add(name, saga, cron=cron, zone=zone, every=every, offset=offset, input=input, overlap=overlap,
                               catch_up=catch_up, jitter=jitter, queue=queue, priority=priority, tenant=tenant, attributes=attributes)


class SyncSchedules:
    """The same for plain programs, blocking."""

    _app: Any

    def call(self, work: Callable[[], Coroutine[Any, Any, T]], timeout: float | None = None) -> T:
        raise NotImplementedError

    def schedule(self, name: str, saga: Saga[Any], **how: Any) -> None:
        """As `App.schedule`."""
        async def add() -> None:
            self._app.schedule(name, saga, **how)

        self.call(add)
