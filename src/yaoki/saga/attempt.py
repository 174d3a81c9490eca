"""Makes the attempts of one step, or of its undo, until there is something to record.

What comes out is the record: done, undone, failed or blocked; or None when the program is stopping, and the run is handed
over as it is: nothing is recorded, so the next start repeats the step with the same idempotency key.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import msgspec

from yaoki import effect, events, runtime
from yaoki.effect import Effect
from yaoki.errors import AttemptTimeoutError, DeclinedError, HeartbeatLostError, InDoubtError
from yaoki.saga import codec
from yaoki.saga.exact import TX, make_exactly_once
from yaoki.saga.heartbeat import Pulse
from yaoki.saga.naming import keyed
from yaoki.saga.once import make_once
from yaoki.saga.outside.external import token_for
from yaoki.saga.records import Attempted, FailedAttempt, Kind, Record
from yaoki.saga.retrying import DEFAULT, FORWARD, Retrying
from yaoki.saga.verdict import Verdict, failure, judge
from yaoki.saga.waiting import begin_of_wait

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from yaoki.saga.define import Step
    from yaoki.saga.driver import Driver
    from yaoki.saga.turn import Turn

_encode = msgspec.json.encode

# A step that is driven for a night fails thousands of times; its beginning and its end tell the story.
TOLD = 10


class Attempts:
    """The attempts of one step of one run. Used once."""

    __slots__ = ("_began", "_doubt", "_driver", "_earlier", "_retrying", "_silent", "_step", "_undo", "_waited", "forward", "made")

    def __init__(self, driver: Turn, step: Step[..., Any], *, undo: bool, doubt: bool | None = None, forward: bool | None = None) -> None:
        self._driver = driver
        self._step = step
        self._undo = undo
        # Only forward: after the pivot, and for a pivot that cannot be undone once it may have happened.
        self.forward = not undo and driver.machine.past_pivot if forward is None else forward
        self._retrying: Retrying = step.undo_retrying if undo else step.retrying
        if self.forward and self._retrying is DEFAULT:
            self._retrying = FORWARD
        self.made = 0
        # An earlier process may have begun this step, and nobody knows how far it came.
        if doubt is None:
            doubt = driver.machine.is_doubtful(step.name) if undo else step.name in driver.perhaps_started
        self._doubt = doubt
        self._began = self._waited = 0.0
        self._earlier: list[FailedAttempt] | None = None
        self._silent = False  # did the last attempt end because nothing was heard of it?

    @property
    def _engines(self) -> Driver:
        """The engine's own, for steps that ask for its journal: children, tokens, signs of life. A choreography refuses those."""
        return cast("Driver", self._driver)

    async def run(self) -> Record | None:
        """Attempt until there is something to record. Cancellation leaves the step in doubt, and nothing recorded."""
        driver = self._driver
        self._began = driver.clock()
        if self._undo and self._step.way is not None:
            return cast("Record | None", await self._step.way.undo(self, driver, self._step))
        if self._step.special and not self._undo:
            try:
                if not self._is_wanted():
                    return Record(Kind.SKIPPED, self._step.name, b"", runtime.unix_time())
            except Exception as error:  # the condition is the user's code, and a bug in it is one
                return self._final(error, Verdict(bug=True, repeat=False, in_doubt=False))
            if self._step.tx or self._step.once:
                return await (make_exactly_once if self._step.tx else make_once)(self, driver, self._step)
            if self._step.way is not None:
                return cast("Record | None", await self._step.way.do(self, driver, self._step))
        return await self._go_on(await self._attempt())

    async def go_on_after(self, error: Exception, sent: int, began: float) -> Record | None:
        """Go on after a first attempt that failed; see `attempt_plainly`."""
        self._began, self.made = began, 1
        return await self._go_on(self._came_to(error, sent))

    async def _go_on(self, came_to: float | Record) -> Record | None:
        driver = self._driver
        while not isinstance(came_to, Record):
            if self._silent and driver.journal.shared and not driver.is_under_way():
                self._note()
                await driver.hand_back(came_to)
                return None
            await driver.pause(came_to)
            if driver.is_stopping():
                return None
            if not self._undo and driver.gives_up_on(self._step.name, forward=self.forward):
                came_to = self.given_up()
            else:
                came_to = await self._attempt()
        return self._with_earlier(came_to)

    async def _attempt(self) -> float | Record:
        """Make one. Returns seconds to wait before the next one, or the record that ends them."""
        driver, header = self._driver, self._driver.header
        if driver.hold is not None:
            await driver.hold()
        self.made += 1
        under_way = Effect(header.id, header.saga, self._step.name, self._undo, self.made, header.fence, header.traceparent)
        if driver.machine.renames:
            keyed(under_way, driver.machine)
        if events.wanted():
            events.emit(events.StepStarted(run=header.id, saga=header.saga, step=self._step.name, undo=self._undo))
        pulse = None if self._undo else await self._prepare(under_way)
        token = effect.current.set(under_way)
        try:
            work = self.begin(under_way)
            return self.succeeded(await (work if pulse is None else pulse.watch(work)))
        except Exception as error:
            return self._came_to(error, under_way.sent)
        except asyncio.CancelledError as error:
            return self._came_to(cancelled_inside(error, self._step.name), under_way.sent)
        finally:
            effect.current.reset(token)

    async def _prepare(self, under_way: Effect) -> Pulse | None:
        """What the journal has for this attempt: if that cannot be had, it is the journal's failure and not the step's.

        With signs of life: what an earlier attempt has said is in `effect.detail`, and those that fell silent count.
        """
        if self._step.wait is not None and self._step.wait.kind == "token":
            under_way.token = await token_for(self._engines, self._step)
        if self._step.heartbeat is None:
            return None
        pulse = await Pulse.begin(self._engines, self._step)
        self.made = under_way.attempt = max(self.made, pulse.lapses + 1)
        under_way.detail = pulse.detail
        return pulse

    def _came_to(self, error: Exception, sent: int) -> float | Record:
        self._silent = isinstance(error, HeartbeatLostError)
        delay_or_record = self.failed(error, sent)
        self._remember(error, delay_or_record)
        return delay_or_record

    def _remember(self, error: Exception, delay_or_record: float | Record) -> None:
        if isinstance(delay_or_record, Record):
            return  # the record itself tells of the last one
        failed = FailedAttempt(runtime.unix_time(), type(error).__name__, str(error)[:200], delay_or_record)
        self._earlier = self._earlier or []
        if len(self._earlier) == 2 * TOLD:
            del self._earlier[TOLD]
        self._earlier.append(failed)

    def _with_earlier(self, record: Record) -> Record:
        """The record that ends the step; what its earlier attempts came to is written with it."""
        if self._earlier:
            self._note(last=1)
        return record

    def _note(self, *, last: int = 0) -> None:
        """What the attempts came to; `last`: how many of them are not among those that are told."""
        if self._earlier:
            told = Attempted(tuple(self._earlier), self._undo, max(0, self.made - last - len(self._earlier)))
            self._driver.notes.append(Record(Kind.ATTEMPTS, self._step.name, _encode(told), runtime.unix_time()))

    def _is_wanted(self) -> bool:
        """Does the step's condition hold?"""
        step, driver = self._step, self._driver
        if step.when is None:
            return True
        return bool(step.when(**{name: driver.results.get(source) if source else driver.input for name, source in step.when_sources}))

    def begin(self, under_way: Effect) -> Awaitable[Any]:
        """The call itself, to be awaited: in a thread if it is a plain function, bounded if there is a limit."""
        step = self._step
        fn, is_async = (step.undo_fn, step.undo_is_async) if self._undo else (step.fn, step.is_async)
        assert fn is not None
        arguments = self.arguments(under_way)
        work: Awaitable[Any] = fn(**arguments) if is_async else runtime.run_blocking(fn, **arguments)
        limit = self._limit()
        return work if limit is None else within(work, limit, step.name)

    def arguments(self, under_way: Effect) -> dict[str, Any]:
        driver, step = self._driver, self._step
        found: dict[str, Any] = {}
        for parameter, source in step.undo_sources if self._undo else step.sources:
            if not source:
                found[parameter] = driver.input
            elif source == "*":
                found[parameter] = under_way
            elif source == TX or (source == step.name and self._doubt):
                found[parameter] = None
            else:
                found[parameter] = driver.results.get(source)
        return found

    def _limit(self) -> float | None:
        """Seconds for this attempt: its timeout, or what is left of the step's deadline."""
        step = self._step
        limit = step.undo_timeout if self._undo else step.timeout
        if step.deadline is None or self._undo or self.forward:
            return limit
        left = max(0.0, step.deadline - (self._driver.clock() - self._began))
        return left if limit is None else min(limit, left)

    # ── what came of it ──────────────────────────────────────────────────────────────────────────────────────────────

    def succeeded(self, value: Any) -> Record:
        step = self._step
        if self._undo:
            record = Record(Kind.UNDONE, step.name, b"", runtime.unix_time())
        elif step.wait is not None:
            record = begin_of_wait(step, value, self._driver.now())
        else:
            data = b"null" if value is None else codec.encode(value)
            # What cannot be read back as the declared type is a bug, found now; and what a successor gets is what it
            # would get after a crash.
            self._driver.results[step.name] = step.result.decode(data)
            record = Record(Kind.DONE, step.name, data, runtime.unix_time())
        if events.wanted():
            events.emit(events.StepFinished(run=self._driver.header.id, saga=self._driver.saga.name, step=step.name,
                                            duration_s=self._driver.clock() - self._began, attempts=self.made, undo=self._undo))
        return record

    def failed(self, error: Exception, sent: int) -> float | Record:
        """How long to wait before the next attempt, or the record that ends them. `sent`: requests that it made."""
        verdict = judge(error)
        if self._step.tx and not self._undo:  # rolled back
            verdict = msgspec.structs.replace(verdict, in_doubt=False)
        if sent > 1 and not (isinstance(error, DeclinedError) and self._step.undo_fn is None):
            # The last request certainly did nothing, but the ones before it may have: an authorised card, and then a
            # capture that was refused.
            verdict = msgspec.structs.replace(verdict, in_doubt=True)
        if not self._undo:
            self._weigh(verdict)
        delay = None if verdict.bug else self._delay(verdict)
        if delay is not None and not self._undo and not self.forward and self._is_late(delay):
            delay = None
        if events.wanted():
            self._tell(error, delay)
        return delay if delay is not None else self._final(error, verdict)

    def _weigh(self, verdict: Verdict) -> None:
        """One attempt in doubt keeps a step in doubt whatever the later ones say, for its undo is harmless.

        A pivot without an undo has only one way out of doubt: repeat it, with the same key, until the service answers. That
        an attempt was refused on its way says nothing about the ones before it.
        """
        answered = not verdict.in_doubt and not verdict.repeat
        self._doubt = verdict.in_doubt or self._doubt
        if self._step.pivot and self._step.undo_fn is None:
            self._doubt = self.forward = self._doubt and not answered
            if self.forward:
                self._retrying = FORWARD

    def _delay(self, verdict: Verdict) -> float | None:
        if not verdict.repeat or (verdict.retried > 1 and not self._retrying.again):
            return None
        delay = self._retrying.delay(self.made, self._waited, verdict.retry_after_s, runtime.rng())
        self._waited = delay or 0.0
        return delay

    def _is_late(self, delay_s: float) -> bool:
        deadline = self._step.deadline
        return deadline is not None and self._driver.clock() + delay_s - self._began >= deadline

    def _final(self, error: Exception, verdict: Verdict) -> Record:
        needs_person = verdict.bug or self._undo or self.forward
        what = failure(error, verdict, attempts=self.made, undo=self._undo, in_doubt=self._doubt)
        return Record(Kind.BLOCKED if needs_person else Kind.FAILED, self._step.name, _encode(what), runtime.unix_time())

    def ended(self, error: Exception, verdict: Verdict) -> Record:
        """The record that ends a step which is made at most once. In doubt, where only forward is left: a person decides."""
        self.made = 1
        self._doubt = verdict.in_doubt
        self.forward = self.forward or (verdict.in_doubt and self._step.pivot and self._step.undo_fn is None)
        if events.wanted():
            self._tell(error, None)
        return self._final(error, verdict)

    def given_up(self) -> Record:
        """The run is to undo itself, so no further attempt is made."""
        what = failure(AttemptTimeoutError("given up: the run is being undone"), Verdict(bug=False, repeat=False, in_doubt=self._doubt),
                       attempts=self.made, undo=False, in_doubt=self._doubt)
        return Record(Kind.FAILED, self._step.name, _encode(what), runtime.unix_time())

    def _tell(self, error: Exception, delay: float | None) -> None:
        events.emit(events.StepFailed(run=self._driver.header.id, saga=self._driver.saga.name, step=self._step.name,
                                      error=type(error).__name__, attempt=self.made, in_doubt=self._doubt, final=delay is None,
                                      undo=self._undo, retry_in_s=delay or 0.0))


