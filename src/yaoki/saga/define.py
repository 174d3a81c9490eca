"""What a user writes: a saga, its steps, their undos. The graph is read off the parameter names.

    book_trip = Saga("book-trip", input=Trip)

    @book_trip.step
    async def hotel(trip: Trip) -> Booking: ...             # needs only the input: starts at once

    @hotel.undo
    async def cancel_hotel(trip: Trip, hotel: Booking | None) -> None: ...   # None: nobody knows whether it was booked

    @book_trip.step(pivot=True)
    async def payment(trip: Trip, hotel: Booking) -> Receipt: ...            # waits for hotel, and gets its result

Every parameter is the input, the result of a step above, or the `Effect` under way. Whatever cannot work is said when the
module is imported, or, for what only the whole can tell (a missing undo), when the saga is first used: with the
function, its line and the remedy.
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Generic, ParamSpec, TypeVar, overload

from yaoki.effect import Effect
from yaoki.errors import DefinitionError
from yaoki.saga import codec
from yaoki.saga.attributes import reader_of
from yaoki.saga.composing import CONCURRENCY, Composing, add_each
from yaoki.saga.exact import TX
from yaoki.saga.graph import Graph, Node
from yaoki.saga.heartbeat import add_heartbeat
from yaoki.saga.locking import Keys
from yaoki.saga.mapping import GraphMapping, Mappings
from yaoki.saga.parts.each import ITEM
from yaoki.saga.parts.flow import FLOW, Flow
from yaoki.saga.queue import Queue
from yaoki.saga.retrying import UNDO, Retrying
from yaoki.saga.schedule.declared import Scheduled
from yaoki.saga.signatures import UNDECIDED as _UNSET
from yaoki.saga.signatures import fits as _fits
from yaoki.saga.signatures import hints as _hints
from yaoki.saga.signatures import is_async as _is_async
from yaoki.saga.signatures import shown as _shown
from yaoki.saga.signatures import wrong as _wrong
from yaoki.saga.waiting import UNSET, Wait

P = ParamSpec("P")
R = TypeVar("R")
Q = ParamSpec("Q")
U = TypeVar("U")
I = TypeVar("I")  # noqa: E741  the saga's input


class Step(Generic[P, R]):
    """One step of a saga. Calling it calls the function, so that a unit test needs nothing else.

    Attributes:
        name: unique in the saga; the function's name unless given.
        fn: the function; `undo_fn`: what undoes it, or None where nothing needs undoing.
        needs: steps it waits for, in order of definition.
        timeout: seconds for one attempt; `deadline`: seconds for all of them. None: no limit of its own.
        retrying: how failed attempts of the do are repeated; `undo_retrying`: of the undo.
    """

    def __init__(self, saga: Saga[Any], fn: Callable[P, R], *, name: str, pivot: bool, timeout: float | None,
                 deadline: float | None, retrying: Retrying, undo: Callable[..., Any] | None, parts: str = "") -> None:
        self.saga = saga
        self.fn = fn
        self.name = name
        self.pivot = pivot
        self.timeout = timeout
        self.deadline = deadline
        self.retrying = retrying
        self.undo_retrying: Retrying = UNDO
        self.undo_timeout = timeout
        self.undo_fn: Callable[..., Any] | None = None
        self.undo_sources: tuple[tuple[str, str], ...] = ()
        self.undo_decided = undo is not _UNSET
        self.hints = _hints(fn)
        self.is_async = _is_async(fn, saga.name)
        self.undo_is_async = True
        self.needs: list[str] = []
        self.sources: tuple[tuple[str, str], ...] = ()  # (parameter, what: a step's name, "" the input, "*" the effect)
        self.once = self.tx = self.special = False
        self.heartbeat: float | None = None  # seconds within which it gives a sign of life
        self.way: Any = None  # what does and undoes it, where that is more than a call of its functions; see `composing.py`
        self.child = ""  # the saga of which it starts a run
        self.parts = parts  # "each", "first_of", "flow", or "": what it is made of
        self.when: Callable[..., Any] | None = None
        self.when_sources: tuple[tuple[str, str], ...] = ()
        self.verify: Callable[..., Any] | None = None  # of a step made at most once: what became of it?
        self.verify_sources: tuple[tuple[str, str], ...] = ()
        self.verify_is_async = True
        self.wait: Wait | None = None  # what it waits for once its function has run; see `waiting.py`
        self.part_gives = returns = self.hints.get("return", Any)
        self.result = codec.Decoder(type(None) if returns is None else returns)
        if undo is not None and undo is not _UNSET:
            self._set_undo(undo)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)

    @property
    def is_plain(self) -> bool:
        """An async function that is called until it succeeds, and nothing else: see `attempt.attempt_plainly`."""
        return self.is_async and not self.special and self.deadline is None and self.wait is None

    @overload
    def undo(self, fn: Callable[Q, U]) -> Callable[Q, U]: ...

    @overload
    def undo(self, *, retry: Any = None, timeout: float | None = None) -> Callable[[Callable[Q, U]], Callable[Q, U]]: ...

    def undo(self, fn: Callable[..., Any] | None = None, *, retry: Any = None, timeout: float | None = None) -> Any:
        """Say what takes the step's effect back. It gets the input, and the step's result by the step's name.

        It must tolerate being called again, and `None` for the result: the step's answer never came, so the effect may or
        may not exist; cancel it by its key (`effect.key`).

        Args:
            retry: policy for the undo's attempts; by default it is tried for about half an hour, then the run is blocked.
            timeout: seconds for one attempt; the step's own by default.
        """
        if fn is None:
            return lambda fn: self._set_undo(fn, retry=retry, timeout=timeout)
        return self._set_undo(fn, retry=retry, timeout=timeout)

    def _set_undo(self, fn: Callable[..., Any], *, retry: Any = None, timeout: float | None = None) -> Callable[..., Any]:
        if self.undo_fn is not None:
            raise _wrong(fn, f"step {self.name!r} has an undo already: {self.undo_fn.__name__}",
                         "keep one of the two; an undo of several things can call several functions")
        self.undo_sources = self.saga.sources_of(fn, own=self.name, parts=self.parts)
        self.undo_is_async = _is_async(fn, self.saga.name)
        self.undo_fn = fn
        self.undo_decided = True
        if retry is not None:
            self.undo_retrying = Retrying.of(retry)
        if timeout is not None:
            self.undo_timeout = timeout
        self.saga.changed()
        return fn


def _names_in(step: Step[..., Any]) -> tuple[str, ...]:
    """What a history may name of its parts: alternatives, or the undos of a flow."""
    return tuple(step.way.options) if step.parts == "first_of" else tuple(sorted(step.way.undos)) if step.parts == "flow" else ()


class Saga(Composing, Scheduled, Mappings, Generic[I]):
    """Named steps and edges: an operation over several services that finishes or undoes itself.

    Args:
        name: what the journal knows it by; letters, digits, `-` and `_`. Never change it while runs are in flight.
        input: the type that each run starts with: a dataclass, a msgspec Struct, a pydantic model, or any JSON-able type.
        deadline: seconds for a whole run; when they are over and the pivot is not done, the run undoes itself.
        stuck_after: seconds without progress after which a `RunStuck` event is raised.
        lock: a plain function of the input that gives a key, or several: the run begins when no other run holds one. See `locking.py`.
        brake: pause the saga when more than this share of its last 200 runs had to be undone; None: never.
        queue: where its runs wait for their turn unless `start(queue=...)` says otherwise; its limits go with it.
        attributes: what its runs can be found by, text, numbers, true, false: a function of the input, `{"customer": trip.customer}`; or
            fields by name, `{"customer": "customer", "city": "to.city"}`, which are read as well when a run is started from SQL.

    Raises:
        DefinitionError: when something cannot work; names the function, the line and the remedy.
    """

    def __init__(self, name: str, *, input: type[I], deadline: float | None = None, stuck_after: float = 300.0,  # noqa: A002
                 brake: float | None = 0.95, lock: Callable[[Any], Any] | None = None, queue: Queue | None = None,
                 attributes: Callable[[I], Mapping[str, Any]] | Mapping[str, str] | None = None) -> None:
        if not name or not name.replace("-", "").replace("_", "").isalnum():
            raise DefinitionError(f"a saga's name is letters, digits, '-' and '_', not {name!r}",
                                  do="rename it; the name is stored with every run")
        for what, value in (("deadline", deadline), ("stuck_after", stuck_after)):
            if value is not None and not value > 0:
                raise DefinitionError(f"saga {name!r}: {what} is seconds above 0, not {value!r}", do=f"give {what} in seconds")
        if brake is not None and not 0 < brake <= 1:
            raise DefinitionError(f"saga {name!r}: brake is a share in (0, 1] or None, not {brake!r}", do="brake=0.95, say")
        self.name = name
        self.input_type = input
        self.input = codec.Decoder(input)
        self.deadline = deadline
        self.stuck_after = stuck_after
        self.brake = brake
        self.queue = queue
        self.mappings: dict[str, GraphMapping] = {}
        self.attributes = reader_of(attributes)
        self.attribute_paths: Mapping[str, str] = attributes if isinstance(attributes, Mapping) else {}
        self.steps: dict[str, Step[..., Any]] = {}
        self.has_tx = False
        self.keys = Keys(self.name)
        if lock is not None:
            self.keys.add(lock)
        self._input_name = ""
        self.schedules = {}
        self.plain: frozenset[str] = frozenset()  # known once the graph is
        self.leaves_traces = False  # may its runs hold keys, or give signs of life, that are to be swept up after them?
        self._graph: Graph | None = None

    def _leaves_traces(self) -> bool:
        return bool(self.keys) or any(step.heartbeat is not None or (step.wait is not None and step.wait.kind == "token")
                                      for step in self.steps.values())

    def __repr__(self) -> str:
        return f"<Saga {self.name}: {', '.join(self.steps)}>"

    @overload
    def step(self, fn: Callable[P, R]) -> Step[P, R]: ...

    @overload
    def step(self, *, name: str = ..., pivot: bool = ..., after: str | typing.Iterable[str] = ..., retry: Any = ...,
             timeout: float | None = ..., deadline: float | None = ..., undo: Callable[..., Any] | None = ...,
             once: bool = ..., verify: Callable[..., Any] | None = ..., tx: bool = ...,
             when: Callable[..., Any] | None = ..., heartbeat: float | None = ..., lock: Callable[..., Any] | None = ...,
             each: str | Callable[..., Any] | None = ..., key: Callable[[Any], Any] | None = ..., concurrency: int = ...,
             tolerate: float = ...) -> Callable[[Callable[P, R]], Step[P, R]]: ...

    def step(self, fn: Callable[..., Any] | None = None, *, name: str = "", pivot: bool = False,
             after: str | typing.Iterable[str] = (), retry: Any = None, timeout: float | None = None,
             deadline: float | None = None, undo: Callable[..., Any] | None = _UNSET, once: bool = False,
             verify: Callable[..., Any] | None = None, tx: bool = False, when: Callable[..., Any] | None = None,
             heartbeat: float | None = None, lock: Callable[..., Any] | None = None, each: str | Callable[..., Any] | None = None,
             key: Callable[[Any], Any] | None = None, concurrency: int = CONCURRENCY, tolerate: float = 0) -> Any:
        """Add a step: an `async def`, or a plain `def` that runs in a thread.

        Args:
            name: the step's name; the function's by default. Never change it while runs are in flight.
            pivot: the point of no return: it runs after every step above it and before every step below it. Steps
                below it are retried until they succeed or a person decides.
            after: names of steps to wait for besides those whose results it takes.
            retry: a retry policy for its attempts, or None for the default (three attempts at what is worth repeating;
                without end after the pivot).
            timeout: seconds for one attempt. `deadline`: seconds for all attempts.
            undo: a function, or None to say that nothing needs undoing; usually `@step.undo` instead.
            once: make it at most once: its beginning is recorded first, and a crash in it leaves it in doubt.
            verify: with `once`: a function of what the step takes, called when it is in doubt: returns the step's result if
                the effect exists, None if it certainly does not.
            when: a plain function of the input and of results above: the step is made if it returns true; else it is skipped,
                its result is None, and there is nothing to undo.
            tx: its parameter `tx` is the journal's own transaction: what it writes and its record are durable together, or not
                at all, so it is done exactly once and never in doubt. It runs alone in its run.
            heartbeat: seconds within which it calls `heartbeat()` again; if it does not, it is given up and tried again.
            lock: a plain function of the input that gives a key, or several: the step waits until no other run holds one.
            each: make it for every item of a list, which is its parameter `item`: the name of a step above that returns the
                list, or a plain function of the input and of results above. The step's result is a list, in the order of the
                items; its undo takes back one item.
            key: with `each`: a plain function of an item that names it; its place in the list by default.
            concurrency: with `each`: how many items at once.
            tolerate: with `each`: how many items may fail, a number, or a share below 1; their result is None.
        """
        def add(fn: Callable[..., Any]) -> Step[..., Any]:
            step = self._add(fn, name=name, pivot=pivot, after=after, retry=retry, timeout=timeout, deadline=deadline, undo=undo, tx=tx,
                             parts="each" if each is not None else "")
            if each is not None or key is not None:
                add_each(self, step, each, key=key, concurrency=concurrency, tolerate=tolerate)
            if when is not None:
                self._add_condition(step, when)
            if once or verify is not None:
                self._make_once(step, verify, retry=retry, once=once)
            if heartbeat is not None:
                add_heartbeat(step, heartbeat)
            if lock is not None:
                self.keys.add(lock, step)
            return step

        return add if fn is None else add(fn)

    def _add_condition(self, step: Step[..., Any], when: Callable[..., Any]) -> None:
        if step.pivot:
            raise _wrong(step.fn, f"step {step.name!r} is the point of no return, and has a condition", "put the condition on other steps")
        if _is_async(when, self.name):
            raise _wrong(when, "a condition only looks at the input and at results, so it is a plain function", "write def, or a lambda")
        del self.steps[step.name]  # it cannot be about itself
        step.when, step.special, step.when_sources = when, True, self.sources_of(when)
        self.steps[step.name] = step
        wanted = {*step.needs, *(source for _, source in step.when_sources if source)}
        step.needs = [each for each in self.steps if each in wanted]
        gives = step.hints.get("return", Any)
        step.hints["return"] = gives if gives is Any else gives | None
        step.result = codec.Decoder(step.hints["return"])
        self.changed()

    def _make_once(self, step: Step[..., Any], verify: Callable[..., Any] | None, *, retry: Any, once: bool) -> None:
        if not once:
            raise _wrong(step.fn, f"step {step.name!r} has verify= and is not made at most once", "say once=True as well")
        if step.parts:
            raise _wrong(step.fn, f"step {step.name!r} is made of parts, and is to be made at most once", "leave once= out: each part has a key")
        if retry not in (None, False, 1):
            raise _wrong(step.fn, f"step {step.name!r} is made at most once, and retry={retry!r} would repeat it", "leave retry= out")
        step.once = step.special = True
        step.retrying, step.verify = Retrying(attempts=1), verify
        if verify is not None:
            step.verify_sources = self.sources_of(verify)
            step.verify_is_async = _is_async(verify, self.name)

    def sleep(self, length: Callable[..., float | timedelta] | float | timedelta, *, name: str = "",
              after: str | typing.Iterable[str] = ()) -> Step[..., None]:
        """Add a step in which time passes: seconds or a timedelta, or a function of the input and results that returns them.

            book_trip.sleep(3600, name="cooling_off", after="hotel")

            @book_trip.sleep
            def until_check_in(trip: Trip, hotel: Booking) -> float: ...

        It ends by the journal's clock, also if every process was gone meanwhile; a sleeping run costs nothing but its row.
        """
        if not callable(length):
            if not name:
                raise DefinitionError(f"a sleep of saga {self.name!r} has no name", do='give one: saga.sleep(3600, name="cooling_off")')
            fixed = length
            length = lambda: fixed  # noqa: E731  a step is a function
        return self._add_wait(length, Wait("sleep"), type(None), name=name, after=after)

    def wait_for(self, answer: type[R], *, name: str = "", after: str | typing.Iterable[str] = (), timeout: float | None = None,
                 otherwise: Any = UNSET) -> Callable[[Callable[..., Any]], Step[..., R]]:
        """Add a step that asks, and then waits for somebody's answer: a person, or a service that calls back.

            @book_trip.wait_for(Decision, timeout=86_400)
            async def approval(trip: Trip, hotel: Booking, effect: Effect) -> None:
                await mail(trip.boss, f"answer to {effect.key}")          # asks; may be repeated, with the same key

        The answer comes by `app.signal(run_id, "approval", Decision(...))`, `yk runs signal RUN approval JSON`, or HTTP. The
        first one counts, also when it comes before the question. A waiting run costs nothing but its row.

        Args:
            answer: the type of the answer; it becomes the step's result.
            timeout: seconds to wait; then `otherwise` is the result, or, without one, the step fails and the run undoes itself.
        """
        if timeout is not None and not timeout > 0:
            raise DefinitionError(f"saga {self.name!r}: timeout is seconds above 0, not {timeout!r}", do="86_400 is a day")
        if otherwise is not UNSET and timeout is None:
            raise DefinitionError(f"saga {self.name!r}: otherwise= is for when a timeout is over, and there is none", do="give timeout=")
        return lambda fn: self._add_wait(fn, Wait("signal", timeout, otherwise), answer, name=name, after=after)

    def external(self, gives: type[R], *, name: str = "", after: str | typing.Iterable[str] = (), timeout: float | None = None,
                 heartbeat: float | None = None, retry: Any = None,
                 undo: Callable[..., Any] | None = _UNSET) -> Callable[[Callable[..., Any]], Step[..., R]]:
        """Add a step that the world outside completes, by a token that the step hands out.

            @book_trip.external(Ticket, timeout=86_400, heartbeat=600)
            async def ticket(trip: Trip, flight: Booking, effect: Effect) -> None:
                await printer.order(flight, call_back=effect.token)        # may be repeated, with the same token

        Later, from anywhere: `app.complete(token, Ticket(...))` or `app.fail(token, "no paper")`, `yk runs complete TOKEN JSON`, or
        HTTP. A waiting run costs nothing but its row.

        Args:
            gives: the type of the result.
            timeout: seconds for all of it; then the step fails, in doubt, and the run undoes itself.
            heartbeat: seconds within which something must be heard (`app.heartbeat(token)`); else it is asked again, with a new token.
            retry: how often it is asked in all, three times by default; after the pivot without end.
        """
        for what, value in (("timeout", timeout), ("heartbeat", heartbeat)):
            if value is not None and not value > 0:
                raise DefinitionError(f"saga {self.name!r}: {what} is seconds above 0, not {value!r}", do="86_400 is a day")
        wait = Wait("token", timeout, heartbeat_s=heartbeat)
        return lambda fn: self._add_wait(fn, wait, gives, name=name, after=after, retry=retry, undo=undo)

    def _add_wait(self, fn: Callable[..., Any], wait: Wait, gives: type[Any], *, name: str, after: str | typing.Iterable[str],
                  retry: Any = None, undo: Callable[..., Any] | None = None) -> Step[..., Any]:
        step = self._add(fn, name=name, pivot=False, after=after, retry=retry, timeout=None, deadline=None, undo=undo)
        step.wait = wait
        step.hints["return"] = gives
        step.result = codec.Decoder(gives)
        return step

    def _add(self, fn: Callable[..., Any], *, name: str, pivot: bool, after: str | typing.Iterable[str], retry: Any,
             timeout: float | None, deadline: float | None, undo: Callable[..., Any] | None, tx: bool = False,
             parts: str = "") -> Step[..., Any]:
        name = name or getattr(fn, "__name__", "")
        if not name.replace("-", "_").isidentifier():
            raise _wrong(fn, f"{name!r} cannot be the name of a step", "give one: @saga.step(name='...')")
        if name in self.steps:
            raise _wrong(fn, f"saga {self.name!r} has a step {name!r} already", "rename one: @saga.step(name='...')")
        if pivot and (other := next((step.name for step in self.steps.values() if step.pivot), "")):
            raise _wrong(fn, f"saga {self.name!r} has a pivot already: {other!r}", "keep one point of no return")
        for what, value in (("timeout", timeout), ("deadline", deadline)):
            if value is not None and not value > 0:
                raise _wrong(fn, f"{what} is seconds above 0, not {value!r}", f"give {what} in seconds")
        if tx and "tx" not in inspect.signature(fn).parameters:
            raise _wrong(fn, f"step {name!r} is a transaction, and does not take it", "add a parameter called tx, and write by it")
        sources = self.sources_of(fn, tx=tx, parts=parts)
        step: Step[..., Any] = Step(self, fn, name=name, pivot=pivot, timeout=timeout, deadline=deadline,
                                    retrying=Retrying.of(retry), undo=undo, parts=parts)
        step.sources = sources
        step.tx = step.special = tx
        self.has_tx = self.has_tx or tx
        wanted = {source for _, source in sources if source not in {"", "*", TX, ITEM, FLOW}}
        for other in (after,) if isinstance(after, str) else after:
            if other not in self.steps:
                raise _wrong(fn, f"after={other!r} is not a step above it{self._hint(other)}", "name a step defined above")
            wanted.add(other)
        step.needs = [each for each in self.steps if each in wanted]
        self.steps[name] = step
        self.changed()
        return step

    def sources_of(self, fn: Callable[..., Any], own: str = "", *, tx: bool = False, parts: str = "") -> tuple[tuple[str, str], ...]:
        """Where each parameter of `fn` comes from: a step's name, "" for the input, "*" for the effect under way."""
        hints = _hints(fn)
        found = []
        for parameter in inspect.signature(fn).parameters.values():
            if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
                raise _wrong(fn, f"parameter {parameter.name!r} cannot be filled by name", "name each parameter")
            hint = hints.get(parameter.name, Any)
            if hint is Effect:
                found.append((parameter.name, "*"))
            elif tx and parameter.name == "tx":
                found.append((parameter.name, TX))
            elif parts == "each" and parameter.name == "item":
                found.append((parameter.name, ITEM))
            elif hint is Flow and parts == "flow":
                found.append((parameter.name, FLOW))
            elif parameter.name == own or parameter.name in self.steps:
                self._check_type(fn, parameter.name, hint, optional=parameter.name == own)
                found.append((parameter.name, parameter.name))
            else:
                self._check_input(fn, parameter.name, hint)
                found.append((parameter.name, ""))
        return tuple(found)

    def _check_input(self, fn: Callable[..., Any], name: str, hint: Any) -> None:
        takes = getattr(self.input_type, "__name__", str(self.input_type))
        if hint is not Any and not _fits(self.input_type, hint):
            raise _wrong(fn, f"parameter {name!r} is not a step above it, and {_shown(hint)} is not the saga's input "
                         f"({takes}){self._hint(name)}",
                         f"name it after the step whose result it takes, or annotate it as {takes}")
        if self._input_name and name != self._input_name and hint is Any:
            raise _wrong(fn, f"parameter {name!r} is neither a step above it nor the input, which the saga calls "
                         f"{self._input_name!r}{self._hint(name)}",
                         f"rename it to the step whose result it takes, or to {self._input_name!r}")
        self._input_name = self._input_name or name

    def _check_type(self, fn: Callable[..., Any], name: str, hint: Any, *, optional: bool) -> None:
        step = self.steps.get(name)
        if step is None:
            return
        gives = step.part_gives if optional and step.parts else step.hints.get("return", Any)
        if not _fits(gives, hint):
            raise _wrong(fn, f"parameter {name!r} is {_shown(hint)}, but step {name!r} returns {_shown(gives)}",
                         f"annotate it as {_shown(gives)}{' | None' if optional else ''}")

    def _hint(self, name: str) -> str:
        close = difflib.get_close_matches(name, [*self.steps, self._input_name], 1)
        return f"; did you mean {close[0]!r}?" if close and close[0] else ""

    def changed(self) -> None:
        self._graph = None

    @property
    def graph(self) -> Graph:
        """The checked graph. Raises DefinitionError for what only the whole can tell."""
        if self._graph is None:
            self._graph = self._checked()
            self.plain = frozenset(step.name for step in self.steps.values() if step.is_plain)
            self.leaves_traces = self._leaves_traces()
        return self._graph

    def _checked(self) -> Graph:
        if not self.steps:
            raise DefinitionError(f"saga {self.name!r} has no steps", do="add one: @saga.step")
        below = False
        nodes = []
        for step in self.steps.values():
            if not step.undo_decided and not below and not step.pivot:
                raise _wrong(step.fn, f"step {step.name!r} can be asked to undo itself, and has no undo",
                             f"define one with @{step.name}.undo, or say that it needs none: @saga.step(undo=None)")
            if below and step.wait and step.wait.kind == "signal" and step.wait.timeout_s is not None and step.wait.otherwise is UNSET:
                raise _wrong(step.fn, f"step {step.name!r} comes after the pivot, and fails when nobody answers in time",
                             "after the pivot a run can only go forward: give otherwise=, or move the step above the pivot")
            if below and not step.retrying.repeats and not step.once:
                raise _wrong(step.fn, f"step {step.name!r} comes after the pivot and may not be retried",
                             "after the pivot a run can only go forward: allow retries, or move the step above the pivot")
            if step.way is not None:
                step.way.check(step, below=below)
            nodes.append(Node(step.name, tuple(step.needs), tuple(_shown(step.hints.get(p, Any)) for p, _ in step.sources),
                              _shown(step.hints.get("return", Any)), step.undo_fn is not None, step.pivot,
                              step.wait.kind if step.wait else "", step.child, step.parts,
                              _names_in(step)))
            below = below or step.pivot
        return Graph(self.name, tuple(nodes))
