"""Starts a run for each input, a bounded number at a time, and waits until all have ended.

    workers: take the next line ──▶ start ──durable──▶ wait for its end ──▶ the next line ...

There are as many workers as runs may be in flight, so memory does not grow with the file. Ctrl-C, SIGTERM, the brake and
a conflict all stop it in the same way: no new line is taken, steps under way get their grace, the rest stays in the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
from collections.abc import Iterator
from typing import Any

import click

from yaoki import events, runtime
from yaoki.app import App
from yaoki.app import open as open_app
from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.journal import told_if_slow
from yaoki.cli.frame.options import unless_default
from yaoki.cli.frame.output import is_terminal, wants_color
from yaoki.cli.run.inputs import Bad, Input, Lines
from yaoki.cli.run.progress import Progress
from yaoki.errors import RunConflictError
from yaoki.saga.define import Saga
from yaoki.saga.journal.port import Query
from yaoki.saga.records import Header, RunState
from yaoki.text import counted, grouped, without_password

# The moving line is drawn this often: seconds.
REDRAW_S = 0.1

# How long a decision that waits in the journal may take to be carried out before the runs are looked at: seconds.
SETTLE_S = 5.0

# A rate is said of this many runs at least; of fewer it says nothing.
ENOUGH = 20

UNFINISHED = (RunState.RUNNING, RunState.UNDOING)


class Outcome:
    """What came of it: figures, and the reason for stopping early, if any."""

    def __init__(self, saga: str, db: str, progress: Progress, seconds: float) -> None:
        self.saga = saga
        self.db = db
        self.progress = progress
        self.seconds = seconds
        self.left = 0  # runs in the journal that have not ended
        self.bad: list[Bad] = []
        self.bad_count = 0
        self.repeated = 0
        self.stop = ""  # "", interrupted, terminated, brake
        self.name = ""

    @property
    def exit(self) -> Exit:
        if self.stop:
            return {"interrupted": Exit.INTERRUPTED, "terminated": Exit.TERMINATED, "brake": Exit.REFUSED}[self.stop]
        return Exit.FINDING if self.progress.ended.get(RunState.BLOCKED) or self.bad_count else Exit.OK

    def as_data(self) -> dict[str, Any]:
        ended = self.progress.ended
        return {"saga": self.saga, "db": without_password(self.db), "runs": self.progress.done, "already": self.progress.already,
                **{state.value: ended.get(state, 0) for state in (RunState.COMPLETED, RunState.UNDONE, RunState.CANCELLED, RunState.BLOCKED)},
                "unfinished": self.left, "bad_lines": self.bad_count, "repeated_lines": self.repeated,
                "bad": [{"line": bad.line, "why": bad.why} for bad in self.bad],
                "seconds": round(self.seconds, 3), "stopped": self.stop or None}

    def as_text(self) -> Iterator[str]:
        done, ended = self.progress.done, self.progress.ended
        fresh = done - self.progress.already
        rate = f", {grouped(fresh / self.seconds)} a second" if self.seconds > 0 and fresh >= ENOUGH else ""
        before = f"; {grouped(self.progress.already)} had ended before" if self.progress.already else ""
        yield f"{counted(done, 'run', 'runs')} of {self.saga} in {self.seconds:.1f} s{rate}{before}"
        for state in (RunState.COMPLETED, RunState.UNDONE, RunState.CANCELLED, RunState.BLOCKED):
            if ended.get(state):
                yield f"  {state:<10}{grouped(ended[state]):>8}"
        if self.left:
            yield f"  {'unfinished':<10}{grouped(self.left):>8}"
        if self.repeated:
            yield f"  {'repeated':<10}{grouped(self.repeated):>8}  lines that say again what an earlier one says"
        for bad in self.bad:
            yield click.style(f"  {self.name}:{bad.line}: {bad.why}", fg="red")
        if self.bad_count > len(self.bad):
            yield f"  and {self.bad_count - len(self.bad)} bad lines more"
        yield from self._what_next()

    def _what_next(self) -> Iterator[str]:
        if self.progress.ended.get(RunState.BLOCKED):
            yield ("blocked runs are gone now, as all of memory: is" if self.db.startswith("memory:")
                   else f"blocked runs wait for a person: yk runs list --state blocked{unless_default(self.db)}")
        if self.stop in {"interrupted", "terminated"}:
            yield f"{self.stop}: nothing is lost; the same command goes on where it stopped"
        if self.stop == "brake":
            yield (f"the brake of {self.saga} is on: nearly every run had to be undone, so no new ones are begun. Look at why "
                   f"(yk runs list --state undone{unless_default(self.db)}); the same command goes on, --no-brake goes on regardless")


class Batch:
    """One `yk run`."""

    def __init__(self, saga: Saga[Any], db: str, lines: Lines | None, *, concurrency: int, grace_s: float, brake: bool) -> None:
        self.saga = saga
        self.db = db
        self.lines = lines
        self.concurrency = concurrency
        self.grace_s = grace_s
        if not brake:
            saga.brake = None
        self.progress = Progress(lines.total if lines else None, runtime.monotonic())
        self.stop = ""
        self._stopped = asyncio.Event()
        self._rests = any(node.waits for node in saga.graph.nodes)
        self._awaited: set[str] = set()  # runs whose end a worker waits for, and counts
        self._left: set[str] = set()  # runs that were started and left to the engine
        self._early: set[str] = set()  # runs that ended before their line was reached, or that are in no line
        self._blocked: set[str] = set()  # runs counted as blocked

    async def run(self, *, quiet: bool) -> Outcome:
        """Run until all have ended, or something stops it. Raises what the journal raises, and RunConflictError."""
        self._listen_to_signals()
        app = open_app(self.db, sagas=[self.saga], concurrency=self.concurrency, grace=self.grace_s)
        began = self.progress.began = runtime.monotonic()
        with events.listen(self._heard, kinds=(events.SagaPaused, events.RunFinished, events.RunBlocked)):
            async with contextlib.AsyncExitStack() as stack:
                with told_if_slow(self.db):
                    await stack.enter_async_context(app)
                drawing = None if quiet or not is_terminal(sys.stderr) else runtime.spawn(self._draw(), name="yk-progress")
                try:
                    await self._work(app)
                finally:
                    if drawing is not None:
                        drawing.cancel()
                        click.echo("\r\x1b[2K", nl=False, err=True)
                outcome = Outcome(self.saga.name, self.db, self.progress, runtime.monotonic() - began)
                if self.stop and self.grace_s and not quiet:
                    click.echo(f"{self.stop}: what is under way may finish within {self.grace_s:g} s", err=True)
        return await self._finished(outcome)

    async def _finished(self, outcome: Outcome) -> Outcome:
        outcome.stop = self.stop
        if self.lines is not None:
            outcome.bad, outcome.bad_count, outcome.repeated = self.lines.bad, self.lines.bad_count, self.lines.repeated
            outcome.name = self.lines.name
        outcome.left = await _unfinished(self.db, self.saga.name)
        return outcome

    # ── the work ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _work(self, app: App) -> None:
        work = runtime.spawn(self._all(app), name="yk-run")
        stopped = runtime.spawn(self._stopped.wait(), name="yk-stop")
        try:
            await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
        finally:
            for task in (work, stopped):
                task.cancel()
            await asyncio.gather(work, stopped, return_exceptions=True)

    async def _all(self, app: App) -> None:
        await self._settle(app)
        source = iter(self.lines) if self.lines is not None else iter(())
        workers = [runtime.spawn(self._worker(app, source), name=f"yk-worker-{n}") for n in range(self.concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        await self._finish_others(app)

    async def _settle(self, app: App) -> None:
        """Let decisions that people took while nothing ran take effect, or their runs would be found as they were."""
        until = runtime.monotonic() + SETTLE_S
        while runtime.monotonic() < until and await self._is_unsettled(app):
            await runtime.sleep(0.05)

    async def _is_unsettled(self, app: App) -> bool:
        for request in await app.journal.requests():
            stored = await app.journal.read(request.run) if request.kind == "resolve" else None
            if stored is not None and stored.header.saga == self.saga.name and stored.header.state is RunState.BLOCKED:
                return True
        return False

    async def _worker(self, app: App, source: Iterator[Input]) -> None:
        for each in source:
            await self._one(app, each)

    async def _one(self, app: App, each: Input) -> None:
        """Start a run, and wait for its end; one that may rest for days is left to the engine, and heard of when it ends."""
        if not self._rests:
            self._awaited.add(each.id)
        header = await self._start(app, each)
        if each.id in self._early:
            self._early.discard(each.id)
        elif header.state not in UNFINISHED:
            self.progress.started += 1
            self.progress.already += header.state.is_end
            self._count(each.id, header.state)
        elif self._rests:
            self.progress.started += 1
            self._left.add(each.id)
        else:
            self.progress.started += 1
            self._count(each.id, await app.run(self.saga, each.id).wait())
        self._awaited.discard(each.id)

    async def _start(self, app: App, each: Input) -> Header:
        try:
            return await app.engine.start(self.saga, each.value, id=each.id)
        except RunConflictError as error:
            assert self.lines is not None
            raise RunConflictError(f"{self.lines.name}:{each.line}: {error}", do=error.do, **error.fields) from error

    async def _finish_others(self, app: App) -> None:
        """What nobody waits for yet: runs that were left to the engine, or that are in the journal and in no line."""
        query = Query(states=UNFINISHED, saga=self.saga.name, limit=1000)
        while page := await app.journal.search(query):
            await asyncio.gather(*(app.run(self.saga, header.id).wait() for header in page))

    # ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _heard(self, event: events.RunFinished | events.RunBlocked | events.SagaPaused) -> None:
        """Count the runs that end without a worker waiting for them; stop when the brake is on."""
        if isinstance(event, events.SagaPaused):
            self.stop = self.stop or "brake"
            self._stopped.set()
        elif event.run not in self._awaited:
            if event.run not in self._left and event.run not in self._blocked:
                self._early.add(event.run)
                self.progress.started += 1
            self._count(event.run, RunState(event.outcome) if isinstance(event, events.RunFinished) else RunState.BLOCKED)

    def _count(self, run: str, state: RunState) -> None:
        if run in self._blocked:  # somebody has decided meanwhile
            self._blocked.discard(run)
            self.progress.ended[RunState.BLOCKED] -= 1
        if state is RunState.BLOCKED:
            self._blocked.add(run)
        self.progress.end(state)

    # ── stopping ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number, name in ((signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")):
            loop.add_signal_handler(number, self._signalled, name)

    def _signalled(self, name: str) -> None:
        """The first signal stops politely; the second is the system's own and ends the process: a journal does not mind."""
        self.stop = name
        self._stopped.set()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    # ── showing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _draw(self) -> None:
        color = wants_color(sys.stderr)
        while True:
            line = self.progress.line(runtime.monotonic(), shutil.get_terminal_size().columns - 1)
            click.echo("\r\x1b[2K" + line, nl=False, err=True, color=color)
            await runtime.sleep(REDRAW_S)


async def _unfinished(db: str, saga: str) -> int:
    from yaoki.app import journal_at

    journal = journal_at(db)
    await journal.observe()
    try:
        counts = await journal.counts(saga)
    finally:
        await journal.close()
    return sum(counts.get(state, 0) for state in UNFINISHED)
