"""The attempts of one part: those of a step, with a name and arguments of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from yaoki.saga.attempt import Attempts
from yaoki.saga.records import Record

if TYPE_CHECKING:
    from yaoki.effect import Effect
    from yaoki.saga.define import Step
    from yaoki.saga.driver import Driver

Fill = Callable[["Effect"], Mapping[str, Any]]
"""The arguments of one attempt."""


class PartAttempts(Attempts):
    """The attempts of a part, or of its undo. Used once.

    Args:
        step: a copy of the step under the part's name.
        doubt: may an earlier process have begun it? Of an undo: does nobody know whether there is something to undo?
        forward: may it only go forward; by default what holds for the run.
    """

    __slots__ = ("_fill",)

    def __init__(self, driver: Driver, step: Step[..., Any], fill: Fill, *, undo: bool, doubt: bool, forward: bool | None = None) -> None:
        super().__init__(driver, step, undo=undo, doubt=doubt, forward=forward)
        self._fill = fill

    async def run(self) -> Record | None:
        self._began = self._driver.clock()
        return await self._go_on(await self._attempt())

    def arguments(self, under_way: Effect) -> dict[str, Any]:
        return dict(self._fill(under_way))
