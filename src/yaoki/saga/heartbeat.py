"""Signs of life of a running step: a stuck one is noticed, given up, and tried again where the last one has left off.

    @reports.step(heartbeat=30)
    async def build(n: int, effect: Effect) -> int:
        done = effect.detail or 0                     # what the last attempt said, also in another process
        for row in range(done, n):
            await write(row)
            heartbeat(row + 1)                        # in a plain function, and in its threads, the same
        return n

    runs ──heartbeat(detail)──▶ runs ... ──silent for `heartbeat` seconds──▶ given up: cancelled, in doubt, tried again
                                                   (on a shared journal the run goes back to it, for whoever is first)

The last detail is a register of the journal, written at once the first time and then three times in each `heartbeat`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from contextvars import ContextVar
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

from yaoki import runtime
from yaoki.errors import DefinitionError, HeartbeatLostError, JournalError
from yaoki.saga.journal.registers import of_run
from yaoki.saga.naming import register_of

if TYPE_CHECKING:
    from yaoki.saga.define import Step
    from yaoki.saga.driver import Driver

# How often in each `heartbeat` the detail is written.
WRITES = 3

# How long a step that is given up may take to end once it was cancelled. Whoever swallows his cancellation is left behind.
ENDING_S = 1.0

_current: ContextVar[Pulse | None] = ContextVar("yaoki_pulse", default=None)


def heartbeat(detail: Any = None) -> None:
    """Say from inside a step that it is under way, and how far: JSON-able; the next attempt finds it as `effect.detail`.

    Cheap enough for every row of a loop. Does nothing where no step with `heartbeat=` runs, so that its functions can be used
    elsewhere. Raises HeartbeatLostError in a plain function whose attempt was given up meanwhile: let it end the function.
    """
    pulse = _current.get()
    if pulse is not None:
        pulse.beat(detail)


class Beat(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last sign of life of a step, as its register keeps it. lapses: how many attempts were given up as silent."""

    detail: Any = None
    lapses: int = 0


class Pulse:
    """The signs of life of one attempt. Attributes: detail: the last one. lapses: of the attempts before this one."""

    def __init__(self, driver: Driver, step: Step[..., Any], last: Beat) -> None:
        assert step.heartbeat is not None
        self.detail = last.detail
        self.lapses = last.lapses
        self._driver = driver
        self._step = step
        self._limit_s: float = step.heartbeat
        self._clock = runtime.current().monotonic  # the thread of a plain function has no runtime of its own
        self._heard_at = self._clock()
        self._wrote_at = -inf
        self._unwritten = False
        self._given_up = False
        self._loop = asyncio.get_running_loop()
        self._first: asyncio.Future[None] = self._loop.create_future()  # the first sign of life with something to keep

    @staticmethod
    async def begin(driver: Driver, step: Step[..., Any]) -> Pulse:
        """With what an earlier attempt has said, perhaps in another process."""
        found = (await driver.journal.registers(of_run(driver.header.id))).get(register_of(driver.machine, step.name))
        return Pulse(driver, step, Beat() if found is None else msgspec.json.decode(found.data, type=Beat))

    def beat(self, detail: Any) -> None:
        """From any thread."""
        if self._given_up:
            raise self._lost()
        self._heard_at = self._clock()
        if detail is not None:
            self.detail = detail
            self._unwritten = True
            if not self._first.done():
                self._loop.call_soon_threadsafe(_release, self._first)

    def _lost(self) -> HeartbeatLostError:
        return HeartbeatLostError(f"step {self._step.name} gave no sign of life for {self._limit_s:g} s",
                                  do="call heartbeat() more often, raise heartbeat=, or look at what the step waits for", timeout=self._limit_s)

    async def watch(self, work: Awaitable[Any]) -> Any:
        """Await the work, as long as it gives signs of life. Raises HeartbeatLostError when they cease."""
        token = _current.set(self)
        try:
            task = asyncio.ensure_future(work)
        finally:
            _current.reset(token)
        try:
            await self._listen(task)
        finally:
            if not task.done():  # silent, or this attempt is cancelled itself
                self._given_up = True
                task.cancel()
                await asyncio.wait([task], timeout=ENDING_S)
        if self._given_up:
            if task.done() and not task.cancelled():
                task.exception()  # seen: it is not what matters
            self.lapses += 1
            await self._write()
            raise self._lost()
        if self._unwritten and task.exception() is not None:
            await self._write()
        return task.result()

    async def _listen(self, task: asyncio.Future[Any]) -> None:
        """Until it has ended, or is silent."""
        every_s = self._limit_s / WRITES
        while not task.done():
            left_s = self._heard_at + self._limit_s - self._clock()
            if left_s <= 0:
                return
            if self._unwritten and self._clock() >= self._wrote_at + every_s:
                await self._write()
            else:
                await asyncio.wait([task] if self._first.done() else [task, self._first], timeout=min(left_s, every_s),
                                   return_when=asyncio.FIRST_COMPLETED)

    async def _write(self) -> None:
        self._unwritten, self._wrote_at = False, self._clock()
        data = msgspec.json.encode(Beat(self.detail, self.lapses))
        with contextlib.suppress(JournalError):  # a sign of life that is not kept costs the next attempt a little work
            await self._driver.journal.write_register(of_run(self._driver.header.id), register_of(self._driver.machine, self._step.name), data,
                                                      fence=self._driver.header.fence)


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def add_heartbeat(step: Step[..., Any], seconds: float) -> None:
    """Raises DefinitionError for what cannot be watched."""
    if not seconds > 0:
        raise DefinitionError(f"step {step.name!r}: heartbeat is seconds above 0, not {seconds!r}", do="heartbeat=30, say")
    if step.tx or step.once:
        raise DefinitionError(f"step {step.name!r} has a heartbeat, and is tried no second time", do="leave out heartbeat=, or tx= and once=")
    if step.parts:
        raise DefinitionError(f"step {step.name!r} has a heartbeat, and is made of parts, each of which shows that it goes on",
                              do="leave out heartbeat=; give the parts a timeout=")
    step.heartbeat, step.special = seconds, True
