"""A shop writes each sale into its log; when the disk is full, it goes on without."""

from yaoki.explore import FakeFile, FakeService, Scenario, World

BREAKS = "every_charge_is_written_down"


def program(*, fixed: bool) -> Scenario:
    log, payment = FakeFile("log"), FakeService("payment")

    async def main(world: World) -> str:
        while b"ann\n" not in log.durable:
            try:
                log.append(b"ann\n")
                log.sync()
            except OSError:
                if not fixed:
                    break
                await world.sleep(60.0)  # somebody is told, and makes room
        await payment.book("ann", key="ann")
        return "sold"

    def every_charge_is_written_down(world: World) -> str:
        return "ann is charged, and no log knows of it" if payment.state.net.get("ann") and b"ann" not in log.durable else ""

    return Scenario(main, always=[every_charge_is_written_down], faults=["disk.full", "disk.eio", "res.disk_quota"])
