"""One hedged call on an event loop: the first attempt runs in the caller's own task, copies in tasks of their own.

    first attempt ──answers──────────────────────────────▶ its result; copies are cancelled
        │ slow: the timer fires      ┌──copy answers first──▶ its result; the first attempt is cancelled
        ├───────────────────▶ copies ┤
        │ fails, worth a copy        └──all fail──▶ the first attempt's error, the others in its notes
        └ fails, an answer for good ─────────────▶ that error, from whichever attempt; all others are cancelled

A call that needs no copy pays for one record in a queue and no task: that is what makes a hedge cheap enough to have on
everywhere. The price is in this file: a copy that wins must cancel the task it does not own, by the rules of `aio.py`.

Losers are cancelled, awaited (for `GRACE_S` at most) and their late results given to `discard`. They are cancelled like
any call, so breakers and bulkheads further in see neither a success nor a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any, Protocol

from yaoki import runtime
from yaoki.policies.classify import classify, mark_in_doubt

GRACE_S = 1.0  # how long a loser may take to clean up before the winner's result is returned all the same

_stragglers: set[asyncio.Task[Any]] = set()  # losers that take longer: held here, or they might vanish unawaited


class Rules(Protocol):
    """What a race asks its policy."""

    most: int

    def may_send(self) -> bool: ...
    def sent(self, copy: int, delay_s: float) -> None: ...
    def won(self, copy: int, duration_s: float) -> None: ...
    def acceptable(self, result: Any) -> bool: ...
    def discard(self, result: Any) -> None: ...


Waiting = list[Any]
"""One call that may become a race: [when it is due, task, args, kwargs, context, its Race once it has one].

