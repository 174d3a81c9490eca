"""The faults of `strike.py`, to a caller that blocks: nothing else runs until it has its answer, and the clock moves on meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from yaoki.explore.process import PowerCut
from yaoki.explore.strike import BUSY_S, LATE_S, PAUSE_S, SHAPES, SLOW_S, Shape, Strike

if TYPE_CHECKING:
    from yaoki.explore.dialect import Dialect
    from yaoki.explore.process import Life
    from yaoki.explore.world import Variants, World

# How long a caller that blocks stands there before its call, or after it.
_BEFORE_S = {"proc.pause": PAUSE_S}
_AFTER_S = {"call.slow": SLOW_S, "proc.pause:sent": PAUSE_S, "res.cpu": BUSY_S}


def strike_blocking(world: World, fault: str, effect: Callable[[], Any], life: Life | None, service: str, site: str,
                    dialect: Dialect, timeout_s: float | None, variants: Variants | None) -> Any:
    """Make `fault` happen to this call; returns what the caller is told, or raises it."""
    s = Strike(world, fault, world.loop.create_future(), effect, life, service, site, dialect, timeout_s, variants)
    shape = SHAPES[fault]
    if shape.before is not None:
        shape.before(s)
    if fault == "proc.cancel":
        world.void = world.void or f"nobody can cancel {site}: it blocks"
    world.loop.advance_blocking(_BEFORE_S.get(fault, 0.0))
    value = _at_the_service(s, shape)
    if shape.cut:
        _cut(s)
    world.loop.advance_blocking(_AFTER_S.get(fault, 0.0))
    if shape.says == "reply":
        return value
    said = _silence(s) if shape.says == "silence" else getattr(dialect, shape.says)(site)
    if isinstance(said, BaseException):
        raise said
    return said


def _at_the_service(s: Strike, shape: Shape) -> Any:
    world = s.world
    if shape.effect == "none":
        return None
    if shape.effect == "late":
        s.land(LATE_S)
        return None
    if shape.effect == "variant":
        if shape.cut:
            s.effect = s.variants.get(s.fault, lambda: None)
        else:
            s.chosen_variant()
    if shape.says != "reply" or shape.cut:
        return _unheard(s, shape)
    try:
        return s.effect()
    finally:
        if shape.effect == "twice":
            try:
                s.effect()
            except Exception as error:
                world.note("", f"the second delivery answers {error!r}")
        world.watch()


def _unheard(s: Strike, shape: Shape) -> None:
    """The effect happens, and whatever the service says to it is lost."""
    try:
        s.effect()
    except Exception as error:
        s.world.note(s.service, f"{s.site} answers {error!r}, unheard")
    if shape.effect == "restart":
        s.world.restart_service(s.service)
    s.world.watch()


def _silence(s: Strike) -> Any:
    if s.timeout_s is None:
        s.world.stop(f"{s.site} waits for ever: the client has no timeout")
        raise PowerCut
    s.world.loop.advance_blocking(s.timeout_s)
    return s.dialect.timed_out(s.site, s.timeout_s)


def _cut(s: Strike) -> None:
    if s.life is not None:
        s.world.power_cut(s.life.process)
        raise PowerCut
