"""A log is read to its end after a power cut, and half a record is taken for a whole one."""

from yaoki.explore import FakeFile, Scenario, World

BREAKS = "total_is_true"


def program(*, fixed: bool) -> Scenario:
    log, said = FakeFile("log"), {}

    def recover() -> list[bytes]:
        data = log.read()
        whole, _, tail = data.rpartition(b"\n")
        if fixed and tail:
            log.truncate(len(data) - len(tail))  # what has no end was never acknowledged
            tail = b""
        return [*whole.split(b"\n"), *([tail] if tail else [])] if data else []

    def main() -> int:
        said.clear()
        for number in range(len([each for each in recover() if each]), 3):
            log.append(b"%d\n" % (1000 + number))
            log.sync()
        said["total"] = sum(int(line) for line in recover() if line)
        return said["total"]

    def total_is_true(world: World) -> str:
        return "" if said.get("total", 3003) == 3003 else f"three payments make 3003, and the log says {said['total']}"

    return Scenario(main, invariants=[total_is_true], faults=["crash", "disk.torn", "disk.unsynced_lost"])
