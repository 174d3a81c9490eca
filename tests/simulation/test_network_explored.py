"""The network of a universe: zones, distances, partitions that heal, noise; and what hosts forget when they are started again."""

from __future__ import annotations

import time

import httpx
import pytest
import requests

from yaoki import runtime
from yaoki.errors import ConfigError, InDoubtError
from yaoki.explore import FakeService, FakeStore, Network, Reply, Scenario, World, explore, replay

TWO_ZONES = Network(zones={"eu": ["main", "shop.test"], "us": ["bank.test", "archive"]}, between_s=0.08)


def answered(world: World, url: str = "http://bank.test/", timeout: float = 1.0) -> float:
    """Seconds until the answer of a host, or -1 without one."""
    began = world.now
    try:
        requests.get(url, timeout=timeout)
    except requests.RequestException:
        return -1.0
    return world.now - began


def ran(main, **settings):
    run, _ = replay(Scenario(main, **settings), "yk1:none")
    return run


def test_a_zone_away_takes_longer_than_next_door():
    async def main(world: World) -> list[float]:
        took = []
        for service in (FakeStore("archive"), FakeStore("cache")):
            began = world.now
            await service.get("x")
            took.append(round(world.now - began, 6))
        return took

    assert ran(main, network=TWO_ZONES).value == [0.08, 0.001]


def test_a_link_or_a_slow_host_has_a_latency_of_its_own():
    network = Network(zones={"eu": ["main"], "us": ["archive", "cache"]}, links={("us", "eu"): 0.1, ("main", "cache"): 0.3}, hosts={"archive": 0.5})

    async def main(world: World) -> list[float]:
        took = []
        for name in ("archive", "cache", "elsewhere"):
            began = world.now
            await FakeStore(name).get("x")
            took.append(round(world.now - began, 6))
        return took

    assert ran(main, network=network).value == [0.6, 0.3, 0.001]


def test_a_partition_between_zones_cuts_what_crosses_it_and_heals():
    async def main(world: World) -> list[str]:
        said = []
        for cut in (None, ("us",), ("us", "eu"), None):
            world.heal()
            if cut:
                world.partition(*cut)
            for store in (FakeStore("archive", timeout=1.0), FakeStore("near", timeout=1.0)):
                try:
                    await store.get("x")
                    said.append("yes")
                except InDoubtError:
                    said.append("no")
        return said

    assert ran(main, network=TWO_ZONES).value == ["yes", "yes", "no", "yes", "no", "yes", "yes", "yes"]


def test_a_partition_of_two_zones_leaves_the_third_reachable():
    network = Network(zones={"eu": ["main"], "us": ["archive"], "asia": ["backup"]})

    async def main(world: World) -> list[bool]:
        world.partition("eu", "us", for_s=60.0)
        found = []
        for name in ("archive", "backup", "archive"):
            try:
                await FakeStore(name, timeout=1.0).get("x")
                found.append(True)
            except InDoubtError:
                found.append(False)
                await world.sleep(60.0)
        return found

    assert ran(main, network=network).value == [False, True, True]


def test_a_service_that_calls_on_is_where_it_is_and_not_where_its_caller_is():
    """The shop is in `eu`, the bank in `us`: with the zones apart the shop cannot charge, though everybody can reach the shop."""
    def setup(world: World) -> None:
        world.host("bank.test", lambda request: {"ok": True})
        world.host("shop.test", lambda request: {"paid": answered(world) >= 0})
        world.partition("us")

    def main() -> bool:
        return requests.get("http://shop.test/", timeout=10).json()["paid"]

    assert ran(main, network=TWO_ZONES, setup=setup).value is False


def test_a_name_that_is_no_zone_is_a_service_and_a_zone_in_doubt_says_so():
    with pytest.raises(ConfigError, match="in two zones"):
        Network(zones={"eu": ["a"], "us": ["a"]})
    with pytest.raises(ConfigError, match="is no share"):
        Network(loss=1.0)
    with pytest.raises(ConfigError, match="cannot be"):
        Network(latency_s=0.0)


