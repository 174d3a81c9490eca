"""A service takes part in a saga that nobody is in charge of.

    word on a run ──▶ follow: what is next, by the same machine ──▶ task: one of my steps ──▶ attempts ──▶ word on the run

`follow` handles the words of a run in their order; a task is a message of its own, so steps run side by side, and a step
that is tried for an hour does not keep its service from hearing that the run is being undone. A killed process leaves the
task in the log; whoever takes it up finds that it was begun, and repeats it with the same idempotency key.

A step that waits (`sleep`, `wait_for`) tells until when. Its owner has a task that is due then, and one when an answer has come;
both stand in one line, so one of them ends the wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from yaoki import runtime
from yaoki.errors import RefusedError
from yaoki.messages.app import Messages
from yaoki.messages.choreography import fitting
from yaoki.messages.choreography.telling import say, say_cancel
from yaoki.messages.choreography.told import Run, Told, hear_all, prefix_of, type_of
from yaoki.messages.choreography.turn import PartTurn
from yaoki.messages.envelope import Message
from yaoki.messages.handlers import Handler
from yaoki.messages.verdict import Retries
from yaoki.saga.attempt import Attempts
from yaoki.saga.define import Saga
from yaoki.saga.records import Failure, Kind
from yaoki.saga.waiting import end_of_wait

LONG_S = 30 * 86_400.0
"""A task may try as long as its step says; after the pivot that is until it succeeds."""
FOLLOWING = Retries(attempts=1_000_000, first_s=0.1, cap_s=10.0)
TASKS = "!"
"""Tasks have a source of their own, so that they are never sent to a broker."""
WAIT = "wait"
_NEVER_BEGUN = msgspec.json.encode(Failure("NotStarted", "the run was being undone before this step began"))


class Task(msgspec.Struct, frozen=True):
    """What a participant asks of itself: do a step, undo it (`step:undo`), end its wait (`step:wait`); or see whether a run's
    time is over (`deadline`).
    """

    run: str
    action: str


class Participant:
    """One service's part. Made by `participate`.

    Raises:
        DefinitionError: a step that the saga does not have, or one that a choreography cannot do.
    """

    def __init__(self, saga: Saga[Any], steps: Iterable[str], app: Messages) -> None:
        self.saga = saga
        self.app = app
        self.steps = frozenset(steps)
        fitting.check(saga, self.steps, app.service)
        # With a broker of its own the order that counts is the broker's: own words are heard when they come back.
        self.mine = app.service if app.broker is not None else ""
        self.task_type = f"task.{saga.name}.{app.service}"
        app.add(Handler(fn=self.follow, name=f"{saga.name}-follow", takes={type_of(saga): Told}, wants_message=True,
                        retries=FOLLOWING, timeout_s=60.0))
        app.add(Handler(fn=self.work, name=f"{saga.name}-work", takes={self.task_type: Task}, retries=FOLLOWING,
                        timeout_s=LONG_S, in_flight=256))

    async def load(self, run: str) -> Run:
        """The run as this service has heard of it."""
        entries = await self.app.store.starting_with(prefix_of(self.saga, run))
        return hear_all(self.saga, run, (entry.message for entry in entries), mine=self.mine)

    # ── what is next ─────────────────────────────────────────────────────────────────────────────────────────────

    async def follow(self, told: Told, message: Message) -> None:
        """A word on a run came: ask the machine what is next, and take up what of it is mine."""
        if message.source == self.mine:
            return
        run = await self.load(message.key)
        if run.machine is None:
            return
        tasks = [self._task(run.id, action, again=run.resolved.get(step, 0)) for action in run.next_actions
                 if (step := action.partition(":")[0]) in self.steps]
        tasks += [self._end_of_wait(run, step, until) for step, until in run.waits.items() if step in self.steps]
        if told.kind == "started" and run.deadline_at:
            tasks.append(self._task(run.id, "deadline", due=run.deadline_at))
        if told.kind == "nudge":
            tasks = [msgspec.structs.replace(each, id=f"{each.id}.{sum(run.nudges.values())}") for each in tasks]
        await self.app.store.append(tasks)

    def _end_of_wait(self, run: Run, step: str, until: float) -> Message:
        """A task for when its time is over, or for now, if an answer has come. A wait without an end is looked at in vain."""
        if run.answer_of(step) is not None:
            return self._task(run.id, f"{step}:{WAIT}", about="/answer")
        return self._task(run.id, f"{step}:{WAIT}", about="/over", due=until)

    def _task(self, run: str, action: str, *, again: int = 0, due: float = 0.0, about: str = "") -> Message:
        """The same task has the same id, however often it follows from what is heard; a person's decision makes it new."""
        number = f"#{again}" if again else ""
        return Message(id=f"task/{self.saga.name}/{run}/{action}{about}{number}", source=f"{self.app.service}{TASKS}",
                       type=self.task_type, key=f"{run}/{action}", data=msgspec.json.encode(Task(run, action)),
                       time=runtime.unix_time(), due=due, correlation=run)

    # ── doing it ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def work(self, task: Task) -> None:
        """Do or undo one step, or end its wait, and say what became of it."""
        run = await self.load(task.run)
        name, _, what = task.action.partition(":")
        if task.action == "deadline":
            await self._deadline(run)
        elif what == WAIT:
            await self._end_wait(run, name)
        elif task.action in run.next_actions and not await self._is_told(run, name, undo=bool(what)):
            await self._make(run, name, undo=bool(what))

    async def _make(self, run: Run, name: str, *, undo: bool) -> None:
        assert run.machine is not None
        action = f"{name}:undo" if undo else name
        # A person who has it tried again takes back that it was begun; what it may have left is remembered by the machine.
        again = f"#{run.resolved[name]}" if name in run.resolved else ""
        began = await self._own(f"{prefix_of(self.saga, run.id)}{action}/begun{again}")
        if run.machine.abort and not undo and not began:
            await self._say(run, name, "failed", _NEVER_BEGUN)
            return
        if not began:
            await self._say(run, action, "begun", b"null", again=again)
        turn = PartTurn(self.app, self.saga, run, name, self.load, began=began)
        record = await Attempts(turn, self.saga.steps[name], undo=undo).run()
        if record is None:
            return  # it was said in the step's own transaction
        # A step that needs a person may need one again, so its id is as new as its word; the others are said once.
        again = f".{runtime.new_id()}" if record.kind is Kind.BLOCKED else ""
        await self._say(run, name, record.kind.value, record.data or b"null", again=again)

    async def _end_wait(self, run: Run, name: str) -> None:
        """An answer has come, or the time is over."""
        until, answer, now = run.waits.get(name), run.answer_of(name), runtime.unix_time()
        if until is None or await self._is_told(run, name, undo=False) or (answer is None and not until):
            return
        if answer is None and now < until:
            raise RefusedError(f"{name} of {run.id} waits for {until - now:.3f} s more: clocks differ", retry_after=until - now)
        record = end_of_wait(self.saga, name, answer, now)
        again = f".{runtime.new_id()}" if record.kind is Kind.BLOCKED else ""
        await self._say(run, name, record.kind.value, record.data, again=again)

    async def _is_told(self, run: Run, name: str, *, undo: bool) -> bool:
        """Has this service said what became of it, even if that has not come back from the broker?"""
        for kind in ("undone",) if undo else ("done", "failed", "skipped"):
            if await self._own(f"{prefix_of(self.saga, run.id)}{name}/{kind}"):
                return True
        return False

    async def _own(self, id_: str) -> bool:
        return any(entry.message.id == id_ for entry in await self.app.store.get(id_))

    async def _deadline(self, run: Run) -> None:
        if run.machine is not None and not run.machine.state.is_end:
            await say_cancel(self.app, self.saga, run.id, "the run's deadline passed", cancelled=False)

    async def _say(self, run: Run, step: str, kind: str, data: bytes, *, again: str = "") -> None:
        await say(self.app, self.saga, run.id, kind, step=step, data=data, again=again)
