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

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from yaoki.errors import DefinitionError
from yaoki.saga import codec
from yaoki.saga.attributes import reader_of
from yaoki.saga.composing import CONCURRENCY, Composing, add_each
from yaoki.saga.graph import Graph, Node
from yaoki.saga.heartbeat import add_heartbeat
from yaoki.saga.locking import Keys
from yaoki.saga.mapping import GraphMapping, Mappings
from yaoki.saga.parameters import WORDS, Parameters
from yaoki.saga.queue import Queue
from yaoki.saga.retrying import Retrying
from yaoki.saga.schedule.declared import Scheduled
from yaoki.saga.signatures import UNDECIDED as _UNSET
from yaoki.saga.signatures import fits as _fits
from yaoki.saga.signatures import is_async as _is_async
from yaoki.saga.signatures import shown as _shown
from yaoki.saga.signatures import wrong as _wrong
from yaoki.saga.step import Step
from yaoki.saga.typed import I, O, completed
from yaoki.saga.waiting import UNSET
from yaoki.saga.waits import Waits

__all__ = ["Saga", "Step"]

P = ParamSpec("P")
R = TypeVar("R")


class Saga(Parameters, Waits, Composing, Scheduled, Mappings, Generic[I, O]):
    """Named steps and edges: an operation over several services that finishes or undoes itself.

    Args:
        name: what the journal knows it by; letters, digits, `-` and `_`. Never change it while runs are in flight.
        input: the type that each run starts with: a dataclass, a msgspec Struct, a pydantic model, or any JSON-able type.
        result: what its last step returns, and so `run.result()`: said for type checkers (`saga/typed.py`), and checked with the graph.
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

    @overload
    def __init__(self: Saga[I, Any], name: str, *, input: type[I], deadline: float | None = ..., stuck_after: float = ...,
                 brake: float | None = ..., lock: Callable[[Any], Any] | None = ..., queue: Queue | None = ...,
                 attributes: Callable[[I], Mapping[str, Any]] | Mapping[str, str] | None = ...) -> None: ...

    @overload
    def __init__(self, name: str, *, input: type[I], result: type[O], deadline: float | None = ..., stuck_after: float = ...,
                 brake: float | None = ..., lock: Callable[[Any], Any] | None = ..., queue: Queue | None = ...,
                 attributes: Callable[[I], Mapping[str, Any]] | Mapping[str, str] | None = ...) -> None: ...

    def __init__(self, name: str, *, input: type[I], result: type[O] | None = None, deadline: float | None = None,  # noqa: A002
                 stuck_after: float = 300.0, brake: float | None = 0.95, lock: Callable[[Any], Any] | None = None,
                 queue: Queue | None = None, attributes: Callable[[I], Mapping[str, Any]] | Mapping[str, str] | None = None) -> None:
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
        self.result_type: Any = Any if result is None else result
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

    if not TYPE_CHECKING:
        def __class_getitem__(cls, types):  # noqa: ANN001, ANN204
            return super().__class_getitem__(completed(types))

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
        wanted = {source for _, source in sources if source not in WORDS}
        for other in (after,) if isinstance(after, str) else after:
            if other not in self.steps:
                raise _wrong(fn, f"after={other!r} is not a step above it{self._hint(other)}", "name a step defined above")
            wanted.add(other)
        step.needs = [each for each in self.steps if each in wanted]
        self.steps[name] = step
        self.changed()
        return step

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
        last = list(self.steps.values())[-1]
        if not _fits(gives := last.hints.get("return", Any), self.result_type):
            raise _wrong(last.fn, f"saga {self.name!r} gives {_shown(self.result_type)}, and its last step, {last.name!r}, returns {_shown(gives)}",
                         "say result= as the last step returns it, or let the step that gives the result be the last one")
        return Graph(self.name, tuple(nodes))


def _names_in(step: Step[..., Any]) -> tuple[str, ...]:
    """What a history may name of its parts: alternatives, or the undos of a flow."""
    return tuple(step.way.options) if step.parts == "first_of" else tuple(sorted(step.way.undos)) if step.parts == "flow" else ()
