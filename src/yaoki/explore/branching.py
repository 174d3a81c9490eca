"""Executions that share what comes before their last fault: the process forks where it strikes.

    the parent's plan ──▶ hotel.book@0 ──▶ payment.book@0 ──▶ ... its last point: no more is to be seen of it
                             ├─fork─ call.reject ──▶ end          └─fork─ call.lost_ack ──▶ end, told through a pipe
                             └─fork─ call.lost_ack ──▶ end

All children of a plan begin as their parent does. So the parent is gone through once more, and each child is a copy of the process
at the point where its own fault strikes: of a pair, only what comes after the second fault is executed. Nothing is left out by this; the
executions, their order and the report are the same.

A fork takes some milliseconds, so it pays for executions that take many: five services and a broker, not a saga of four steps. What a
child changes outside its universe (a list of the test's own) is gone with it.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from asyncio import events
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from yaoki.explore.outcome import Execution, Violation

if TYPE_CHECKING:
    from yaoki.explore.plan import Plan, Planned, Settings
    from yaoki.explore.world import World

# Points of an execution from which on it pays to fork in the middle of it rather than to begin again. Not its time: that would make it
# depend on the machine what a test that looks into its executions sees.
PAYS_POINTS = 200


def can_fork() -> bool:
    """Not on every system."""
    return hasattr(os, "fork")


class Told(msgspec.Struct):
    """What a child tells of its execution: attributes as in `Execution`. failed: why there was none."""

    answer: str = ""
    outcome: str = ""
    stuck: str = ""
    void: str = ""
    clock: str = ""
    unfired: tuple[str, ...] = ()
    violations: tuple[tuple[str, str], ...] = ()
    reached: tuple[str, ...] = ()
    failed: str = ""


class Branches(dict[tuple[str, int], str]):
    """The plan of a parent, as its world asks for it, and the children that begin on the way.

    Args:
        plan: the parent's.
        children: a fault more for each, in the order of the points.
        go_on: asked before each child.

    Attributes:
        told: the children's executions so far. They are judged when the parent's universe is over: nothing else may run inside it.
    """

    def __init__(self, plan: Plan, children: Sequence[Planned], *, settings: Settings, go_on: Callable[[], bool]) -> None:
        super().__init__()
        self.plan = plan
        self.told: list[Execution] = []
        self.is_child = False
        self._settings = settings
        self._go_on = go_on
        self._failed = ""
        self._left: dict[tuple[str, int], list[Planned]] = {}
        for each in children:
            self._left.setdefault((each.site, each.nth), []).append(each)
        self._world: World | None = None
        self._pipe = -1

    def enter(self, world: World) -> None:
        """Be the plan of this universe."""
        self.update(world.plan)
        self._world = world
        world.plan = self

    def execute(self, execute: Callable[[Branches], Execution]) -> None:
        """Go through the parent's execution. In a child this does not return.

        Raises:
            ChildProcessError: a child ended without a report.
        """
        try:
            run = execute(self)
        except BaseException:
            if self.is_child:
                self._say(Told(failed=traceback.format_exc()))
            raise
        if self.is_child:
            self._say(Told(run.answer, run.outcome, run.stuck, run.void, run.clock, run.unfired, tuple((each.invariant, each.why) for each in run.violations),
                           tuple(sorted(run.reached))))
        if self._failed:
            raise ChildProcessError(self._failed)

    # ── as the world's plan ──

    def __bool__(self) -> bool:
        """Is there anything to ask at a point? In the parent always; in a child as long as a fault is left, as of any plan."""
        return not self.is_child or len(self) > 0

    def pop(self, key: tuple[str, int], default: str = "") -> str:  # type: ignore[override]
        """Which fault strikes here; before that, the children that differ from here on."""
        for planned in self._left.pop(key, ()):
            if self._failed or not self._go_on():
                self._left.clear()
                break
            if self._fork(planned):
                return planned.fault
        if not self._left and not self.is_child and self._world is not None:
            self._world.loop.finished = True  # nobody asks how the parent ends
        return super().pop(key, default)

    def _fork(self, planned: Planned) -> bool:
        """True in the child. The parent waits for what it tells."""
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        running = events._get_running_loop()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of other threads: a child calls nothing of theirs
            pid = os.fork()
        if not pid:
            os.close(reading)
            events._set_running_loop(running)  # asyncio forgets it in a copy of the process
            self.is_child, self._pipe, self.plan = True, writing, (*self.plan, planned)
            self._left.clear()
            return True
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            data = stream.read()
        _, status = os.waitpid(pid, 0)
        told = msgspec.json.decode(data, type=Told) if data else Told(failed="it said nothing")
        if status or told.failed:
            self._failed = f"the execution of {planned} ended without a report (status {status}): {told.failed}"
        else:
            self.told.append(self._execution((*self.plan, planned), told))
        return False

    def _execution(self, plan: Plan, told: Told) -> Execution:
        run = Execution(plan, self._settings)
        run.answer, run.outcome, run.stuck, run.void, run.clock, run.unfired = told.answer, told.outcome, told.stuck, told.void, told.clock, told.unfired
        run.violations = tuple(Violation(*each) for each in told.violations)
        run.reached = frozenset(told.reached)
        return run

    def _say(self, told: Told) -> None:
        """Tell the parent, and end without any clean-up of its."""
        code: Any = 1
        try:
            with os.fdopen(self._pipe, "wb") as stream:
                stream.write(msgspec.json.encode(told))
            code = 0
        finally:
            os._exit(code)
