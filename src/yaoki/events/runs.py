"""Runs of sagas, their schedules, and the workers that drive them."""

from __future__ import annotations

from yaoki.events.telling import Event


class RunEvent(Event, frozen=True, kw_only=True):
    """About one run."""

    run: str
    saga: str


class RunStarted(RunEvent, frozen=True, kw_only=True):
    """The run's start is durable."""


class RunRecovered(RunEvent, frozen=True, kw_only=True):
    """An unfinished run was taken up again from the journal, with this many records of history."""

    records: int


class StepStarted(RunEvent, frozen=True, kw_only=True):
    """A step, or its undo, is begun."""

    step: str
    undo: bool = False


class StepFinished(RunEvent, frozen=True, kw_only=True):
    """The step's, or its undo's, success is durable."""

    step: str
    duration_s: float
    attempts: int = 1
    undo: bool = False


class StepFailed(RunEvent, frozen=True, kw_only=True):
    """An attempt of a step, or of its undo, failed. `final`: no further attempt is made."""

    step: str
    error: str
    attempt: int
    in_doubt: bool
    final: bool
    undo: bool = False
    retry_in_s: float = 0.0


class RunAborting(RunEvent, frozen=True, kw_only=True):
    """The run began to undo itself."""

    reason: str


class RunRetried(RunEvent, frozen=True, kw_only=True):
    """A person had the run retried from `step`: `steps`, it and all that follow from it, are taken back, then made anew."""

    step: str
    steps: tuple[str, ...]
    who: str = ""


class RunUndoAsked(RunEvent, frozen=True, kw_only=True):
    """The run is to be undone, and is past its point of no return: it undoes itself once it is completed."""

    reason: str


class RunBlocked(RunEvent, frozen=True, kw_only=True):
    """The run waits for a person."""

    step: str
    reason: str


class RunFinished(RunEvent, frozen=True, kw_only=True):
    """outcome: completed, undone, cancelled."""

    outcome: str
    duration_s: float


class RunStuck(RunEvent, frozen=True, kw_only=True):
    """The run made no progress for `idle_s`, longer than its saga allows."""

    idle_s: float
    waiting_for: str


class RunsStranded(Event, frozen=True, kw_only=True):
    """Runs wait that were started with a graph which no live worker can run: start one with the old code, or see `yk plan`."""

    saga: str
    graph: str
    runs: int


class RunsBlocked(Event, frozen=True, kw_only=True):
    """Runs of a saga wait for a person; said once a minute for as long as they do. runs: up to a thousand.

    oldest_s: seconds since the last progress of the one that waits longest.
    """

    saga: str
    runs: int
    oldest_s: float


class SagaPaused(Event, frozen=True, kw_only=True):
    """The brake: so many runs of this saga abort lately that no new ones are begun until somebody resumes it."""

    saga: str
    aborted: int
    finished: int


class ScheduleEvent(Event, frozen=True, kw_only=True):
    """About one schedule, by its name."""

    schedule: str


class ScheduleFired(ScheduleEvent, frozen=True, kw_only=True):
    """The run of an instant was started, or found started by another worker."""

    run: str


class ScheduleLeftOut(ScheduleEvent, frozen=True, kw_only=True):
    """So many instants were left out: the last run had not ended, or nobody was there within the time to catch up."""

    left_out: int


class WorkerEvent(Event, frozen=True, kw_only=True):
    """About one worker process, by its name."""

    worker: str


class WorkerJoined(WorkerEvent, frozen=True, kw_only=True):
    """A worker, or a new incarnation of one, registered. `incarnation`: its number."""

    incarnation: int


class WorkerFenced(WorkerEvent, frozen=True, kw_only=True):
    """This worker had been declared dead; it dropped `runs` runs, which others go on with, and starts again."""

    runs: int


class BatchRefused(WorkerEvent, frozen=True, kw_only=True):
    """The journal refused a whole batch of this worker, because it had been declared dead."""


class DoubtSettled(WorkerEvent, frozen=True, kw_only=True):
    """The connection broke before a commit was answered, and reading back showed that it had gone through."""


class WorkerDied(WorkerEvent, frozen=True, kw_only=True):
    """A worker's lease ran out; its `runs` unfinished runs were set free."""

    runs: int


class JournalCommitted(Event, frozen=True, kw_only=True):
    """One batch of records became durable."""

    records: int
    runs: int
    duration_s: float