def test_noise_is_drawn_from_a_seed_and_bears_its_share():
    network = Network(loss=0.2, duplicate=0.1, reorder=0.1, seed=5)

    async def main() -> list[str]:
        service, said = FakeService("mail", timeout=1.0), []
        for number in range(300):
            try:
                await service.book(f"m-{number}", key=f"m-{number}")
                said.append("yes")
            except InDoubtError:
                said.append("no")
        return said

    scenario = Scenario(main, network=network, most_calls=400, most_per_site=400)
    one, two = replay(scenario, "yk1:none")[0], replay(scenario, "yk1:none")[0]
    assert one.value == two.value
    assert 40 <= one.value.count("no") <= 80
    assert {point.fault for point in one.points} == {"", "call.timeout:none", "call.timeout:done", "call.duplicate", "call.delay"}
    assert sum(one.effects.values()) < 300, "a lost request has no effect"
    assert sum(one.effects.values()) > one.value.count("yes"), "a lost reply has"


def test_faults_are_explored_on_a_noisy_network_as_on_a_quiet_one():
    async def main() -> None:
        service = FakeService("mail", timeout=1.0)
        for number in range(4):
            while True:
                try:
                    await service.book(f"m-{number}", key=f"m-{number}")
                    break
                except Exception:
                    await runtime.sleep(0.5)

    report = explore(Scenario(main, network=Network(loss=0.3, seed=2), same_answer=False), faults=1)
    assert report.deterministic
    assert report.ok, report.text(matrix=False)
    assert not report.pruned["history"], "what is drawn is no part of a state, so nothing may be left out"


def test_a_zone_that_is_cut_off_is_a_fault_and_one_that_does_nothing_is_not_counted():
    async def main(world: World) -> None:
        for name in ("archive", "near"):
            try:
                await FakeStore(name, timeout=1.0).get("x")
            except InDoubtError:
                await world.sleep(10.0)

    report = explore(Scenario(main, network=TWO_ZONES), faults=1, kinds=["net.partition:zone"])
    assert report.executions == 2
    assert report.pruned["can do nothing there"] == 1
    with pytest.raises(ConfigError, match="the plan does nothing"):
        replay(Scenario(main, network=TWO_ZONES), "yk1:near.get@0=net.partition:zone")


@pytest.mark.parametrize(("fault", "wrong_by"), [("clock.skew", 300.0), ("clock.skew:behind", -300.0)])
def test_a_skewed_clock_is_wrong_on_its_own_host_only_and_stays_wrong_after_a_restart(fault, wrong_by):
    def setup(world: World) -> None:
        world.host("bank.test", lambda request: {"at": time.time()})

    async def main(world: World) -> list[float]:
        async with httpx.AsyncClient() as client:
            await client.get("http://bank.test/")
            there = (await client.get("http://bank.test/now")).json()["at"]
        right = world.now + world.runtime.wall_offset_s
        return [round(time.time() - right), round(there - right)]

    run, _ = replay(Scenario(main, setup=setup), f"yk1:bank.test.GET /@0={fault}")
    assert run.value == [wrong_by, 0.0]
    run, _ = replay(Scenario(main, setup=setup), f"yk1:bank.test.GET /@0={fault}+bank.test.GET /now@0=crash.after_effect")
    assert run.value == [wrong_by, 0.0]


def test_a_frozen_clock_shows_one_time_and_is_right_again_later():
    async def main(world: World) -> list[float]:
        await FakeStore("db").get("x")
        shown = []
        for wait_s in (0.0, 300.0, 301.0):
            await world.sleep(wait_s)
            shown.append(round(time.time() - 2_000_000_000.0))
        return shown

    run, _ = replay(Scenario(main), "yk1:db.get@0=clock.freeze")
    assert run.value == [0, 0, 601]


def test_a_restarted_host_has_forgotten_what_it_kept_in_memory():
    def counter():
        seen = []

        def app(request):
            seen.append(1)
            return Reply(200, json=len(seen))

        return app

    def main() -> list[object]:
        said = []
        for _ in range(3):
            try:
                said.append(requests.get("http://bank.test/", timeout=1).json())
            except requests.RequestException:
                said.append(None)
        return said

    run, _ = replay(Scenario(main, setup=lambda world: world.host("bank.test", make=counter)), "yk1:none")
    assert run.value == [1, 2, 3]

    def post() -> list[object]:
        said = []
        for _ in range(3):
            try:
                said.append(requests.post("http://bank.test/", timeout=1).json())
            except requests.RequestException:
                said.append(None)
        return said

    run, _ = replay(Scenario(post, setup=lambda world: world.host("bank.test", make=counter)), "yk1:bank.test.POST /@1=proc.restart")
    assert run.value == [1, None, 1]
