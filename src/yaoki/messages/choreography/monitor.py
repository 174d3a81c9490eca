"""Sees every choreographed run: its state, its remaining steps, and the step it waits for. In charge of nothing.

It hears the same words as the participants. A step that is due and not begun for too long is nudged: participants look
again at what is theirs. One that is begun and does not end raises an alarm (`RunStuck`): a person looks at its service.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import Any

import msgspec

from yaoki import events, runtime
from yaoki.errors import MessagesError
from yaoki.messages.app import Messages
from yaoki.messages.choreography.telling import say
from yaoki.messages.choreography.told import Run, Told, hear_all, prefix_of, type_of
from yaoki.messages.envelope import Message
from yaoki.messages.handlers import Handler
from yaoki.saga.define import Saga
from yaoki.saga.records import RunState

LOOK_S = 1.0
MOST_RUNS = 100_000
"""Runs in memory. Ended ones go first, the oldest of them."""


class Edge(msgspec.Struct, frozen=True):
    """What a run waits for: an action (`step`, `step:undo` or `step:wait`), since when (seconds since 1970), and whether it is begun."""

    run: str
    action: str
    since: float
    begun: bool


class RunView(msgspec.Struct, frozen=True):
    """A run as it is shown: JSON by `msgspec.json.encode`, its schema by `msgspec.json.schema(RunView)`.

    Attributes:
        state: see `RunState`; "unknown" before its start was heard. reason: why it is being undone, or "".
        started_at, deadline_at: seconds since 1970; 0.0 where there is none.
        done: steps with a result, in the order of the definition. edges: what it waits for now, the longest wait first.
        blocked: steps that need a person. unheeded: words that came twice in contradiction, and did not count.
    """

    run: str
    saga: str
    state: str
    reason: str
    started_at: float
    deadline_at: float
    done: tuple[str, ...]
    edges: tuple[Edge, ...]
    blocked: tuple[str, ...]
    unheeded: int


class Monitor:
    """Watches the runs of one saga.

    Args:
        app: the messages it listens with; a service of its own, or any participant's.
        overdue: seconds after which a step that is due counts as overdue, unless its own `deadline` is longer.
    """

    def __init__(self, saga: Saga[Any], app: Messages, *, overdue: float = 30.0) -> None:
        self.saga = saga
        self.app = app
        self.overdue_s = overdue
        self.runs: dict[str, Run] = {}
        self._mine = app.service if app.broker is not None else ""
        self._ended: dict[str, asyncio.Future[RunState]] = {}
        self._alarmed: dict[str, set[str]] = {}
        app.add(Handler(fn=self._hear, name=f"{saga.name}-monitor", takes={type_of(saga): Told}, wants_message=True))

    async def _hear(self, told: Told, message: Message) -> None:
        if message.source == self._mine:
            return
        run = self.runs.get(message.key)
        if run is None:
            # A monitor that was restarted has forgotten the beginning; the store has not.
            entries = await self.app.store.starting_with(prefix_of(self.saga, message.key))
            run = hear_all(self.saga, message.key, _up_to((entry.message for entry in entries), message), mine=self._mine)
            self._make_room()
            self.runs[message.key] = run
        else:
            run.hear(told)
        if run.machine is not None and (run.machine.state.is_end or run.machine.state is RunState.BLOCKED):
            self._alarmed.pop(message.key, None)
            waiter = self._ended.pop(message.key, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(run.machine.state)

    async def load(self, run: str) -> RunState | None:
        """Take up what the store knows of a run, after a restart. Returns its state, or None if it was never started."""
        if run not in self.runs:
            entries = await self.app.store.starting_with(prefix_of(self.saga, run))
            found = hear_all(self.saga, run, (entry.message for entry in entries), mine=self._mine)
            # Only what has ended is complete for sure: of the others, words may be on their way to this reader.
            if found.machine is not None and found.machine.state.is_end:
                self._make_room()
                self.runs[run] = found
        return self.state(run)

    def _make_room(self) -> None:
        if len(self.runs) >= MOST_RUNS:
            ended = [name for name, run in self.runs.items() if run.machine and run.machine.state.is_end]
            for name in (ended or list(self.runs))[: MOST_RUNS // 10]:
                del self.runs[name]

    def state(self, run: str) -> RunState | None:
        """Where a run is, or None if nothing was heard of it."""
        found = self.runs.get(run)
        return found.machine.state if found and found.machine else None

    def remaining(self, run: str) -> list[str]:
        """The actions that a run waits for now."""
        found = self.runs.get(run)
        return found.next_actions if found else []

    def view(self, run: str) -> RunView | None:
        """All that is known of a run, to be shown; None if nothing was heard of it."""
        found = self.runs.get(run)
        if found is None:
            return None
        machine, names = found.machine, self.saga.graph.names
        return RunView(
            run=run, saga=self.saga.name, state=machine.state.value if machine else "unknown",
            reason=machine.abort.reason if machine and machine.abort else "", started_at=found.started_at,
            deadline_at=found.deadline_at, done=tuple(name for name in names if name in found.results),
            edges=tuple(_edges(found)), blocked=tuple(names[number] for number in machine.blocked) if machine else (),
            unheeded=len(found.unheeded))

    def views(self, *, states: Collection[RunState] = ()) -> list[RunView]:
        """All runs in memory, or those in these states, oldest first."""
        found = (self.view(run) for run in self.runs if not states or self.state(run) in states)
        return sorted((each for each in found if each), key=lambda each: (each.started_at, each.run))

    async def wait(self, run: str, *, timeout: float = 60.0) -> RunState:
        """Wait until the run has ended or needs a person. Raises `TimeoutError`."""
        state = self.state(run)
        if state is not None and (state.is_end or state is RunState.BLOCKED):
            return state
        waiter = self._ended.setdefault(run, asyncio.get_running_loop().create_future())
        async with asyncio.timeout(timeout):
            return await asyncio.shield(waiter)

    def result(self, run: str) -> bytes:
        """The last step's result as JSON."""
        return self.runs[run].results.get(self.saga.graph.names[-1], b"null")

    # ── what is overdue ──────────────────────────────────────────────────────────────────────────────────────────

    def edges(self) -> list[Edge]:
        """What all unfinished runs wait for, the longest wait first.

        A step that waits for a time or an answer is among them by the instant at which its wait is over (`step:wait`).
        """
        return sorted((edge for run in self.runs.values() for edge in _edges(run)), key=_since)

    def overdue(self, now: float) -> list[Edge]:
        """Edges that wait longer than they may. now: seconds since 1970."""
        return [edge for edge in self.edges() if now - edge.since > self._limit(edge)]

    def _limit(self, edge: Edge) -> float:
        step = self.saga.steps[edge.action.partition(":")[0]]
        return max(self.overdue_s, step.deadline or 0.0)

    async def watch(self) -> None:
        """Nudge what is not begun, and raise the alarm over what is. Runs until cancelled."""
        while True:
            await runtime.sleep(LOOK_S)
            with contextlib.suppress(MessagesError):  # a nudge that could not be stored is due again at the next look
                await self.look()

    async def look(self) -> list[Edge]:
        """One look of `watch`. Returns what is overdue."""
        now = runtime.unix_time()
        overdue = self.overdue(now)
        for edge in overdue:
            run = self.runs[edge.run]
            count = run.nudges.get(edge.action, 0)
            if edge.begun:
                self._alarm(edge, now)
            elif now - edge.since > self._limit(edge) * (count + 1):
                await say(self.app, self.saga, edge.run, "nudge", step=edge.action, again=f".{count}")
        return overdue

    def _alarm(self, edge: Edge, now: float) -> None:
        if edge.action not in (alarmed := self._alarmed.setdefault(edge.run, set())):
            alarmed.add(edge.action)
            events.emit(events.RunStuck(run=edge.run, saga=self.saga.name, idle_s=now - edge.since, waiting_for=edge.action))


def _edges(run: Run) -> list[Edge]:
    found = [Edge(run.id, action, run.since[action], action in run.begun) for action in run.next_actions]
    found += [Edge(run.id, f"{step}:wait", until, begun=False) for step, until in run.waits.items() if until]
    return sorted(found, key=_since)


def _since(edge: Edge) -> float:
    return edge.since


def _up_to(messages: Any, last: Message) -> Any:
    for message in messages:
        yield message
        if message.id == last.id and message.source == last.source:
            return
