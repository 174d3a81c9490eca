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

import asyncio
from asyncio import AbstractEventLoop, Task, TimerHandle
from typing import Any
from weakref import WeakKeyDictionary

from yaoki.errors import UsageError


class Record:
    """One call under way: cancel `task` when it is time."""

    __slots__ = ("cancelling", "fired", "handle", "key", "queue", "task", "when")

    def __init__(self, task: Task[Any], when: float) -> None:
        self.task = task
        self.when = when
        self.cancelling = task.cancelling()
        self.fired = False
        self.handle: TimerHandle | None = None
        self.queue: _Queue | None = None
        self.key = 0

    def fire(self) -> None:
        self.fired = True
        self.task.cancel()


class _Queue:
    """The records of one loop, oldest first."""

    __slots__ = ("armed", "loop", "next_key", "records")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        # A dict, because records leave from the middle; it keeps the order in which they came.
        self.records: dict[int, Record] = {}
        self.next_key = 0
        self.armed = False

    def sweep(self) -> None:
        now = self.loop.time()
        due: list[int] = []
        for key, record in self.records.items():
            if record.when > now:
                self.loop.call_at(record.when, self.sweep)
                break
            due.append(key)
        else:
            self.armed = False
        for key in due:
            self.records.pop(key).fire()


class Timers:
    """Cuts off calls after one fixed delay. One object serves any number of calls, tasks and loops.

    Args:
        delay_s: seconds, above 0.
    """

    __slots__ = ("_here", "_queues", "delay_s")

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self._queues: WeakKeyDictionary[AbstractEventLoop, _Queue] = WeakKeyDictionary()
        # The queue of the loop that called last, read and replaced as a whole because other threads do too.
        self._here: tuple[AbstractEventLoop | None, _Queue | None] = (None, None)

    def enter(self) -> Record:
        """Begin: cancel this task `delay_s` from now, unless `leave` comes first."""
        task = asyncio.current_task()
        if task is None:
            raise UsageError("A timeout needs a task to cancel, and there is none here.", do="Call it from a coroutine that asyncio runs as a task.")
        loop = task.get_loop()
        here = self._here
        queue = here[1] if here[0] is loop else None
        if queue is None:
            queue = self._queue(loop)
        record = Record(task, loop.time() + self.delay_s)
        record.queue = queue
        queue.next_key = record.key = queue.next_key + 1
        queue.records[record.key] = record
        if not queue.armed:
            queue.armed = True
            loop.call_at(record.when, queue.sweep)
        return record

    def enter_early(self, delay_s: float) -> Record:
        """Begin with another delay, for this call only: it gets a timer of its own."""
        task = asyncio.current_task()
        if task is None:
            raise UsageError("A deadline needs a task to cancel, and there is none here.", do="Call it from a coroutine that asyncio runs as a task.")
        loop = task.get_loop()
        record = Record(task, loop.time() + delay_s)
        record.handle = loop.call_at(record.when, record.fire)
        return record

    def leave(self, record: Record) -> bool:
        """End: True if our timer cut the call off, and nobody else has cancelled it."""
        if record.fired:
            return record.task.uncancel() <= record.cancelling
        if record.handle is not None:
            record.handle.cancel()
        elif record.queue is not None:
            record.queue.records.pop(record.key, None)
        return False

    def _queue(self, loop: AbstractEventLoop) -> _Queue:
        queue = self._queues.get(loop)
        if queue is None:
            queue = self._queues[loop] = _Queue(loop)
        self._here = (loop, queue)
        return queue
