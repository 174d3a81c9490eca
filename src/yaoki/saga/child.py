"""Steps that start another saga: its run is awaited, or left to itself; and undone as a whole when this one undoes itself.

    function: the child's input ──▶ child started ──▶ parked ──the child is completed──▶ done, with its result
                                                        └──────it was undone───────────▶ failed: nothing of it is left
    undo ──▶ the child is asked, parked ──it is undone──▶ undone

The child is a run like any other: it may be driven by another worker, it has its own pivot, its own person when it is blocked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from yaoki import events, runtime
from yaoki.errors import InputError, RunNotFoundError
from yaoki.saga import codec
from yaoki.saga.attempt import Attempts
from yaoki.saga.family import OUTCOME, ask_undo, child_id
from yaoki.saga.machine import Machine
from yaoki.saga.naming import first_name, now_called
from yaoki.saga.records import Failure, Header, Kind, Record, RunState, Waiting
from yaoki.saga.signatures import wrong
from yaoki.saga.waiting import Wait

if TYPE_CHECKING:
    from yaoki.effect import Effect
    from yaoki.saga.define import Saga, Step
    from yaoki.saga.driver import Driver

AWAITED = Wait("child")

_NOW_WAITS = msgspec.json.encode(Waiting())


class Kin(Protocol):
    """What a driver needs of its engine for the children of its run."""

    async def start(self, saga: Saga[Any], data: bytes, run_id: str, *, deadline_at: float, traceparent: str, queue: str) -> Header:
        """Start a run, or find the one that this id has. Raises JournalError, UsageError."""
        ...

    def asked(self) -> None:
        """Something was asked of other runs."""


class Child:
    """What a step does that starts a run of `saga`. detached: it is not awaited."""

    def __init__(self, saga: Saga[Any], *, detached: bool, queue: str) -> None:
        self.saga = saga
        self.detached = detached
        self.queue = queue

    def check(self, step: Step[..., Any], *, below: bool) -> None:
        """Raises DefinitionError when it could not be undone. What comes after the pivot is not."""
        if step.undo_fn is not None and not below and (why := why_not_undoable(self.saga)):
            raise wrong(step.fn, f"step {step.name!r} cannot be undone as a whole: {why} has no undo",
                        f"define one with @{why.rpartition('.')[2]}.undo, or say undo=None there (it needs none) or here (the child is "
                        "left alone)")

    async def do(self, attempts: Attempts, driver: Driver, step: Step[..., Any]) -> Record | None:
        del attempts
        return await _Starting(self, driver, step, undo=False).run()

    async def undo(self, attempts: Attempts, driver: Driver, step: Step[..., Any]) -> Record | None:
        del attempts
        return await _Undoing(self, driver, step, undo=True).run()


class _OfChild(Attempts):
    """Attempts at something that is done to a child."""

    __slots__ = ("child", "id")

    def __init__(self, child: Child, driver: Driver, step: Step[..., Any], *, undo: bool) -> None:
        super().__init__(driver, step, undo=undo)
        self.child = child
        self.id = current_child(driver.machine, driver.header.id, step.name)

    async def run(self) -> Record | None:
        self._began = self._driver.clock()
        return await self._go_on(await self._attempt())


class _Starting(_OfChild):
    __slots__ = ()

    async def begin(self, under_way: Effect) -> Any:
        driver, saga, header = self._engines, self.child.saga, self._driver.header
        value = await super().begin(under_way)
        limits = [header.deadline_at if not driver.machine.past_pivot else 0.0, driver.now() + saga.deadline if saga.deadline else 0.0]
        assert driver.kin is not None
        return await driver.kin.start(saga, _input_of(saga, value, self._step), self.id, traceparent=header.traceparent,
                                      deadline_at=min((limit for limit in limits if limit), default=0.0), queue=self.child.queue)

    def succeeded(self, value: Header) -> Record:
        name = self._step.name
        if self.child.detached:
            self._driver.results[name] = value.id
            return Record(Kind.DONE, name, msgspec.json.encode(value.id), runtime.unix_time())
        return Record(Kind.WAITING, name, _NOW_WAITS, runtime.unix_time())


class _Undoing(_OfChild):
    __slots__ = ()

    async def begin(self, under_way: Effect) -> bool:
        """Is there something to be undone, and so to be waited for?"""
        del under_way
        found = await self._engines.journal.headers([self.id])
        if not found:
            if not self._doubt:
                raise RunNotFoundError(f"{self.id} was completed, and its history has been removed since",
                                       do="undo what it did by hand, and resolve this step as undone", run_id=self.id)
            return False  # it was never started, and never will be: whoever may write for this run is here
        return found[0].state not in {RunState.UNDONE, RunState.CANCELLED}

    def succeeded(self, value: bool) -> Record:  # noqa: FBT001  what `begin` said
        driver, name = self._engines, self._step.name
        if not value:
            return Record(Kind.UNDONE, name, b"", runtime.unix_time())
        abort = driver.machine.abort
        driver.asks.append(ask_undo(self.id, driver.header.id, abort.reason if abort else f"{name} is made anew"))
        return Record(Kind.WAITING, name, _NOW_WAITS, runtime.unix_time())


def current_child(machine: Machine, run: str, step: str) -> str:
    """The id of the child that this step has now, or will have."""
    number = machine.graph.index[step]
    return child_id(run, first_name(machine, step), machine.again.get(number, 0) + machine.rounds.get(number, 0))


def end_of_child(machine: Machine, step: Step[..., Any], data: bytes, now: float) -> Record:
    """The record that ends the wait for a child. data: its `Outcome`."""
    if machine.is_undone_now(step.name):
        return Record(Kind.UNDONE, step.name, b"", now)
    outcome = OUTCOME.decode(data)
    if outcome.is_undone:
        failure = Failure("ChildUndone", f"{outcome.child} was {outcome.state}: {outcome.reason}")
        return Record(Kind.BLOCKED if machine.past_pivot else Kind.FAILED, step.name, msgspec.json.encode(failure), now)
    try:
        step.result.decode(bytes(outcome.result))
    except msgspec.ValidationError as error:
        failure = Failure("ValidationError", f"what {outcome.child} returned is not what {step.name} gives: {error}")
        return Record(Kind.BLOCKED, step.name, msgspec.json.encode(failure), now)
    return Record(Kind.DONE, step.name, bytes(outcome.result), now)


def heard(machine: Machine, run: str, data: bytes, now: float) -> Record | None:
    """What a child's end means to its parent now: a record, or None when it changes nothing."""
    outcome = OUTCOME.decode(data)
    step = now_called(machine, outcome.child.rpartition("/")[2].partition(".")[0])
    if not machine.hears(step, undone=outcome.is_undone) or outcome.child != current_child(machine, run, step):
        return None
    return Record(Kind.SIGNAL, step, data, now)


