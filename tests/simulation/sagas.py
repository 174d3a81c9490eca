"""Sagas of every shape, over fake services that keep the participant's protocol: the engine must bring each one to its end."""

from __future__ import annotations

from yaoki.explore import Booking, FakeService, Scenario, World
from yaoki.explore.sagas import saga_scenario, supervised
from yaoki.saga.define import Saga


def chain(steps: int = 4, *, declines: bool = False) -> Scenario:
    """One step after the other, each with its own service; the last one may say no."""
    names = ["hotel", "flight", "points", "payment", "mail", "car"][:steps]
    saga = Saga("chain", input=str)
    for number, name in enumerate(names):
        service = FakeService(name, declines=declines and number == steps - 1)

        do, undo = _of(service)
        saga.step(name=name, after=names[number - 1:number])(do).undo(undo)
    return saga_scenario(saga, input="ann", name="chain")


def _of(service: FakeService):
    """The do and the undo of a step that books at `service`."""

    async def do(who: str) -> Booking:
        return await service.book()

    async def undo(who: str) -> None:
        await service.cancel()

    return do, undo


def _served(saga: Saga, name: str, service: FakeService, **settings) -> None:
    do, undo = _of(service)
    saga.step(name=name, **settings)(do).undo(undo)


def diamond(*, declines: bool = False) -> Scenario:
    """Two branches side by side, then a step that needs both."""
    saga = Saga("diamond", input=str)
    _served(saga, "order", FakeService("order"))
    _served(saga, "hotel", FakeService("hotel"), after=["order"])
    _served(saga, "flight", FakeService("flight"), after=["order"])
    _served(saga, "payment", FakeService("payment", declines=declines), after=["hotel", "flight"])
    return saga_scenario(saga, input="ann", name="diamond")


def sides(*, declines: bool = False) -> Scenario:
    """Three steps at once, one of which may say no while the others are under way."""
    saga = Saga("sides", input=str)
    _served(saga, "hotel", FakeService("hotel"))
    _served(saga, "flight", FakeService("flight", declines=declines))
    _served(saga, "car", FakeService("car"))
    return saga_scenario(saga, input="ann", name="sides")


def pivoted() -> Scenario:
    """A pivot, and a step after it that can only go forward."""
    saga = Saga("pivoted", input=str)
    _served(saga, "hotel", FakeService("hotel"))
    _served(saga, "payment", FakeService("payment"), pivot=True, after=["hotel"])
    _served(saga, "ticket", FakeService("ticket"), after=["payment"])
    return saga_scenario(saga, input="ann", name="pivoted")


def hurried() -> Scenario:
    """A deadline for the run, and a timeout shorter than the service's own."""
    saga = Saga("hurried", input=str, deadline=30.0)
    _served(saga, "hotel", FakeService("hotel", timeout=None), timeout=2.0)
    _served(saga, "payment", FakeService("payment", timeout=None), timeout=2.0, after=["hotel"])
    return saga_scenario(saga, input="ann", name="hurried", most_per_site=60)


def blocking() -> Scenario:
    """Plain functions as steps."""
    hotel, payment = FakeService("hotel"), FakeService("payment", declines=True)
    saga = Saga("blocking", input=str)

    @saga.step
    def room(who: str) -> Booking:
        return hotel.book_blocking()

    @room.undo
    def cancel(who: str) -> None:
        hotel.cancel_blocking()

    @saga.step(undo=None)
    def pay(who: str, room: Booking) -> Booking:
        return payment.book_blocking()

    return saga_scenario(saga, input="ann", name="blocking")


def several(runs: int = 3) -> Scenario:
    """Several runs at once on one journal, which share commits."""
    saga = Saga("several", input=str)
    _served(saga, "hotel", FakeService("hotel"))
    _served(saga, "payment", FakeService("payment"), after=["hotel"])
    return saga_scenario(saga, runs={f"run-{number}": "ann" for number in range(1, runs + 1)}, name="several")


def cancelled() -> Scenario:
    """Somebody changes their mind while the run is under way."""
    saga = Saga("cancelled", input=str)
    for number, name in enumerate(("hotel", "flight", "payment")):
        _served(saga, name, FakeService(name), after=["hotel", "flight"][number - 1:number])

    async def main(world: World) -> str:
        async def work(app) -> str:
            run = await app.start(saga, "ann", id="run-1")
            await world.sleep(0.0035)
            await run.cancel("changed my mind")
            return (await run.wait()).value

        return await supervised(world, work, saga)

    return Scenario(main, name="cancelled")


ALL = {
    "chain": chain, "chain that is declined": lambda: chain(declines=True), "diamond": diamond,
    "diamond that is declined": lambda: diamond(declines=True), "sides": sides, "sides, one declined": lambda: sides(declines=True),
    "pivoted": pivoted, "hurried": hurried, "blocking": blocking, "several": several, "cancelled": cancelled,
}
