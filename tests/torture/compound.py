"""Steps of the tortured saga that are more than one call, and what must have become of them."""

from __future__ import annotations

from typing import Any

from torture.service import Done, Service, Trip
from yaoki import Effect, Flow, Saga
from yaoki.policies import backoff, retry

HELD = frozenset({"bags/0", "bags/1", "bags/2", "cover/premium", "extras/one", "extras/two"})
"""Effects that a completed run has of these steps, besides one taxi."""

FAILING = ("bags/1", "premium", "extras/two")
"""What may say no here, as its own run calls it."""

PATIENT = retry(20, backoff.exponential(0.01, cap=0.1))


def add_early_steps(saga: Saga[Any], service: Service) -> tuple[str, ...]:
    """bags (each) ∥ cover (a child) ∥ taxi (the first of two). Returns their names."""
    async def call(trip: Trip, effect: Effect) -> Done:
        return await service.call(effect, trip)

    async def bag(trip: Trip, item: int, effect: Effect) -> Done:
        return await service.call(effect, trip)

    async def leave_bag(trip: Trip, item: int, effect: Effect) -> None:
        await service.call(effect, trip)

    async def take_back(trip: Trip, effect: Effect) -> None:
        await service.call(effect, trip)

    covers = Saga("covers", input=Trip, brake=None)
    covers.step(name="premium", retry=PATIENT, undo=take_back)(call)
    saga.step(name="bags", each=lambda trip: [0, 1, 2], concurrency=2, retry=PATIENT, undo=leave_bag)(bag)
    saga.child(covers, name="cover")(lambda trip: trip)
    taxi = saga.first_of("taxi")
    for name in ("yellow", "black"):
        taxi.option(name=name, retry=PATIENT, undo=take_back)(call)
    return "bags", "cover", "taxi"


def add_late_steps(saga: Saga[Any], service: Service) -> None:
    """extras: a flow of two inner steps."""
    async def extra(trip: Trip, effect: Effect) -> Done:
        return await service.call(effect, trip)

    async def drop_extra(trip: Trip, effect: Effect) -> None:
        await service.call(effect, trip)

    async def extras(trip: Trip, flow: Flow) -> int:
        for name in ("one", "two"):
            await flow.step(name, extra, trip, undo=drop_extra, retry=PATIENT)
        return 2

    saga.flow(name="extras", after="ticket", undos=[drop_extra])(extras)


def wrong_with_parts(name: str, state: str, made: dict[str, set[str]]) -> list[str]:
    """What is wrong with the effects of these steps in one run that has ended. made: by step, what was done: do, undo."""
    stands = {step for step in (*HELD, "taxi/yellow", "taxi/black") if made.get(step) == {"do"}}
    if state != "completed":
        return [f"run {name} is {state}, and the effect of {step} is still there" for step in sorted(stands)]
    wrong = [f"run {name} completed, and the effect of {step} is missing or was undone" for step in sorted(HELD - stands)]
    if len(stands - HELD) != 1:
        wrong.append(f"run {name} completed, with {len(stands - HELD)} taxis: {sorted(stands - HELD)}")
    return wrong


def wrong_with_children(runs: list[Any]) -> list[str]:
    """Children end as their parents do."""
    states = {run["id"]: run["state"] for run in runs}
    return [f"run {run} is {state}, and its parent is {states.get(run.partition('/')[0])}" for run, state in states.items()
            if "/" in run and states.get(run.partition("/")[0]) != state]