async def undone_as_a_whole() -> None:
    """Stands where other steps have an undo."""


def _input_of(saga: Saga[Any], value: Any, step: Step[..., Any]) -> bytes:
    try:
        data = codec.encode(value)
        saga.input.decode(data)
    except (TypeError, msgspec.ValidationError) as error:
        takes = getattr(saga.input_type, "__name__", saga.input_type)
        raise InputError(f"{step.name} returns the input of saga {saga.name!r}, which takes {takes}, and this is not one: {error}",
                         do=f"return {takes}", saga=saga.name) from error
    return data


def tell_started(header: Header, *, new: bool) -> None:
    if new and events.wanted():
        events.emit(events.RunStarted(run=header.id, saga=header.saga))


def children_of(sagas: Iterable[Saga[Any]]) -> list[Saga[Any]]:
    """These sagas, and all that their runs may start."""
    found: list[Saga[Any]] = []
    queue = list(sagas)
    while queue:
        saga = queue.pop(0)
        if saga not in found:
            found.append(saga)
            queue += [step.way.saga for step in saga.steps.values() if isinstance(step.way, Child)]
    return found


def has_unsaid_undo(step: Step[..., Any]) -> bool:
    """Has nobody said how it is undone, nor that it needs no undo? Then, undone as a whole, its run would leave something behind."""
    if step.parts == "first_of":
        return step.undo_fn is None and not all(option.undo_decided for option in step.way.options.values())
    if isinstance(step.way, Child) and step.undo_fn is not None:
        return bool(why_not_undoable(step.way.saga))
    return not step.undo_decided


def why_not_undoable(saga: Saga[Any], seen: tuple[Saga[Any], ...] = ()) -> str:
    """The step for which a completed run of this saga could not be undone as a whole, or ""."""
    for step in saga.steps.values():
        if not step.undo_decided:
            return f"{saga.name}.{step.name}"
        if isinstance(step.way, Child) and step.undo_fn and saga not in seen and (why := why_not_undoable(step.way.saga, (*seen, saga))):
            return why
    return ""
