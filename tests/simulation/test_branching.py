"""Executions that begin in the middle of another: the same ones, in the same order, with the same report; and parts of an exploration."""

from __future__ import annotations

import os

import pytest

from simulation import sagas
from simulation.mail_world import shop_and_depot
from simulation.test_workers import two_workers
from yaoki.errors import ConfigError
from yaoki.explore import Explorer, FakeService, Scenario, World, explore
from yaoki.explore.branching import Branches
from yaoki.explore.plan import PLAIN, Planned
from yaoki.explore.report import Report


def told(report: Report) -> dict[str, object]:
    found = report.to_dict()
    del found["seconds"]
    return found


def unpaid(world: World) -> str:
    held = {name for name, state in world.services.items() if state.net.get("order")}
    return "" if len(held) != 1 else f"only {held} is booked"


def careless() -> Scenario:
    """Books two things, and gives up between them when both attempts at the second fail."""
    hotel, flight = FakeService("hotel"), FakeService("flight")

    async def main() -> None:
        await hotel.book("order", key="hotel")
        for _ in range(2):
            try:
                await flight.book("order", key="flight")
            except Exception:
                continue
            break

    return Scenario(main, invariants=[unpaid], same_answer=False, faults=["call.reject", "call.lost_ack", "crash"])


@pytest.mark.parametrize(("make", "kinds"), [(careless, None), (lambda: two_workers(declines=True), ["proc.pause"]),
                                             (lambda: shop_and_depot(broker=True), ["msg.duplicate", "msg.redeliver"])], ids=["careless", "two workers", "shop and depot"])
def test_forking_changes_nothing_but_the_time(make, kinds):
    forked = Explorer(make(), depth=2, kinds=kinds, fork=True).run()
    again = Explorer(make(), depth=2, kinds=kinds, fork=False).run()
    assert told(forked) == told(again)
    assert forked.by_depth[2] > 5
    assert bool(forked.found) == (make is careless)


def test_what_comes_before_the_last_fault_is_gone_through_once(tmp_path):
    """Each execution of the program writes a line when it begins; children of one plan share their parent's."""
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    hotel, flight = FakeService("hotel"), FakeService("flight")

    async def main() -> None:
        _note(begun)
        await hotel.book("order", key="hotel")
        await flight.book("order", key="flight")
        _note(ended)

    scenario = Scenario(main, same_answer=False, faults=["call.duplicate", "call.timeout:late"], seal="off")
    report = Explorer(scenario, depth=1, fork=True).run()
    assert report.by_depth[1] == 4
    # Without faults twice and for the points; once for all four, of which two hear nothing and end with an error.
    assert begun.read_text().count("+") < ended.read_text().count("+") + 2


def _note(path) -> None:
    with open(path, "a") as file:  # noqa: PTH123
        file.write("+")


def test_a_child_that_says_nothing_is_an_error():
    hotel = FakeService("hotel")

    async def main(world: World) -> None:
        await hotel.book("order", key="hotel")
        if world.fired:
            os._exit(3)

    children = Branches((), [Planned("hotel.book", 0, "call.duplicate")], settings=PLAIN, go_on=lambda: True)
    with pytest.raises(ChildProcessError, match="said nothing"):
        children.execute(lambda branches: Scenario(main).execute(branches=branches))


def test_parts_make_the_whole():
    scenario = sagas.chain(2)
    kinds = ["call.lost_ack", "crash.after_effect"]
    whole = explore(scenario, faults=2, kinds=kinds)
    parts = [explore(scenario, faults=2, kinds=kinds, part=(number, 3)) for number in (1, 2, 3)]
    assert sum(part.by_depth[2] for part in parts) == whole.by_depth[2]
    assert [part.by_depth[1] for part in parts] == [whole.by_depth[1], 0, 0]
    assert sum((part.pruned for part in parts), start=parts[0].pruned.__class__()) == whole.pruned
    assert parts[1].part == "2/3"
    assert "part 2/3 of the sets of up to 2 faults" in parts[1].summary()


@pytest.mark.parametrize("part", [(0, 3), (4, 3)])
def test_a_part_that_there_is_not_is_refused(part):
    with pytest.raises(ConfigError, match="i-th of n parts"):
        explore(careless(), part=part)