async def attempt_plainly(driver: Driver, step: Step[..., Any]) -> Record | None:
    """The attempts of a plain step: `Attempts(driver, step, undo=False).run()` in one function, as long as all goes well.

    Most steps of most runs are plain, and succeed at once; this is what such a step costs.
    """
    if driver.hold is not None:
        await driver.hold()
    header, name, began = driver.header, step.name, driver.clock()
    under_way = Effect(header.id, header.saga, name, False, 1, header.fence, header.traceparent)
    machine = driver.machine
    if machine.rounds or machine.first_names:
        keyed(under_way, machine)
    listening = events.wanted()
    if listening:
        events.emit(events.StepStarted(run=header.id, saga=header.saga, step=name, undo=False))
    token = effect.current.set(under_way)
    try:
        results = driver.results
        arguments: dict[str, Any] = {}
        for parameter, source in step.sources:
            arguments[parameter] = driver.input if not source else under_way if source == "*" else results.get(source)
        work: Awaitable[Any] = step.fn(**arguments)
        value = await (work if step.timeout is None else within(work, step.timeout, name))
        data = b"null" if value is None else codec.encode(value)
        results[name] = step.result.decode(data)  # as in `succeeded`
    except Exception as error:
        failure_of_first, sent = error, under_way.sent
    except asyncio.CancelledError as error:
        failure_of_first, sent = cancelled_inside(error, name), under_way.sent
    else:
        if listening:
            events.emit(events.StepFinished(run=header.id, saga=header.saga, step=name, duration_s=driver.clock() - began, attempts=1,
                                            undo=False))
        return Record(Kind.DONE, name, data, driver.unix_time())
    finally:
        effect.current.reset(token)
    return await Attempts(driver, step, undo=False).go_on_after(failure_of_first, sent, began)


def cancelled_inside(error: asyncio.CancelledError, name: str) -> InDoubtError:
    """What it means that a step has ended with a cancellation that was not its own: something that it awaited was cancelled.

    Its task goes on, and so must its run: without this nobody would drive it until the next start.

    Raises:
        CancelledError: `error`, where the step's own task was cancelled, because the program stops, say.
    """
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise error
    said = InDoubtError(f"step {name} awaited something that was cancelled", do="wait for what you cancel, inside a try; it may have been sent")
    said.__cause__ = error
    return said


async def within(work: Awaitable[Any], limit_s: float, name: str) -> Any:
    timer = asyncio.timeout(limit_s)
    try:
        async with timer:
            return await work
    except TimeoutError as error:
        if not timer.expired():
            raise
        raise AttemptTimeoutError(f"step {name} took longer than {limit_s:g} s", do="raise its timeout, or look at the service",
                                  timeout=limit_s) from error
