"""The messages part under every fault of brokers, disks and processes; and with one line broken, to see that it would show."""

from __future__ import annotations

import pytest

from simulation.mail_world import OrderChanged, shop_and_depot
from yaoki.explore import Scenario, explore
from yaoki.explore.mail import mail_store
from yaoki.messages.compose import compose
from yaoki.messages.intake import Intake
from yaoki.messages.relay import Relay
from yaoki.messages.store.port import Held, Settlement

# One of each way in which a hop between two services can go wrong; `--long` runs all of them.
SHARP = ["msg", "crash.after_effect", "call.lost_ack", "disk.full"]


@pytest.mark.parametrize("broker", [False, True], ids=["one store", "a broker"])
def test_every_message_is_handled_once_and_in_order_whatever_fails(broker):
    report = explore(shop_and_depot(broker=broker), faults=1, kinds=SHARP)
    assert report.ok, report.text(matrix=False)
    assert report.exhausted
    assert report.executions > (30 if broker else 10)


@pytest.mark.long
def test_every_single_fault_and_the_sharpest_pairs():
    report = explore(shop_and_depot(broker=True), faults=1)
    assert report.ok, report.text(matrix=False)
    report = explore(shop_and_depot(broker=True), faults=2, kinds=["msg", "crash.after_effect"], budget=120.0)
    assert report.ok, report.text(matrix=False)


def test_leases_and_cursors_wake_nobody_and_messages_and_decisions_do():
    """Whoever is woken for nothing looks and finds nothing: that was half of all that a universe with five services did."""
    woken = {}

    async def write(world):
        store = mail_store(world, "one.db")
        message = compose(OrderChanged("o-1", "placed"), source="shop")
        steps = {
            "declare": lambda: store.declare("g", ["*"], since="beginning"), "lease": lambda: store.balance("g", "w", 5.0),
            "message": lambda: store.append([message]),
            "cursor": lambda: store.settle("g", Settlement(fences={message.part: 1}, cursors={message.part: (0, 1)})),
            "held": lambda: store.settle("g", Settlement(hold=[Held(part=message.part, position=(0, 1), state="dead")])),
            "decision": lambda: store.discard("g", [(message.part, (0, 1))]), "release": lambda: store.release("g", "w", [1], leaving=True)}
        for what, step in steps.items():
            before = store.bell.rings
            await step()
            await world.sleep(0.001)
            woken[what] = store.bell.rings > before

    assert explore(Scenario(write), faults=0).ok
    assert [what for what, rung in woken.items() if rung] == ["message", "held", "decision"]


@pytest.mark.parametrize("poison", ["quarantine", "skip"])
def test_a_message_that_cannot_be_read_holds_up_nobody_else(poison):
    report = explore(shop_and_depot(broker=True, poison=poison), faults=1, kinds=["msg.poison"])
    assert report.ok, report.text(matrix=False)
    assert report.fired == 2


def test_a_broker_that_loses_what_it_confirmed_is_found():
    """No program can keep what its broker loses, so only a broker that is allowed to lose makes this break."""
    report = explore(shop_and_depot(broker=True), faults=1, kinds=["msg.drop"])
    assert any("every_change_once_and_in_order" in signature for signature in report.signatures)


def test_without_a_key_there_is_no_order():
    report = explore(shop_and_depot(broker=False, keyed=False), faults=1, kinds=["call.reject", "call.timeout:none"])
    assert any("every_change_once_and_in_order" in signature for signature in report.signatures)


def confirmed_before_it_is_stored(monkeypatch):
    """The inbox acknowledges, then writes."""

    async def take_in(intake, subscription):
        deliveries = await subscription.fetch(500, 0.3)
        if deliveries:
            await subscription.ack(deliveries)
            await intake.store.append([intake._landed(each.message) for each in deliveries])

    monkeypatch.setattr(Intake, "_take_in", take_in)


def a_refused_publish_counts_as_sent(monkeypatch):
    """The relay goes on after an error as if it had been confirmed."""
    monkeypatch.setattr(Relay, "_begin_again", lambda relay: [relay.lanes._parts[part].__setattr__("read_to", held.read_to)
                                                              for part, held in relay.lanes._parts.items()])


MUTANTS = [confirmed_before_it_is_stored, a_refused_publish_counts_as_sent]


@pytest.mark.parametrize("mutate", MUTANTS, ids=[each.__name__ for each in MUTANTS])
def test_the_mutant_is_found(monkeypatch, mutate):
    mutate(monkeypatch)
    report = explore(shop_and_depot(broker=True), faults=1, kinds=["crash", "call.reject", "call.lost_ack", "msg.redeliver"], most_broken=1)
    assert report.found, f"{mutate.__name__} survives\n{report.summary()}"
