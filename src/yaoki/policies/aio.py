"""Timers for asyncio: cut a call off after a delay, exactly, at a cost of well under a microsecond.

`asyncio.timeout` arms and cancels one loop timer for each call. But calls with one fixed delay expire in the order in which
they began, so one armed timer serves them all: records are kept in order, and when the timer fires it cancels those that
are due and is armed again for the next.

The rules of cancellation (Python >= 3.11):
  - who cancels a task must take it back (`uncancel`) exactly once, whatever the task made of it;
  - the cancellation is ours to turn into a timeout only if nobody else has cancelled the task meanwhile, that is, if
    `task.uncancel()` is back at what `task.cancelling()` was when the call began. Otherwise it goes on as it is.
Source: CPython's asyncio/timeouts.py, and its issues on `wait_for` losing cancellations.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Task, current_task, get_running_loop
from threading import get_ident
from typing import Any
from weakref import WeakKeyDictionary

from yaoki.errors import UsageError

# One call under way. A list, because making one costs a fifth of making an object:
#   [WHEN to cut it off, on the caller's clock, or 0.0 if it has a timer of its own; its TASK; how often the task had been
#    CANCELLING when it began; has our timer FIRED?; the HANDLE of its own timer, or None; the records it is among, its KEY there]
Record = list[Any]
WHEN, TASK, CANCELLING, FIRED, HANDLE, AMONG, KEY = range(7)


def _fire(record: Record) -> None:
    record[FIRED] = True
    record[TASK].cancel()


class _Queue:
    """The records of one loop and delay, oldest first, and the timer armed for the oldest. It does not know its loop: see below."""

    __slots__ = ("armed_at", "armed_for", "next_key", "records")

    def __init__(self) -> None:
        # A dict, because records leave from the middle; it keeps the order in which they came.
        self.records: dict[int, Record] = {}
        self.next_key = 0
        self.armed_at: float | None = None  # on the loop's clock
        self.armed_for = 0.0                # the same instant on the callers' clock

    def arm(self, loop: AbstractEventLoop, when: float, delay_s: float) -> None:
        self.armed_for = when
        self.armed_at = loop.time() + delay_s
        loop.call_at(self.armed_at, self.sweep, loop)

    def sweep(self, loop: AbstractEventLoop) -> None:
        """Fire what is due. The callers' clock is not read: it is now at least what the timer was armed for."""
        due: list[int] = []
        for key, record in self.records.items():
            if record[WHEN] > self.armed_for:
                assert self.armed_at is not None
                self.armed_at += record[WHEN] - self.armed_for
                self.armed_for = record[WHEN]
                loop.call_at(self.armed_at, self.sweep, loop)
                break
            due.append(key)
        else:
            self.armed_at = None
        for key in due:
            _fire(self.records.pop(key))


# Weak, so that a loop which is over takes its queues with it; a queue that knew its loop would keep it for ever.
_queues: WeakKeyDictionary[AbstractEventLoop, dict[float, _Queue]] = WeakKeyDictionary()


class Timers:
    """Cuts off calls after one fixed delay. One object serves any number of calls, tasks and loops.

    Args:
        delay_s: seconds, above 0.
    """

    __slots__ = ("_here", "delay_s")

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        # Thread, loop and queue of the last caller, read and replaced as a whole because other threads do too. Asking asyncio
        # for the running loop costs a system call on Python 3.11, more than all the rest; asking a known loop for its task does not.
        self._here: tuple[int, AbstractEventLoop | None, _Queue | None] = (0, None, None)

    def enter(self, when: float) -> Record:
        """Begin: cancel this task at `when`, which is `delay_s` from now on the caller's clock, unless `leave` comes first."""
        thread, loop, queue = self._here
        task = current_task(loop) if loop is not None and thread == get_ident() else None
        if task is None or queue is None:
            task, queue = self._arrive()
        records = queue.records
        queue.next_key = key = queue.next_key + 1
        record: Record = [when, task, task.cancelling(), False, None, records, key]
        records[key] = record
        if queue.armed_at is None:
            queue.arm(task.get_loop(), when, self.delay_s)
        return record

    @staticmethod
    def enter_early(delay_s: float) -> Record:
        """Begin with another delay, for this call only: it gets a timer of its own."""
        loop = get_running_loop()
        task = current_task(loop)
        if task is None:
            raise _no_task()
        record: Record = [0.0, task, task.cancelling(), False, None, {}, 0]
        record[HANDLE] = loop.call_later(delay_s, _fire, record)
        return record

    @staticmethod
    def leave(record: Record) -> bool:
        """End: True if our timer cut the call off, and nobody else has cancelled it."""
        if record[FIRED]:
            return bool(record[TASK].uncancel() <= record[CANCELLING])
        if record[HANDLE] is None:
            del record[AMONG][record[KEY]]
        else:
            record[HANDLE].cancel()
        return False

    def under_way(self) -> int:
        """Calls that this delay may yet cut off in the loop that called last, those of other policies of equal delay included."""
        return len(self._here[2].records) if self._here[2] is not None else 0

    def _arrive(self) -> tuple[Task[Any], _Queue]:
        """A first call, or one from another loop or thread than the last."""
        loop = get_running_loop()
        task = current_task(loop)
        if task is None:
            raise _no_task()
        queue = _queues.setdefault(loop, {}).setdefault(self.delay_s, _Queue())
        self._here = (get_ident(), loop, queue)
        return task, queue


def _no_task() -> UsageError:
    return UsageError("A timeout needs a task to cancel, and there is none here.", do="Call it from a coroutine that asyncio runs as a task.")
