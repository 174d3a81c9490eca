"""Sagas whose steps are more than one call, over fake services: children, fan-outs, alternatives, flows."""

from __future__ import annotations

from typing import Any

from yaoki.explore import Booking, FakeService, Scenario
from yaoki.explore.sagas import saga_scenario
from yaoki.saga.define import Saga


def served(saga: Saga[Any], service: FakeService, *, name: str = "", **settings: Any) -> None:
    """A step that books, with an undo that cancels."""
    async def do(who: str) -> Booking:
        return await service.book()

    async def undo(who: str) -> None:
        await service.cancel()

    saga.step(name=name or service.name, **settings)(do).undo(undo)


def child(*, declines: bool = False, detached: bool = False, pivot: bool = False) -> Scenario:
    """A run that starts another between two steps of its own; the last one may say no."""
    charge = Saga("charge", input=str)
    served(charge, FakeService("hold"))
    served(charge, FakeService("capture"), after=["hold"], pivot=pivot)
    trip = Saga("trip", input=str)
    served(trip, FakeService("hotel"))

    @trip.child(charge, after="hotel", detached=detached)
    def payment(who: str) -> str:
        return who

    served(trip, FakeService("mail", declines=declines), after=["payment"])
    return saga_scenario(trip, input="ann", name="child")
