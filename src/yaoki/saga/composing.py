"""Steps that are more than one call: what users write for them. `Saga` has these methods; what they do is in a module each."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from yaoki.errors import DefinitionError
from yaoki.saga import codec
from yaoki.saga.child import AWAITED, Child, undone_as_a_whole
from yaoki.saga.parts.each import Each
from yaoki.saga.parts.first_of import FirstOf
from yaoki.saga.parts.flow import Flowing
from yaoki.saga.signatures import UNDECIDED, fits, is_async, shown, wrong

if TYPE_CHECKING:
    from yaoki.saga.define import Saga, Step

R = TypeVar("R")

# Items at once: enough to hide a service's latency, few enough for a service that was not asked.
CONCURRENCY = 8


class Composing:
    """The part of `Saga` that adds steps which start sagas, or are made of parts."""

    name: str

    if TYPE_CHECKING:
        steps: dict[str, Step[..., Any]]

        def _add(self, fn: Callable[..., Any], *, name: str, pivot: bool, after: str | Iterable[str], retry: Any, timeout: float | None,
                 deadline: float | None, undo: Callable[..., Any] | None, tx: bool = False, parts: str = "") -> Step[..., Any]: ...

        def _add_condition(self, step: Step[..., Any], when: Callable[..., Any]) -> None: ...

    def first_of(self, name: str, *, after: str | Iterable[str] = (), race: bool = False, pivot: bool = False,
                 when: Callable[..., Any] | None = None) -> FirstOf:
        """Add a step with alternatives: the first that succeeds counts, and the others leave nothing.

            pay = orders.first_of("pay")

            @pay.option
            async def card(order: Order) -> Receipt: ...

            @pay.option(undo=None)
            async def invoice(order: Order) -> Receipt: ...        # when `card` has failed for good

        An option that failed in doubt is undone before the step is done. When none succeeds the step has failed.

        Args:
            name: the step's; what an option returns is its result.
            race: try all at once instead of one after the other; the slower ones are cancelled, and undone as in doubt.
            pivot: the point of no return: passed when one has succeeded and the others have left nothing. Each option has an undo then.
        """
        async def one_of_its_options() -> None:
            """Call the options themselves in unit tests."""

        step = self._add(one_of_its_options, name=name, pivot=pivot, after=after, retry=None, timeout=None, deadline=None, undo=None,
                         parts="first_of")
        step.special = True
        options = step.way = FirstOf(cast("Saga[Any]", self), step, race=race)
        if when is not None:
            self._add_condition(step, when)
        return options

    def flow(self, *, name: str = "", undos: Iterable[Callable[..., Any]] = (), after: str | Iterable[str] = (), pivot: bool = False,
             when: Callable[..., Any] | None = None) -> Callable[[Callable[..., Any]], Step[..., Any]]:
        """Add a step that decides as it goes what it calls: a loop, an agent that chooses tools.

            @tasks.flow(undos=[release])
            async def work(task: Task, flow: Flow) -> str:
                for turn in itertools.count():
                    choice = await flow.step(f"think-{turn}", model.choose, notes)
                    ...
                    seat = await flow.step(f"reserve-{turn}", reserve, choice.row, undo=release)

        Each inner step is made once, and remembered by its name: after a restart the function runs again, and what was done
        answers with what it gave. When the run undoes itself, what the inner steps did is undone, the last one first.

        Args:
            undos: the functions that undo inner steps, so that they are found again after a crash.
            pivot: refused, with the reason: what a flow does is decided as it goes.
        """
        functions = list(undos)
        named = {getattr(undo, "__name__", repr(undo)): undo for undo in functions}

        def add(fn: Callable[..., Any]) -> Step[..., Any]:
            if pivot:
                raise wrong(fn, f"flow {name or fn.__name__!r} is to be the point of no return, and decides as it goes what it does: nobody can "
                            "say at which call there is no way back", "make that call a step of its own, with pivot=True, below the flow")
            step = self._add(fn, name=name, pivot=False, after=after, retry=None, timeout=None, deadline=None, undo=None, parts="flow")
            step.way, step.special = Flowing(named), True
            if len(named) < len(functions):
                raise wrong(fn, f"two undos of flow {step.name!r} have one name", "name them differently: they are found by name")
            if when is not None:
                self._add_condition(step, when)
            return step

        return add

    def child(self, saga: Saga[Any], *, name: str = "", after: str | Iterable[str] = (), detached: bool = False,
              undo: None = UNDECIDED, when: Callable[..., Any] | None = None, retry: Any = None, timeout: float | None = None,
              queue: str = "", pivot: bool = False) -> Callable[[Callable[..., Any]], Step[..., Any]]:
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
            queue: where the child waits for its turn; by default where its saga says.
            pivot: the point of no return: passed when the child is completed. It is awaited and can be undone as a whole then.
        """
        def add(fn: Callable[..., Any]) -> Step[..., Any]:
            if pivot and (detached or undo is None):
                how = "is not awaited" if detached else "is left alone when its parent undoes itself"
                raise wrong(fn, f"a run of {saga.name!r} is to be the point of no return, and {how}: a run that is in doubt about it could go "
                            "neither on nor back", "await it, and let it be undone as a whole; or make another step the pivot")
            step = self._add(fn, name=name, pivot=pivot, after=after, retry=retry, timeout=timeout, deadline=None,
                             undo=undone_as_a_whole if undo is UNDECIDED else None)
            step.way, step.special, step.child = Child(saga, detached=detached, queue=queue), True, saga.name
            step.wait = None if detached else AWAITED
            step.hints["return"] = str if detached else _result_of(saga)
            step.result = codec.Decoder(step.hints["return"])
            if when is not None:
                self._add_condition(step, when)
            return step

        return add


