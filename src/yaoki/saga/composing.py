"""Steps that are more than one call: what users write for them. `Saga` has these methods; what they do is in a module each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from yaoki.errors import DefinitionError
from yaoki.saga import codec
from yaoki.saga.child import AWAITED, Child, undone_as_a_whole

if TYPE_CHECKING:
    from yaoki.saga.define import Saga, Step

R = TypeVar("R")
_UNSET: Any = object()


class Composing:
    """The part of `Saga` that adds steps which start sagas, or are made of parts."""

    name: str

    if TYPE_CHECKING:
        steps: dict[str, Step[..., Any]]

        def _add(self, fn: Callable[..., Any], *, name: str, pivot: bool, after: str | Iterable[str], retry: Any, timeout: float | None,
                 deadline: float | None, undo: Callable[..., Any] | None, tx: bool = False) -> Step[..., Any]: ...

        def _add_condition(self, step: Step[..., Any], when: Callable[..., Any]) -> None: ...

    def child(self, saga: Saga[Any], *, name: str = "", after: str | Iterable[str] = (), detached: bool = False,
              undo: None = _UNSET, when: Callable[..., Any] | None = None, retry: Any = None, timeout: float | None = None,
              queue: str = "default") -> Callable[[Callable[..., Any]], Step[..., Any]]:
        """Add a step that runs another saga. Its function takes the input and results above, and returns the other's input.

            @book_trip.child(charge_card)
            def payment(trip: Trip, hotel: Booking) -> Charge:
                return Charge(trip.card, hotel.price)          # the run `trip-42/payment`; its result is the step's

        When this run undoes itself, the child is undone with it: one that runs is cancelled, and one that is completed is taken
        up again and undone as a whole. A child that undoes itself has left nothing, and the step has failed.

        Args:
            saga: what it runs; define it above, and it needs not be given to `yaoki.open`.
            detached: do not wait for it: the step's result is the child's id.
            undo: None: leave the child alone when this run undoes itself.
            retry, timeout: of the function.
            queue: where the child waits for its turn, on PostgreSQL.
        """
        def add(fn: Callable[..., Any]) -> Step[..., Any]:
            step = self._add(fn, name=name, pivot=False, after=after, retry=retry, timeout=timeout, deadline=None,
                             undo=undone_as_a_whole if undo is _UNSET else None)
            step.way, step.special, step.child = Child(saga, detached=detached, queue=queue), True, saga.name
            step.wait = None if detached else AWAITED
            step.hints["return"] = str if detached else _result_of(saga)
            step.result = codec.Decoder(step.hints["return"])
            if when is not None:
                self._add_condition(step, when)
            return step

        return add


def _result_of(saga: Saga[Any]) -> Any:
    if not saga.steps:
        raise DefinitionError(f"saga {saga.name!r} has no steps yet, and is to be a step of another", do="define its steps first")
    return list(saga.steps.values())[-1].hints.get("return", Any)


def children_of(sagas: Iterable[Saga[Any]]) -> list[Saga[Any]]:
    """These sagas, and all that their runs may start."""
    found: list[Saga[Any]] = []
    queue = list(sagas)
    while queue:
        saga = queue.pop(0)
        if all(saga is not other for other in found):
            found.append(saga)
            queue += [step.way.saga for step in saga.steps.values() if isinstance(step.way, Child)]
    return found


def why_not_undoable(saga: Saga[Any], seen: tuple[Saga[Any], ...] = ()) -> str:
    """The step for which a completed run of this saga could not be undone as a whole, or ""."""
    for step in saga.steps.values():
        if not step.undo_decided:
            return f"{saga.name}.{step.name}"
        if isinstance(step.way, Child) and step.undo_fn and saga not in seen and (why := why_not_undoable(step.way.saga, (*seen, saga))):
            return why
    return ""
