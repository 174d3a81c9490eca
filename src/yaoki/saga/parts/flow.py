"""`flow`: a step whose body is an async function that decides as it goes which inner steps to make.

    @tasks.flow(undos=[release])
    async def work(task: Task, flow: Flow) -> str:
        while True:
            call = await flow.step(f"think-{turn}", model.choose, notes)          # asked once, also after a restart
            ...
            seat = await flow.step(f"reserve-{turn}", reserve, call.row, undo=release)

Inner steps are remembered by name: after a restart the body runs again from its beginning, and what was done answers at once with
what it gave. So the only rule is that a name is used once. What the body does outside of `flow.step` may happen again.

    flow.step ──▶ begun, with its arguments ──▶ done, remembered
                                                 └ failed: undone if it may have happened, then raised in the body, and remembered
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec

from yaoki import effect as effects
from yaoki import runtime
from yaoki.errors import InnerStepError, UsageError
from yaoki.saga.child import undone_as_a_whole
from yaoki.saga.naming import keyed
from yaoki.saga.parts.calls import Call
from yaoki.saga.parts.inner import inner_attempts, undo_attempts
from yaoki.saga.parts.state import Part
from yaoki.saga.parts.step import InParts
from yaoki.saga.records import Failure, Kind, Record
from yaoki.saga.retrying import Retrying
from yaoki.saga.signatures import wrong
from yaoki.saga.verdict import judge

if TYPE_CHECKING:
    from yaoki.saga.attempt import Attempts
    from yaoki.saga.define import Step
    from yaoki.saga.driver import Driver

T = TypeVar("T")

FLOW = "~"
"""Where a parameter of type `Flow` comes from, in `Step.sources`."""

_FAILURE = msgspec.json.Decoder(Failure)


class Flow:
    """What the body of a flow makes its inner steps by. It is handed to the body, and is good for that one call of it."""

    def __init__(self, making: _Making) -> None:
        self._making = making

    @overload
    async def step(self, name: str, fn: Callable[..., Awaitable[T]], /, *args: Any, undo: Callable[..., Any] | None = ...,
                   retry: Any = ..., timeout: float | None = ..., **kwargs: Any) -> T: ...

    @overload
    async def step(self, name: str, fn: Callable[..., T], /, *args: Any, undo: Callable[..., Any] | None = ...,
                   retry: Any = ..., timeout: float | None = ..., **kwargs: Any) -> T: ...

    async def step(self, name: str, fn: Callable[..., Any], /, *args: Any, undo: Callable[..., Any] | None = None,
                   retry: Any = None, timeout: float | None = None, **kwargs: Any) -> Any:
        """Call `fn(*args, **kwargs)` once, and give what it returns: now, and whenever the body runs again.

        Args:
            name: of the inner step, different from all others in this flow; a part of its idempotency key (`run/step/name`).
            fn: what to call. A parameter annotated as `Effect` is filled. Arguments and result are kept as JSON.
            undo: takes it back: called with the same arguments, and `result` (None: nobody knows whether it happened). One of
                the flow's `undos`.
            retry, timeout: of its attempts, as of a step.

        Raises:
            InnerStepError: it failed for good, and nothing of it is left, if it has an undo.
            UsageError: the name was used before, or `undo` is not one of the flow's; the run is blocked, for it is a bug.
        """
        return await self._making.inner(name, Call(fn, args, kwargs, undo), Retrying.of(retry), timeout)


class Flowing:
    """What a flow's step does. undos: by name, what may undo inner steps."""

    def __init__(self, undos: dict[str, Callable[..., Any]]) -> None:
        self.undos = undos

    def check(self, step: Step[..., Any], *, below: bool) -> None:
        del below
        if not step.is_async:
            raise wrong(step.fn, f"flow {step.name!r} is a plain function", "write async def: it awaits its inner steps")
        if not any(source == FLOW for _, source in step.sources):
            raise wrong(step.fn, f"flow {step.name!r} has no parameter by which to make its inner steps", "add one: flow: Flow")
        step.undo_fn = undone_as_a_whole if self.undos else None

    async def do(self, attempts: Attempts, driver: Driver, step: Step[..., Any]) -> Record | None:
        return await _Making(self, attempts, driver, step).make()

    async def undo(self, attempts: Attempts, driver: Driver, step: Step[..., Any]) -> Record | None:
        making = _Making(self, attempts, driver, step)
        return await making.undo_all(making.undo_of, size=1)