def add_each(saga: Saga[Any], step: Step[..., Any], each: Any, *, key: Any, concurrency: int, tolerate: float) -> None:
    """Have the step made for every item of a list. Raises DefinitionError."""
    fn, what = step.fn, f"step {step.name!r}"
    if each is None:
        raise wrong(fn, f"{what} has key=, and no list", "give each= as well")
    if "item" not in inspect.signature(fn).parameters:
        raise wrong(fn, f"{what} is made for each item of a list, and does not take it", "add a parameter called item")
    if step.pivot or step.tx:
        raise wrong(fn, f"{what} is made for each item of a list, and is {'the point of no return' if step.pivot else 'a transaction'}",
                    "make that a step of its own: it happens once, or not at all")
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise wrong(fn, f"concurrency is how many items at once, not {concurrency!r}", f"{CONCURRENCY} is the default")
    if isinstance(tolerate, bool) or not tolerate >= 0 or (tolerate > 1 and tolerate != int(tolerate)):
        raise wrong(fn, f"tolerate is a number of items or a share below 1, not {tolerate!r}", "tolerate=0.01, or tolerate=3")
    items, sources = _items_of(saga, step, each)
    gives = step.hints.get("return", Any)
    if tolerate:
        gives = gives if gives is Any else gives | None
    step.way, step.special = Each(items, sources, key=key, concurrency=concurrency, tolerate=tolerate, gives=step.part_gives), True
    step.hints["return"] = list if gives is Any else list.__class_getitem__(gives)
    step.result = codec.Decoder(step.hints["return"])
    wanted = {*step.needs, *(source for _, source in sources if source)}
    step.needs = [each for each in saga.steps if each in wanted]
    saga.changed()


def _items_of(saga: Saga[Any], step: Step[..., Any], each: Any) -> tuple[Callable[..., Any], tuple[tuple[str, str], ...]]:
    """The function that gives the list, and where its parameters come from."""
    if isinstance(each, str):
        if each not in saga.steps or each == step.name:
            raise wrong(step.fn, f"each={each!r} is not a step above it",
                        "name a step that returns a list, or give a function: each=lambda album: album.photos")
        gives = saga.steps[each].hints.get("return", Any)
        if not fits(typing.get_origin(gives) or gives, list | tuple):
            raise wrong(step.fn, f"each={each!r}: that step returns {shown(gives)}, which is no list", "let it return a list")
        return (lambda items: items), (("items", each),)
    if not callable(each) or is_async(each, saga.name):
        raise wrong(step.fn, "each= is the name of a step that returns a list, or a plain function of the input and results",
                    "each=lambda album: album.photos, say")
    del saga.steps[step.name]  # it cannot be about itself
    sources = saga.sources_of(each)
    saga.steps[step.name] = step
    return each, sources


def _result_of(saga: Saga[Any]) -> Any:
    if not saga.steps:
        raise DefinitionError(f"saga {saga.name!r} has no steps yet, and is to be a step of another", do="define its steps first")
    return list(saga.steps.values())[-1].hints.get("return", Any)
