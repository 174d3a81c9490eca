"""What was done first is undone first: while the second undo is not done, the room is gone and its key still works."""

from simulation.kit import retried
from yaoki.errors import DeclinedError
from yaoki.explore import FakeService, Scenario, World

BREAKS = "no_key_without_room"


def program(*, fixed: bool) -> Scenario:
    hotel, keys, payment = FakeService("hotel"), FakeService("keys"), FakeService("payment", declines=True)

    async def main() -> str:
        done: list[FakeService] = []
        try:
            for service in (hotel, keys, payment):
                await retried(lambda service=service: service.book("ann", key="ann"))
                done.append(service)
        except DeclinedError:
            for service in reversed(done) if fixed else done:
                await retried(lambda service=service: service.cancel(key="ann"))
            return "declined"
        return "booked"

    def no_key_without_room(world: World) -> str:
        return "ann has a key to a room that is not hers" if keys.state.net.get("ann", 0) > hotel.state.net.get("ann", 0) else ""

    return Scenario(main, always=[no_key_without_room], faults=["call", "dep"])
