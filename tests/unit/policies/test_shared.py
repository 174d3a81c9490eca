"""Shared breakers: what a node makes of what the fleet knows. The keeper's rounds are run by hand, on virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtual_time import Clock
from yaoki import events, runtime
from yaoki.errors import BreakerOpenError, ConfigError
from yaoki.policies import breaker
from yaoki.policies.breaker import Breaker
from yaoki.policies.shared import Fleet, HealthCheck, Keeper, Order, View, Vote
from yaoki.policies.shared.health import Health
from yaoki.policies.shared.keeper import give_order, views, withdraw_order
from yaoki.policies.shared.stores import Entry
from yaoki.policies.shared.stores.memory import MemoryStore
from yaoki.runtime import Random


def made() -> Breaker:
    return breaker(failure_rate=0.5, minimum=2, window=30.0, open_for=10.0)


def fail(one: Breaker, times: int = 2) -> None:
    def broken() -> None:
        raise ConnectionResetError

    for _ in range(times):
        with pytest.raises(ConnectionResetError):
            one.call(broken)


class Node:
    def __init__(self, store: MemoryStore, name: str, *, quorum: float = 0.5) -> None:
        self.breaker = made()
        self.keeper = Keeper(store, every=1.0, node=name)
        self.keeper.add(self.breaker, "flights", quorum=quorum)

    @property
    def state(self) -> str:
        return self.breaker.state


class World:
    def __init__(self, nodes: int, *, quorum: float = 0.5) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.nodes = [Node(self.store, f"n{i}", quorum=quorum) for i in range(nodes)]

    def rounds(self, times: int = 2) -> None:
        for _ in range(times):
            for node in self.nodes:
                node.keeper.refresh()
            self.clock.now += 1.0

    def states(self) -> list[str]:
        return [node.state for node in self.nodes]


def test_one_bad_node_does_not_silence_the_fleet():
    world = World(4)
    with runtime.use(world.clock):
        world.rounds()
        fail(world.nodes[0].breaker)
        world.rounds(3)
        assert world.states() == ["open", "closed", "closed", "closed"]


def test_when_half_of_the_fleet_has_it_open_the_rest_opens_too_and_says_why():
    world = World(4)
    with runtime.use(world.clock):
        world.rounds()
        fail(world.nodes[0].breaker)
        fail(world.nodes[1].breaker)
        world.rounds(1)
        assert world.states() == ["open"] * 4
        with pytest.raises(BreakerOpenError, match="open at 2 of 4 nodes"):
            world.nodes[3].breaker.call(lambda: None)


def test_following_others_is_no_evidence_so_votes_do_not_keep_each_other_alive():
    world = World(4, quorum=2)
    with runtime.use(world.clock):
        world.rounds()
        fail(world.nodes[0].breaker)
        fail(world.nodes[1].breaker)
        world.rounds(2)
        votes = {vote.node: vote.is_open for vote in views(world.store, "flights")[0].votes}
        assert votes == {"n0": True, "n1": True, "n2": False, "n3": False}
        for node in world.nodes[:2]:
            node.breaker.reset()
        world.rounds(2)  # those who only followed know nothing against it
        assert world.states() == ["closed"] * 4


def test_after_the_open_time_one_node_of_the_fleet_probes():
    world = World(3, quorum=2)
    with runtime.use(world.clock):
        world.rounds()
        for node in world.nodes:
            fail(node.breaker)
        sent = []
        for _ in range(14):
            world.rounds(1)
            for node in world.nodes:
                try:
                    fail(node.breaker, 1)
                    sent.append(node)
                except BreakerOpenError:
                    pass
            if sent:
                break
        assert len(sent) == 1


def test_a_node_without_traffic_does_not_keep_the_probe_from_others():
    world = World(2, quorum=2)
    with runtime.use(world.clock):
        world.rounds()
        for node in world.nodes:
            fail(node.breaker)
        busy = world.nodes[1].breaker  # the other one is asked nothing any more
        for _ in range(60):
            world.rounds(1)
            try:
                busy.call(lambda: None)
                break
            except BreakerOpenError:
                pass
        assert busy.state == "closed"


def test_nodes_that_nobody_asks_any_more_do_not_keep_the_others_shut():
    """Bad nodes lose their traffic, and a breaker that is not asked never probes: its vote must end all the same."""
    world = World(4)
    with runtime.use(world.clock):
        world.rounds()
        for node in world.nodes[:2]:
            fail(node.breaker)
        served = []
        for _ in range(60):
            world.rounds(1)
            for node in world.nodes[2:]:
                try:
                    served.append(node.breaker.call(lambda: True))
                except BreakerOpenError:
                    served.append(False)
        assert served[0] is False, "two of four had it open"
        assert all(served[-80:]), "after ten seconds of open time, and some rounds, nothing speaks against it any more"


def test_who_probes_because_others_have_it_open_does_not_vote_for_that():
    circuit, fleet = made().circuit, Fleet("me", 1)
    fleet.apply(View("flights", (Vote("other", True, "why", 3.0),)), circuit, 100.0)
    probe = circuit.admit(circuit.open_until)
    assert circuit.state == "half_open"
    assert fleet.own_vote(circuit, circuit.open_until) == (False, "")
    circuit.failed(probe, circuit.open_until, Random(1))
    assert fleet.own_vote(circuit, circuit.open_until - 1.0) == (True, "a probe failed"), "now it knows by itself"


def test_a_vote_stands_while_a_probe_is_under_way():
    circuit, fleet = made().circuit, Fleet("me", 2)
    for now in (1.0, 2.0):
        circuit.failed(circuit.admit(now), now, Random(1))
    assert fleet.own_vote(circuit, 3.0)[0]
    circuit.admit(late := circuit.open_until + 100.0)
    assert fleet.own_vote(circuit, late + 1.0)[0]
    assert not fleet.own_vote(circuit, late + circuit.probe_lease_s)[0]


def test_an_order_holds_for_all_until_it_is_withdrawn_or_runs_out():
    world = World(3)
    with runtime.use(world.clock):
        give_order(world.store, "flights", "forced_open", who="aiko", why="migration", ttl_s=5.0)
        world.rounds(1)
        assert world.states() == ["forced_open"] * 3
        withdraw_order(world.store, "flights")
        world.rounds(1)
        assert world.states() == ["closed"] * 3
        give_order(world.store, "flights", "metrics_only", who="aiko", why="", ttl_s=2.5)
        world.rounds(1)
        assert world.states() == ["metrics_only"] * 3
        world.rounds(4)
        assert world.states() == ["closed"] * 3


def test_what_was_set_by_hand_in_this_process_is_not_touched():
    world = World(1)
    with runtime.use(world.clock):
        world.nodes[0].breaker.disable()
        give_order(world.store, "flights", "forced_open", who="x", why="", ttl_s=50.0)
        world.rounds(2)
        assert world.states() == ["disabled"]


class Broken(MemoryStore):
    down = False

    def put(self, service: str, kind: str, name: str, value: bytes, ttl_s: float) -> None:
        if self.down:
            raise ConnectionError("no store")
        super().put(service, kind, name, value, ttl_s)


def test_without_its_store_each_node_is_on_its_own_and_says_so_once():
    clock, store = Clock(), Broken()
    node = Node(store, "n0")
    heard: list[events.Event] = []
    with runtime.use(clock), events.listen(heard.append, kinds=(events.SharedStateLost, events.SharedStateRegained)):
        give_order(store, "flights", "forced_open", who="x", why="", ttl_s=60.0)
        node.keeper.refresh()
        assert node.state == "forced_open"
        store.down = True
        for _ in range(6):
            clock.now += 1.0
            node.keeper.refresh()
        assert node.state == "closed", "the order that was read last has run out"
        fail(node.breaker)
        assert node.state == "open"
        store.down = False
        node.keeper.refresh()
    assert [type(event).__name__ for event in heard] == ["SharedStateLost", "SharedStateRegained"]


def test_a_row_of_a_newer_version_is_passed_over():
    clock, store = Clock(), MemoryStore()
    node = Node(store, "n0")
    with runtime.use(clock):
        store.put("flights", "vote", "alien", b"\x00 not json", 60.0)
        store.put("flights", "order", "", b'{"state":"melted"}', 60.0)
        node.keeper.refresh()
        assert node.state == "closed"


@given(st.integers(1, 100), st.floats(0.01, 0.99))
def test_a_share_needs_at_least_two_and_never_more_than_all_of_a_fleet(voters: int, share: float):
    needed = Fleet("me", share).needed(voters)
    assert 2 <= needed <= max(2, voters)


@given(st.lists(st.booleans(), max_size=12), st.integers(1, 5))
def test_a_node_follows_exactly_when_enough_others_have_it_open(others: list[bool], quorum: int):
    circuit = made().circuit
    view = View("flights", tuple(Vote(f"o{i}", is_open, "why", 3.0) for i, is_open in enumerate(others)))
    Fleet("me", quorum).apply(view, circuit, 100.0)
    assert (circuit.state == "open") == (sum(others) >= quorum)


def test_an_order_that_is_repeated_changes_nothing():
    circuit, fleet = made().circuit, Fleet("me", 0.5)
    view = View("flights", (), Order("forced_open", "x", "y", 5.0))
    assert fleet.apply(view, circuit, 1.0) is not None
    assert fleet.apply(view, circuit, 2.0) is None


# ── health ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.booleans(), max_size=40))
def test_one_bad_check_is_an_accident_three_are_an_illness(checks: list[bool]):
    health = Health(3, 2)
    for i, ok in enumerate(checks):
        before = health.is_well
        now = health.checked(ok)
        if before and not now:
            assert checks[max(0, i - 2):i + 1] == [False] * 3
        if not before and now:
            assert checks[max(0, i - 1):i + 1] == [True] * 2


def test_an_elected_checker_orders_the_fleet_open_and_closes_it_again():
    world = World(2)
    ill = True

    def probe() -> None:
        if ill:
            raise ConnectionRefusedError("down")

    checks = [HealthCheck("flights", probe=probe, every=1.0, store=world.store, node=f"n{i}") for i in range(2)]
    with runtime.use(world.clock):
        results = []
        for _ in range(4):
            results.append([check.check() for check in checks])
            world.rounds(1)
        assert results[-1] == [False, None], "one checks for all"
        assert world.states() == ["forced_open"] * 2
        ill = False
        for _ in range(3):
            checks[0].check()
            world.rounds(1)
        assert world.states() == ["closed"] * 2


def test_when_the_checker_dies_another_takes_over_and_the_order_stands():
    world = World(1)

    def probe() -> None:
        raise ConnectionRefusedError("down")

    checks = [HealthCheck("flights", probe=probe, every=1.0, store=world.store, node=f"n{i}", failures=1) for i in range(2)]
    with runtime.use(world.clock):
        assert checks[0].check() is False
        assert checks[1].check() is None
        world.clock.now += 3.1  # its lease runs out
        assert checks[1].check() is False
        world.rounds(1)
        assert world.states() == ["forced_open"]


def test_a_health_check_leaves_an_order_by_hand_alone():
    world = World(1)
    check = HealthCheck("flights", probe=lambda: None, every=1.0, store=world.store)
    with runtime.use(world.clock):
        give_order(world.store, "flights", "forced_open", who="aiko", why="", ttl_s=100.0)
        for _ in range(5):
            check.check()
        world.rounds(1)
        assert world.states() == ["forced_open"]


def test_a_health_check_of_one_process_needs_no_store_and_may_be_async():
    one = made()
    ill = True

    async def probe() -> None:
        if ill:
            raise ConnectionRefusedError("down")

    check = HealthCheck("flights", probe=probe, every=1.0, breaker=one, failures=2, successes=1)
    check.check()
    check.check()
    assert one.state == "forced_open"
    ill = False
    check.check()
    assert one.state == "closed"


def test_the_thread_does_what_the_rounds_do():
    store, one = MemoryStore(), made()
    give_order(store, "flights", "forced_open", who="x", why="", ttl_s=6000.0)
    with Keeper(store, every=0.01, node="n0") as keeper:
        keeper.add(one, "flights")
        for _ in range(10_000):
            if one.state == "forced_open":
                break
            runtime.sleep_blocking(0.01)
        assert one.state == "forced_open"
    assert [row.kind for row in store.rows()] == ["order"], "its vote is taken back"


@pytest.mark.parametrize("settings", [{"every": 0}, {"quorum": 0}])
def test_settings_out_of_range_are_said(settings: dict[str, float]):
    with pytest.raises(ConfigError):
        Keeper(MemoryStore(), every=settings.get("every", 1.0)).add(made(), "x", quorum=settings.get("quorum", 0.5))


def test_an_entry_is_its_key_and_its_time():
    assert Entry("s", "vote", "n", b"", 1.0).left_s == 1.0
