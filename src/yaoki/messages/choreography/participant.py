"""A service takes part in a saga that nobody is in charge of.

    participate(book_trip, steps=["hotel"], app=hotel)        # in each service, before `async with hotel`

    word on a run ──▶ follow: what is next, by the same machine ──▶ task: one of my steps ──▶ attempts ──▶ word on the run

`follow` handles the words of a run in their order; a task is a message of its own, so steps run side by side, and a step
that is tried for an hour does not keep its service from hearing that the run is being undone. A killed process leaves the
task in the log; whoever takes it up finds that it was begun, and repeats it with the same idempotency key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from yaoki import events, runtime
from yaoki.errors import DefinitionError
from yaoki.messages.app import Messages
from yaoki.messages.choreography.told import Run, Told, hear_all, prefix_of, type_of
from yaoki.messages.envelope import Message
from yaoki.messages.handlers import Handler
from yaoki.messages.verdict import Retries
from yaoki.saga.attempt import Attempts
from yaoki.saga.define import Saga
from yaoki.saga.records import Failure, Header, Kind, Record, RunState

LONG_S = 30 * 86_400.0
"""A task may try as long as its step says; after the pivot that is until it succeeds."""
FOLLOWING = Retries(attempts=1_000_000, first_s=0.1, cap_s=10.0)


class Task(msgspec.Struct, frozen=True):
    """What a participant asks of itself: do a step, or undo it; or see whether a run's time is over."""

    run: str
    action: str


class Participant:
    """One service's part. Made by `participate`."""

    def __init__(self, saga: Saga[Any], steps: Iterable[str], app: Messages) -> None:
        self.saga = saga
        self.app = app
        self.steps = frozenset(steps)
        self._check()
        # With a broker of its own the order that counts is the broker's: own words are heard when they come back.
        self.mine = app.service if app.broker is not None else ""
        self.task_type = f"task.{saga.name}.{app.service}"
        app.add(Handler(fn=self.follow, name=f"{saga.name}-follow", takes={type_of(saga): Told}, wants_message=True,
                        retries=FOLLOWING, timeout_s=60.0))
        app.add(Handler(fn=self.work, name=f"{saga.name}-work", takes={self.task_type: Task}, retries=FOLLOWING,
                        timeout_s=LONG_S, in_flight=256))

    def _check(self) -> None:
        unknown = sorted(self.steps - set(self.saga.graph.names))
        if unknown or not self.steps:
            raise DefinitionError(
                f"{self.app.service} cannot take part in {self.saga.name!r} with the steps {unknown or 'none'}",
                do=f"name some of {', '.join(self.saga.graph.names)}")
        waiting = [node.name for node in self.saga.graph.nodes if node.waits]
        bound = [name for name in sorted(self.steps) if self.saga.steps[name].tx or self.saga.steps[name].once]
        if waiting or bound:
            raise DefinitionError(
                f"{self.saga.name!r} has steps that wait, or are bound to the journal (tx, once), which a choreography has not: "
                f"{', '.join(waiting + bound)}",
                do="orchestrate it; or publish a scheduled message in place of the wait, and use the service's own transaction")

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
        if told.kind == "started" and run.deadline_at:
            tasks.append(self._task(run.id, "deadline", due=run.deadline_at))
        if told.kind == "nudge":
            tasks = [msgspec.structs.replace(each, id=f"{each.id}.{sum(run.nudges.values())}") for each in tasks]
        await self.app.store.append(tasks)

    def _task(self, run: str, action: str, *, again: int = 0, due: float = 0.0) -> Message:
        """The same task has the same id, however often it follows from what is heard; a person's decision makes it new."""
        number = f"#{again}" if again else ""
        return Message(id=f"task/{self.saga.name}/{run}/{action}{number}", source=f"{self.app.service}{TASKS}", type=self.task_type,
                       key=f"{run}/{action}", data=msgspec.json.encode(Task(run, action)), time=runtime.unix_time(), due=due,
                       correlation=run)

    # ── doing it ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def work(self, task: Task) -> None:
        """Do or undo one step, and say what became of it."""
        run = await self.load(task.run)
        if task.action == "deadline":
            await self._deadline(run)
            return
        name, _, undo = task.action.partition(":")
        if task.action not in run.next_actions or await self._is_told(task):
            return  # a repetition of what was settled long ago
        before = await self._own(f"{prefix_of(self.saga, task.run)}{task.action}/begun")
        assert run.machine is not None
        if run.machine.abort and not undo and not before:
            await self._say(run, name, "failed", _NEVER_BEGUN)
            return
        if not before:
            await self._say(run, task.action, "begun", b"null")
        turn = _Turn(self.saga, run, self.load, began_before=name if before else "")
        record = await Attempts(turn, self.saga.steps[name], undo=bool(undo)).run()  # type: ignore[arg-type]
        assert record is not None
        # A step that needs a person may need one again, so its id is as new as its word; the others are said once.
        again = f".{runtime.new_id()}" if record.kind is Kind.BLOCKED else ""
        await self._say(run, name, record.kind.value, record.data or b"null", again=again)

    async def _is_told(self, task: Task) -> bool:
        """Has this service said what became of it, even if that has not come back from the broker?"""
        name, _, undo = task.action.partition(":")
        kinds = ("undone",) if undo else ("done", "failed", "skipped")
        for kind in kinds:
            if await self._own(f"{prefix_of(self.saga, task.run)}{name}/{kind}"):
                return True
        return False

    async def _own(self, id_: str) -> bool:
        return any(entry.message.id == id_ for entry in await self.app.store.get(id_))

    async def _deadline(self, run: Run) -> None:
        if run.machine is not None and not run.machine.state.is_end:
            await say_cancel(self.app, self.saga, run.id, "the run's deadline passed", cancelled=False)

    async def _say(self, run: Run, step: str, kind: str, data: bytes, *, again: str = "") -> None:
        await say(self.app, self.saga, run.id, kind, step=step, data=data, again=again)


