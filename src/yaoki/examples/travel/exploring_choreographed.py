"""One trip with nobody in charge, under every fault of messages, brokers and disks: four desks, a front desk, a broker, in virtual time.

    yk explore yaoki.examples.travel.exploring_choreographed --kind msg

The same agency as in `exploring.py`; each desk is a process with a store of its own, and they share nothing but the broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from yaoki.errors import MessagesError
from yaoki.examples.travel import desks
from yaoki.examples.travel.book import book_trip
from yaoki.examples.travel.catalogue import Trip, trips
from yaoki.examples.travel.choreographed import FRONT, ROLES
from yaoki.examples.travel.exploring import Agency
from yaoki.explore import Scenario, World
from yaoki.explore.mail import mail_broker, mail_store
from yaoki.messages import Messages, Pace
from yaoki.messages.choreography import Monitor, participate, start

# Short, so that the work of a desk that lost power goes on soon; every wait is virtual, and every look costs. A lease is longer than
# the broker's (2 s), which is longer than it takes a desk to start again (1 s).
PACE = Pace(lease_s=3.0, drain_s=1.0)
# When the monitor nudges what is not begun; and how late a delayed message is: later than all leases, and than that nudge.
OVERDUE_S = 5.0
DELAY_S = 8.0
PATIENCE_S = 900.0
FAULTS = ("msg", "crash", "call.lost_ack", "call.timeout:none", "disk")


class Trail:
    """What the front desk was told of the trip, to be compared with what is so."""

    def __init__(self) -> None:
        self.claim = ""


def _messages(world: World, role: str) -> Messages:
    return Messages(f"desk-{role}", mail_store(world, f"{role}.db"), broker=mail_broker(world, delay=DELAY_S), pace=PACE)


async def _desk(world: World, role: str, agency: Agency) -> None:
    """Take part with one role's steps, for ever; a supervisor starts it again when its disk fails."""
    desks.install(agency.desks)
    while True:
        app = _messages(world, role)
        participate(book_trip, steps=ROLES[role], app=app)
        try:
            async with app:
                await asyncio.get_running_loop().create_future()
        except MessagesError as error:
            world.note(role, f"is started again: {error}")
            await world.sleep(1.0)


async def _front(world: World, trip: Trip) -> str:
    """Start the trip, once, and wait for its end."""
    while True:
        app = _messages(world, FRONT)
        monitor = Monitor(book_trip, app, overdue=OVERDUE_S)
        try:
            async with app:
                watching = asyncio.create_task(monitor.watch())
                try:
                    if await monitor.load(trip.id) is None:
                        await start(app, book_trip, trip, id=trip.id)
                    return (await monitor.wait(trip.id, timeout=PATIENCE_S)).value
                finally:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
        except MessagesError as error:
            world.note(FRONT, f"is started again: {error}")
            await world.sleep(1.0)


def scenario_of(trip: Trip, faults: Sequence[str] = FAULTS) -> Scenario:
    """One trip, by choreography."""
    agency, trail = Agency(trip), Trail()

    def setup(world: World) -> None:
        trail.claim = ""
        agency.open(world)
        for role in ROLES:
            world.start(role, _desk, world, role, agency, daemon=True)

    async def book(world: World) -> str:
        trail.claim = await _front(world, trip)
        return trail.claim

    def the_claim_is_so(world: World) -> str:
        """What the front desk says has happened; undone leaves nothing, and blocked needs a reason that faults do not give."""
        held = {name: units for name, units in agency.holds(world).items() if units}
        if trail.claim == "undone" and held:
            return f"the trip is undone, and there is {held}"
        return "" if trail.claim in {"completed", "undone"} else f"the trip ended as {trail.claim or 'nothing at all'}"

    # Five services that hear each other's every word: a trip that goes well is three hundred calls.
    return Scenario(book, name="choreographed", setup=setup, effects=agency.holds, invariants=[agency.one_of_each, the_claim_is_so],
                    faults=faults, timed=True, most_calls=2000, most_per_site=200)


def scenario() -> Scenario:
    """The default scenario of this module."""
    return scenario_of(next(trips(1)))