class _Making(InParts):
    """One flow in one run, while its body runs."""

    def __init__(self, flowing: Flowing, attempts: Attempts, driver: Driver, step: Step[..., Any]) -> None:
        super().__init__(attempts, driver, step)
        self._flowing = flowing
        self._used: set[str] = set()
        self._inner: set[asyncio.Task[Any]] = set()
        self._halted = asyncio.Event()  # nothing more is to begin
        self._stopped: Record | bool = False  # what ended it: a record, or True: the program is stopping
        self._misuse: UsageError | None = None

    async def make(self) -> Record | None:
        body = runtime.spawn(self._body(), name=f"yaoki-{self.driver.header.id}-{self.step.name}-body")
        halted = runtime.spawn(self._halted.wait(), name="yaoki-flow-halted")
        try:
            await asyncio.wait([body, halted], return_when=asyncio.FIRST_COMPLETED)
            while pending := [task for task in self._inner if not task.done()]:  # begun is awaited, also when the body does not
                await asyncio.wait(pending)
            if not body.done():
                body.cancel()
            await asyncio.wait([body])
            return self._ended(body)
        finally:
            for task in (body, halted, *self._inner):
                task.cancel()
            await asyncio.gather(body, halted, *self._inner, return_exceptions=True)

    async def _body(self) -> bytes:
        driver, step, header = self.driver, self.step, self.driver.header
        effects.current.set(None)  # what it sends by itself has no key
        under_way = keyed(effects.Effect(header.id, header.saga, step.name, False, 1, header.fence, header.traceparent), driver.machine)
        flow = Flow(self)
        value = await step.fn(**{name: driver.input if not source else under_way if source == "*" else flow if source == FLOW
                                 else driver.results.get(source) for name, source in step.sources})
        return Call.encoded(value)

    def _ended(self, body: asyncio.Task[bytes]) -> Record | None:
        for task in self._inner:
            task.result()  # what the journal raised
        if self._misuse is not None:
            return self.bug(self._misuse)
        if not isinstance(self._stopped, bool):
            return self.blocked(self._stopped)
        if self._stopped:
            return None
        if self._halted.is_set() and (body.cancelled() or self.gives_up()):
            return self.given_up()
        error = None if body.cancelled() else body.exception()
        if body.cancelled() or (error is not None and not isinstance(error, Exception)):
            return self.bug(UsageError(f"the body of {self.step.name} ended by {error!r}", do="let it return, or raise an Exception"))
        try:
            return self._raised(error) if error is not None else self.done(body.result())
        except msgspec.ValidationError as misfit:
            return self.bug(misfit)

    def _raised(self, error: BaseException) -> Record:
        assert isinstance(error, Exception)
        verdict = judge(error)
        if verdict.bug:
            return self.attempts.ended(error, verdict)
        return self.failed(type(error).__name__, str(error))

    # ── inner steps ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def inner(self, name: str, call: Call, retrying: Retrying, timeout: float | None) -> Any:
        """Make an inner step, or remember it: what `Flow.step` does."""
        self._check(name, call)
        state = self.parts.states.get(name)
        if state is Part.DONE:
            return call.result_of(self.parts.results[name])
        if state in {Part.FAILED, Part.GONE}:
            raise self._failure(name)
        if self._is_over():
            await self._halt()
        if call.timeout is None:
            call.timeout = timeout
        task = runtime.spawn(self._made(name, call, retrying), name=f"yaoki-{self.step.name}-{name}")
        self._inner.add(task)
        task.add_done_callback(self._settled)
        if await asyncio.shield(task):
            return call.result_of(self.parts.results[name])
        if self._halted.is_set():
            await self._halt()
        raise self._failure(name)

    def _settled(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is None:
            self._inner.discard(task)
        else:
            self._halted.set()  # the journal failed: `_ended` raises it

    def _check(self, name: str, call: Call) -> None:
        flow = self.step.name
        if name in self._used:
            self._misuse = UsageError(f"flow.step({name!r}) was called twice in {flow}: what is remembered, is remembered by name",
                                      do=f'give each inner step a name of its own: flow.step(f"{name}-{{n}}", ...)')
        elif not isinstance(name, str) or not name:
            self._misuse = UsageError(f"an inner step of {flow} is called {name!r}", do="give it a name that is not empty")
        elif call.undo is not None and self._flowing.undos.get(call.undo_name) != call.undo:
            self._misuse = UsageError(f"flow.step({name!r}, undo={call.undo_name}) in {flow}: after a crash nobody would find {call.undo_name}",
                                      do=f"name it where the flow is defined: @saga.flow(undos=[{call.undo_name}])")
        else:
            try:
                call.given()
            except UsageError as error:
                self._misuse = error
        if self._misuse is not None:
            self._halted.set()
            raise self._misuse
        self._used.add(name)

    def _failure(self, name: str) -> InnerStepError:
        failure = self.parts.failures[name]
        return InnerStepError(f"{self.step.name}/{name} failed: {failure}", do="catch it in the flow, and go on in another way; or let it "
                              "undo the run", step=name, error=failure.error, reason=failure.message)

    def _is_over(self) -> bool:
        return self._halted.is_set() or self.gives_up() or self.driver.is_stopping()

    async def _halt(self) -> None:
        """The body goes no further: it is cancelled here, once all that it has begun has ended."""
        if self.driver.is_stopping() and not self.gives_up() and not self._stopped:
            self._stopped = True
        self._halted.set()
        await asyncio.get_running_loop().create_future()

    async def _made(self, name: str, call: Call, retrying: Retrying) -> bool:
        """Make an inner step, and write what came of it. True: it is done. False: it failed, or the flow has halted."""
        part, state = f"{self.step.name}/{name}", self.parts.states.get(name)
        if state is None:
            if self._is_over():  # since this task was spawned
                self._halted.set()
                return False
            await self.driver.write(Record(Kind.STARTED, part, call.given(), runtime.unix_time()))
        elif state is Part.BEGUN:
            call.remember(self.parts.given.get(name, b"{}"))  # as it was begun: its key stands for that
        if state is not Part.DOUBTFUL:
            doubt = state is Part.BEGUN
            record = await inner_attempts(self.driver, self.step, part, call, retrying, doubt=doubt).run()
            if record is None or record.kind is Kind.BLOCKED:
                self._stop(record)
                return False
            await self.driver.write(record)
            if record.kind is Kind.DONE:
                return True
        settled = await self.settle(self.undo_of, size=1)
        if not isinstance(settled, bool):
            self._stop(settled)
        return False

    def _stop(self, record: Record | None) -> None:
        self._stopped = record if record is not None else self._stopped or True
        self._halted.set()

    def undo_of(self, name: str) -> Any:
        """The attempts of an inner step's undo, or None where it has none."""
        return undo_attempts(self.driver, self.step, self.parts, name, self._flowing.undos)
