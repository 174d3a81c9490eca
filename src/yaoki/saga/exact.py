"""Steps whose writes and whose record are one transaction: done exactly once, never in doubt.

    begin ──▶ the function writes ──▶ its record, and what follows from it ──▶ commit
                     └── it fails ──▶ rolled back: nothing happened; another attempt, or failed

The function gets the journal's own transaction as `tx`: on SQLite a `sqlite3.Connection` in the journal's file, for a plain
function; on PostgreSQL an `asyncpg` connection, for an async one. It must not commit or roll back by itself. Such a step runs
alone in its run, because the history must not move under it.
"""

from __future__ import annotations

import inspect
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from yaoki import effect
from yaoki.effect import Effect
from yaoki.errors import UsageError
from yaoki.saga.journal.port import Append, StepFailed
from yaoki.saga.naming import keyed
from yaoki.saga.records import Record

if TYPE_CHECKING:
    from yaoki.saga.attempt import Attempts
    from yaoki.saga.define import Step
    from yaoki.saga.turn import Turn

TX = "!"
"""Where a parameter named `tx` comes from, in `Step.sources`."""


async def make_exactly_once(attempts: Attempts, driver: Turn, step: Step[..., Any]) -> Record | None:
    """Make the step. None: its record is durable already. Raises what the journal raises; then nothing is known here.

    Raises:
        TransactionLost: it was not committed, and this driver has run ahead of the history: take the run up again.
    """
    while True:
        if driver.hold is not None:
            await driver.hold()
        attempts.made += 1
        try:
            driver.written(await driver.journal.transact(driver.header.no, _work(attempts, driver, step)))
        except StepFailed as failed:
            delay_or_record = attempts.failed(failed.error, 0)
        else:
            return None
        if isinstance(delay_or_record, Record):
            return delay_or_record
        await driver.pause(delay_or_record)
        if driver.is_stopping():
            return None
        if driver.gives_up_on(step.name, forward=attempts.forward):
            return attempts.given_up()


def _work(attempts: Attempts, driver: Turn, step: Step[..., Any]) -> Any:
    """What the journal does inside the transaction: the function, then the entry that goes with it."""
    header = driver.header
    under_way = keyed(Effect(header.id, header.saga, step.name, False, attempts.made, header.fence, header.traceparent), driver.machine)

    def arguments(tx: Any) -> dict[str, Any]:
        return {**attempts.arguments(under_way), **{name: tx for name, source in step.sources if source == TX}}

    def entry(value: Any) -> Append:
        return driver.entry_of(attempts.succeeded(value))

    def plainly(tx: Any) -> Append:
        token = effect.current.set(under_way)
        try:
            value = step.fn(**arguments(tx))
            _check_open(tx, step)
            return entry(value)
        except Exception as error:
            raise StepFailed(error) from error
        finally:
            effect.current.reset(token)

    async def awaiting(tx: Any) -> Append:
        token = effect.current.set(under_way)
        try:
            found = step.fn(**arguments(tx))
            return entry(await found if inspect.isawaitable(found) else found)
        except Exception as error:
            raise StepFailed(error) from error
        finally:
            effect.current.reset(token)

    context = copy_context()
    return awaiting if step.is_async else lambda tx: context.run(plainly, tx)


def _check_open(tx: Any, step: Step[..., Any]) -> None:
    if getattr(tx, "in_transaction", True) is False:
        raise UsageError(f"step {step.name} has ended the journal's transaction", do="leave commit and rollback to the journal")
