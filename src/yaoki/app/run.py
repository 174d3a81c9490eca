"""A handle on one run."""

from __future__ import annotations

from typing import Any, Generic, cast

from yaoki.errors import RunBlockedError, RunError, RunUndoneError
from yaoki.saga.define import Saga
from yaoki.saga.engine import Engine
from yaoki.saga.engine.retries import retry_blocked, retry_from
from yaoki.saga.engine.undos import undo_run
from yaoki.saga.records import Header, RunState, Stored
from yaoki.saga.typed import O


class Run(Generic[O]):
    """One run, by its id. Cheap: it holds nothing but the id. `Run[Receipt]` where its saga says what it gives: `Saga(..., result=Receipt)`."""

    __slots__ = ("_engine", "_saga", "id")

    def __init__(self, engine: Engine, saga: Saga[Any, O], id: str) -> None:  # noqa: A002
        self._engine = engine
        self._saga = saga
        self.id = id

    async def result(self) -> O:
        """Wait for the end, and return what the saga's last step returned.

        Raises:
            RunUndoneError: the run was undone: nothing of it is left. Says what began it.
            RunBlockedError: it waits for a person.
        """
        return cast("O", _result(self._saga, await self._engine.wait(self.id)))

    async def wait(self) -> RunState:
        """Wait until it has ended or is blocked; returns which, and does not raise."""
        return (await self._engine.wait(self.id)).state

    async def state(self) -> RunState:
        """Where it is now."""
        return (await self.stored()).header.state

    async def stored(self) -> Stored:
        """Header and history, as the journal has them."""
        found = await self._engine.journal.read(self.id)
        assert found is not None
        return found

    async def cancel(self, reason: str = "cancelled", *, who: str = "") -> None:
        """Ask it to undo itself. After its pivot this changes nothing."""
        await self._engine.cancel(self.id, reason=reason, who=who)

    async def undo(self, reason: str = "undone", *, past_pivot: bool = False, who: str = "") -> None:
        """Have it undone as a whole, also once it is completed; past its pivot as soon as it is completed. Durable when this returns.

        `await run.wait()` says how it ended.

        Args:
            past_pivot: leave what has no undo, from the pivot on; the history names it.

        Raises:
            UndoRunError: something would stay, or it is undone already, or is a part of another run; nothing was asked.
        """
        await undo_run(self._engine, self.id, reason, past_pivot=past_pivot, who=who)

    async def pause(self, *, who: str = "", why: str = "") -> bool:
        """Let it begin nothing more until it is resumed. False: it is paused already."""
        done = await self._engine.journal.pause("run", self.id, who=who, why=why)
        await self._engine.gates.look_now()
        return done

    async def resume(self, *, who: str = "", why: str = "") -> bool:
        """End its pause. False: it was not paused."""
        done = await self._engine.journal.resume("run", self.id, who=who, why=why)
        await self._engine.gates.look_now()
        return done

    async def signal(self, name: str, answer: Any = None, *, who: str = "") -> None:
        """Answer what its step `name` waits for, or will; the first answer counts. Raises InputError, RunNotFoundError."""
        await self._engine.signal(self.id, name, answer, who=who)

    async def resolve(self, step: str, decision: str, *, result: Any = None, who: str = "", why: str = "") -> None:
        """Decide about a blocked step: "retry", "done" (with its result) or "undone"."""
        await self._engine.resolve(self.id, step, decision, result=result, who=who, why=why)

    async def retry(self, step: str = "", *, from_: str = "", who: str = "", why: str = "") -> None:
        """As `App.retry`: blocked steps again by their old keys; or, `from_` a step on, taken back and made anew."""
        if from_:
            await retry_from(self._engine, self.id, from_, who=who, why=why)
        else:
            await retry_blocked(self._engine, self.id, step, who=who, why=why)


def _result(saga: Saga[Any], header: Header) -> Any:
    if header.state is RunState.COMPLETED:
        return list(saga.steps.values())[-1].result.decode(header.result)
    if header.state is RunState.BLOCKED:
        raise RunBlockedError(f"run {header.id} is blocked: {header.reason}",
                              do=f"look at it with `yk runs show {header.id}`, then `yk runs resolve`",
                              run_id=header.id, reason=header.reason)
    if header.state.is_end:
        raise RunUndoneError(f"run {header.id} was undone: {header.reason}", do="start it again under another id, if that helps",
                             run_id=header.id, reason=header.reason)
    raise RunError(f"run {header.id} is {header.state}", do="wait for it", run_id=header.id)
