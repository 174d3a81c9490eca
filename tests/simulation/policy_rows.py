"""The rows of the policies' conformance table as scenarios: each a program, what must hold, and what may be made to happen to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from yaoki.errors import DeadlineError, InDoubtError, RefusedError
from yaoki.explore import FakeService, Network, Scenario, World
from yaoki.policies import (
    AdaptiveLimit,
    Breaker,
    Bulkhead,
    Policy,
    adaptive_limit,
    backoff,
    breaker,
    budget,
    bulkhead,
    cache,
    deadline,
    hedge,
    pipeline,
    retry,
    throttle,
    timeout,
)

LOST = ["call.reject", "call.lost_ack", "call.timeout", "call.delay", "call.duplicate"]
STEP = backoff.fixed(0.2)

ALONE: dict[str, Callable[[], Policy]] = {
    "retry": lambda: retry(3, STEP, idempotent=True, budget=budget(start=5)),
    "breaker": lambda: breaker(minimum=2),
    "bulkhead": lambda: bulkhead(1, queue=3, max_wait=60),
    "deadline": lambda: deadline(60),
    "timeout": lambda: timeout(2),
    "adaptive limit": adaptive_limit,
    "throttle": throttle,
    "hedge": lambda: hedge(0.5, idempotent=True),
    "cache": lambda: cache(ttl=60.0),
    "all": lambda: pipeline(deadline(60), retry(3, STEP, idempotent=True, budget=budget(start=5)), breaker(minimum=2), bulkhead(1, queue=3, max_wait=60),
                            timeout(2)),
}


def held(policy: Policy) -> dict[str, Any]:
    """All that a policy holds for calls under way; nothing of it may be left when none is."""
    found: dict[str, Any] = {}
    for each in getattr(policy, "policies", [policy]):
        if isinstance(each, Bulkhead):
            found["places"] = each.in_use + each.queued
        if isinstance(each, AdaptiveLimit):
            found["under way"] = each.in_use if hasattr(each, "in_use") else 0
        if isinstance(each, Breaker):
            found["probes"] = len(each.circuit._leases)
        if (timers := getattr(each, "_timers", None)) is not None:
            found["timers"] = timers.under_way()
    return {name: count for name, count in found.items() if count}


async def ended(work: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> str:
    """The word for how a call ended."""
    try:
        await work(*args, **kwargs)
    except asyncio.CancelledError:
        return "cancelled"
    except (RefusedError, InDoubtError, DeadlineError, TimeoutError) as error:
        return type(error).__name__
    return "answered"


def cancelled(name: str) -> Scenario:
    """Three callers share a policy; one may be cancelled at any instant. It ends at once, is not repeated, and leaves nothing behind."""
    made: dict[str, Policy] = {}
    ends: list[str] = []

    async def main(world: World) -> None:
        policy = made["policy"] = ALONE[name]()
        ends.clear()

        async def one(subject: str) -> None:
            service = FakeService(subject, timeout=5.0)
            ends.append(f"{subject} {await ended(policy(service.book), subject, key=subject)}")

        tasks = [asyncio.create_task(one(subject)) for subject in ("a", "b", "c")]
        await asyncio.gather(*tasks, return_exceptions=True)

    def as_found(world: World) -> str:
        left = held(made["policy"])
        return f"{name} still holds {left}" if left else ""

    def not_repeated(world: World) -> str:
        for index, point in enumerate(world.points):
            if point.fault == "proc.cancel" and any(later.service == point.service for later in world.points[index + 1:]):
                return f"{point.service} was cancelled, and called again"
        return ""

    def the_others_are_served(world: World) -> str:
        gone = [point.service for point in world.points if point.fault == "proc.cancel"]
        unserved = [end for end in ends if end[0] not in gone and not end.endswith("answered")]
        return f"one was cancelled, and {unserved}" if gone and unserved else ""

    return Scenario(main, name=f"cancelled {name}", invariants=[as_found, not_repeated, the_others_are_served], same_answer=False,
                    faults=["proc.cancel", *LOST])


def half_open(probes: int = 1) -> Scenario:
    """The breaker is open, its time is over, and fifty callers come at once: the probes go through, and whatever becomes of them, others come after."""
    peak: list[int] = []
    made: dict[str, Breaker] = {}

    async def main(world: World) -> None:
        peak.clear()
        policy = made["policy"] = breaker(minimum=2, open_for=10.0, probes=probes, probe_lease=5.0)
        flights = FakeService("flights", timeout=None)
        under_way = 0

        async def fail() -> None:
            raise InDoubtError("down", do="wait")

        async def work(number: int) -> None:
            nonlocal under_way
            under_way += 1
            peak.append(under_way)
            try:
                await flights.left("seats")
            finally:
                under_way -= 1

        for _ in range(2):
            await ended(policy(fail))
        for _ in range(6):  # as often as a probe may be lost
            await world.sleep(15.0 if policy.state != "closed" else 1.0)
            async with asyncio.timeout(40.0):
                callers = [asyncio.create_task(ended(policy(work), number)) for number in range(50 if policy.state != "closed" else 1)]
                await asyncio.wait(callers, timeout=4.0)
                for each in callers:
                    each.cancel()
                await asyncio.gather(*callers, return_exceptions=True)

    def only_the_probes(world: World) -> str:
        return f"{max(peak)} calls at once went through a half-open breaker" if peak and max(peak) > probes else ""

    def closes_again(world: World) -> str:
        circuit = made["policy"].circuit
        return "" if circuit.state == "closed" and not circuit._leases else f"the service is well, and the breaker is {circuit.state}, with {circuit._leases}"

    return Scenario(main, name="half_open", invariants=[only_the_probes, closes_again], same_answer=False,
                    faults=["proc.cancel", "call.reject", "call.timeout:none", "call.error", "crash"])


def ninety_percent() -> Scenario:
    """Nine calls in ten fail, every tenth succeeds: the breaker opens, whatever else happens."""
    made: dict[str, Any] = {}

    async def main(world: World) -> None:
        policy = made["policy"] = breaker(minimum=10, window=60.0, open_for=30.0)
        flights, calls = FakeService("flights", timeout=1.0), 0

        async def work() -> None:
            nonlocal calls
            calls += 1
            await flights.left("seats")
            if calls % 10:
                raise InDoubtError("500", do="wait")

        for _ in range(25):
            await ended(policy(work))
            await world.sleep(0.1)
        made["calls"] = calls

    def opened(world: World) -> str:
        return f"{made['calls']} of 25 calls went through to a service of which nine in ten fail" if made["calls"] > 12 else ""

    return Scenario(main, name="ninety_percent", invariants=[opened], same_answer=False, faults=["call.reject", "call.timeout:none", "call.delay"])


def impatient() -> Scenario:
    """The service takes a second; ten callers wait a fifth of it. For those who wait the breaker is closed."""
    said: list[str] = []

    async def main() -> None:
        said.clear()
        policy = breaker(minimum=5, window=60.0)
        flights = FakeService("flights", timeout=5.0)
        hasty = pipeline(deadline(0.2), policy)
        for _ in range(10):
            await ended(hasty(flights.left), "seats")
        said.append(await ended(policy(flights.left), "seats"))

    def the_patient_are_served(world: World) -> str:
        struck = [point for point in world.points[-1:] if point.fault]
        return "" if said == ["answered"] or struck else f"ten hurried callers gave up, and a patient one got {said}"

    return Scenario(main, name="impatient", invariants=[the_patient_are_served], same_answer=False, network=Network(hosts={"flights": 1.0}),
                    faults=["call.delay", "call.timeout:late", "call.duplicate", "call.reject"])


def capped() -> Scenario:
    """A cap of 0.2 s on retries bounds the call, back-off and slow attempts included."""
    took: list[float] = []

    async def main(world: World) -> None:
        took.clear()
        policy = pipeline(deadline(0.2), retry(10, backoff.fixed(0.05), idempotent=True, budget=None))
        began = world.now
        await ended(policy(FakeService("flights", timeout=None).left), "seats")
        took.append(world.now - began)

    def bounded(world: World) -> str:
        return f"a call with 0.2 s took {took[0]:.3f} s" if took and took[0] > 0.2 + 1e-6 else ""

    return Scenario(main, name="capped", invariants=[bounded], same_answer=False, faults=[*LOST, "call.slow", "call.error", "call.throttle", "dep"])


def storm(clients: int) -> Scenario:
    """The service is dead for all of ten seconds; calls sent are at most 1.1 times the calls asked for, plus each bucket's start."""
    asked, start = 30, 1.0

    async def main(world: World) -> None:
        flights = FakeService("flights", timeout=1.0)
        policies = [retry(4, backoff.exponential(0.01), idempotent=True, budget=budget(0.1, start=start)) for _ in range(clients)]

        async def one(number: int) -> None:
            await ended(policies[number % clients](flights.left), "seats")

        async with asyncio.TaskGroup() as group:
            for number in range(asked):
                group.create_task(one(number))
                await world.sleep(10 / asked)

    def no_storm(world: World) -> str:
        sent = len(world.points)
        return f"{asked} calls were asked for, and {sent} sent" if sent > asked * 1.1 + start * clients else ""

    return Scenario(main, name=f"storm of {clients}", invariants=[no_storm], same_answer=False,
                    faults=["dep.outage:call.reject", "dep.outage:call.timeout:none"], outage_calls=1000,
                    most_per_site=400)


