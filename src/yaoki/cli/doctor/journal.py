"""The journal: is it there, is it whole, who owns it, and does anything in it wait for a person?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from yaoki import runtime
from yaoki.cli.doctor.check import Check, Level
from yaoki.cli.doctor.machine import path_of
from yaoki.cli.frame.durations import show_age, show_duration
from yaoki.cli.frame.options import unless_default
from yaoki.errors import YaokiError
from yaoki.saga.records import RunState
from yaoki.text import counted, grouped, without_password

# A larger file is not read through: that would take minutes.
CHECKED_BYTES = 256 * 2**20

# A run without progress for this long, in seconds, is named.
STILL_S = 3600.0

# A WAL this large, in bytes, is not being copied back: somebody reads without end.
LARGE_WAL = 256 * 2**20


def checks(db: str) -> Iterator[Check]:
    path = path_of(db)
    if path is not None and not path.exists():
        yield Check("journal", Level.NOTE, f"there is none at {path} yet", "the first `yk run` makes it")
        return
    from yaoki.cli.frame.journal import wait_for

    try:
        yield from wait_for(_look(db))
    except YaokiError as error:
        yield Check("journal", Level.BAD, str(error), error.do)
        return
    if path is not None:
        yield whole(path)
        yield owner(path)
        yield from wal(path)


async def _look(db: str) -> list[Check]:
    from yaoki.cli.frame.journal import observed
    from yaoki.saga.journal.port import Query

    async with observed(db) as journal:
        counts = await journal.counts()
        unfinished = await journal.search(Query(states=(RunState.RUNNING, RunState.UNDOING), limit=1000))
        asked = await journal.requests()
    now, at = runtime.unix_time(), unless_default(db)
    found = [Check("journal", Level.OK, f"{without_password(db)}: " + (" · ".join(f"{s} {grouped(counts[s])}" for s in RunState if s in counts) or "no runs"))]
    if counts.get(RunState.BLOCKED):
        found.append(Check("blocked", Level.WARN, counted(counts[RunState.BLOCKED], "run waits", "runs wait") + " for a person",
                           f"yk runs list --state blocked{at}"))
    still = [header for header in unfinished if now - header.updated_at > STILL_S]
    if still:
        oldest = min(still, key=lambda header: header.updated_at)
        found.append(Check("progress", Level.WARN, f"{grouped(len(still))} runs made no progress for {show_duration(STILL_S)}, "
                           f"the oldest {oldest.id}", f"is an engine running? yk runs show {oldest.id}{at}"))
    if asked:
        found.append(Check("requests", Level.NOTE, f"{len(asked)} not carried out yet, the oldest {show_age(asked[0].at, now)}",
                           "the next engine that starts carries them out"))
    return found


def whole(path: Path) -> Check:
    """SQLite's own check of the file's structure."""
    import sqlite3

    size = path.stat().st_size
    if size > CHECKED_BYTES:
        return Check("structure", Level.NOTE, f"not checked: {size / 2**20:,.0f} MiB", f"sqlite3 {path} 'PRAGMA quick_check'")
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            answers = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
        finally:
            connection.close()
    except sqlite3.Error as error:
        answers = [str(error)]
    if answers == ["ok"]:
        return Check("structure", Level.OK, f"{size / 2**20:.1f} MiB, whole")
    return Check("structure", Level.BAD, f"damaged: {answers[0]}", "stop what uses it, and restore it with its -wal file from a backup")


def owner(path: Path) -> Check:
    """Who holds the lock: as far as can be told without taking it, which could refuse an engine that starts right now."""
    lock = path.with_name(path.name + ".lock")
    try:
        pid = int(lock.read_text("ascii").strip() or 0)
    except (OSError, ValueError):
        return Check("owner", Level.OK, "no engine has run here yet")
    return Check("owner", Level.OK, f"process {pid} owns it" if is_alive(pid) else "no engine runs on it now")


def is_alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def wal(path: Path) -> Iterator[Check]:
    try:
        size = path.with_name(path.name + "-wal").stat().st_size
    except OSError:
        return
    if size > LARGE_WAL:
        yield Check("wal", Level.WARN, f"{size / 2**20:,.0f} MiB: it is not copied back, so somebody reads without end",
                    "end long readers of the file (a shell, a backup)")
