"""The runs in memory: each with its driver, in a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from yaoki import events, runtime
from yaoki.errors import FencedError, JournalDamagedError, JournalError, RunError
from yaoki.saga.driver import Driver
from yaoki.saga.journal.port import TransactionLost
from yaoki.saga.journal.registers import of_run
from yaoki.saga.journal.sums import damaged
from yaoki.saga.records import Header, RunState, Stored

if TYPE_CHECKING:
    from yaoki.saga.engine.engine import Engine

log = logging.getLogger("yaoki.saga")

# A run whose task was cancelled from inside is begun again; one that does so each time would keep a worker busy for ever.
MOST_CANCELLED = 3


class Floor:
    """At most `size` runs at once, by id."""

    def __init__(self, engine: Engine, size: int) -> None:
        self.size = size
        self.unfit: dict[str, str] = {}  # runs that the definitions at hand cannot go on with, and why
        self.drivers: dict[str, Driver] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._engine = engine
        self._dropping = False
        self._orphans: set[int] = set()  # runs that were ours, and that nobody drove, at the last look
        self._cancelled: dict[str, int] = {}  # how often the task of a run was cancelled by somebody else than us
        self._twice: set[str] = set()  # runs that were taken once more while their driver was still there

    def __len__(self) -> int:
        return len(self.drivers)

    @property
    def room(self) -> int:
        return self.size - len(self.drivers)

    def begin(self, stored: Stored, *, is_new: bool = False, value: Any = UNSET) -> None:
        """Drive this run, which the journal has given to this engine, unless its definition is not here or does not fit.

        value: its input, where that was decoded already.
        """
        engine, header = self._engine, stored.header
        saga = engine.sagas.get(header.saga)
        if saga is None or engine.stopping:
            return
        if (driver_there := self.drivers.get(header.id)) is not None:
            # It was parked, and is due again before its driver has gone; else that driver has it, and who took it a second time has
            # nothing to give back. Which of the two it is may be known only once the driver has heard that its last write is durable.
            if engine.journal.shared:
                if driver_there.has_let_go:
                    engine.journal.release(header.no)
                    engine.intake.backlog = True
                else:
                    self._twice.add(header.id)
            return
        if stored.damage:
            self._set_aside(header, damaged(header.id, stored.damage), "its history is damaged")
            return
        try:
            driver = Driver(saga, stored, engine.journal, engine.is_stopping, engine.requests.carried_out, is_new=is_new, value=value,
                            kin=engine.kin)
        except Exception as error:  # a mapping and a codec are the user's code, and what they raise must not cost other runs their turn
            self._set_aside(header, error, "the code does not fit")
            return
        self.unfit.pop(header.id, None)
        if not is_new and events.wanted():
            events.emit(events.RunRecovered(run=header.id, saga=header.saga, records=len(stored.records)))
        engine.gates.came_in(stored, driver)
        self.drivers[header.id] = driver
        self.tasks[header.id] = runtime.spawn(self._drive(driver), name=f"yaoki-run-{header.id}")

    def give_back(self, taken: Iterable[Stored]) -> None:
        """This worker has started again while these were taken, and begins none of them.

        The claim may have come through before, or, sent once more, after: then they belong to this worker's new life, and only it can
        give them back. Those of the old life are not ours, and the journal gives back only what is.
        """
        for stored in taken:
            if stored.header.id not in self.drivers:
                self._engine.journal.release(stored.header.no)

    async def give_back_orphans(self) -> None:
        """A run that is this worker's and that nobody drives would wait for as long as the worker lives: give it back.

        A claim answered late, while the worker started again, can leave one. Only what was seen twice is given back, for a run that is
        just being started or taken is ours for a moment before it has a driver.
        """
        engine = self._engine
        async with engine.requests.taking:
            owned = dict(await engine.journal.owned())
            driven = {driver.header.no for driver in self.drivers.values()}
            seen = {no for no, run_id in owned.items() if no not in driven and run_id not in self.unfit and not engine.intake.holds(run_id)}
            for no in seen & self._orphans:
                log.warning("run %s is this worker's, and nobody drives it: it is given back", owned[no])
                engine.journal.release(no)
            self._orphans = seen - self._orphans
            if seen:
                engine.intake.backlog = True

    async def _drive(self, driver: Driver) -> None:
        engine, run_id = self._engine, driver.header.id
        try:
            state = await driver.drive()
        except asyncio.CancelledError as error:
            if self._dropping or engine.is_stopping():
                raise
            self._cancelled_inside(driver, error)
        except FencedError:
            engine.fence()
        except TransactionLost:  # the driver has run ahead of the history: begin again from what is durable
            engine.journal.release(driver.header.no)
            engine.intake.backlog = True
        except Exception as error:
            if engine.journal.shared and not isinstance(error, JournalError):
                # One run must not take a worker down with it, nor all workers in turn.
                log.exception("run %s is left alone", run_id)
                self._set_aside(driver.header, error, "its driver failed")
            else:
                engine.fail(error)
        else:
            if state.is_end or state is RunState.BLOCKED:  # else it was handed over
                self._cancelled.pop(run_id, None)
                engine.waiters.answer(driver.header)
                engine.intake.ended(driver.saga.name, state)
                if state.is_end and driver.saga.leaves_traces:
                    await self._sweep_after(driver)
            elif driver.parked:  # is it held still? The pause may have ended before that was durable
                await engine.gates.parked()
        finally:
            self._left(driver)

    def _left(self, driver: Driver) -> None:
        """A driver has gone, whatever became of its run."""
        engine, run_id = self._engine, driver.header.id
        engine.requests.hand_out_again(driver.unanswered)  # they came too late for this driver
        del self.drivers[run_id], self.tasks[run_id]
        if run_id in self._twice:
            self._twice.discard(run_id)
            if driver.has_let_go:
                engine.journal.release(driver.header.no)
                engine.intake.backlog = True
        engine.gates.went_out(run_id)
        if engine.intake.backlog:
            engine.intake.feed()

    def _cancelled_inside(self, driver: Driver, error: asyncio.CancelledError) -> None:
        """A step's code has cancelled the task that drives it. Begin again from what is durable, with that step in doubt."""
        run_id = driver.header.id
        times = self._cancelled[run_id] = self._cancelled.get(run_id, 0) + 1
        if times > MOST_CANCELLED:
            self._set_aside(driver.header, error, f"a step cancels the task it runs in, {times} times now")
            return
        self._engine.journal.release(driver.header.no)
        self._engine.intake.backlog = True

    async def _sweep_after(self, driver: Driver) -> None:
        """What only matters while a run lives: its last signs of life, and its places in the queues of keys."""
        engine, run_id = self._engine, driver.header.id
        with contextlib.suppress(JournalError):  # if it cannot be now, the watch does it
            await engine.journal.drop_registers(of_run(run_id))
            if driver.saga.keys and await engine.journal.settle_locks(run_id):
                await engine.requests.carry_out()

    def _set_aside(self, header: Header, error: BaseException, why: str) -> None:
        """Leave the run as it is, until the engine starts again: with other code, perhaps."""
        self.unfit[header.id] = str(error)
        self._engine.waiters.fail(header.id, error if isinstance(error, JournalDamagedError) else unfit(header.id, str(error)))
        if events.wanted():
            events.emit(events.RunBlocked(run=header.id, saga=header.saga, step="", reason=f"{why}: {error}"))

    def wake(self) -> None:
        """Let every driver look whether it is to stop."""
        for driver in self.drivers.values():
            driver.wake()

    async def drop(self, *, grace_s: float = 0.0) -> int:
        """Give steps under way `grace_s` seconds to end; cancel what is left. Returns how many runs that was."""
        if self.tasks and grace_s > 0:
            await asyncio.wait(self.tasks.values(), timeout=grace_s)
        tasks = list(self.tasks.values())
        self._dropping = True
        try:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            for run_id in [run_id for run_id, task in self.tasks.items() if task.done()]:  # cancelled before its first turn, it did not tidy up
                self._left(self.drivers[run_id])
        finally:
            self._dropping = False
        return len(tasks)


def unfit(run_id: str, why: str) -> RunError:
    return RunError(f"run {run_id!r} does not fit the code: {why}", do="deploy the code that it was started with, or one that fits it",
                    run_id=run_id)
