"""`each=`: a step that is made once for every item of a list.

    @albums.step(each="photos", concurrency=8, tolerate=0.01)
    async def resize(album: Album, item: Photo) -> Thumb: ...          # the step's result is a list, in the order of the items

    @resize.undo
    async def delete(album: Album, item: Photo, resize: Thumb | None) -> None: ...     # of one item

An item's part is called by its place in the list, or by `key=`. Items that are done are not made again after a restart; items that
fail are undone if they may have happened; when more fail than are tolerated nothing more is begun, and the step has failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from yaoki.errors import UsageError
from yaoki.saga import codec
from yaoki.saga.parts.attempts import PartAttempts
from yaoki.saga.parts.crew import Crew, Job
from yaoki.saga.parts.state import Part
from yaoki.saga.parts.step import InParts, part_of
from yaoki.saga.records import Record

if TYPE_CHECKING:
    from yaoki.effect import Effect
    from yaoki.saga.attempt import Attempts
    from yaoki.saga.define import Step
    from yaoki.saga.driver import Driver

ITEM = "[]"
"""Where a parameter named `item` comes from, in `Step.sources`."""


class Each:
    """What such a step does.

    Args:
        items: the list, a function of results and the input by parameter; `sources` says where these come from.
        key: names an item; None: its place in the list does.
        concurrency: items under way at once.
        tolerate: how many may fail: a number, or a share below 1.
        gives: the type of what one item gives.
    """

    def __init__(self, items: Callable[..., Iterable[Any]], sources: tuple[tuple[str, str], ...], *, key: Callable[[Any], Any] | None,
                 concurrency: int, tolerate: float, gives: Any) -> None:
        self.items = items
        self.sources = sources
        self.key = key
        self.concurrency = concurrency
        self.tolerate = tolerate
        self.decoder = codec.Decoder(gives)

    def check(self, step: Step[..., Any], *, below: bool) -> None:
        """All was checked when it was defined."""

    async def do(self, attempts: Attempts, driver: Driver, step: Step[..., Any]) -> Record | None:
        return await _FanOut(self, attempts, driver, step).make()

    async def undo(self, attempts: Attempts, driver: Driver, step: Step[..., Any]) -> Record | None:
        return await _FanOut(self, attempts, driver, step).unmake()

    def items_of(self, driver: Driver, step: str) -> dict[str, Any]:
        """The items by name, in order. Raises UsageError for two of one name."""
        items = list(self.items(**{name: driver.results.get(source) if source else driver.input for name, source in self.sources}))
        if self.key is None:
            return {str(place): item for place, item in enumerate(items)}
        named = {str(self.key(item)): item for item in items}
        if len(named) < len(items):
            raise UsageError(f"{step} has {len(items)} items, and key= gives them only {len(named)} names",
                             do="let key= name each item differently, or leave it out")
        return named

    def tolerated(self, count: int) -> int:
        return int(self.tolerate * count) if self.tolerate < 1 else int(self.tolerate)


class _FanOut(InParts):
    def __init__(self, each: Each, attempts: Attempts, driver: Driver, step: Step[..., Any]) -> None:
        super().__init__(attempts, driver, step)
        self._each = each
        self._items: dict[str, Any] = {}
        self._tolerated = 0

    async def make(self) -> Record | None:
        try:
            self._items = self._each.items_of(self.driver, self.step.name)
        except Exception as error:  # the user's code
            return self.bug(error)
        self._tolerated = self._each.tolerated(len(self._items))
        before = len(self.parts.failures)
        crew = Crew(self.driver, self._jobs(), self._each.concurrency,
                    lambda: self.gives_up() or before + crew.failures > self._tolerated)
        await crew.work()
        if crew.blocked:
            return self.blocked(crew.blocked[0])
        if self.gives_up():
            return self.given_up()
        if crew.handed_over or self.driver.is_stopping():
            return None
        if len(self.parts.failures) > self._tolerated:
            return self._too_many()
        settled = await self.settle(self._undo_of, size=self._each.concurrency)
        if not isinstance(settled, bool):
            return settled
        results = self.parts.results
        return self.done(b"[" + b",".join(results.get(name, b"null") for name in self._items) + b"]")

    async def unmake(self) -> Record | None:
        try:
            self._items = self._each.items_of(self.driver, self.step.name)
        except Exception as error:
            return self.bug(error)
        if gone := [name for name in self.parts.to_undo() if name not in self._items]:
            return self.bug(UsageError(f"{self.step.name} has made items that are not in its list any more: {', '.join(gone[:5])}",
                                       do="let each= give the same items again, or undo these by hand"))
        return await self.undo_all(self._undo_of, size=self._each.concurrency)

    # ── items ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _jobs(self) -> list[Job]:
        states, name = self.parts.states, self.step.name
        return [Job(f"{name}/{key}", self._runner(key, item), begins=key not in states)
                for key, item in self._items.items() if states.get(key, Part.BEGUN) is Part.BEGUN]

    def _runner(self, key: str, item: Any) -> Callable[[], Any]:
        doubt = self.parts.is_open(key)  # begun by a process that died
        return lambda: self._attempts(key, item, doubt=doubt).run()

    def _attempts(self, key: str, item: Any, *, doubt: bool) -> PartAttempts:
        step, driver = self.step, self.driver

        def fill(under_way: Effect) -> Mapping[str, Any]:
            return _filled(step.sources, driver, under_way, item)

        return PartAttempts(driver, part_of(step, key, self._each.decoder), fill, undo=False, doubt=doubt)

    def _undo_of(self, key: str) -> PartAttempts | None:
        step, driver, parts = self.step, self.driver, self.parts
        if step.undo_fn is None:
            return None
        item = self._items[key]

        def fill(under_way: Effect) -> Mapping[str, Any]:
            result = self._each.decoder.decode(parts.results[key]) if parts.is_done(key) else None
            return {**_filled(step.undo_sources, driver, under_way, item), **{name: result for name, source in step.undo_sources
                                                                             if source == step.name}}

        return PartAttempts(driver, part_of(step, key, self._each.decoder), fill, undo=True, doubt=not parts.is_done(key))

    def _too_many(self) -> Record:
        failures = self.parts.failures
        first = next(iter(failures))
        allowed = f", {self._tolerated} are tolerated" if self._tolerated else ""
        return self.failed("TooManyFailed", f"{len(failures)} of {len(self._items)} items failed{allowed}; {first}: {failures[first]}")


def _filled(sources: tuple[tuple[str, str], ...], driver: Driver, under_way: Effect, item: Any) -> dict[str, Any]:
    return {name: item if source == ITEM else driver.input if not source else under_way if source == "*" else driver.results.get(source)
            for name, source in sources}
