"""`first_of`: several ways to the same end; the first that succeeds counts, and the others leave nothing.

    pay = orders.first_of("pay")

    @pay.option
    async def card(order: Order) -> Receipt: ...          # tried first

    @card.undo
    async def refund(order: Order, card: Receipt | None) -> None: ...

    @pay.option(undo=None)
    async def invoice(order: Order) -> Receipt: ...       # when the card has failed for good

One after the other, or, with `race=True`, all at once: then the others are cancelled, which leaves them in doubt, and undone.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from yaoki.errors import DefinitionError
from yaoki.saga import codec
from yaoki.saga.child import undone_as_a_whole
from yaoki.saga.parts.attempts import PartAttempts
from yaoki.saga.parts.crew import Crew, Job
from yaoki.saga.parts.state import Part
from yaoki.saga.parts.step import InParts, part_of
from yaoki.saga.records import Record
from yaoki.saga.retrying import Retrying
from yaoki.saga.signatures import UNDECIDED, shown, wrong

if TYPE_CHECKING:
    from yaoki.effect import Effect
    from yaoki.saga.attempt import Attempts
    from yaoki.saga.define import Saga, Step
    from yaoki.saga.driver import Driver


class FirstOf:
    """One step with alternatives. Made by `Saga.first_of`; also what the step does.

    Attributes:
        options: by name, in the order in which they are tried. race: all at once?
    """

    def __init__(self, saga: Saga[Any], step: Step[..., Any], *, race: bool) -> None:
        self._saga = saga
        self._step = step
        self.race = race
        self.options: dict[str, Step[..., Any]] = {}

    def option(self, fn: Callable[..., Any] | None = None, *, name: str = "", retry: Any = None, timeout: float | None = None,
               deadline: float | None = None, undo: Callable[..., Any] | None = UNDECIDED) -> Any:
        """Add an alternative: a function like that of a step; what it returns is the result of the step.

        Args:
            name: the function's by default; it is a part of the idempotency key.
            retry, timeout, deadline, undo: as of a step. After its attempts the next one is tried.
        """
        def add(fn: Callable[..., Any]) -> Step[..., Any]:
            made = type(self._step)(self._saga, fn, name=name or getattr(fn, "__name__", ""), pivot=False, timeout=timeout,
                                    deadline=deadline, retrying=Retrying.of(retry), undo=undo)
            self._add(made, fn)
            return made

        return add if fn is None else add(fn)

    def _add(self, option: Step[..., Any], fn: Callable[..., Any]) -> None:
        saga, step, name = self._saga, self._step, option.name
        if name in self.options or name in saga.steps or not name.replace("-", "_").isidentifier():
            raise wrong(fn, f"{name!r} cannot be the name of an option of {step.name!r}",
                        "name each option differently from the others and from the steps: @pay.option(name='...')")
        sources = saga.sources_of(fn)
        if self.race and not option.is_async:
            raise wrong(fn, f"option {name!r} races against others, and cannot be cancelled, for it runs in a thread", "write async def")
        above = list(saga.steps)[:list(saga.steps).index(step.name)]
        if late := [source for _, source in sources if source not in {"", "*"} and source not in above]:
            raise wrong(fn, f"option {name!r} takes {late[0]!r}, which does not stand above {step.name!r}", "define that step first")
        option.sources = sources
        self.options[name] = option
        wanted = {*step.needs, *(source for _, source in sources)}
        step.needs = [each for each in above if each in wanted]
        self._decide_type(fn)
        saga.changed()

    def _decide_type(self, fn: Callable[..., Any]) -> None:
        step = self._step
        gives = [option.hints.get("return", Any) for option in self.options.values()]
        step.hints["return"] = Any if Any in gives else typing.Union[tuple(gives)]  # noqa: UP007  of a list
        try:
            step.result = codec.Decoder(step.hints["return"])
        except TypeError as error:
            raise wrong(fn, f"the options of {step.name!r} return {', '.join(sorted({shown(each) for each in gives}))}, which cannot be told "
                        "apart when they are read back", "let them return the same type") from error

    def check(self, step: Step[..., Any], *, below: bool) -> None:
        """Raises DefinitionError for what only the whole can tell. below: does it come after the pivot?"""
        if len(self.options) < 2:
            do = f"define at least two with @{step.name}.option"
            if not self.options:
                raise DefinitionError(f"saga {self._saga.name!r}: step {step.name!r} is the first of several, and has no options", do=do)
            raise wrong(next(iter(self.options.values())).fn, f"step {step.name!r} is the first of several, and has 1 option", do)
        for option in self.options.values():
            if not option.undo_decided and not below:
                raise wrong(option.fn, f"option {option.name!r} can be asked to undo itself, and has no undo",
                            f"define one with @{option.name}.undo, or say that it needs none: option(undo=None)")
            if step.pivot and option.undo_fn is None:
                raise wrong(option.fn, f"option {option.name!r} of {step.name!r}, the point of no return, has no undo: one that is in doubt must be "
                            "taken back before another counts", f"define one with @{option.name}.undo; or make the pivot a step with one call")
        step.undo_fn = undone_as_a_whole if any(option.undo_fn for option in self.options.values()) else None

    # ── in a run ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def do(self, attempts: Attempts, driver: Driver, step: Step[..., Any]) -> Record | None:
        return await _Trying(self, attempts, driver, step).make()

    async def undo(self, attempts: Attempts, driver: Driver, step: Step[..., Any]) -> Record | None:
        making = _Trying(self, attempts, driver, step)
        return await making.undo_all(making.undo_of, size=1)


class _Trying(InParts):
    """The options of one step in one run. Tried again by a person, they are parts of other names, for the old ones may be undone."""

    def __init__(self, first_of: FirstOf, attempts: Attempts, driver: Driver, step: Step[..., Any]) -> None:
        super().__init__(attempts, driver, step)
        self._first_of = first_of
        machine = driver.machine
        again = machine.again.get(machine.graph.index[step.name], 0)
        self._names = {f"{name}.{again + 1}" if again else name: option for name, option in first_of.options.items()}

    async def make(self) -> Record | None:
        crew = Crew(self.driver, self._jobs(), len(self._names) if self._first_of.race else 1,
                    lambda: self.gives_up() or crew.successes > 0 or bool(self._winner()), first=self._first_of.race)
        await crew.work()
        winner = self._winner()
        if not winner:
            if crew.blocked:
                return self.blocked(crew.blocked[0])
            if self.gives_up():
                return self.given_up()
            return None if crew.handed_over or self.driver.is_stopping() else self._none_succeeded()
        left = [name for name in self.parts.to_undo() if name != winner]
        settled = await self.undo_these(left, self.undo_of, size=len(self._names))
        return settled if not isinstance(settled, bool) else self.done(self.parts.results[winner])

    def _winner(self) -> str:
        return next((name for name in self._names if self.parts.is_done(name)), "")

    def _none_succeeded(self) -> Record:
        failures = self.parts.failures
        return self.failed("NoneSucceeded", "; ".join(f"{name}: {failures[name]}" for name in self._names if name in failures))

    def _jobs(self) -> list[Job]:
        states = self.parts.states
        return [Job(f"{self.step.name}/{name}", self._attempts(name, option).run, begins=name not in states)
                for name, option in self._names.items() if states.get(name, Part.BEGUN) is Part.BEGUN]

    def _attempts(self, name: str, option: Step[..., Any]) -> PartAttempts:
        driver = self.driver

        def fill(under_way: Effect) -> Mapping[str, Any]:
            return _filled(option.sources, driver, under_way)

        return PartAttempts(driver, self._part(name, option), fill, undo=False, doubt=self.parts.is_open(name), forward=False)

    def undo_of(self, name: str) -> PartAttempts | None:
        option = self._first_of.options[name.partition(".")[0]]
        if option.undo_fn is None:
            return None
        driver, parts = self.driver, self.parts

        def fill(under_way: Effect) -> Mapping[str, Any]:
            result = option.result.decode(parts.results[name]) if parts.is_done(name) else None
            return {**_filled(option.undo_sources, driver, under_way),
                    **{parameter: result for parameter, source in option.undo_sources if source == option.name}}

        return PartAttempts(driver, self._part(name, option), fill, undo=True, doubt=not parts.is_done(name))

    def _part(self, name: str, option: Step[..., Any]) -> Step[..., Any]:
        return part_of(option, name, option.result, whole=self.step.name)


def _filled(sources: tuple[tuple[str, str], ...], driver: Driver, under_way: Effect) -> dict[str, Any]:
    return {name: driver.input if not source else under_way if source == "*" else driver.results.get(source) for name, source in sources}
