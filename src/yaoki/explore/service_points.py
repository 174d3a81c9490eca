"""Fault points of `Service` as points of a universe, for programs whose services are plain functions.

A program that calls a fake service, a hosted app or a journal has its points there, nearer to the effect; a second one around
each would make every fault happen twice. So these are switched on only where an execution without faults meets no other
point, or by `service_points=True`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from yaoki import service as services
from yaoki.chaos.faults import At
from yaoki.explore.dialect import FAKE
from yaoki.explore.process import PowerCut, owner
from yaoki.explore.world import World

# What a caller waits for an answer that does not come, where its policy has no timeout, in seconds.
PATIENCE_S = 300.0
# Long enough for the power cut to come first.
_A_MOMENT_S = 1e-6


@contextmanager
def listening() -> Iterator[None]:
    """Services ask for faults inside the block."""
    services.faults.active += 1
    try:
        yield
    finally:
        services.faults.active -= 1


def attach(world: World) -> None:
    """Let every attempt inside this universe ask it."""
    world.base.run(services.faults._scoped.set, (partial(_decide, world),))


def _decide(world: World, point: services.Point) -> services.Fault | None:
    life = owner.get()
    fault, site = world.visit(point.service, point.operation or "call", At.CALL, life)
    if not fault:
        return None
    if fault == "crash.before_effect" and life is not None:
        world.power_cut(life.process)
        # The task is never resumed; a plain function has to be unwound.
        return services.Fault(name=fault, delay_before_s=_A_MOMENT_S, refuse=PowerCut)
    if fault == "crash.after_effect" and life is not None:
        return services.Fault(name=fault, replace=partial(_cut, world))
    return services.Fault(name=fault, **_SHAPES.get(fault, lambda _site: {})(site))


def _cut(world: World, _reply: Any) -> Any:
    life = owner.get()
    if life is not None:
        world.power_cut(life.process)
    raise PowerCut


_SHAPES: dict[str, Any] = {
    "call.reject": lambda site: {"refuse": lambda: FAKE.refused(site)},
    "call.error": lambda site: {"refuse": lambda: FAKE.failed(site)},
    "call.throttle": lambda site: {"refuse": lambda: FAKE.throttled(site)},
    "call.lost_ack": lambda site: {"lose": lambda: FAKE.in_doubt(site)},
    "call.timeout:none": lambda site: {"delay_before_s": PATIENCE_S, "refuse": lambda: FAKE.timed_out(site, PATIENCE_S)},
    "call.timeout:done": lambda site: {"delay_after_s": PATIENCE_S, "lose": lambda: FAKE.timed_out(site, PATIENCE_S)},
    "call.timeout:late": lambda site: {"delay_after_s": PATIENCE_S, "lose": lambda: FAKE.timed_out(site, PATIENCE_S)},
    "call.delay": lambda _site: {"delay_before_s": 0.01},
    "call.duplicate": lambda _site: {"deliveries": 2},
    "proc.restart": lambda site: {"lose": lambda: FAKE.in_doubt(site)},
    "net.partition": lambda site: {"refuse": lambda: FAKE.in_doubt(site)},
    "net.partition:asym": lambda site: {"lose": lambda: FAKE.in_doubt(site)},
}