A list, because most calls are over before they are due: a `Race` for each would double what a hedge costs them.
"""


class Line:
    """The calls of one loop that wait for one delay, oldest first. They are due in that order, so one timer serves all."""

    __slots__ = ("armed", "delay_s", "inner", "loop", "rules", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, delay_s: float, rules: Rules, inner: Callable[..., Any]) -> None:
        self.loop = loop
        self.delay_s = delay_s
        self.rules = rules
        self.inner = inner
        self.waiting: dict[int, Waiting] = {}  # by `id`; a dict, as most leave early and from the middle
        self.armed = False

    def arm(self, when: float) -> None:
        self.armed = True
        self.loop.call_at(when, self.sweep)

    def join(self, record: Waiting) -> None:
        """Let `record` be due once more, after the delay."""
        record[0] = self.loop.time() + self.delay_s
        self.waiting[id(record)] = record
        if not self.armed:
            self.arm(record[0])

    def leave(self, record: Waiting) -> None:
        self.waiting.pop(id(record), None)

    def race(self, record: Waiting) -> Race:
        """The race that this call has become."""
        found: Race | None = record[5]
        if found is None:
            found = record[5] = Race(self, record)
        return found

    def sweep(self) -> None:
        now = self.loop.time()
        due: list[Waiting] = []
        for record in self.waiting.values():
            if record[0] > now:
                self.loop.call_at(record[0], self.sweep)
                break
            due.append(record)
        else:
            self.armed = False
        for record in due:
            self.leave(record)
        for record in due:
            self.race(record).fire()


class Race:
    """One call and its copies."""

    def __init__(self, line: Line, record: Waiting) -> None:
        _, self.task, self.args, self.kwargs, self.context, _ = record
        self.line = line
        self.record = record
        self.rules = line.rules
        self.inner = line.inner
        self.handle: asyncio.TimerHandle | None = None
        self.made = 1          # attempts sent
        self.harmless = 0      # of these ended in the certainty that nothing happened
        self.running = True    # the first attempt has not ended
        self.closed = False    # decided: whatever ends now is discarded
        self.stolen = False    # we cancelled the caller's task, to be taken back once
        self.asked = True      # may further copies be sent? The service may say not to
        self.winner: asyncio.Task[Any] | None = None
        self.winners_number = 0
        self.woken: asyncio.Future[None] | None = None
        self.copies: dict[asyncio.Task[Any], int] = {}  # under way, with their numbers
        self.losers: list[str] = []                     # what the copies that failed said

    # ── on the loop: timer and tasks ─────────────────────────────────────────────────────────────────────────────────

    def fire(self) -> None:
        """The attempt is slow. Called by the timer."""
        if self.task.cancelling():
            return  # its caller is on the way out: a copy would be for nobody
        if not self.closed and self.send(self.line.delay_s) and self.made < self.rules.most:
            self.line.join(self.record)

    def send(self, delay_s: float) -> bool:
        """Start a copy, if one is left and the budget has a token for it."""
        if self.made >= self.rules.most or not self.asked or not self.rules.may_send():
            return False
        self.made += 1
        number = self.made
        copy = self.context.run(runtime.spawn, self.inner(*self.args, **self.kwargs), name=f"yaoki-hedge-{number}")
        self.copies[copy] = number
        copy.add_done_callback(self.ended)
        self.rules.sent(number, delay_s)
        return True

    def ended(self, copy: asyncio.Task[Any]) -> None:
        """A copy ended. Called by the loop."""
        number = self.copies.pop(copy, 0)
        if copy.cancelled():
            self.wake_if_over()
            return
        error = copy.exception()
        if error is not None:
            self.harmless += classify.nothing_happened(error)
        if self.closed:
            if error is None:
                self.rules.discard(copy.result())
        elif self.rules.acceptable(copy.result()) if error is None else isinstance(error, Exception) and is_final(error):
            self.decide(copy, number)
        else:
            self.losers.append(f"copy {number}: {error!r}" if error is not None else f"copy {number}: a result that is not acceptable")
            if isinstance(error, Exception):
                self.after_failure(error)
            self.wake_if_over()

    def decide(self, copy: asyncio.Task[Any], number: int) -> None:
        """This copy's outcome is the call's."""
        self.winner, self.winners_number = copy, number
        self.closed = True
        if self.running:
            self.stolen = True
            self.task.cancel()
        elif self.woken is not None and not self.woken.done():
            self.woken.set_result(None)

    def after_failure(self, error: Exception) -> None:
        """A failure sends the next copy at once, unless the service asks for time, or for peace."""
        wait_s = classify(error).retry_after_s or 0.0
        if wait_s == inf:
            self.asked = False
        elif wait_s:
            self.leave_timer()
            loop = self.task.get_loop()
            self.handle = loop.call_later(wait_s, self.fire_late)
        else:
            self.send(0.0)

    def fire_late(self) -> None:
        """The time the service asked for has passed."""
        self.handle = None
        if not self.closed:
            self.send(0.0)
            self.wake_if_over()

    def wake_if_over(self) -> None:
        if self.woken is not None and not self.woken.done() and not self.under_way():
            self.woken.set_result(None)

    def under_way(self) -> bool:
        """Is there a copy, or one to come, that may still decide the race?"""
        return self.handle is not None or bool(self.copies)

    def leave_timer(self) -> None:
        self.line.leave(self.record)
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None

    # ── in the caller's task: the first attempt has ended ────────────────────────────────────────────────────────────

    async def answered(self, result: Any, now_s: float) -> Any:
        """The first attempt gave `result`, and there are copies, or the result is not good enough."""
        self.running = False
        try:
            return await self._answered(result, now_s)
        finally:
            self.over()

    async def _answered(self, result: Any, now_s: float) -> Any:
        if self.stolen:
            # A copy had won, and the attempt swallowed its cancellation. The copy's answer was first.
            self.task.uncancel()
            self.rules.discard(result)
            return await self.take(now_s)
        if self.rules.acceptable(result):
            self.closed = True
            await self.close()
            return result
        self.send(0.0)
        if await self.outcome():
            self.rules.discard(result)
            return await self.take(now_s)
        return result

    async def failed(self, error: BaseException, now_s: float) -> Any:
        """The first attempt raised `error`. Returns another attempt's result, or raises what the call shall raise."""
        self.running = False
        try:
            if self.stolen:
                if self.task.uncancel() and not isinstance(error, Exception):
                    raise error  # somebody else has cancelled the caller as well: that goes on
                return await self.take(now_s)
            if not isinstance(error, Exception):
                raise error
            self.harmless += classify.nothing_happened(error)
            if is_final(error):
                raise self.signed(error)
            self.after_failure(error)
            if await self.outcome():
                return await self.take(now_s)
            for note in self.losers:
                error.add_note(f"yaoki: hedged, {note}")
            raise self.signed(error)
        finally:
            await self.close()
            self.over()
            del error

    def over(self) -> None:
        """Let go of everything: the record and its race hold each other, and the call's arguments, results and errors."""
        self.closed = True
        self.leave_timer()
        self.record.clear()

    async def outcome(self) -> bool:
        """Wait until a copy has decided the race (True), or all have failed."""
        if self.winner is None and self.under_way():
            self.woken = self.task.get_loop().create_future()
            await self.woken
        self.closed = True
        return self.winner is not None

    async def take(self, now_s: float) -> Any:
        """The winner's result, once the others have been seen off."""
        assert self.winner is not None
        await self.close()
        winner, self.winner = self.winner, None
        self.rules.won(self.winners_number, now_s)
        error = winner.exception()
        if error is None:
            return winner.result()
        try:
            raise self.signed(error)
        finally:
            del error

    def signed(self, error: BaseException) -> BaseException:
        """The error that the call ends with. Who was cut off, or failed otherwise, may have done it all the same."""
        if self.harmless < self.made:
            mark_in_doubt(error)
        return error

    async def close(self) -> None:
        """Cancel the copies under way and wait for them; what they still give is discarded as they end."""
        self.closed = True
        self.leave_timer()
        copies = list(self.copies)
        if not copies:
            return
        for copy in copies:
            copy.cancel()
            _stragglers.add(copy)
            copy.add_done_callback(_stragglers.discard)
        await asyncio.wait(copies, timeout=GRACE_S)


def is_final(error: Exception) -> bool:
    """Is this the service's answer, which a copy would only get again?"""
    failure = classify(error)
    return failure.healthy or (failure.kind == "permanent" and failure.known)