WHO: ContextVar[str] = ContextVar("who", default="nobody")


def context_survives(name: str) -> Scenario:
    """Each attempt sees the caller's context variables, whatever failed before it."""
    seen: list[str] = []

    async def main() -> None:
        seen.clear()
        flights, policy = FakeService("flights", timeout=1.0), ALONE[name]()

        async def work() -> None:
            seen.append(WHO.get())
            await flights.left("seats")

        async def one() -> None:
            WHO.set("ann")
            await ended(policy(work))
            seen.append(WHO.get())

        await asyncio.create_task(one())

    def always_ann(world: World) -> str:
        return f"the caller is ann, and {seen} was seen" if set(seen) - {"ann"} else ""

    return Scenario(main, name=f"context of {name}", invariants=[always_ann], same_answer=False, faults=[*LOST, "call.error"])


def single_flight() -> Scenario:
    """Three callers wait for one answer; whoever of them goes away, the others get it, and the service is asked once."""
    ends: list[str] = []

    async def main(world: World) -> None:
        ends.clear()
        flights = FakeService("flights", timeout=2.0)
        policy = cache(ttl=60.0)

        @policy
        async def seats() -> int:
            return await flights.left("seats")

        async def one(patience_s: float) -> None:
            try:
                async with asyncio.timeout(patience_s):
                    await seats()
            except TimeoutError:
                ends.append("gave up")
            except (RefusedError, InDoubtError):
                ends.append("failed")
            else:
                ends.append("answered")

        # The first asks, and goes away before the answer is there.
        await asyncio.gather(one(0.05), one(30.0), one(30.0))

    def waiters_are_served(world: World) -> str:
        failed = any(point.fault for point in world.points)
        if len(world.points) > 1 and not failed:
            return f"three who wait for one answer asked {len(world.points)} times"
        return "" if failed or ends.count("answered") == 2 else f"the first went away, and the others: {ends}"

    return Scenario(main, name="single_flight", invariants=[waiters_are_served], same_answer=False, network=Network(hosts={"flights": 0.2}),
                    faults=["call.reject", "call.timeout:none", "call.delay", "crash"])


