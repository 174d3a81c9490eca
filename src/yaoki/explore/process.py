"""A process in the universe: it starts, may lose power at any instant, and starts again from the top."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yaoki.explore.world import World

# Faults are finite, so a process that dies more often than this dies by itself.
MOST_STARTS = 30


class PowerCut(BaseException):
    """Unwinds a plain function whose process is dead. Whatever its clean-up tries to reach is gone."""


class Life:
    """One life of a process, from its start to its power cut."""

    __slots__ = ("alive", "born", "heard", "name", "process")

    def __init__(self, process: Process) -> None:
        self.process = process
        self.name = process.name
        self.alive = True
        self.born = b""  # digest of what was durable at the start
        self.heard: dict[str, bytes] = {}  # digest of the answers since, by step


owner: ContextVar[Life | None] = ContextVar("yaoki_explore_life", default=None)
"""The life that the running code belongs to; None for services and for the world itself."""

serving: ContextVar[str] = ContextVar("yaoki_explore_serving", default="")
"""The host whose code answers a request just now, or ""."""


def here() -> str:
    """Where the running code runs: the name of its process, or of the host that is answering; "" for the world itself."""
    life = owner.get()
    return life.name if life is not None else serving.get()


class Process:
    """One process of one execution.

    Attributes:
        name: its lane in the timeline.
        starts: how often it was started.
        result, error: how it ended; error is what `main` raised.
        done: has it ended by itself?
    """

    def __init__(self, world: World, name: str, main: Callable[..., Any], args: tuple[Any, ...], *, daemon: bool, restart_s: float) -> None:
        self.world = world
        self.name = name
        self.main = main
        self.args = args
        self.daemon = daemon
        self.restart_s = restart_s
        self.starts = 0
        self.life = Life(self)
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def begin(self) -> None:
        """Start, or start again after a power cut, with nothing but what is durable."""
        self.starts += 1
        self.life = life = Life(self)
        if self.world.states is not None:
            life.born = self.world.states.durable()
        if self.starts > 1:
            self.world.note(self.name, "starts again")
            if self.world.memory is not None:
                self.world.memory.put_back()
        context = self.world.base.copy()
        context.run(owner.set, life)
        task = self.world.loop.create_task(self._live(), name=self.name, context=context)
        task.add_done_callback(partial(self._ended, life), context=self.world.base)

    async def _live(self) -> Any:
        value = self.main(*self.args)
        return await value if inspect.isawaitable(value) else value

    def _ended(self, life: Life, task: asyncio.Task[Any]) -> None:
        if not life.alive:
            return
        self.error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self.result = None if self.error is not None else task.result()
        self.done = True
        self.world.ended()
        if self.world.notes is not None:
            self.world.note(self.name, f"raises {self.error!r}" if self.error is not None else f"returns {self.result!r}")

    def die(self) -> None:
        """Lose power. A new life begins after `restart_s`."""
        self.life.alive = False
        self.world.loop.drop(self.life)
        if self.starts >= MOST_STARTS:
            self.done = True
            self.world.ended()
            return
        self.world.loop.call_later(self.restart_s, self.begin, context=self.world.base)