TASKS = "!"
"""Tasks have a source of their own, so that they are never sent to a broker."""
_NEVER_BEGUN = msgspec.json.encode(Failure("NotStarted", "the run was being undone before this step began"))


class _Turn:
    """What `Attempts` asks of a driver, answered from the words on the run."""

    def __init__(self, saga: Saga[Any], run: Run, load: Callable[[str], Awaitable[Run]], *, began_before: str) -> None:
        assert run.machine is not None
        self.saga = saga
        self.machine = run.machine
        self.header = Header(no=0, id=run.id, saga=saga.name, graph=saga.graph.hash, state=RunState.RUNNING, input=run.input)
        self.input = saga.input.decode(run.input)
        self.results = {name: saga.steps[name].result.decode(data) for name, data in run.results.items()}
        self.perhaps_started = (began_before,) if began_before else ()
        self.clock = runtime.current().monotonic
        self.hold = None
        self.gives_up = False
        self.now = runtime.unix_time
        self.notes: list[Record] = []  # of earlier attempts; a choreography does not tell them
        self._load = load

    def is_stopping(self) -> bool:
        return False  # a stopping process cancels the task, and its message stays

    async def pause(self, delay_s: float) -> None:
        """Wait between two attempts; hear meanwhile whether the run is being undone."""
        await runtime.sleep(delay_s)
        run = await self._load(self.header.id)
        self.gives_up = run.machine is not None and run.machine.abort is not None


def participate(saga: Saga[Any], *, steps: Iterable[str], app: Messages) -> Participant:
    """Let the service of `app` do these steps of `saga`, and undo them. Call it before the messages are opened.

    Raises:
        DefinitionError: a step that the saga does not have, or one that a choreography cannot do.
    """
    return Participant(saga, steps, app)


async def start(app: Messages, saga: Saga[Any], input: object, *, id: str) -> str:  # noqa: A002
    """Start a run: anybody may. The same id twice is one run. Returns the id; see `Monitor` for how it goes on.

    Raises:
        InputError: the input is not what the saga takes.
    """
    from yaoki.saga import codec  # noqa: PLC0415 (imports the engine's side only here)

    data = codec.encode(input)
    saga.input.decode(data)
    now = runtime.unix_time()
    told = Told("started", data=msgspec.Raw(data), at=now, deadline_at=now + saga.deadline if saga.deadline else 0.0,
                graph=saga.graph.hash)
    await app.store.append([_message(app, saga, id, told, "")])
    if events.wanted():
        events.emit(events.RunStarted(run=id, saga=saga.name))
    return id


async def cancel(app: Messages, saga: Saga[Any], run: str, *, reason: str = "cancelled") -> None:
    """Ask for a run to be undone. Too late after its pivot; then nothing happens."""
    await say_cancel(app, saga, run, reason, cancelled=True)


async def say_cancel(app: Messages, saga: Saga[Any], run: str, reason: str, *, cancelled: bool) -> None:
    from yaoki.saga.records import Abort  # noqa: PLC0415

    await say(app, saga, run, "cancel", data=msgspec.json.encode(Abort(reason, cancelled=cancelled)))


async def say(app: Messages, saga: Saga[Any], run: str, kind: str, *, step: str = "", data: bytes = b"null",
              again: str = "") -> None:
    """Publish a word on a run."""
    told = Told(kind, step, msgspec.Raw(data), runtime.unix_time())
    await app.store.append([_message(app, saga, run, told, again)])


def _message(app: Messages, saga: Saga[Any], run: str, told: Told, again: str) -> Message:
    about = f"{told.step}/{told.kind}" if told.step else told.kind
    return Message(id=f"{prefix_of(saga, run)}{about}{again}", source=app.service, type=type_of(saga), key=run,
                   data=msgspec.json.encode(told), time=told.at, correlation=run)