def hedged() -> Scenario:
    """A copy is sent when the answer is slow: the first answer counts, the loser leaves nothing behind, and there is one effect."""
    async def main() -> str:
        flights = FakeService("flights", timeout=3.0)
        policy = pipeline(retry(3, STEP, idempotent=True, budget=None), hedge(0.5, idempotent=True))
        return (await policy(flights.book)("ann", key="ann")).id

    return Scenario(main, name="hedged", faults=[*LOST, "call.slow", "proc.pause"], same_answer=False)


ROWS: dict[str, Callable[[], Scenario]] = {
    **{f"a cancelled call leaves all as found: {name}": (lambda name=name: cancelled(name)) for name in ALONE},
    "half-open: only the probe runs, and a lost one's place comes back": half_open,
    "half-open: three probes": lambda: half_open(3),
    "90 % failures with a success in every tenth open it": ninety_percent,
    "an impatient caller does not open it for the others": impatient,
    "a cap of 0.2 s bounds the call": capped,
    "no retry storm, 1 client": lambda: storm(1),
    "no retry storm, 20 clients": lambda: storm(20),
    **{f"context variables survive: {name}": (lambda name=name: context_survives(name)) for name in ("retry", "hedge", "cache", "all")},
    "a waiter's leaving does not end the flight": single_flight,
    "a hedge has one effect and leaves nothing": hedged,
}
